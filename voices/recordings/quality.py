"""
The quality of a recording: duration of speech, SNR, clipping. Pure: samples in, figures out.

Speech is detected by level alone, which is enough for one person near a microphone. Speakers and words need models:
the build job finds them.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from inference.audio.levels import FRAME_S, measure_levels_db
from inference.audio.pcm import Samples

MIN_SPEECH_S = 3.0
MAX_SPEECH_S = 60.0
#: Of the whole recording, pauses included.
MAX_DURATION_S = 180.0
#: The level below which nothing is heard, in dB below full scale.
SILENCE_DB = -60.0
#: The smallest range of levels with speech; a smaller one is noise or a tone.
MIN_RANGE_DB = 6.0
CLIPPED_LEVEL = 0.995
#: Consecutive samples at the limit; fewer are only a peak.
CLIPPED_RUN = 3
MAX_CLIPPED_SHARE = 0.01
#: Limits of the warnings.
NOISY_BELOW_DB = 15.0
CLIPPED_FROM_SHARE = 0.0005
SHORT_BELOW_S = 8.0
#: Shorter pauses belong to the speech around them.
BRIDGED_S = 0.3


@dataclass(frozen=True, slots=True)
class RecordingQuality:
    """`refusal` is the code of a problem, or empty; `warnings` are codes of what could be better."""

    duration_s: float
    speech_s: float
    snr_db: float
    clipped_share: float
    refusal: str
    warnings: tuple[str, ...]


def measure_quality(samples: Samples, sample_rate_hz: int) -> RecordingQuality:
    duration_s = len(samples) / sample_rate_hz
    levels = measure_levels_db(samples, sample_rate_hz)
    spoken = detect_speech(levels)
    speech_s = min(float(spoken.sum()) * FRAME_S, duration_s)
    snr_db = _measure_snr(levels, spoken)
    clipped_share = measure_clipping(samples)
    warnings = [
        code
        for code, applies in (
            ("short", speech_s < SHORT_BELOW_S),
            ("noisy", snr_db < NOISY_BELOW_DB),
            ("clipped", clipped_share >= CLIPPED_FROM_SHARE),
        )
        if applies
    ]
    refusal = _choose_refusal(levels, spoken, speech_s=speech_s, clipped_share=clipped_share)
    return RecordingQuality(duration_s, speech_s, snr_db, clipped_share, refusal, tuple(warnings))


def detect_speech(levels: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Return which frames are speech: those that are loud enough, and the short pauses between them."""
    if not len(levels):
        return np.zeros(0, bool)
    floor, top = np.percentile(levels, [10, 95])
    if top - floor < MIN_RANGE_DB or top < SILENCE_DB:
        return np.zeros(len(levels), bool)
    # A third of the way from the pauses to the loudest syllables; soft consonants lie 30 dB below those at most.
    threshold = max(floor + max(MIN_RANGE_DB / 2, (top - floor) / 3), top - 35, SILENCE_DB)
    spoken = levels > threshold
    places = np.flatnonzero(spoken)
    for before, after in itertools.pairwise(places):
        if 1 < after - before <= BRIDGED_S / FRAME_S:
            spoken[before:after] = True
    return spoken


def measure_clipping(samples: Samples) -> float:
    """Return the share of samples at the limit, in runs of `CLIPPED_RUN` or more."""
    if not len(samples):
        return 0.0
    at_limit = np.abs(samples) >= CLIPPED_LEVEL
    edges = np.flatnonzero(np.diff(np.concatenate(([0], at_limit.astype(np.int8), [0]))))
    runs = edges[1::2] - edges[::2]
    return float(runs[runs >= CLIPPED_RUN].sum()) / len(samples)


def _measure_snr(levels: npt.NDArray[np.float64], spoken: npt.NDArray[np.bool_]) -> float:
    """Return the level of speech above its pauses, in dB; without pauses, above its quietest tenth."""
    if not spoken.any():
        return 0.0
    speech_db = 10 * np.log10(np.mean(10 ** (levels[spoken] / 10)))
    noise = levels[~spoken] if (~spoken).sum() >= 5 else np.sort(levels)[: max(1, len(levels) // 10)]
    return float(speech_db - np.percentile(noise, 50))


def _choose_refusal(
    levels: npt.NDArray[np.float64], spoken: npt.NDArray[np.bool_], *, speech_s: float, clipped_share: float
) -> str:
    if not len(levels) or np.percentile(levels, 99) < SILENCE_DB:
        return "audio_silent"
    if clipped_share > MAX_CLIPPED_SHARE:
        return "audio_clipped"
    if len(levels) * FRAME_S < MIN_SPEECH_S:
        return "audio_too_short"
    if not spoken.any():
        return "audio_noisy"
    if speech_s < MIN_SPEECH_S:
        return "audio_too_short"
    if speech_s > MAX_SPEECH_S:
        return "audio_too_long"
    return ""
