"""
Endpointing: where an utterance begins and ends, from the probability of speech per window. Pure: no audio, no clock.

Time is counted in received windows, so that a slow network does not change what counts as a pause.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from inference.interfaces import TranscriptionOptions

#: The window of Silero VAD at 16 kHz: 512 samples.
WINDOW_MS = 32
#: Recognition starts after this much silence and overlaps with the rest of the pause.
PROVISIONAL_PAUSE_MS = 200
#: Speech during the pause counts from two windows on, so that a click or a breath does not revoke the transcript.
RESUME_WINDOWS = 2
#: A gap longer than this discards an onset that never became speech.
ONSET_GAP_MS = 200
#: Speech that has begun continues at a probability lower by this (Silero's own hysteresis).
HYSTERESIS = 0.15


class Endpoint(Enum):
    """The event of a window."""

    SPEECH_STARTED = auto()
    PAUSE_BEGAN = auto()
    SPEECH_RESUMED = auto()
    UTTERANCE_ENDED = auto()


class _State(Enum):
    SILENCE = auto()
    SPEECH = auto()
    PAUSE = auto()


@dataclass(slots=True)
class Endpointer:
    """
    A state machine fed with one probability of speech per window; returns the window's event, or None.

    `speech_start_ms` and `speech_end_ms` bound the speech of the current utterance, in milliseconds since the first
    window. Without `options.endpointing` speech starts and pauses as usual, but only the caller ends the utterance.
    """

    options: TranscriptionOptions
    speech_start_ms: int = 0
    speech_end_ms: int = 0
    position_ms: int = 0
    _state: _State = _State.SILENCE
    _speech_windows: int = 0
    _run: int = 0

    @property
    def is_in_utterance(self) -> bool:
        return self._state is not _State.SILENCE

    @property
    def silence_ms(self) -> int:
        return self.position_ms - self.speech_end_ms

    def feed(self, probability: float) -> Endpoint | None:
        self.position_ms += WINDOW_MS
        threshold = self.options.sensitivity - (HYSTERESIS if self._state is _State.SPEECH else 0.0)
        is_speech = probability >= max(threshold, 0.05)
        self._run = self._run + 1 if is_speech else 0
        match self._state:
            case _State.SILENCE:
                return self._feed_silence(is_speech)
            case _State.SPEECH:
                if is_speech:
                    self.speech_end_ms = self.position_ms
                elif self.silence_ms >= PROVISIONAL_PAUSE_MS:
                    self._state = _State.PAUSE
                    return Endpoint.PAUSE_BEGAN
                return None
            case _State.PAUSE:
                if self._run >= RESUME_WINDOWS:
                    self._state = _State.SPEECH
                    self.speech_end_ms = self.position_ms
                    return Endpoint.SPEECH_RESUMED
                if self.options.endpointing and not is_speech and self.silence_ms >= self.options.pause_ms:
                    self.reset()
                    return Endpoint.UTTERANCE_ENDED
                return None

    def _feed_silence(self, is_speech: bool) -> Endpoint | None:
        if is_speech:
            if self._speech_windows == 0:
                self.speech_start_ms = self.position_ms - WINDOW_MS
            self._speech_windows += 1
            self.speech_end_ms = self.position_ms
            if self._speech_windows * WINDOW_MS >= self.options.min_speech_ms:
                self._state = _State.SPEECH
                return Endpoint.SPEECH_STARTED
        elif self._speech_windows and self.silence_ms > ONSET_GAP_MS:
            self._speech_windows = 0
        return None

    def reset(self) -> None:
        """Wait for speech again. The bounds of the last utterance stay readable."""
        self._state = _State.SILENCE
        self._speech_windows = 0
        self._run = 0
