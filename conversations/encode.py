"""Encodes PCM as turns' audio is stored: Ogg/Opus, or FLAC where it must be lossless. Imports no Django."""

from __future__ import annotations

from avatar_site.lib.synthetic_label import SYNTHETIC_COMMENT
from inference.audio.containers import Container, sniff_container

MEDIA_TYPES = {".ogg": "audio/ogg", ".flac": "audio/flac"}


def encode_audio(pcm: bytes, sample_rate_hz: int, *, audio_format: str, is_synthetic: bool) -> bytes:
    """Encode PCM16 mono as "opus" or "flac". Takes some milliseconds per second of audio: not for the event loop."""
    # Here, as few programs encode: PyAV and numpy take 0.2 s to import.
    from inference.audio.encode import encode_flac, encode_opus

    encode = encode_opus if audio_format == "opus" else encode_flac
    return encode(pcm, sample_rate_hz, comment=SYNTHETIC_COMMENT if is_synthetic else "")


def suffix_of(audio: bytes) -> str:
    """Return the suffix of an encoded file, by its first bytes."""
    return "ogg" if sniff_container(audio) is Container.OGG else "flac"
