"""How long PCM16 mono lasts, and how many bytes a duration takes. Imports no numpy, which takes 0.2 s."""

from __future__ import annotations

from inference.interfaces import BYTES_PER_SAMPLE


def compute_duration_s(pcm: bytes, sample_rate_hz: int) -> float:
    return len(pcm) / BYTES_PER_SAMPLE / sample_rate_hz


def count_bytes(duration_ms: int, sample_rate_hz: int) -> int:
    """Return how many bytes of PCM16 last `duration_ms`, rounded down to whole samples."""
    return sample_rate_hz * duration_ms // 1000 * BYTES_PER_SAMPLE
