"""Loudness: root mean squares and decibels below full scale. Imports numpy only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from inference.audio.pcm import Samples

#: The step of `measure_levels_db`.
FRAME_S = 0.02
#: Digital silence has no level in decibels: it counts as the quietest room.
FLOOR_DB = -80.0


def amplitude_from_db(level_db: float) -> float:
    return float(10 ** (level_db / 20))


def measure_rms(samples: NDArray[np.floating] | NDArray[np.integer]) -> float:
    """Return the root mean square; 0 of no samples."""
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) if len(samples) else 0.0


def measure_levels_db(samples: Samples, sample_rate_hz: int) -> NDArray[np.float64]:
    """Return the loudness of each whole frame of 20 ms, in dB of full scale, at least `FLOOR_DB`."""
    size = max(1, round(sample_rate_hz * FRAME_S))
    count = len(samples) // size
    frames = samples[: count * size].astype(np.float64).reshape(count, size)
    # Microphones add an offset and mains hum below speech, which must not count as sound.
    frames = frames - frames.mean(axis=1, keepdims=True)
    power = np.square(frames).mean(axis=1)
    levels: NDArray[np.float64] = np.maximum(10 * np.log10(np.maximum(power, 1e-12)), FLOOR_DB)
    return levels
