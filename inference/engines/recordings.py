"""What a recording must be before anybody is looked for in it."""

from __future__ import annotations

from inference.interfaces import BYTES_PER_SAMPLE, MAX_RECORDING_S, MIN_RECORDING_S, InferenceError


def check_recording(pcm: bytes, sample_rate_hz: int) -> None:
    """Raises InferenceError when `pcm` is not PCM16, or too short or too long."""
    if len(pcm) % BYTES_PER_SAMPLE or not 8000 <= sample_rate_hz <= 48_000:
        raise InferenceError("expected PCM16 audio at 8 to 48 kHz")
    seconds = len(pcm) / BYTES_PER_SAMPLE / sample_rate_hz
    if not MIN_RECORDING_S <= seconds <= MAX_RECORDING_S:
        raise InferenceError(
            f"the recording is {seconds:.1f} s long: {MIN_RECORDING_S:g} to {MAX_RECORDING_S:g} s are needed"
        )
