"""
Decodes audio files to mono float samples, or refuses them.

The first bytes name the container, and only that container's demuxer and codecs open the file, whatever it is called:
FFmpeg's own probing would also open playlists, which name other files and hosts.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

from inference.audio.containers import Container, sniff_container, starts_with_mpeg_frame
from inference.audio.pcm import Samples
from inference.audio.resample import resample
from inference.audio.truncation import is_complete_mp3, is_complete_ogg, is_complete_wav

MIN_SAMPLE_RATE_HZ = 8_000
MAX_SAMPLE_RATE_HZ = 192_000
#: Higher rates are converted to it: speech has nothing above 24 kHz.
MAX_KEPT_SAMPLE_RATE_HZ = 48_000
MAX_CHANNELS = 8
#: How much less than its header states a file may hold: encoders count their padding differently.
TOLERATED_LOSS_S = 0.5
TOLERATED_LOSS_SHARE = 0.03
_BLOCK_FRAMES = 65_536


#: libsndfile's names of the containers and of the codecs in them.
_SOUNDFILE_FORMATS = {Container.FLAC: {"FLAC"}, Container.OGG: {"OGG"}}
_SOUNDFILE_SUBTYPES = {"PCM_16", "PCM_24", "PCM_S8", "VORBIS", "OPUS"}
#: FFmpeg's demuxers and decoders. WAV and MP3 too: libsndfile hears nothing in a WAV whose recorder left the sizes 0,
#: and its libmpg123 fills what is missing with silence.
_DEMUXERS = {Container.WAV: "wav", Container.MP3: "mp3", Container.M4A: "mov", Container.WEBM: "matroska"}
_CODECS = {
    Container.WAV: {
        *("pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_f64le", "pcm_alaw", "pcm_mulaw"),
    },
    Container.MP3: {"mp1", "mp1float", "mp2", "mp2float", "mp3", "mp3float"},
    Container.M4A: {"aac", "alac", "mp3", "mp3float"},
    Container.WEBM: {"opus", "libopus", "vorbis"},
}
#: FFmpeg's option: open nothing but the file itself.
_NO_PROTOCOLS = {"protocol_whitelist": "none"}
_IS_COMPLETE: dict[Container, Callable[[bytes], bool]] = {
    Container.WAV: is_complete_wav,
    Container.OGG: is_complete_ogg,
    Container.MP3: is_complete_mp3,
}


class AudioError(Exception):
    """An audio file cannot be decoded. Raised as one of the following."""


class UnsupportedAudio(AudioError):
    """The file is in no accepted container, or holds something that such containers do not hold as a rule."""


class DamagedAudio(AudioError):
    """The file began as audio and could not be read to its end."""


class AudioTooLong(AudioError):
    """The file holds more audio than may be decoded."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """One channel, -1 to 1."""

    samples: Samples
    sample_rate_hz: int
    container: Container

    @property
    def duration_s(self) -> float:
        return len(self.samples) / self.sample_rate_hz


def decode(
    data: bytes,
    *,
    max_s: float,
    accepted: Collection[Container] = tuple(Container),
    sample_rate_hz: int | None = None,
    may_be_truncated: bool = False,
) -> Decoded:
    """
    Decode to one channel, at `sample_rate_hz`, or else at the rate it has, 48 kHz at most.

    Takes memory for `max_s` and no more, however much comes out of the file. A file whose end is missing is refused
    unless it `may_be_truncated`. Raises UnsupportedAudio, DamagedAudio, AudioTooLong.
    """
    container = sniff_container(data) or (Container.MP3 if starts_with_mpeg_frame(data) else None)
    if container not in accepted or container is None:
        raise UnsupportedAudio(f"{container or 'no known container'}: expected {', '.join(sorted(accepted))}")
    is_complete = _IS_COMPLETE.get(container)
    if not may_be_truncated and is_complete is not None and not is_complete(data):
        raise DamagedAudio(f"{container} ends too early")
    decode_container = _decode_with_av if container in _DEMUXERS else _decode_with_soundfile
    samples, rate, stated = decode_container(data, container, max_s)
    if not len(samples):
        raise DamagedAudio(f"{container} without audio")
    if not may_be_truncated:
        _check_length(len(samples), stated, rate, container)
    samples = np.clip(np.nan_to_num(samples, nan=0.0, posinf=1.0, neginf=-1.0), -1.0, 1.0)
    wanted_hz = sample_rate_hz or min(rate, MAX_KEPT_SAMPLE_RATE_HZ)
    return Decoded(resample(samples, rate, wanted_hz), wanted_hz, container)


def _decode_with_soundfile(data: bytes, container: Container, max_s: float) -> tuple[Samples, int, int]:
    """Return the samples, their rate, and how many there are according to the file."""
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as sound:
            if sound.format not in _SOUNDFILE_FORMATS[container] or sound.subtype not in _SOUNDFILE_SUBTYPES:
                raise UnsupportedAudio(f"{sound.format} {sound.subtype} in {container}")
            _check_shape(sound.samplerate, sound.channels)
            blocks = sound.blocks(_BLOCK_FRAMES, dtype="float32", always_2d=True)
            samples = _collect((_mix_down(block.T) for block in blocks), max_frames=round(max_s * sound.samplerate))
            return samples, sound.samplerate, sound.frames
    except soundfile.LibsndfileError as error:
        raise DamagedAudio(f"{container}: {error}") from error


def _decode_with_av(data: bytes, container: Container, max_s: float) -> tuple[Samples, int, int]:
    """Return the samples, their rate, and how many there are according to the file; 0 if it does not say."""
    try:
        with av.open(io.BytesIO(data), mode="r", format=_DEMUXERS[container], options=_NO_PROTOCOLS) as opened:
            if not opened.streams.audio:
                raise UnsupportedAudio(f"{container} without sound")
            stream = opened.streams.audio[0]
            codec = stream.codec_context
            if codec is None:  # the index is cut off
                raise DamagedAudio(f"{container}: no codec is named")
            if codec.name not in _CODECS[container]:
                raise UnsupportedAudio(f"{codec.name} in {container}")
            rate = codec.sample_rate
            _check_shape(rate, codec.channels)
            samples = _collect(_read_blocks(opened, stream, rate), max_frames=round(max_s * rate))
            if stream.duration and stream.time_base:
                return samples, rate, round(float(stream.duration * stream.time_base) * rate)
            return samples, rate, round((opened.duration or 0) / av.time_base * rate)
    except (av.FFmpegError, ValueError) as error:
        raise DamagedAudio(f"{container}: {error}") from error


def _read_blocks(opened: av.container.InputContainer, stream: av.AudioStream, rate: int) -> Iterator[Samples]:
    # One format and rate, even if the stream changes them in the middle.
    normaliser = av.AudioResampler(format="fltp", rate=rate)
    for frame in opened.decode(stream):
        for normal in normaliser.resample(frame):
            yield _mix_down(normal.to_ndarray().astype(np.float32, copy=False))
    for normal in normaliser.resample(None):
        yield _mix_down(normal.to_ndarray().astype(np.float32, copy=False))


def _mix_down(channels: NDArray[np.float32]) -> Samples:
    """Average the channels (rows). Where they would cancel each other out, return the loudest alone."""
    if len(channels) == 1:
        return np.ascontiguousarray(channels[0], dtype=np.float32)
    mixed: Samples = channels.mean(axis=0, dtype=np.float32)
    energies = np.square(channels).sum(axis=1)
    if np.square(mixed).sum() < energies.max() / 16:
        return np.ascontiguousarray(channels[int(energies.argmax())], dtype=np.float32)
    return mixed


def _collect(blocks: Iterator[Samples], *, max_frames: int) -> Samples:
    kept: list[Samples] = []
    count = 0
    for block in blocks:
        count += len(block)
        if count > max_frames:
            raise AudioTooLong(f"more than {max_frames} samples")
        kept.append(block)
    return np.concatenate(kept) if kept else np.zeros(0, np.float32)


def _check_shape(sample_rate_hz: int, channels: int) -> None:
    if not MIN_SAMPLE_RATE_HZ <= sample_rate_hz <= MAX_SAMPLE_RATE_HZ or not 1 <= channels <= MAX_CHANNELS:
        raise UnsupportedAudio(f"{sample_rate_hz} Hz, {channels} channels")


def _check_length(count: int, stated: int, sample_rate_hz: int, container: Container) -> None:
    tolerated = max(TOLERATED_LOSS_S * sample_rate_hz, TOLERATED_LOSS_SHARE * stated)
    # libsndfile states 2**63 - 1 where it does not know.
    if stated < 2**62 and count < stated - tolerated:
        raise DamagedAudio(f"{container}: {count} of {stated} samples")
