"""Decodes uploaded audio: WAV, and the WebM of a browser's MediaRecorder."""

from __future__ import annotations

import asyncio

from inference.audio import decode as decoding
from inference.audio.containers import Container
from inference.audio.decode import decode
from inference.audio.pcm import pcm_from_float
from inference.interfaces import MICROPHONE_SAMPLE_RATE_HZ
from realtime.call.utterance import AudioDecodingError, AudioTooLong
from realtime.messages import AudioFormat

_CONTAINERS = {AudioFormat.WAV: Container.WAV, AudioFormat.WEBM: Container.WEBM}


async def decode_audio(data: bytes, kind: AudioFormat, max_ms: int) -> bytes:
    """
    Decode to PCM16 mono at 16 kHz, in a thread. The runner bounds the time: `CallSettings.decode_s`.

    Raises AudioDecodingError, and AudioTooLong as soon as more than `max_ms` have been decoded.
    """
    return await asyncio.to_thread(_decode, data, kind, max_ms)


def _decode(data: bytes, kind: AudioFormat, max_ms: int) -> bytes:
    # A recorder that was stopped may leave the file without its end: what was recorded is heard.
    try:
        decoded = decode(
            data,
            max_s=max_ms / 1000,
            accepted=(_CONTAINERS[kind],),
            sample_rate_hz=MICROPHONE_SAMPLE_RATE_HZ,
            may_be_truncated=True,
        )
    except decoding.AudioTooLong as error:
        raise AudioTooLong(f"more than {max_ms} ms") from error
    except decoding.AudioError as error:
        raise AudioDecodingError(f"not {kind}: {error}") from error
    return pcm_from_float(decoded.samples)
