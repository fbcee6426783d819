"""
What somebody uploaded, made into samples, or refused.

Decided by content: the first bytes name the container, a real decode has to agree, and nothing else may be opened,
whatever the file is called. Knows no Django.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import av
import numpy as np
import numpy.typing as npt
import soundfile

Samples = npt.NDArray[np.float32]

MIN_SAMPLE_RATE_HZ = 8_000
MAX_SAMPLE_RATE_HZ = 192_000
#: What is kept has no more than this: speech has nothing above 24 kHz.
KEPT_SAMPLE_RATE_HZ = 48_000
MAX_CHANNELS = 8
#: How much less than its header promises a recording may hold: encoders count their padding differently.
TOLERATED_LOSS_S = 0.5
TOLERATED_LOSS_SHARE = 0.03
_BLOCK_FRAMES = 65_536


class Container(StrEnum):
    WAV = "wav"
    MP3 = "mp3"
    FLAC = "flac"
    OGG = "ogg"
    M4A = "m4a"
    WEBM = "webm"


#: libsndfile's names of the containers and of what may be in them.
_SOUNDFILE_FORMATS = {
    Container.WAV: {"WAV", "WAVEX"},
    Container.MP3: {"MP3", "MPEG"},
    Container.FLAC: {"FLAC"},
    Container.OGG: {"OGG"},
}
_SOUNDFILE_SUBTYPES = {
    *("PCM_16", "PCM_24", "PCM_32", "PCM_U8", "PCM_S8", "FLOAT", "DOUBLE", "ULAW", "ALAW"),
    *("MPEG_LAYER_I", "MPEG_LAYER_II", "MPEG_LAYER_III", "VORBIS", "OPUS"),
}
#: FFmpeg's demuxers and decoders. Its own guess would also open playlists, which name other files and hosts.
_DEMUXERS = {Container.M4A: "mov", Container.WEBM: "matroska"}
_CODECS = {Container.M4A: {"aac", "alac", "mp3", "mp3float"}, Container.WEBM: {"opus", "libopus", "vorbis"}}
#: FFmpeg's option: open nothing beside what it was handed.
_NO_PROTOCOLS = {"protocol_whitelist": "none"}


class Unsupported(Exception):
    """It is not one of the containers that are taken, or holds something else than they hold as a rule."""


class Damaged(Exception):
    """It began as a recording and could not be read to its end."""


class TooLong(Exception):
    """There is more of it than may be decoded."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """One channel, -1 to 1."""

    samples: Samples
    sample_rate_hz: int
    container: Container

    @property
    def duration_s(self) -> float:
        return len(self.samples) / self.sample_rate_hz


def find_container(data: bytes) -> Container | None:
    """Name the container by its first bytes."""
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        return Container.WAV
    if data[:4] == b"fLaC":
        return Container.FLAC
    if data[:4] == b"OggS":
        return Container.OGG
    if data[:4] == b"\x1a\x45\xdf\xa3":
        return Container.WEBM
    if data[4:8] == b"ftyp":
        return Container.M4A
    is_mpeg_audio = len(data) > 2 and data[0] == 0xFF and data[1] & 0xE0 == 0xE0 and data[1] & 0x06 != 0
    if data[:3] == b"ID3" or is_mpeg_audio:
        return Container.MP3
    return None


def decode(data: bytes, *, max_s: float) -> Decoded:
    """
    Decode to one channel, at the rate it has or at 48 kHz if it has more.

    Takes memory for `max_s` and no more, however much comes out of it. Raises Unsupported, Damaged, and TooLong.
    """
    container = find_container(data)
    if container is None:
        raise Unsupported("no container that is taken")
    if not _is_whole(data, container):
        raise Damaged(f"{container} ends too early")
    if container in _DEMUXERS:
        samples, rate = _decode_with_av(data, container, max_s)
    else:
        samples, rate = _decode_with_soundfile(data, container, max_s)
    if not len(samples):
        raise Damaged(f"{container} without audio")
    samples = np.clip(np.nan_to_num(samples, nan=0.0, posinf=1.0, neginf=-1.0), -1.0, 1.0)
    if rate > KEPT_SAMPLE_RATE_HZ:
        samples, rate = resample(samples, rate, KEPT_SAMPLE_RATE_HZ), KEPT_SAMPLE_RATE_HZ
    return Decoded(samples, rate, container)


def resample(samples: Samples, from_hz: int, to_hz: int) -> Samples:
    if from_hz == to_hz:
        return samples
    resampler = av.AudioResampler(format="flt", layout="mono", rate=to_hz)
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[np.newaxis, :]), format="flt", layout="mono")
    frame.sample_rate = from_hz
    pieces = [piece.to_ndarray()[0] for part in (frame, None) for piece in resampler.resample(part)]
    return np.concatenate(pieces).astype(np.float32) if pieces else np.zeros(0, np.float32)


def to_pcm(samples: Samples) -> bytes:
    """PCM16 little-endian."""
    return _to_int16(samples).astype("<i2").tobytes()


def _to_int16(samples: Samples) -> npt.NDArray[np.int16]:
    # By 32768, as decoders divide: what was 16 bits comes back as it was.
    return np.clip(np.round(samples * 32768.0), -32768, 32767).astype(np.int16)


def from_pcm(pcm: bytes) -> Samples:
    return (np.frombuffer(pcm, "<i2") / 32768).astype(np.float32)


def encode_flac(samples: Samples, sample_rate_hz: int, *, comment: str = "") -> bytes:
    """FLAC, 16 bits; `comment` becomes its Vorbis comments COMMENT and SOFTWARE."""
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", sample_rate_hz, 1, format="FLAC", subtype="PCM_16") as sound:
        if comment:
            sound.software = "AVATAR"
            sound.comment = comment
        sound.write(_to_int16(samples))
    return file.getvalue()


def decode_flac(data: bytes) -> tuple[Samples, int]:
    """What `encode_flac` made."""
    samples, rate = soundfile.read(io.BytesIO(data), dtype="float32")
    return samples, int(rate)


# --- whole files ---


def _is_whole(data: bytes, container: Container) -> bool:
    """Whether the container says itself that something is missing. The decoders would make do with what there is."""
    match container:
        case Container.WAV:
            return _is_whole_wav(data)
        case Container.OGG:
            return _is_whole_ogg(data)
        case Container.WEBM:
            return _is_whole_webm(data)
        case Container.MP3:
            return _is_whole_mp3(data)
    return True


def _is_whole_wav(data: bytes) -> bool:
    position = 12
    while position + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, position)
        if name == b"data":
            # A recorder that writes to a pipe cannot know: it writes 0 or the largest number.
            return size in (0, 0xFFFFFFFF) or position + 8 + size <= len(data)
        position += 8 + size + size % 2
    return False


def _is_whole_ogg(data: bytes) -> bool:
    """Whether the last page is there to its end."""
    last = data.rfind(b"OggS")
    segments = data[last + 26] if last + 26 < len(data) else None
    if segments is None:
        return False
    table = data[last + 27 : last + 27 + segments]
    is_end = bool(data[last + 5] & 4)
    return is_end and len(table) == segments and last + 27 + segments + sum(table) <= len(data)


def _is_whole_mp3(data: bytes) -> bool:
    """Whether the last frame is there to its end, and as many bytes as the first one promises (Xing's header)."""
    position = _skip_id3(data)
    first = position
    while (size := _measure_mp3_frame(data, position)) is not None:
        if position == first:
            mark = max(data.find(b"Xing", first, first + size), data.find(b"Info", first, first + size))
            if mark > 0 and data[mark + 7] & 2:
                promised = int.from_bytes(data[mark + (12 if data[mark + 7] & 1 else 8) :][:4], "big")
                if promised - size > len(data) - first:
                    return False
        position += size
    return position <= len(data)


def _skip_id3(data: bytes) -> int:
    if data[:3] != b"ID3" or len(data) < 10:
        return 0
    # Four times seven bits.
    return 10 + (data[6] << 21 | data[7] << 14 | data[8] << 7 | data[9])


#: Kilobits a second by index, and samples a second, of MPEG 1 layer III; MPEG 2 and 2.5 have rates of their own.
_MP3_KBPS = (
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
)
_MP3_RATES_HZ = (44_100, 48_000, 32_000)


def _measure_mp3_frame(data: bytes, position: int) -> int | None:
    """How long the frame of MPEG layer III is that begins here; None if none does (of other layers, none is known)."""
    header = data[position : position + 4]
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE6 != 0xE2:
        return None
    version, bitrate, rate = header[1] >> 3 & 3, header[2] >> 4, header[2] >> 2 & 3
    if version == 1 or rate == 3 or bitrate in (0, 15):
        return None
    is_first_version = version == 3
    rate_hz = _MP3_RATES_HZ[rate] >> (0 if is_first_version else 1 if version == 2 else 2)
    samples = 1152 if is_first_version else 576
    return samples // 8 * _MP3_KBPS[not is_first_version][bitrate] * 1000 // rate_hz + (header[2] >> 1 & 1)


def _is_whole_webm(data: bytes) -> bool:
    """Whether the segment ends within the file. Recorders in browsers write none of the sizes, and then it may."""
    position = 0
    while position < len(data):
        identifier, position = _read_ebml_number(data, position, keeps_marker=True)
        size, position = _read_ebml_number(data, position, keeps_marker=False)
        if identifier is None or size is None:
            return identifier == 0x18538067
        if position + size > len(data):
            return False
        position += size
    return True


def _read_ebml_number(data: bytes, position: int, *, keeps_marker: bool) -> tuple[int | None, int]:
    """A number of EBML (RFC 8794, section 4), and where it ends; None if it is unknown or not there."""
    if position >= len(data) or not data[position]:
        return None, len(data)
    length = 9 - data[position].bit_length()
    value = int.from_bytes(data[position : position + length], "big")
    mask = (1 << 7 * length) - 1
    if not keeps_marker:
        value &= mask
        if value == mask:
            return None, position + length
    return value, position + length


# --- decoders ---


def _decode_with_soundfile(data: bytes, container: Container, max_s: float) -> tuple[Samples, int]:
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as sound:
            if sound.format not in _SOUNDFILE_FORMATS[container] or sound.subtype not in _SOUNDFILE_SUBTYPES:
                raise Unsupported(f"{sound.format} {sound.subtype} in {container}")
            _check_shape(sound.samplerate, sound.channels)
            promised = sound.frames
            blocks = sound.blocks(_BLOCK_FRAMES, dtype="float32", always_2d=True)
            samples = _collect((_mix_down(block.T) for block in blocks), max_frames=round(max_s * sound.samplerate))
            _check_length(len(samples), promised, sound.samplerate, container)
            return samples, sound.samplerate
    except soundfile.LibsndfileError as error:
        raise Damaged(f"{container}: {error}") from error


def _decode_with_av(data: bytes, container: Container, max_s: float) -> tuple[Samples, int]:
    try:
        with av.open(io.BytesIO(data), mode="r", format=_DEMUXERS[container], options=_NO_PROTOCOLS) as opened:
            if not opened.streams.audio:
                raise Unsupported(f"{container} without sound")
            stream = opened.streams.audio[0]
            if stream.codec_context.name not in _CODECS[container]:
                raise Unsupported(f"{stream.codec_context.name} in {container}")
            rate, channels = stream.codec_context.sample_rate, stream.codec_context.channels
            _check_shape(rate, channels)
            samples = _collect(_frames_of(opened, stream, rate), max_frames=round(max_s * rate))
            if stream.duration and stream.time_base:
                _check_length(len(samples), round(float(stream.duration * stream.time_base) * rate), rate, container)
            elif opened.duration:
                _check_length(len(samples), round(opened.duration / av.time_base * rate), rate, container)
            return samples, rate
    except (av.FFmpegError, ValueError) as error:
        raise Damaged(f"{container}: {error}") from error


def _frames_of(opened: av.container.InputContainer, stream: av.AudioStream, rate: int) -> Iterator[Samples]:
    # One format and rate, even if the stream changes them on its way.
    resampler = av.AudioResampler(format="fltp", rate=rate)
    for frame in opened.decode(stream):
        for same in resampler.resample(frame):
            yield _mix_down(same.to_ndarray().astype(np.float32, copy=False))
    for same in resampler.resample(None):
        yield _mix_down(same.to_ndarray().astype(np.float32, copy=False))


def _mix_down(channels: npt.NDArray[np.float32]) -> Samples:
    """Channels (rows) into one. Where they would cancel each other out, the loudest alone."""
    if len(channels) == 1:
        return np.ascontiguousarray(channels[0], dtype=np.float32)
    mixed = channels.mean(axis=0, dtype=np.float32)
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
            raise TooLong(f"more than {max_frames} samples")
        kept.append(block)
    return np.concatenate(kept) if kept else np.zeros(0, np.float32)


def _check_shape(sample_rate_hz: int, channels: int) -> None:
    if not MIN_SAMPLE_RATE_HZ <= sample_rate_hz <= MAX_SAMPLE_RATE_HZ or not 1 <= channels <= MAX_CHANNELS:
        raise Unsupported(f"{sample_rate_hz} Hz, {channels} channels")


def _check_length(count: int, promised: int, sample_rate_hz: int, container: Container) -> None:
    tolerated = max(TOLERATED_LOSS_S * sample_rate_hz, TOLERATED_LOSS_SHARE * promised)
    if promised < 2**62 and count < promised - tolerated:
        raise Damaged(f"{container}: {count} of {promised} samples")
