"""Decodes uploaded audio: WAV, and the WebM of a browser's MediaRecorder."""

from __future__ import annotations

import asyncio
import io

import av

from inference.interfaces import MICROPHONE_SAMPLE_RATE_HZ
from realtime.call.utterance import BYTES_PER_MS, AudioDecodingError, AudioTooLong
from realtime.messages import AudioFormat

#: FFmpeg's demuxers and codecs: no other may read a client's bytes, whatever they look like.
_DEMUXERS = {AudioFormat.WAV: "wav", AudioFormat.WEBM: "matroska"}
_CODECS = {
    AudioFormat.WAV: ("pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_u8", "pcm_f32le", "pcm_f64le"),
    AudioFormat.WEBM: ("opus", "vorbis"),
}
DECODING_TIMEOUT_S = 30.0


async def decode_audio(data: bytes, kind: AudioFormat, max_ms: int) -> bytes:
    """
    Decode to PCM16 mono at 16 kHz, in a thread.

    Raises AudioDecodingError, and AudioTooLong as soon as more than `max_ms` have been decoded.
    """
    try:
        async with asyncio.timeout(DECODING_TIMEOUT_S):
            return await asyncio.to_thread(_decode, data, kind, max_ms)
    except TimeoutError:
        raise AudioDecodingError(f"not decoded within {DECODING_TIMEOUT_S:g} s") from None


def _decode(data: bytes, kind: AudioFormat, max_ms: int) -> bytes:
    pcm = bytearray()
    resampler = av.AudioResampler(format="s16", layout="mono", rate=MICROPHONE_SAMPLE_RATE_HZ)
    try:
        with av.open(io.BytesIO(data), mode="r", format=_DEMUXERS[kind]) as container:
            if not container.streams.audio:
                raise AudioDecodingError("no audio in it")
            stream = container.streams.audio[0]
            if stream.codec_context.name not in _CODECS[kind] and stream.codec_context.name != "libopus":
                raise AudioDecodingError(f"{stream.codec_context.name} in {kind} is not taken")
            for frame in container.decode(stream):
                _append(pcm, resampler.resample(frame), max_ms)
            _append(pcm, resampler.resample(None), max_ms)
    except (av.FFmpegError, ValueError) as error:
        raise AudioDecodingError(f"not {kind}: {error}") from error
    if not pcm:
        raise AudioDecodingError("no audio in it")
    return bytes(pcm)


def _append(pcm: bytearray, frames: list[av.AudioFrame], max_ms: int) -> None:
    for frame in frames:
        pcm += bytes(frame.planes[0])[: frame.samples * 2]
    if len(pcm) > max_ms * BYTES_PER_MS:
        raise AudioTooLong(f"more than {max_ms} ms")
