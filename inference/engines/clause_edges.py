"""Trims the silence around a synthesised clause, without clicks, and adds the pause of its punctuation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from inference.audio.levels import amplitude_from_db

#: Amplitude below which a sample is silence.
SILENCE = amplitude_from_db(-45)
SENTENCE_PAUSE_MS = 320
CLAUSE_PAUSE_MS = 160
WORD_PAUSE_MS = 20
#: After the last clause of a reply.
END_PAUSE_MS = 120


def choose_pause_ms(text: str, *, is_last: bool) -> int:
    """Return the silence after a clause, as a reader leaves at its punctuation."""
    last = text.rstrip(" \n\"'」』”’)）")[-1:]
    if is_last:
        return END_PAUSE_MS
    if last in tuple(".!?…。！？"):
        return SENTENCE_PAUSE_MS
    return CLAUSE_PAUSE_MS if last in tuple(",;:—，；：、") else WORD_PAUSE_MS


def trim(samples: NDArray[np.float32], *, sample_rate_hz: int, pause_ms: int) -> NDArray[np.float32]:
    """Cut the silence on both sides, with ramps of 5 ms against clicks, and add the pause."""
    loud = np.flatnonzero(np.abs(samples) > SILENCE)
    if len(loud) == 0:
        return np.zeros(0, np.float32)
    margin = sample_rate_hz * 20 // 1000
    cut = samples[max(0, loud[0] - margin) : loud[-1] + 2 * margin].copy()
    ramp = np.linspace(0, 1, min(len(cut) // 2, sample_rate_hz * 5 // 1000), dtype=np.float32)
    if len(ramp):
        cut[: len(ramp)] *= ramp
        cut[-len(ramp) :] *= ramp[::-1]
    return np.concatenate([cut, np.zeros(sample_rate_hz * pause_ms // 1000, np.float32)])
