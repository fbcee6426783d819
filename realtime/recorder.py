"""
Records the turns of a call: a queue of changes that are saved to the database in order, off the audio path.

Saving is retried with back-off. After four attempts the changes go into the conversation's spool, a file on the disk,
and from there into the database once it is back: by this recorder, the next start of web, or beat.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from channels.db import database_sync_to_async
from django.conf import settings
from django.db import DataError, Error, IntegrityError
from django.utils import timezone

from avatar_site.lib import metrics
from conversations.call_store import apply_change, replay_spooled_turns, spool_change
from conversations.encoder_process import encoder, encoding_thread
from conversations.models import Conversation, Turn
from conversations.services import NotCorrectable
from conversations.spool import Change
from inference.telemetry.context import bound, make_trace_id
from inference.telemetry.context import read as read_ids
from realtime.call.turns import BegunTurn, CorrectedTurn, DroppedTurn, RecordedTurn, SaidTurn

logger = logging.getLogger(__name__)

#: Changes that wait to be saved. They leave within seconds, into the database or the spool: a full queue means that
#: neither accepts anything (a full disk). Further changes are dropped and logged as errors.
MAX_WAITING = 32
#: After so many attempts a change goes into the spool, and the user is told.
ATTEMPTS = 4
#: Back-off: the pause after the first failure, doubled after each further one, up to the longest.
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 5.0
#: How long the end of a call waits for the database before what is left goes into the spool.
PATIENCE_S = 30.0
#: The same where a drain, which the web process cuts off after `DRAIN_S`, or a take-over waits for the end.
HURRIED_PATIENCE_S = 3.0


class Trouble(StrEnum):
    """What users are told of saving. DELAYED once per outage, and RECOVERED after it; the others once per call."""

    GONE = "the conversation was deleted"
    NO_SOUND = "words are kept, their sound is not"
    LOST = "a turn is lost"
    DELAYED = "what is said waits to be kept"
    RECOVERED = "what waited is kept"


def compute_pause_s(failures: int) -> float:
    """Return how long to wait after so many failures in a row."""
    return min(FIRST_PAUSE_S * 2.0 ** min(failures - 1, 16), LONGEST_PAUSE_S)


class Recorder:
    """
    Records one conversation. `record` never waits; `close` returns when everything is saved or in the spool.

    It owns its task: a call that is cancelled still gets its turns saved. When audio cannot be encoded or stored, the
    text is saved without it.
    """

    def __init__(
        self,
        *,
        conversation_id: UUID,
        on_trouble: Callable[[Trouble], None],
        begun_by: int | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._conversation_id = conversation_id
        #: The user whose conversation begins with the first turn that is saved. None: its row exists, or was deleted.
        self._begun_by = begun_by
        self._has_row = begun_by is None
        self._on_trouble = on_trouble
        self._sleep = sleep
        self._told: set[Trouble] = set()
        #: A turn is several changes.
        self._lost: set[UUID] = set()
        #: A change is removed once it is saved or in the spool: what remains at the end is unsaved.
        self._waiting: deque[tuple[RecordedTurn | Change, datetime, str | None]] = deque()
        self._changed = asyncio.Event()
        self._failures = 0
        self._logged: set[type[Exception]] = set()
        self._has_spooled = False
        self._is_spool_full = False
        self._is_closing = False
        self._task = asyncio.create_task(self._run(), name=f"recorder {conversation_id}")
        self._end: asyncio.Task[None] | None = None
        self._is_patience_over = asyncio.Event()
        self._timers: list[asyncio.Task[None]] = []

    @property
    def is_begun(self) -> bool:
        """Whether the conversation has had a row."""
        return self._has_row

    def record(self, item: RecordedTurn) -> None:
        if len(self._waiting) > 1 and _replaces(item, self._waiting[-1][0]):
            _, said_at, trace_id = self._waiting[-1]
            self._waiting[-1] = (item, said_at, trace_id)
            return
        if len(self._waiting) >= MAX_WAITING:
            if Trouble.LOST not in self._told:
                logger.error("turn %s and later ones are lost: %d wait already", item.turn_id, MAX_WAITING)
            self._lose(item.turn_id)
            return
        self._waiting.append((item, timezone.now(), _find_trace_id(item)))
        self._changed.set()

    def limit_patience(self, patience_s: float) -> None:
        """From now on, wait at most so long for the database at the end. The shortest limit holds."""
        if self._end is None or not self._end.done():
            self._timers.append(asyncio.create_task(self._end_patience(patience_s)))

    async def close(self) -> None:
        """Save what waits and stop. Cancelling the caller does not cancel the saving."""
        if self._end is None:
            self.limit_patience(PATIENCE_S)
            self._end = asyncio.create_task(self._finish(), name=f"end of recorder {self._conversation_id}")
        await asyncio.wait([self._end])

    async def _end_patience(self, patience_s: float) -> None:
        await self._sleep(patience_s)
        self._is_patience_over.set()

    async def _finish(self) -> None:
        self._is_closing = True
        self._changed.set()
        patience = asyncio.ensure_future(self._is_patience_over.wait())
        await asyncio.wait({self._task, patience}, return_when=asyncio.FIRST_COMPLETED)
        for timer in (patience, *self._timers):
            timer.cancel()
        if self._task.done() and not self._has_failed():
            return
        logger.error("turns of conversation %s are not saved in time: into the spool", self._conversation_id)
        left = list(self._waiting)
        # Not awaited: its thread may be stuck in the database. Saving is idempotent.
        self._task.cancel()
        for item, said_at, _trace_id in left:
            if not await self._spool(await self._prepare(item, said_at)):
                self._lose(item.turn_id)

    def _has_failed(self) -> bool:
        """Whether the recorder has failed; logs its error."""
        if self._task.cancelled():
            return True
        error = self._task.exception()
        if error is not None:
            logger.error("the recorder of conversation %s failed", self._conversation_id, exc_info=error)
        return error is not None

    async def _run(self) -> None:
        while True:
            if self._waiting:
                item, said_at, trace_id = self._waiting[0]
                # For the logs, and for the tasks that saving sends.
                with bound(trace_id=trace_id, turn_id=item.turn_id):
                    await self._keep(item, said_at)
                self._waiting.popleft()
            elif self._is_closing:
                break
            else:
                await self._wait()
                if self._has_spooled and not self._waiting:
                    await self._attempt(None)
        if self._has_spooled:
            await self._attempt(None)

    async def _wait(self) -> None:
        """Wait for a change; with a spool, until its next attempt at most."""
        self._changed.clear()
        tasks: list[asyncio.Future[Any]] = [asyncio.ensure_future(self._changed.wait())]
        if self._has_spooled:
            tasks.append(asyncio.ensure_future(self._sleep(compute_pause_s(self._failures))))
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()

    async def _keep(self, item: RecordedTurn | Change, said_at: datetime) -> None:
        """Return when a change is saved or in the spool, or can never be saved."""
        change = await self._prepare(item, said_at)
        self._waiting[0] = (change, said_at, self._waiting[0][2])
        attempts = 0
        while not await self._attempt(change):
            attempts += 1
            # Into the spool at once if it is in use, to keep the order.
            if attempts >= ATTEMPTS or self._has_spooled:
                self._tell(Trouble.DELAYED)
                if await self._spool(change):
                    return
            await self._sleep(compute_pause_s(self._failures))

    async def _attempt(self, change: Change | None) -> bool:
        """Save the spool, then a change. Return False if the change must be tried again."""
        try:
            if self._has_spooled:
                await database_sync_to_async(replay_spooled_turns)(conversation_id=self._conversation_id)
                self._has_spooled, self._has_row = False, True
        except Exception as error:
            # Whatever the error, the changes stay in the spool, and the recorder continues.
            self._count_failure(error)
            return False
        if change is None or await self._save(change):
            self._note_recovery()
            return True
        return False

    async def _save(self, change: Change) -> bool:
        try:
            await database_sync_to_async(apply_change)(conversation_id=self._conversation_id, change=change)
            self._begun_by, self._has_row = None, True
        except (Conversation.DoesNotExist, Turn.DoesNotExist, NotCorrectable) as error:
            # Deleted during the call: a retry would fail the same way.
            logger.warning("turn %s is not saved: %s", change.turn_id, error)
            if isinstance(error, Conversation.DoesNotExist):
                self._tell(Trouble.GONE)
        except (DataError, IntegrityError):
            # The database would refuse a retry too.
            logger.exception("turn %s is lost", change.turn_id)
            self._lose(change.turn_id)
        except OSError as error:
            if not change.has_audio:
                self._count_failure(error)
                return False
            logger.exception("the audio of turn %s cannot be stored", change.turn_id)
            self._tell(Trouble.NO_SOUND)
            return await self._save(change.without_audio())
        except Error as error:
            self._count_failure(error)
            return False
        except Exception:
            # Whatever the error, later turns are tried, and the call continues.
            logger.exception("turn %s is lost", change.turn_id)
            self._lose(change.turn_id)
        return True

    def _count_failure(self, error: Exception) -> None:
        """Log the first failure of each type in an outage."""
        self._failures += 1
        if type(error) not in self._logged:
            self._logged.add(type(error))
            logger.error("conversation %s is not saved now", self._conversation_id, exc_info=error)

    def _note_recovery(self) -> None:
        if self._failures:
            logger.info("conversation %s is saved after %d attempts", self._conversation_id, self._failures + 1)
        self._failures = 0
        self._logged.clear()
        self._is_spool_full = False
        if Trouble.DELAYED in self._told:
            self._told.discard(Trouble.DELAYED)
            self._on_trouble(Trouble.RECOVERED)

    async def _spool(self, change: Change) -> bool:
        try:
            await asyncio.to_thread(spool_change, conversation_id=self._conversation_id, change=change)
        except OSError:
            if not self._is_spool_full:
                logger.exception("the spool cannot be written: conversation %s waits in memory", self._conversation_id)
            self._is_spool_full = True
            return False
        # The first spooled change creates the row; later ones must not create a deleted one again.
        self._begun_by = None
        self._has_spooled = True
        self._is_spool_full = False
        return True

    async def _prepare(self, item: RecordedTurn | Change, said_at: datetime) -> Change:
        match item:
            case SaidTurn():
                fields = _describe(item) | {"audio": await self._encode(item)}
                return Change("append_turn", fields | {"said_at": said_at, "begun_by": self._begun_by})
            case BegunTurn():
                fields = {name: getattr(item, name) for name in ("turn_id", "text", "language", "voice_profile_id")}
                return Change("begin_turn", fields | {"said_at": said_at, "begun_by": self._begun_by})
            case DroppedTurn(turn_id=turn_id):
                return Change("drop_turn", {"turn_id": turn_id})
            case CorrectedTurn(turn_id=turn_id, text=text):
                return Change("correct_turn", {"turn_id": turn_id, "text": text, "supersede": True})
            case Change():
                return item

    async def _encode(self, turn: SaidTurn) -> bytes | None:
        if not turn.pcm:
            return None
        try:
            return await asyncio.get_running_loop().run_in_executor(encoding_thread, _encode, turn)
        except Exception:
            logger.exception("the sound of turn %s cannot be encoded", turn.turn_id)
            self._tell(Trouble.NO_SOUND)
            return None

    def _lose(self, turn_id: UUID) -> None:
        """Count a turn that cannot be kept, once, and tell the user."""
        if turn_id not in self._lost:
            self._lost.add(turn_id)
            metrics.count_lost_turn()
        self._tell(Trouble.LOST)

    def _tell(self, trouble: Trouble) -> None:
        if trouble not in self._told:
            self._told.add(trouble)
            self._on_trouble(trouble)


def _find_trace_id(item: RecordedTurn) -> str | None:
    """Return the trace of a turn: its own id for a user's; for a reply, that of the task which makes it."""
    match item:
        case CorrectedTurn() | SaidTurn(speaker="user"):
            return make_trace_id(item.turn_id)
        case _:
            return read_ids().get("trace_id")


def _replaces(item: RecordedTurn, waiting: RecordedTurn | Change) -> bool:
    """Whether a begun turn that still waits is superseded by a newer version of it."""
    return isinstance(waiting, BegunTurn) and isinstance(item, BegunTurn | SaidTurn) and item.turn_id == waiting.turn_id


def _describe(turn: SaidTurn) -> dict[str, object]:
    return {
        "turn_id": turn.turn_id,
        "speaker": turn.speaker,
        "text": turn.text,
        "language": turn.language,
        "audio_duration_ms": turn.duration_ms,
        "was_interrupted": turn.was_interrupted,
        "voice_profile_id": turn.voice_profile_id,
        "latency": turn.latency,
        "quality": turn.quality.value if turn.quality else "",
    }


def _encode(turn: SaidTurn) -> bytes:
    is_synthetic = turn.speaker == "avatar"
    return encoder.encode(
        turn.pcm, turn.sample_rate_hz, audio_format=settings.AVATAR_AUDIO_FORMAT, is_synthetic=is_synthetic
    )
