"""Encodes PCM as turns' audio is stored: Ogg/Opus, or FLAC where it must be lossless. Imports no Django."""

from __future__ import annotations

import io

import av
import numpy as np
import soundfile

from avatar_site.lib.synthetic_label import SYNTHETIC_COMMENT

OPUS_BIT_RATE = 32_000
#: The rates of libopus; any other is resampled to the highest.
_OPUS_RATES_HZ = (8_000, 12_000, 16_000, 24_000, 48_000)

MEDIA_TYPES = {".ogg": "audio/ogg", ".flac": "audio/flac"}


def encode_audio(pcm: bytes, sample_rate_hz: int, *, audio_format: str, is_synthetic: bool) -> bytes:
    """Encode PCM16 mono as "opus" or "flac". Takes some milliseconds per second of audio: not for the event loop."""
    encode = _encode_opus if audio_format == "opus" else _encode_flac
    return encode(pcm, sample_rate_hz, SYNTHETIC_COMMENT if is_synthetic else "")


def _encode_opus(pcm: bytes, sample_rate_hz: int, comment: str) -> bytes:
    file = io.BytesIO()
    with av.open(file, mode="w", format="ogg") as container:
        if comment:
            container.metadata["comment"] = comment
        rate = sample_rate_hz if sample_rate_hz in _OPUS_RATES_HZ else _OPUS_RATES_HZ[-1]
        stream = container.add_stream("libopus", rate=rate, layout="mono")
        stream.bit_rate = OPUS_BIT_RATE
        stream.options = {"application": "voip", "vbr": "on"}
        resampler = av.AudioResampler(format="s16", layout="mono", rate=rate)
        frame = av.AudioFrame.from_ndarray(np.frombuffer(pcm, "<i2")[None], format="s16", layout="mono")
        frame.sample_rate = sample_rate_hz
        for resampled in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(resampled))
        container.mux(stream.encode(None))
    return file.getvalue()


def _encode_flac(pcm: bytes, sample_rate_hz: int, comment: str) -> bytes:
    file = io.BytesIO()
    with soundfile.SoundFile(
        file, "w", samplerate=sample_rate_hz, channels=1, format="FLAC", subtype="PCM_16"
    ) as writer:
        if comment:
            writer.comment = comment
        writer.write(np.frombuffer(pcm, dtype="<i2"))
    return file.getvalue()


def suffix_of(audio: bytes) -> str:
    """Return the suffix of an encoded file, by its first bytes."""
    return "ogg" if audio.startswith(b"OggS") else "flac"
