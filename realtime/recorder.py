"""Keeps what was said: turns go into a queue during the call and into the database beside it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from enum import StrEnum
from uuid import UUID

from channels.db import database_sync_to_async
from django.conf import settings

from conversations.models import Conversation
from conversations.services import NotCorrectable, append_turn, correct_turn
from conversations.sound import encode_audio
from realtime.pipeline import CorrectedTurn, SaidTurn

logger = logging.getLogger(__name__)

#: Turns that wait to be saved. A call makes one every few seconds, so a full queue means a database that has stopped:
#: further turns are dropped, loudly.
MAX_WAITING = 32
#: How often saving is tried, and how long to wait after the first failure (twice as long after each further one).
ATTEMPTS = 4
RETRY_S = 0.5
#: How long the end of a call waits for what is not saved yet.
DRAIN_S = 30.0


class Trouble(StrEnum):
    """Why not everything is kept."""

    GONE = "the conversation was deleted"
    NO_SOUND = "words are kept, their sound is not"
    LOST = "a turn is lost"


class Recorder:
    """
    One conversation's recorder. `record` never waits; `close` returns when everything has been saved.

    Its task belongs to itself, not to the call: a call that is cancelled still gets its turns saved. Words are worth
    more than their sound: where the sound cannot be encoded or stored, the words are kept without. Each kind of trouble
    is told once.
    """

    def __init__(
        self, *, conversation_id: UUID, on_trouble: Callable[[Trouble], None], begun_by: int | None = None
    ) -> None:
        self._conversation_id = conversation_id
        #: Who begins the conversation with the first turn that is saved. None: it is there, or was and is deleted.
        self._begun_by = begun_by
        self._on_trouble = on_trouble
        self._told: set[Trouble] = set()
        self._queue: asyncio.Queue[SaidTurn | CorrectedTurn | None] = asyncio.Queue(MAX_WAITING)
        self._task = asyncio.create_task(self._run(), name=f"recorder {conversation_id}")

    @property
    def is_begun(self) -> bool:
        """Whether the conversation has had a row."""
        return self._begun_by is None

    def record(self, turn: SaidTurn | CorrectedTurn) -> None:
        if self._queue.qsize() >= MAX_WAITING - 1:  # one place is kept for the end
            logger.error("turn %s is lost: %d turns wait to be saved", turn.turn_id, self._queue.qsize())
            self._tell(Trouble.LOST)
            return
        self._queue.put_nowait(turn)

    async def close(self) -> None:
        """Save what waits and end. Cancelling the caller does not cancel the saving."""
        self._queue.put_nowait(None)
        done, _ = await asyncio.wait([self._task], timeout=DRAIN_S)
        if not done:
            logger.error("turns of conversation %s were not saved within %g s", self._conversation_id, DRAIN_S)
            self._task.cancel()

    async def _run(self) -> None:
        while (turn := await self._queue.get()) is not None:
            await self._save(turn)

    async def _save(self, turn: SaidTurn | CorrectedTurn) -> None:
        audio = await self._encode(turn)
        for attempt in range(ATTEMPTS):
            try:
                await database_sync_to_async(self._write)(turn, audio)
            except (Conversation.DoesNotExist, NotCorrectable) as error:
                # Deleted while the call goes on: there is nothing to add to. Trying again would not bring it back.
                logger.warning("turn %s is not saved: %s", turn.turn_id, error)
                if isinstance(error, Conversation.DoesNotExist):
                    self._tell(Trouble.GONE)
                return
            except Exception as error:
                # Whatever it is, the turns that follow are to be tried, and the call goes on.
                logger.exception("saving turn %s failed (attempt %d of %d)", turn.turn_id, attempt + 1, ATTEMPTS)
                if isinstance(error, OSError) and audio:
                    audio = None
                    self._tell(Trouble.NO_SOUND)
                else:
                    await asyncio.sleep(RETRY_S * 2**attempt)
            else:
                return
        self._tell(Trouble.LOST)

    async def _encode(self, turn: SaidTurn | CorrectedTurn) -> bytes | None:
        if isinstance(turn, CorrectedTurn) or not turn.pcm:
            return None
        try:
            return await asyncio.to_thread(_encode, turn)
        except Exception:
            logger.exception("the sound of turn %s cannot be encoded", turn.turn_id)
            self._tell(Trouble.NO_SOUND)
            return None

    def _write(self, turn: SaidTurn | CorrectedTurn, audio: bytes | None) -> None:
        if isinstance(turn, CorrectedTurn):
            correct_turn(conversation_id=self._conversation_id, turn_id=turn.turn_id, text=turn.text, supersede=True)
            return
        append_turn(
            conversation_id=self._conversation_id,
            turn_id=turn.turn_id,
            speaker=turn.speaker,
            text=turn.text,
            language=turn.language,
            audio=audio,
            audio_duration_ms=turn.duration_ms,
            was_interrupted=turn.was_interrupted,
            voice_profile_id=turn.voice_profile_id,
            latency=turn.latency,
            quality=turn.quality.value if turn.quality else "",
            begun_by=self._begun_by,
        )
        self._begun_by = None

    def _tell(self, trouble: Trouble) -> None:
        if trouble not in self._told:
            self._told.add(trouble)
            self._on_trouble(trouble)


def _encode(turn: SaidTurn) -> bytes:
    is_synthetic = turn.speaker == "avatar"
    return encode_audio(
        turn.pcm, turn.sample_rate_hz, audio_format=settings.AVATAR_AUDIO_FORMAT, is_synthetic=is_synthetic
    )
