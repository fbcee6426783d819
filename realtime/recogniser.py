"""
The recognition stream of a call: queue, reconnection, transcript deadline. Imports no Django, Channels or gRPC.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from avatar_site.lib import metrics
from inference.interfaces import (
    DiscardUtterance,
    EndOfUtterance,
    FinalTranscript,
    InferenceError,
    InferenceUnavailable,
    SpeechStarted,
    SpeechToText,
    TranscriptEvent,
    TranscriptionInput,
    TranscriptionOptions,
)
from realtime.call.events import RecogniserEvent, RecognitionFailed, SpeechBegan, TranscriptReceived
from realtime.call.settings import CallSettings
from realtime.call.utterance import BYTES_PER_MS, MAX_ITEM_BYTES, POST_ROLL_MS, PRE_ROLL_MS, ReceivedAudio

logger = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class Place:
    """A place in the queue for an upload that is being decoded."""

    received_at: float


class _Entry(NamedTuple):
    item: TranscriptionInput | Place
    received_at: float
    #: Audio of the microphone, a live stream: it may be dropped. An upload's may not.
    is_live: bool = False


class MicrophoneQueue:
    """
    The user's audio on its way to the recogniser, in order of receipt.

    At most `max_queued_ms` of the microphone wait to be taken; when the recogniser is slower than that, the oldest is
    dropped. What waits is taken in one piece, so that a loop that turns slower than audio comes catches up.
    """

    def __init__(self, *, max_queued_ms: int, kept_ms: int, clock: Callable[[], float]) -> None:
        self.max_queued_ms = max_queued_ms
        #: In all, since the call began.
        self.dropped_bytes = 0
        self._burst_bytes = 0
        self._kept_ms = kept_ms
        self._clock = clock
        self._queue: deque[_Entry] = deque()
        self._queued_bytes = 0
        self._live_bytes = 0
        self._arrived = asyncio.Event()
        self._stream = 0
        #: What was taken from the present stream.
        self.taken = ReceivedAudio(kept_ms=kept_ms)

    @property
    def received_ms(self) -> int:
        """Everything received for this stream, taken or not."""
        return (self.taken.size_bytes + self._queued_bytes) // BYTES_PER_MS

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
            metrics.count_dropped_audio(lost_ms / 1000)
            logger.warning(
                "dropped %d ms of microphone audio, %d ms in this call: the recogniser was more than %d ms behind",
                *(lost_ms, self.dropped_bytes // BYTES_PER_MS, self.max_queued_ms),
            )

    def put(self, item: TranscriptionOptions | EndOfUtterance | DiscardUtterance) -> None:
        """Have the recogniser told something after the audio received so far."""
        if self._queue and type(self._queue[-1].item) is type(item) and not isinstance(item, EndOfUtterance):
            # Said twice in a row, the last one counts: they must not pile up. An end has its transcript each.
            self._queue.pop()
        self._append(_Entry(item, self._clock()))
        self._arrived.set()

    def reserve(self) -> Place:
        """Keep a place after the audio received so far. What follows it waits until it is filled."""
        place = Place(self._clock())
        self._append(_Entry(place, place.received_at))
        return place

    def fill(self, place: Place, items: Sequence[TranscriptionInput]) -> None:
        """Put `items` in a place. If the queue has been cleared since, they come last."""
        entries = [_Entry(item, place.received_at) for item in items]
        before = list(self._queue)
        index = next((n for n, entry in enumerate(before) if entry.item is place), len(before))
        self._refill([*before[:index], *entries, *before[index + 1 :]])
        self._arrived.set()

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
        """Drop everything that waits: no stream will take it."""
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
        self.taken = ReceivedAudio(kept_ms=self._kept_ms)
        self._arrived.set()
        return self._take_all(self._stream)

    def close_stream(self) -> None:
        """End the stream for its reader. The generator may be running in another task, so it is not closed here."""
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
            self.taken.append(item, entry.received_at)
            pieces.append(item)
        if self._live_bytes <= self.max_queued_ms * BYTES_PER_MS // 2:
            self._end_burst()
        return b"".join(pieces) if pieces else None

    def find_received_at(self, position_ms: int) -> float:
        """Return when the audio up to `position_ms` had been received (now, when that is not known)."""
        received_at = self.taken.find_received_at(position_ms)
        return self._clock() if received_at is None else received_at

    def read_newer_audio(self, position_ms: int) -> bytes:
        """Return what was received after a position, taken or not."""
        waiting = b"".join(entry.item for entry in self._queue if isinstance(entry.item, bytes))
        return self.taken.read(position_ms) + waiting


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


class Recogniser:
    """
    Keeps a transcription open while there is audio, and reopens it with a back-off after a failure.

    A transcript has a deadline. After `EndOfUtterance` it is one of time: a key that was released sends no more audio.
    Hands-free it counts the audio that was received during speech. `push`, `put`, `reserve` and `fill` never wait;
    `report` is called with what was heard, in order.
    """

    def __init__(
        self,
        *,
        stt: SpeechToText,
        options: TranscriptionOptions,
        settings: CallSettings,
        report: Callable[[RecogniserEvent], None],
        clock: Callable[[], float],
    ) -> None:
        self._stt = stt
        self._options = options
        self._settings = settings
        self._report = report
        self._queue = MicrophoneQueue(
            max_queued_ms=self._compute_max_queued_ms(options),
            kept_ms=settings.max_utterance_s * 1000 + PRE_ROLL_MS + POST_ROLL_MS + 3000,
            clock=clock,
        )
        self._deadline = RecogniserDeadline(max_ms=settings.transcript_s * 1000)
        self._timeout: asyncio.Timeout | None = None
        #: Final transcripts that were asked for with `EndOfUtterance`.
        self._due = 0
        self._is_speech_open = False
        self._is_outage_known = False

    def _compute_max_queued_ms(self, options: TranscriptionOptions) -> int:
        # Hold-to-talk: the utterance is complete only if none of its audio is dropped.
        return self._settings.max_queued_ms if options.endpointing else self._settings.max_utterance_s * 1000

    def push(self, pcm: bytes) -> None:
        """Take microphone audio."""
        self._queue.push(pcm)
        is_due = self._options.endpointing and (self._is_speech_open or self._queue.is_dropping)
        if self._deadline.add(len(pcm) / BYTES_PER_MS, is_due=is_due):
            self._deadline.reset()
            self._reschedule(0.0)

    def put(self, item: TranscriptionOptions | EndOfUtterance | DiscardUtterance) -> None:
        """Say something after the audio received so far. `DiscardUtterance` drops the audio that waits as well."""
        match item:
            case DiscardUtterance():
                self._is_speech_open = False
                self._queue.discard()
            case EndOfUtterance():
                self._queue.put(item)
                self._expect_transcript()
            case TranscriptionOptions():
                self._options = item
                self._queue.max_queued_ms = self._compute_max_queued_ms(item)
                self._queue.put(item)

    def reserve(self) -> Place:
        """Keep a place after the audio received so far, for an upload that is being decoded."""
        return self._queue.reserve()

    def fill(self, place: Place, items: Sequence[TranscriptionInput]) -> None:
        self._queue.fill(place, items)
        if EndOfUtterance() in items:
            self._expect_transcript()

    def _expect_transcript(self) -> None:
        self._due += 1
        self._reschedule(self._settings.transcript_s)

    def _reschedule(self, within_s: float | None) -> None:
        """Give up on the stream after so many seconds; None: wait as long as it takes."""
        if self._timeout and not self._timeout.expired():
            now = asyncio.get_running_loop().time()
            self._timeout.reschedule(None if within_s is None else now + within_s)

    async def run(self) -> None:
        """Hear until cancelled. Failures of the engine are reported, not raised."""
        settings = self._settings
        retry_s = settings.first_retry_s
        try:
            while True:
                await self._queue.wait()
                heard, error = await self._hear()
                retry_s = settings.first_retry_s if heard else min(retry_s * 2, settings.last_retry_s)
                is_news = not self._is_outage_known or self._due > 0
                self._is_outage_known = True
                self._is_speech_open = False
                self._due = 0
                self._queue.clear()
                logger.warning("recognition failed: %s", error)
                self._report(RecognitionFailed(error, is_news))
                await asyncio.sleep(retry_s)
        finally:
            self._queue.clear()

    async def _hear(self) -> tuple[bool, InferenceError]:
        """Report what one stream says until it fails. Return whether it has said anything, and why it has ended."""
        heard = False
        try:
            events = self._stt.transcribe(self._queue.open_stream(), self._options)
            async with contextlib.aclosing(events), asyncio.timeout(None) as self._timeout:
                self._deadline.reset()
                if self._due:
                    self._reschedule(self._settings.transcript_s)
                async for event in events:
                    heard = True
                    self._is_outage_known = False
                    self._handle(event)
            return heard, InferenceUnavailable("the recogniser ended its stream")
        except TimeoutError:
            return heard, InferenceUnavailable("no transcript came in time")
        except InferenceError as error:
            return heard, error
        finally:
            self._timeout = None
            self._queue.close_stream()

    def _handle(self, event: TranscriptEvent) -> None:
        self._deadline.reset()
        match event:
            case SpeechStarted(speech_start_ms=start_ms):
                self._is_speech_open = True
                self._report(SpeechBegan(max(0, self._queue.received_ms - start_ms)))
            case FinalTranscript():
                self._is_speech_open = False
                self._due = max(0, self._due - 1)
                self._reschedule(self._settings.transcript_s if self._due else None)
                self._report(self._resolve(event))
            case _:
                self._report(event)

    def _resolve(self, event: FinalTranscript) -> TranscriptReceived:
        """Replace positions by times and sound."""
        start_ms, end_ms, received_ms = event.speech_start_ms, event.speech_end_ms, event.received_ms
        taken = self._queue.taken
        return TranscriptReceived(
            text=event.text,
            language=event.language,
            ended_at=self._queue.find_received_at(received_ms) - max(0, received_ms - end_ms) / 1000,
            pcm=taken.read(start_ms - PRE_ROLL_MS, end_ms + POST_ROLL_MS),
            speech=taken.read(start_ms, end_ms),
            newer=self._queue.read_newer_audio(received_ms),
            endpoint_s=max(0, received_ms - end_ms) / 1000,
        )
