"""Encodes PCM16 mono as WAV, FLAC or Ogg/Opus. Blocks for milliseconds per second of audio: not for an event loop."""

from __future__ import annotations

import io
import struct

import av
import numpy as np
import soundfile

from inference.audio.pcm import float_from_pcm, pcm_from_float
from inference.audio.resample import resample
from inference.interfaces import BYTES_PER_SAMPLE

OPUS_BIT_RATE = 32_000
#: What libopus takes; other rates are converted to the highest.
OPUS_RATES_HZ = (8_000, 12_000, 16_000, 24_000, 48_000)


def encode_wav(pcm: bytes, sample_rate_hz: int, *, comment: str = "", software: str = "") -> bytes:
    """
    Return a WAV file with `comment` (ICMT) and `software` (ISFT) in its INFO list.

    The list comes before the samples: many readers do not look for it behind them. Raises ValueError for half a sample.
    """
    if len(pcm) % BYTES_PER_SAMPLE:
        raise ValueError("the size of PCM16 is a multiple of 2 bytes")
    # Not by libsndfile, which adds its own name to the software's.
    shape = struct.pack("<HHIIHH", 1, 1, sample_rate_hz, sample_rate_hz * BYTES_PER_SAMPLE, BYTES_PER_SAMPLE, 16)
    entries = [
        _make_chunk(name, text.encode() + b"\0") for name, text in ((b"ISFT", software), (b"ICMT", comment)) if text
    ]
    information = _make_chunk(b"LIST", b"INFO" + b"".join(entries)) if entries else b""
    return _make_chunk(b"RIFF", b"WAVE" + _make_chunk(b"fmt ", shape) + information + _make_chunk(b"data", pcm))


def _make_chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)


def encode_flac(pcm: bytes, sample_rate_hz: int, *, comment: str = "", software: str = "") -> bytes:
    """Return a FLAC file, lossless; `comment` and `software` become its Vorbis comments COMMENT and SOFTWARE."""
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", sample_rate_hz, 1, format="FLAC", subtype="PCM_16") as sound:
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
