"""Sounds that pass for speech, and every container they may come in."""

from __future__ import annotations

import io

import av
import numpy as np
import numpy.typing as npt
import soundfile

from inference.audio.encode import encode_flac, encode_opus, encode_wav
from inference.audio.pcm import pcm_from_float

Samples = npt.NDArray[np.float32]

RATE_HZ = 24_000


def make_speech(
    seconds: float = 6.0, *, pitch_hz: float = 140.0, rate_hz: int = RATE_HZ, level: float = 0.4
) -> Samples:
    """Syllables of a buzz, four a second, with a breath after every eight; a quiet room around it."""
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    buzz = sum(np.sin(2 * np.pi * pitch_hz * n * t) / n for n in range(1, 12))
    syllables = np.clip(np.sin(2 * np.pi * 4 * t), 0.05, 1.0) * ((t % 2.5) < 2.0)
    room = np.random.default_rng(0).normal(scale=0.0005, size=len(t))
    return (level * buzz / np.abs(buzz).max() * syllables + room).astype(np.float32)


def encode(samples: Samples, container: str, *, rate_hz: int = RATE_HZ) -> bytes:
    """One of wav, mp3, flac, ogg (Opus), m4a (AAC), webm (Opus)."""
    if container in ("m4a", "webm"):
        return _encode_with_av(samples, container, rate_hz)
    if container == "mp3":
        file = io.BytesIO()
        soundfile.write(file, samples, rate_hz, format="MP3", subtype="MPEG_LAYER_III")
        return file.getvalue()
    encode_pcm = {"wav": encode_wav, "flac": encode_flac, "ogg": encode_opus}[container]
    return encode_pcm(pcm_from_float(samples), rate_hz)


def _encode_with_av(samples: Samples, container: str, rate_hz: int) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format={"m4a": "ipod", "webm": "webm"}[container]) as out:
        stream = out.add_stream({"m4a": "aac", "webm": "libopus"}[container], rate=48_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[np.newaxis, :], format="flt", layout="mono")
        frame.sample_rate = rate_hz
        resampler = av.AudioResampler(
            format=stream.codec_context.format.name, layout="mono", rate=48_000, frame_size=stream.frame_size or 960
        )
        for part in (frame, None):
            for piece in resampler.resample(part):
                out.mux(stream.encode(piece))
        out.mux(stream.encode(None))
    return file.getvalue()


CONTAINERS = ("wav", "mp3", "flac", "ogg", "m4a", "webm")
