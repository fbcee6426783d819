"""Real people, recorded: the catalogue's `recordings`, fetched as models are (`make test` does)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from inference.audio.decode import decode
from inference.audio.pcm import pcm_from_float
from inference.audio.resample import resample
from inference.config import default_models_dir
from inference.interfaces import MICROPHONE_SAMPLE_RATE_HZ
from inference.models.store import ModelError, model_dir


@dataclass(frozen=True, slots=True)
class Recording:
    """`samples` are mono, -1 to 1, at `sample_rate_hz`; `path` is the file as its speaker might send it."""

    speaker: str
    language: str
    transcript: str
    path: Path
    samples: NDArray[np.float32]
    sample_rate_hz: int

    @property
    def pcm(self) -> bytes:
        return pcm_from_float(self.samples)

    @property
    def microphone_pcm(self) -> bytes:
        """As the microphone would bring it: PCM16 at 16 kHz."""
        return pcm_from_float(resample(self.samples, self.sample_rate_hz, MICROPHONE_SAMPLE_RATE_HZ))


#: Speaker, file, language, and what is said.
SNACK = "Six spoons of fresh snow peas, five thick slabs of blue cheese, and maybe a snack for her brother Bob."
RECORDINGS = (
    ("nature", "basic_ref_en.wav", "en", "Some call me nature, others call me mother nature."),
    ("taiyi", "basic_ref_zh.wav", "zh", "對，這就是我，萬人敬仰的太乙真人。"),
    ("main", "main.flac", "en", SNACK),
    ("country", "country.flac", "en", SNACK),
    (
        "town",
        "town.flac",
        "en",
        "The difference in the rainbow depends considerably upon the size of the drops, and the width of the colored "
        "band increases as the size of the drops increases.",
    ),
    (
        "kennedy",
        "jfk.wav",
        "en",
        "And so my fellow Americans, ask not what your country can do for you, ask what you can do for your country.",
    ),
)


def read_recordings() -> list[Recording]:
    """Return all of them. Skips the test where they have not been fetched; fails there in CI."""
    try:
        folder = model_dir(default_models_dir(os.environ), "recordings")
    except ModelError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"{error} --model recordings")
    return [_read(folder / name, speaker, language, transcript) for speaker, name, language, transcript in RECORDINGS]


def read_recording(speaker: str) -> Recording:
    return next(recording for recording in read_recordings() if recording.speaker == speaker)


def _read(path: Path, speaker: str, language: str, transcript: str) -> Recording:
    decoded = decode(path.read_bytes(), max_s=60)
    return Recording(speaker, language, transcript, path, decoded.samples, decoded.sample_rate_hz)
