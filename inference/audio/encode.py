"""Encodes PCM16 mono as WAV, FLAC or Ogg/Opus. Blocks for milliseconds per second of audio: not for an event loop."""

from __future__ import annotations

import io
from typing import Literal

import av
import numpy as np
import soundfile

from inference.audio.pcm import float_from_pcm, pcm_from_float
from inference.audio.resample import resample

OPUS_BIT_RATE = 32_000
#: What libopus takes; other rates are converted to the highest.
OPUS_RATES_HZ = (8_000, 12_000, 16_000, 24_000, 48_000)


def encode_wav(pcm: bytes, sample_rate_hz: int, *, comment: str = "", software: str = "") -> bytes:
    """
    Return a WAV file.

    `comment` and `software` go into its INFO list (ICMT, ISFT), before the sound, where all readers look.
    """
    return _encode_with_soundfile(pcm, sample_rate_hz, "WAV", comment, software)


def encode_flac(pcm: bytes, sample_rate_hz: int, *, comment: str = "", software: str = "") -> bytes:
    """Return a FLAC file, lossless; `comment` and `software` become its Vorbis comments COMMENT and SOFTWARE."""
    return _encode_with_soundfile(pcm, sample_rate_hz, "FLAC", comment, software)


def _encode_with_soundfile(
    pcm: bytes, sample_rate_hz: int, file_format: Literal["WAV", "FLAC"], comment: str, software: str
) -> bytes:
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", sample_rate_hz, 1, format=file_format, subtype="PCM_16") as sound:
        if software:
            sound.software = software
        if comment:
            sound.comment = comment
        sound.write(np.frombuffer(pcm, "<i2"))
    return file.getvalue()


def encode_opus(pcm: bytes, sample_rate_hz: int, *, comment: str = "") -> bytes:
    """Return an Ogg/Opus file at 32 kbit/s; `comment` becomes its comment COMMENT."""
    rate = sample_rate_hz
    if rate not in OPUS_RATES_HZ:
        rate = OPUS_RATES_HZ[-1]
        pcm = pcm_from_float(resample(float_from_pcm(pcm), sample_rate_hz, rate))
    file = io.BytesIO()
    with av.open(file, mode="w", format="ogg") as container:
        if comment:
            container.metadata["comment"] = comment
        stream = container.add_stream("libopus", rate=rate, layout="mono")
        stream.bit_rate = OPUS_BIT_RATE
        stream.options = {"application": "voip", "vbr": "on"}
        frame = av.AudioFrame.from_ndarray(np.frombuffer(pcm, "<i2")[np.newaxis], format="s16", layout="mono")
        frame.sample_rate = rate
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()
