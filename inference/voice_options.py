"""Parses and checks what engines receive of a voice: keys and blends, styles, references, recordings."""

from __future__ import annotations

from collections.abc import Container

import numpy as np
from numpy.typing import NDArray

from inference.audio.durations import compute_duration_s
from inference.interfaces import (
    BYTES_PER_SAMPLE,
    MAX_RECORDING_S,
    MIN_RECORDING_S,
    STYLE_VALUES,
    InferenceError,
    VoiceReference,
)

MAX_REFERENCE_S = 12.0
#: A clip that was cut at 12 s may be longer after resampling.
REFERENCE_TOLERANCE_S = 0.5


def parse_blend(voice: str) -> dict[str, float]:
    """
    Read "zf_xiaoxiao", or "zf_xiaoxiao:0.6+zm_yunxi:0.4".

    Raises InferenceError unless the weights are numbers above 0 that sum to 1.
    """
    if ":" not in voice and "+" not in voice:
        return {voice: 1.0}
    blend: dict[str, float] = {}
    for share in voice.split("+"):
        key, _, weight = share.partition(":")
        try:
            blend[key] = blend.get(key, 0.0) + float(weight)
        except ValueError:
            raise InferenceError(f"voice {voice!r}: expected key:weight+key:weight") from None
        if not 0 < float(weight) <= 1:
            raise InferenceError(f"voice {voice!r}: a weight is above 0 and at most 1")
    if abs(sum(blend.values()) - 1) > 0.01:
        raise InferenceError(f"voice {voice!r}: the weights sum to 1")
    return blend


def choose_shares(voice: str, known: Container[str], *, default: str) -> dict[str, float]:
    """
    Return the voices of a key or blend that an engine has, by weights that sum to 1; `default` when it has none.

    A voice may have been matched for another engine. Raises InferenceError as `parse_blend`.
    """
    shares = {key: weight for key, weight in parse_blend(voice).items() if key in known} if voice else {}
    whole = sum(shares.values())
    return {key: weight / whole for key, weight in shares.items()} if shares else {default: 1.0}


def pick_heaviest(shares: dict[str, float]) -> str:
    """Return the key with the largest share; the first of equal ones."""
    return max(shares, key=lambda key: shares[key])


def read_style(style: bytes) -> NDArray[np.float32]:
    """Return the style's values. Raises InferenceError unless they are `STYLE_VALUES` finite float32."""
    values = np.frombuffer(style, "<f4") if len(style) == STYLE_VALUES * 4 else np.array([np.nan], np.float32)
    if not np.isfinite(values).all():
        raise InferenceError(f"a style is {STYLE_VALUES} finite float32")
    return values


def check_reference(reference: VoiceReference) -> None:
    """Raise InferenceError when a reference cannot be cloned: no transcript, too long, silent."""
    if not any(character.isalnum() for character in reference.transcript):
        raise InferenceError("a reference needs the transcript of what is said in it")
    seconds = compute_duration_s(reference.pcm, reference.sample_rate_hz)
    if seconds > MAX_REFERENCE_S + REFERENCE_TOLERANCE_S:
        raise InferenceError(f"a reference of {seconds:.1f} s is too long: at most {MAX_REFERENCE_S:g} s")
    if not any(reference.pcm):
        raise InferenceError("the reference is silence")


def check_recording(pcm: bytes, sample_rate_hz: int) -> None:
    """Raise InferenceError when a speaker cannot be embedded from `pcm`: not PCM16, too short, too long."""
    if len(pcm) % BYTES_PER_SAMPLE or not 8000 <= sample_rate_hz <= 48_000:
        raise InferenceError("expected PCM16 audio at 8 to 48 kHz")
    seconds = compute_duration_s(pcm, sample_rate_hz)
    if not MIN_RECORDING_S <= seconds <= MAX_RECORDING_S:
        raise InferenceError(
            f"the recording is {seconds:.1f} s long: {MIN_RECORDING_S:g} to {MAX_RECORDING_S:g} s are needed"
        )
