"""
What lies between the socket and the recogniser: a bounded queue, and the audio of the last minute with its times.
Knows no Django, no Channels, no gRPC.
"""

from __future__ import annotations

import asyncio
import bisect
from collections import deque
from collections.abc import AsyncGenerator, Callable

from inference.interfaces import (
    BYTES_PER_SAMPLE,
    MICROPHONE_SAMPLE_RATE_HZ,
    DiscardUtterance,
    EndOfUtterance,
    TranscriptionInput,
    TranscriptionOptions,
)

BYTES_PER_MS = MICROPHONE_SAMPLE_RATE_HZ * BYTES_PER_SAMPLE // 1000
#: What one message to the recogniser holds at most.
MAX_ITEM_BYTES = 512_000


class Microphone:
    """
    The user's audio on its way to the recogniser.

    Positions are milliseconds of audio since the present stream began, as the recogniser counts them. At most
    `max_queued_ms` wait to be taken; when the recogniser is slower than that, the oldest audio is dropped. The last
    `kept_ms` of what was taken can be read again.
    """

    def __init__(self, *, max_queued_ms: int, kept_ms: int, clock: Callable[[], float]) -> None:
        self.max_queued_ms = max_queued_ms
        self.dropped_bytes = 0
        self._kept_bytes = kept_ms * BYTES_PER_MS
        self._clock = clock
        self._queue: deque[tuple[TranscriptionInput, float]] = deque()
        self._queued_bytes = 0
        self._arrived = asyncio.Event()
        self._stream = 0
        self._forget_stream()

    def _forget_stream(self) -> None:
        self._taken = bytearray()
        self._taken_bytes = 0
        #: Ends of the taken pieces, in bytes since the stream began, and when each had been received.
        self._ends: list[int] = []
        self._times: list[float] = []

    @property
    def received_ms(self) -> int:
        """Everything received for this stream, taken or not."""
        return (self._taken_bytes + self._queued_bytes) // BYTES_PER_MS

    def push(self, pcm: bytes) -> None:
        self._queue.append((pcm, self._clock()))
        self._queued_bytes += len(pcm)
        while self._queued_bytes > self.max_queued_ms * BYTES_PER_MS:
            self._drop_oldest()
        self._arrived.set()

    def _drop_oldest(self) -> None:
        for index, (item, _) in enumerate(self._queue):
            if isinstance(item, bytes):
                del self._queue[index]
                self._queued_bytes -= len(item)
                self.dropped_bytes += len(item)
                return

    def put(self, item: TranscriptionOptions | EndOfUtterance | DiscardUtterance) -> None:
        """Have the recogniser told something after the audio received so far."""
        if self._queue and type(self._queue[-1][0]) is type(item):
            # Said twice in a row, the last one counts: markers without audio between them must not pile up.
            self._queue.pop()
        self._queue.append((item, self._clock()))
        self._arrived.set()

    def discard(self) -> None:
        """Drop the audio that waits, and have the recogniser forget the utterance."""
        self._drop_audio()
        self.put(DiscardUtterance())

    def clear(self) -> None:
        """Drop everything that waits: nobody will take it."""
        self._queue.clear()
        self._queued_bytes = 0
        self._arrived.clear()

    def _drop_audio(self) -> None:
        kept = [(item, at) for item, at in self._queue if not isinstance(item, bytes)]
        self._queue = deque(kept)
        self._queued_bytes = 0

    async def wait(self) -> None:
        """Return once audio waits to be taken."""
        while not self._queued_bytes:
            self._arrived.clear()
            await self._arrived.wait()

    def open_stream(self) -> AsyncGenerator[TranscriptionInput]:
        """Begin a stream: positions start again at zero, and the stream before ends."""
        self._stream += 1
        self._forget_stream()
        self._arrived.set()
        return self._take_all(self._stream)

    def close_stream(self) -> None:
        """End the stream: whoever reads it comes to its end. It may be in use elsewhere, so it is not closed here."""
        self._stream += 1
        self._arrived.set()

    async def _take_all(self, stream: int) -> AsyncGenerator[TranscriptionInput]:
        while stream == self._stream:
            if not self._queue:
                self._arrived.clear()
                await self._arrived.wait()
                continue
            item, received_at = self._queue.popleft()
            if isinstance(item, bytes):
                self._keep(item, received_at)
            yield item

    def _keep(self, pcm: bytes, received_at: float) -> None:
        self._queued_bytes -= len(pcm)
        self._taken += pcm
        self._taken_bytes += len(pcm)
        self._ends.append(self._taken_bytes)
        self._times.append(received_at)
        excess = len(self._taken) - self._kept_bytes
        if excess > 0:
            del self._taken[:excess]
        # In batches: each deletion at the front moves all that is behind it.
        oldest = self._taken_bytes - len(self._taken)
        stale = bisect.bisect_right(self._ends, oldest)
        if stale > 1000:
            del self._ends[:stale]
            del self._times[:stale]

    def find_received_at(self, position_ms: int) -> float:
        """Return when the audio up to `position_ms` had been received (now, when that is not known)."""
        index = bisect.bisect_left(self._ends, position_ms * BYTES_PER_MS)
        if index < len(self._times):
            return self._times[index]
        return self._times[-1] if self._times else self._clock()

    def read_audio(self, start_ms: int, end_ms: int) -> bytes:
        """Return what was taken between two positions, as far as it is kept."""
        oldest = self._taken_bytes - len(self._taken)
        start = max(0, start_ms * BYTES_PER_MS - oldest)
        end = max(0, end_ms * BYTES_PER_MS - oldest)
        return bytes(self._taken[start:end])


class UtteranceMeter:
    """Counts what one utterance holds. Pure."""

    def __init__(self, *, max_bytes: int, max_chunks: int, max_ms: int) -> None:
        self.max_bytes = max_bytes
        self.max_chunks = max_chunks
        self.max_ms = max_ms
        self.reset()

    def reset(self, *, audio_ms: float = 0.0) -> None:
        """Begin to count, at `audio_ms` of audio already received."""
        self.size_bytes = 0
        self.chunks = 0
        self.audio_ms = audio_ms

    def add(self, size_bytes: int, *, audio_ms: float, is_chunk: bool) -> bool:
        """Count a piece and say whether the utterance is still within its limits."""
        self.size_bytes += size_bytes
        self.chunks += is_chunk
        self.audio_ms += audio_ms
        return self.size_bytes <= self.max_bytes and self.chunks <= self.max_chunks and self.audio_ms <= self.max_ms
