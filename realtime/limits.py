"""Rate limits of a socket, and the idle limit of a call. Pure: the time comes in. Imports no Django, no Channels."""

from __future__ import annotations

from enum import Enum

from realtime.messages import BYTES_PER_SAMPLE, MICROPHONE_SAMPLE_RATE_HZ

#: JSON messages other than `audio_chunk`. The page sends 4 `playback` messages a second, and a `ping` every 10 s.
MESSAGES_PER_S = 100.0
MAX_MESSAGE_BURST = 200.0
#: `audio_chunk` messages: four times as many as 20 ms of audio each makes, after one whole utterance at once.
CHUNKS_PER_S = 200.0
#: JSON text of any kind: a stereo WAV of 48 kHz and 24 bit, in base64, at more than twice real time.
JSON_BYTES_PER_S = 1_000_000.0
MIN_JSON_BURST_BYTES = 4_000_000.0
#: Microphone audio, in seconds of audio per second. A tiny frame costs as much work as one of 5 ms.
AUDIO_SPEED = 4.0
MIN_FRAME_S = 0.005
AUDIO_BURST_S = 10.0
#: Messages that cannot be decoded: each is answered by an error, and no working client sends many.
MAX_ERROR_BURST = 20.0
ERROR_WINDOW_S = 60.0
#: How long before its end an idle call is warned.
IDLE_WARNING_S = 60.0


class BudgetExceeded(Exception):
    """Raised when the client sends more than a conversation needs."""


class TokenBucket:
    """Holds up to `capacity` tokens, refilled at `per_s`. Times are seconds of a monotonic clock."""

    def __init__(self, *, capacity: float, per_s: float, now: float) -> None:
        self._capacity = capacity
        self._per_s = per_s
        self._tokens = capacity
        self._known_at = now

    def take(self, amount: float, now: float) -> bool:
        """Take `amount` tokens if they are there; otherwise take none and return False."""
        self._tokens = min(self._capacity, self._tokens + (now - self._known_at) * self._per_s)
        self._known_at = now
        if amount > self._tokens:
            return False
        self._tokens -= amount
        return True


class SocketBudget:
    """The rate limits of one socket. Each method raises BudgetExceeded when the client has to be cut off."""

    def __init__(
        self, *, max_utterance_bytes: int, max_utterance_chunks: int, max_utterance_s: int, now: float
    ) -> None:
        self._audio = TokenBucket(capacity=max_utterance_s + AUDIO_BURST_S, per_s=AUDIO_SPEED, now=now)
        self._messages = TokenBucket(capacity=MAX_MESSAGE_BURST, per_s=MESSAGES_PER_S, now=now)
        self._chunks = TokenBucket(capacity=max_utterance_chunks + CHUNKS_PER_S, per_s=CHUNKS_PER_S, now=now)
        self._json_bytes = TokenBucket(
            capacity=max(MIN_JSON_BURST_BYTES, 2.0 * max_utterance_bytes), per_s=JSON_BYTES_PER_S, now=now
        )
        self._errors = TokenBucket(capacity=MAX_ERROR_BURST, per_s=MAX_ERROR_BURST / ERROR_WINDOW_S, now=now)

    def charge_frame(self, size_bytes: int, now: float) -> None:
        """Charge a binary message."""
        audio_s = size_bytes / (MICROPHONE_SAMPLE_RATE_HZ * BYTES_PER_SAMPLE)
        _require(
            self._audio.take(max(audio_s, MIN_FRAME_S), now), f"audio at more than {AUDIO_SPEED:g} times its speed"
        )

    def charge_json(self, size_bytes: int, now: float) -> None:
        """Charge a text message by its size, before it is parsed, which costs time."""
        _require(self._json_bytes.take(size_bytes, now), f"more than {JSON_BYTES_PER_S:g} bytes of JSON per second")

    def charge_message(self, now: float, *, is_chunk: bool) -> None:
        """Charge a text message once its type is known; one that cannot be decoded is not a chunk."""
        bucket, per_s = (self._chunks, CHUNKS_PER_S) if is_chunk else (self._messages, MESSAGES_PER_S)
        _require(bucket.take(1, now), f"more than {per_s:g} messages per second")

    def charge_error(self, now: float) -> None:
        """Charge an error that answers a message."""
        _require(self._errors.take(1, now), f"more than {MAX_ERROR_BURST:g} errors in {ERROR_WINDOW_S:g} s")


def _require(is_within: bool, what: str) -> None:
    if not is_within:
        raise BudgetExceeded(what)


class Idleness(Enum):
    ACTIVE = "active"
    #: To be warned, once: the call ends soon.
    WARN = "warn"
    OVER = "over"


class IdleWatch:
    """Tells when a call has been idle for `limit_s`; 0 means never."""

    def __init__(self, *, limit_s: float, now: float) -> None:
        self.limit_s = limit_s
        self.warning_s = min(IDLE_WARNING_S, limit_s / 2)
        self._active_at = now
        self._is_warned = False

    def note_activity(self, now: float) -> None:
        """Note that the user speaks or is answered."""
        self._active_at = now
        self._is_warned = False

    def compute_rest_s(self, now: float) -> float:
        """Return how long the call may still be idle."""
        return max(0.0, self._active_at + self.limit_s - now)

    def check(self, now: float) -> Idleness:
        if self.limit_s <= 0:
            return Idleness.ACTIVE
        rest_s = self.compute_rest_s(now)
        # Never without a warning: an event loop that stood still must not end a call by surprise.
        if rest_s <= 0 and self._is_warned:
            return Idleness.OVER
        if rest_s <= self.warning_s and not self._is_warned:
            self._is_warned = True
            return Idleness.WARN
        return Idleness.ACTIVE
