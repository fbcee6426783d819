"""
The label of synthetic speech in audio files: which words, and a WAV that carries them. Imports no Django.

`trainedAlgorithmicMedia` is the term of IPTC's "digital source type" vocabulary for media made by a trained model.
"""

from __future__ import annotations

SOFTWARE = "AVATAR"
SYNTHETIC_COMMENT = "Synthetic speech. digitalSourceType=trainedAlgorithmicMedia"


def make_wav(pcm: bytes, sample_rate_hz: int, *, comment: str = SYNTHETIC_COMMENT) -> bytes:
    """
    Return a WAV of PCM16 mono with `comment` and the software in its INFO list.

    The list comes before the samples: many readers do not look for it behind them.
    """
    # Here, as few programs that know the words write files: PyAV and numpy take 0.2 s to import.
    from inference.audio.encode import encode_wav

    return encode_wav(pcm, sample_rate_hz, comment=comment, software=SOFTWARE)
