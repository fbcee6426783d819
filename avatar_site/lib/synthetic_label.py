"""
The label of synthetic speech in audio files: which words, and a WAV that carries them. Imports no Django.

`trainedAlgorithmicMedia` is the term of IPTC's "digital source type" vocabulary for media made by a trained model.
"""

from __future__ import annotations

import struct

SOFTWARE = "AVATAR"
SYNTHETIC_COMMENT = "Synthetic speech. digitalSourceType=trainedAlgorithmicMedia"


def make_wav(pcm: bytes, sample_rate_hz: int, *, comment: str = SYNTHETIC_COMMENT) -> bytes:
    """
    Return a WAV of PCM16 mono with `comment` and the software in its INFO list.

    The list comes before the samples: many readers do not look for it behind them.
    """
    information = b"INFO" + _chunk(b"ISFT", SOFTWARE.encode() + b"\0") + _chunk(b"ICMT", comment.encode() + b"\0")
    shape = struct.pack("<HHIIHH", 1, 1, sample_rate_hz, sample_rate_hz * 2, 2, 16)
    body = b"WAVE" + _chunk(b"fmt ", shape) + _chunk(b"LIST", information) + _chunk(b"data", pcm)
    return _chunk(b"RIFF", body)


def _chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)
