"""
What lies between the socket and the recogniser: a bounded queue in order of receipt, and the audio of the last minute
with its times. Knows no Django, no Channels, no gRPC.
"""

from __future__ import annotations

import asyncio
import bisect
import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from inference.interfaces import (
    BYTES_PER_SAMPLE,
    MICROPHONE_SAMPLE_RATE_HZ,
    DiscardUtterance,
    EndOfUtterance,
    TranscriptionInput,
    TranscriptionOptions,
)

logger = logging.getLogger(__name__)

BYTES_PER_MS = MICROPHONE_SAMPLE_RATE_HZ * BYTES_PER_SAMPLE // 1000
#: What one message to the recogniser holds at most.
MAX_ITEM_BYTES = 512_000


@dataclass(eq=False, slots=True)
class Place:
    """A place in the queue for what is decided later: how the utterance before it ends."""

    received_at: float


class _Entry(NamedTuple):
    item: TranscriptionInput | Place
    received_at: float
    #: Audio of the microphone, a live stream: it may be dropped. An upload's may not.
    is_live: bool = False


class Microphone:
    """
    The user's audio on its way to the recogniser.

    Positions are milliseconds of audio since the present stream began, as the recogniser counts them. At most
    `max_queued_ms` of the microphone wait to be taken; when the recogniser is slower than that, the oldest is dropped.
    What waits is taken in one piece, so that a loop that turns slower than audio comes catches up. The last `kept_ms`
    of what was taken can be read again.
    """

    def __init__(self, *, max_queued_ms: int, kept_ms: int, clock: Callable[[], float]) -> None:
        self.max_queued_ms = max_queued_ms
        #: In all, since the call began.
        self.dropped_bytes = 0
        self._burst_bytes = 0
        self._kept_bytes = kept_ms * BYTES_PER_MS
        self._clock = clock
        self._queue: deque[_Entry] = deque()
        self._queued_bytes = 0
        self._live_bytes = 0
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

    @property
    def is_dropping(self) -> bool:
        """Whether audio is being lost: from the first piece until half of the queue is free again."""
        return self._burst_bytes > 0

    def push(self, pcm: bytes) -> None:
        self._append(_Entry(pcm, self._clock(), is_live=True))
        while self._live_bytes > self.max_queued_ms * BYTES_PER_MS:
            self._drop_oldest()
        self._arrived.set()

    def _append(self, entry: _Entry) -> None:
        self._queue.append(entry)
        self._count(entry, 1)

    def _count(self, entry: _Entry, sign: int) -> None:
        if isinstance(entry.item, bytes):
            self._queued_bytes += sign * len(entry.item)
            self._live_bytes += sign * len(entry.item) * entry.is_live

    def _drop_oldest(self) -> None:
        for index, entry in enumerate(self._queue):
            if entry.is_live and isinstance(entry.item, bytes):
                del self._queue[index]
                self._count(entry, -1)
                self.dropped_bytes += len(entry.item)
                self._burst_bytes += len(entry.item)
                return

    def _end_burst(self) -> None:
        if self._burst_bytes:
            lost_ms, self._burst_bytes = self._burst_bytes // BYTES_PER_MS, 0
            logger.warning(
                "dropped %d ms of microphone audio, %d ms in this call: the recogniser was more than %d ms behind",
                *(lost_ms, self.dropped_bytes // BYTES_PER_MS, self.max_queued_ms),
            )

    def put(self, item: TranscriptionOptions | EndOfUtterance | DiscardUtterance) -> None:
        """Have the recogniser told something after the audio received so far."""
        if self._queue and type(self._queue[-1].item) is type(item):
            # Said twice in a row, the last one counts: markers without audio between them must not pile up.
            self._queue.pop()
        self._append(_Entry(item, self._clock()))
        self._arrived.set()

    def reserve(self) -> Place:
        """Keep a place after the audio received so far. What follows it waits until it is settled."""
        place = Place(self._clock())
        self._append(_Entry(place, place.received_at))
        return place

    def settle(
        self, place: Place, items: Sequence[TranscriptionInput], *, is_audio_before_dropped: bool = False
    ) -> bool:
        """
        Put `items` in a place, and drop the audio that waits before it if that is not wanted any more.

        False when the queue has been cleared since: items then come last if they bring their own audio, else nowhere.
        """
        entries = [_Entry(item, place.received_at) for item in items]
        before = list(self._queue)
        index = next((n for n, entry in enumerate(before) if entry.item is place), None)
        self._arrived.set()
        if index is None:
            if not any(isinstance(item, bytes) for item in items):
                return False
            index = len(before)
        head, tail = before[:index], before[index + 1 :]
        if is_audio_before_dropped:
            head = [entry for entry in head if not isinstance(entry.item, bytes)]
        self._refill([*head, *entries, *tail])
        return True

    def _refill(self, entries: Sequence[_Entry]) -> None:
        self._queue = deque(entries)
        self._queued_bytes = self._live_bytes = 0
        for entry in entries:
            self._count(entry, 1)

    def discard(self) -> None:
        """Drop the audio that waits, and have the recogniser forget the utterance."""
        self._refill([entry for entry in self._queue if not isinstance(entry.item, bytes)])
        self.put(DiscardUtterance())

    def clear(self) -> None:
        """Drop everything that waits: nobody will take it."""
        self._refill([])
        self._arrived.clear()
        self._end_burst()

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
        self._end_burst()

    async def _take_all(self, stream: int) -> AsyncGenerator[TranscriptionInput]:
        while stream == self._stream:
            if (item := self._take_next()) is not None:
                yield item
            else:
                self._arrived.clear()
                await self._arrived.wait()

    def _take_next(self) -> TranscriptionInput | None:
        """Take a marker, or all audio up to the next one; None when nothing can be taken yet."""
        pieces: list[bytes] = []
        size = 0
        while self._queue:
            item = self._queue[0].item
            if isinstance(item, Place):
                break
            if not isinstance(item, bytes):
                if not pieces:
                    self._queue.popleft()
                    return item
                break
            size += len(item)
            if pieces and size > MAX_ITEM_BYTES:
                break
            entry = self._queue.popleft()
            self._count(entry, -1)
            self._keep(item, entry.received_at)
            pieces.append(item)
        if self._live_bytes <= self.max_queued_ms * BYTES_PER_MS // 2:
            self._end_burst()
        return b"".join(pieces) if pieces else None

    def _keep(self, pcm: bytes, received_at: float) -> None:
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

    def read_newer_audio(self, position_ms: int) -> bytes:
        """Return what was received after a position, taken or not."""
        waiting = b"".join(entry.item for entry in self._queue if isinstance(entry.item, bytes))
        return self.read_audio(position_ms, self._taken_bytes // BYTES_PER_MS) + waiting


class RecogniserDeadline:
    """
    Says when a recogniser has been silent for too long. Pure.

    Counted in audio that it was sent while it had to say something: it counts in audio itself, and a microphone that is
    off gives it nothing to say.
    """

    def __init__(self, *, max_ms: float) -> None:
        self.max_ms = max_ms
        self._silent_ms = 0.0

    def reset(self) -> None:
        """Begin again: it has said something."""
        self._silent_ms = 0.0

    def add(self, audio_ms: float, *, is_due: bool) -> bool:
        """Count audio, and say whether the time is over. Without anything due, there is none to keep."""
        self._silent_ms = self._silent_ms + audio_ms if is_due else 0.0
        return self._silent_ms > self.max_ms


#: A window of sound whose loudness is measured, and how much of it makes speech.
WINDOW_MS = 20
MIN_SPEECH_MS = 200
#: What is this much quieter than the speech before (10 dB), or quieter than any room, is not taken for speech.
QUIETER = 10 ** (-10 / 20)
MIN_LOUDNESS = 60.0


def has_speech_like(newer: bytes, said: bytes) -> bool:
    """
    Guess whether `newer` holds speech about as loud as that in `said`. Pure, and quick.

    No substitute for a recogniser: for when the recogniser itself is behind.
    """
    threshold = max(MIN_LOUDNESS, float(np.median(_measure_loudness(said))) * QUIETER)
    return int((_measure_loudness(newer) >= threshold).sum()) * WINDOW_MS >= MIN_SPEECH_MS


def _measure_loudness(pcm: bytes) -> NDArray[np.float64]:
    """Return the root mean square of each whole window; at least one."""
    count = WINDOW_MS * BYTES_PER_MS // BYTES_PER_SAMPLE
    samples = np.frombuffer(pcm, "<i2").astype(np.float64)
    windows = samples[: len(samples) // count * count].reshape(-1, count)
    return np.sqrt((windows**2).mean(axis=1)) if len(windows) else np.zeros(1)


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
