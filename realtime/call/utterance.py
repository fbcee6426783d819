"""What the user is saying: limits, assembly of uploads, positions in the audio, lateness. Pure."""

from __future__ import annotations

import bisect
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference.interfaces import BYTES_PER_SAMPLE, MICROPHONE_SAMPLE_RATE_HZ, InferenceError
from realtime.call.events import TranscriptReceived
from realtime.call.settings import CallSettings
from realtime.messages import AudioFormat, Mode

BYTES_PER_MS = MICROPHONE_SAMPLE_RATE_HZ * BYTES_PER_SAMPLE // 1000
#: Recorded of the user's audio before their speech was noticed to begin, and after its end.
PRE_ROLL_MS = 200
POST_ROLL_MS = 200
#: What one message to the recogniser holds at most.
MAX_ITEM_BYTES = 512_000


class AudioDecodingError(Exception):
    """Uploaded audio is not what its format says, or holds no audio."""


class AudioTooLong(Exception):
    """Uploaded audio is longer than an utterance may be."""


@dataclass(frozen=True, slots=True)
class Upload:
    """An utterance that came in a container, complete and not decoded."""

    data: bytes
    format: AudioFormat


@dataclass(frozen=True, slots=True)
class Lateness:
    """Whether a transcript is that of an overloaded machine, and whether the user is saying something new already."""

    is_late: bool
    is_overtaken: bool


IN_TIME = Lateness(is_late=False, is_overtaken=False)


class UtteranceTracker:
    """Counts and assembles what the client is sending, and remembers when it said that utterances were over."""

    def __init__(self, settings: CallSettings) -> None:
        self._meter = UtteranceMeter(
            max_bytes=settings.max_utterance_bytes,
            max_chunks=settings.max_utterance_chunks,
            max_ms=settings.max_utterance_s * 1000,
        )
        self._max_lateness_s = settings.max_lateness_s
        self.has_audio = False
        self.upload_format: AudioFormat | None = None
        self._upload = bytearray()
        #: Why the utterance that the client has not ended yet is gone.
        self._loss: InferenceError | None = None
        #: When the ends were said of utterances whose transcripts have not come yet.
        self._ends: deque[float] = deque()
        self._uploads = 0
        #: Numbers of the uploads that are being decoded.
        self._decoding: set[int] = set()

    def add_pcm(self, size_bytes: int, *, is_counted: bool, is_chunk: bool) -> bool:
        """Count audio, and say whether the utterance is still within its limits."""
        if is_counted and not self._meter.add(size_bytes, audio_ms=size_bytes / BYTES_PER_MS, is_chunk=is_chunk):
            return False
        self.has_audio = True
        return True

    def add_upload(self, data: bytes, kind: AudioFormat) -> bool:
        """Append to the upload, and say whether the utterance is still within its limits."""
        self.upload_format = kind
        if not self._meter.add(len(data), audio_ms=0, is_chunk=True):
            return False
        self.has_audio = True
        self._upload += data
        return True

    def restart(self, *, audio_ms: float = 0.0) -> None:
        """Begin to count an utterance of which `audio_ms` were received already."""
        self._meter.reset(audio_ms=audio_ms)

    def forget(self) -> None:
        self._meter.reset()
        self.has_audio = False
        self._upload.clear()
        self.upload_format = None

    def lose(self, error: InferenceError, *, is_held: bool) -> None:
        """Forget everything: the recogniser has lost it. Of an utterance that is held, keep why, for when it ends."""
        self._loss = error if is_held and self.has_audio else None
        self._ends.clear()
        self.forget()

    def end(self) -> tuple[Upload | None, InferenceError | None]:
        """Begin the next utterance. Return the upload of this one, and why a part of it was lost."""
        upload = Upload(bytes(self._upload), self.upload_format) if self.upload_format else None
        loss, self._loss = self._loss, None
        self.forget()
        return upload, loss

    def finish(self) -> None:
        """Reset the count, hands-free: the recogniser has ended the utterance."""
        self._meter.reset()
        self.has_audio = False

    def note_end(self, ended_at: float) -> None:
        """Expect a transcript of an utterance that the client has ended."""
        self._ends.append(ended_at)

    def forget_ends(self) -> None:
        self._ends.clear()

    def begin_decoding(self) -> int:
        """Return the number of an upload that is to be decoded."""
        self._uploads += 1
        self._decoding.add(self._uploads)
        return self._uploads

    def end_decoding(self, number: int) -> bool:
        """Say whether this upload is still wanted."""
        is_wanted = number in self._decoding
        self._decoding.discard(number)
        return is_wanted

    def give_up_decoding(self) -> list[int]:
        """Forget the uploads that are being decoded, and return their numbers."""
        numbers = sorted(self._decoding)
        self._decoding.clear()
        return numbers

    def judge_lateness(self, transcript: TranscriptReceived, now: float, *, mode: Mode, pause_ms: int) -> Lateness:
        """
        Judge how late the next transcript is: after the end that the client said, or after the pause that ended it.

        What was received since is judged by its loudness: the recogniser has not heard it yet.
        """
        if self._ends:
            ended_at = self._ends.popleft()
        elif mode is Mode.HANDS_FREE:
            ended_at = transcript.ended_at + pause_ms / 1000
        else:
            return IN_TIME
        if now - ended_at <= self._max_lateness_s:
            return IN_TIME
        if mode is Mode.HOLD_TO_TALK:
            return Lateness(is_late=True, is_overtaken=self.has_audio or bool(self._ends))
        return Lateness(is_late=True, is_overtaken=has_speech_like(transcript.newer, transcript.speech))


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


class ReceivedAudio:
    """
    The last `kept_ms` of what the recogniser was given of one stream, and when it had been received.

    Positions are milliseconds of audio since the stream began, as the recogniser counts them.
    """

    def __init__(self, *, kept_ms: int) -> None:
        self._kept_bytes = kept_ms * BYTES_PER_MS
        self._pcm = bytearray()
        self.size_bytes = 0
        #: Ends of the pieces, in bytes since the stream began, and when each had been received.
        self._ends: list[int] = []
        self._times: list[float] = []

    def append(self, pcm: bytes, received_at: float) -> None:
        self._pcm += pcm
        self.size_bytes += len(pcm)
        self._ends.append(self.size_bytes)
        self._times.append(received_at)
        excess = len(self._pcm) - self._kept_bytes
        if excess > 0:
            del self._pcm[:excess]
        # In batches: each deletion at the front moves all that is behind it.
        stale = bisect.bisect_right(self._ends, self.size_bytes - len(self._pcm))
        if stale > 1000:
            del self._ends[:stale]
            del self._times[:stale]

    def find_received_at(self, position_ms: int) -> float | None:
        """Return when the audio up to a position had been received; None: nothing is known."""
        if not self._times:
            return None
        index = bisect.bisect_left(self._ends, position_ms * BYTES_PER_MS)
        return self._times[min(index, len(self._times) - 1)]

    def read(self, start_ms: int, end_ms: int | None = None) -> bytes:
        """Return what lies between two positions (None: the end), as far as it is kept."""
        oldest = self.size_bytes - len(self._pcm)
        start = max(0, start_ms * BYTES_PER_MS - oldest)
        end = len(self._pcm) if end_ms is None else max(0, end_ms * BYTES_PER_MS - oldest)
        return bytes(self._pcm[start:end])


#: A window of sound whose loudness is measured, and how much of it makes speech.
WINDOW_MS = 20
MIN_SPEECH_MS = 200
#: Windows more than 10 dB quieter than the speech before, or quieter than any room, do not count as speech.
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
