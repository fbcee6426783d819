"""Keeps what was said: turns go into a queue during the call and into the database beside it."""

from __future__ import annotations

import asyncio
import logging
from uuid import UUID

from channels.db import database_sync_to_async

from conversations.services import append_turn
from realtime.pipeline import SaidTurn
from voices import decoding
from voices.marking import SYNTHETIC_COMMENT

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
        self._queue: asyncio.Queue[SaidTurn | None] = asyncio.Queue(MAX_WAITING)
        self._task = asyncio.create_task(self._run(), name=f"recorder {conversation_id}")

    def record(self, turn: SaidTurn) -> None:
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

    async def _save(self, turn: SaidTurn) -> None:
        comment = SYNTHETIC_COMMENT if turn.speaker == "avatar" else ""
        audio = await asyncio.to_thread(encode_flac, turn.pcm, turn.sample_rate_hz, comment) if turn.pcm else None
        for attempt in range(ATTEMPTS):
            try:
                await database_sync_to_async(append_turn)(
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
                )
            except Exception:
                # Whatever it is, the turns that follow are to be tried, and the call goes on.
                logger.exception("saving turn %s failed (attempt %d of %d)", turn.turn_id, attempt + 1, ATTEMPTS)
                await asyncio.sleep(RETRY_S * 2**attempt)
            else:
                return


def encode_flac(pcm: bytes, sample_rate_hz: int, comment: str = "") -> bytes:
    """Encode PCM16 mono as FLAC, without loss; `comment` says what it is to whoever reads its tags."""
    return decoding.encode_flac(decoding.from_pcm(pcm), sample_rate_hz, comment=comment)
