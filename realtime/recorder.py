"""Keeps what was said: turns go into a queue during the call and into the database beside it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from uuid import UUID

from channels.db import database_sync_to_async
from django.conf import settings

from conversations.models import Conversation, Turn
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


class Recorder:
    """
    One conversation's recorder. `record` never waits; `close` returns when everything has been saved.

    Its task belongs to itself, not to the call: a call that is cancelled still gets its turns saved.
    """

    def __init__(self, *, conversation_id: UUID) -> None:
        self._conversation_id = conversation_id
        self._queue: asyncio.Queue[SaidTurn | CorrectedTurn | None] = asyncio.Queue(MAX_WAITING)
        self._task = asyncio.create_task(self._run(), name=f"recorder {conversation_id}")

    def record(self, turn: SaidTurn | CorrectedTurn) -> None:
        if self._queue.qsize() >= MAX_WAITING - 1:  # one place is kept for the end
            logger.error("turn %s is lost: %d turns wait to be saved", turn.turn_id, self._queue.qsize())
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
        write = await self._prepare(turn)
        for attempt in range(ATTEMPTS):
            try:
                await database_sync_to_async(write)()
            except (Conversation.DoesNotExist, NotCorrectable) as error:
                # Deleted while the call goes on: there is nothing to add to. Trying again would not bring it back.
                logger.warning("turn %s is not saved: %s", turn.turn_id, error)
                return
            except Exception:
                # Whatever it is, the turns that follow are to be tried, and the call goes on.
                logger.exception("saving turn %s failed (attempt %d of %d)", turn.turn_id, attempt + 1, ATTEMPTS)
                await asyncio.sleep(RETRY_S * 2**attempt)
            else:
                return

    async def _prepare(self, turn: SaidTurn | CorrectedTurn) -> Callable[[], Turn]:
        conversation_id = self._conversation_id
        if isinstance(turn, CorrectedTurn):
            return partial(
                correct_turn, conversation_id=conversation_id, turn_id=turn.turn_id, text=turn.text, supersede=True
            )
        audio = await asyncio.to_thread(_encode, turn) if turn.pcm else None
        return partial(
            append_turn,
            conversation_id=conversation_id,
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
        )


def _encode(turn: SaidTurn) -> bytes:
    is_synthetic = turn.speaker == "avatar"
    return encode_audio(
        turn.pcm, turn.sample_rate_hz, audio_format=settings.AVATAR_AUDIO_FORMAT, is_synthetic=is_synthetic
    )
