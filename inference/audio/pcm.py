"""PCM16 mono, little-endian: conversion from and to float samples. Imports numpy only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: One channel, -1 to 1.
Samples = NDArray[np.float32]

#: Decoders divide by it, so encoding multiplies by it: 16 bits come back unchanged.
FULL_SCALE = 32768


def float_from_pcm(pcm: bytes) -> Samples:
    """Return a writable copy as float samples. Raises ValueError for an odd number of bytes."""
    samples = np.frombuffer(pcm, "<i2").astype(np.float32)
    samples /= FULL_SCALE
    return samples


def int16_from_float(samples: NDArray[np.floating]) -> NDArray[np.int16]:
    """Round to 16 bits; what is beyond full scale is clipped."""
    scaled = np.rint(samples * np.float32(FULL_SCALE))
    return np.asarray(np.clip(scaled, -FULL_SCALE, FULL_SCALE - 1), "<i2")


def pcm_from_float(samples: NDArray[np.floating]) -> bytes:
    return int16_from_float(samples).tobytes()
