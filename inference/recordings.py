"""Recordings that somebody is looked for in: what they must be, and at which rate."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

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


def resample(samples: NDArray[np.float32], rate_hz: int, wanted_hz: int) -> NDArray[np.float32]:
    """
    Bring samples to another rate: frequencies above the lower one's half are taken away, in the spectrum.

    Meant for whole recordings: what is at the end meets what is at the beginning, for a millisecond.
    """
    if rate_hz == wanted_hz:
        return samples
    count = round(len(samples) * wanted_hz / rate_hz)
    spectrum = np.fft.rfft(samples)[: count // 2 + 1]
    return np.asarray(np.fft.irfft(spectrum, n=count) * (count / len(samples)), np.float32)
