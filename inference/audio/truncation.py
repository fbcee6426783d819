"""
Whether an audio file is complete, where its decoder would not notice that the end is missing.

FFmpeg takes the length of a WAV file, and of an MP3 file without Xing's header, from the bytes that are there; so does
libsndfile with Ogg. All other files state their length, which `decode` compares with what it decoded.
"""

from __future__ import annotations

import struct


def is_complete_wav(data: bytes) -> bool:
    """Whether the data chunk (Microsoft's RIFF, chunk "data") ends within the file."""
    position = 12
    while position + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, position)
        if name == b"data":
            # A recorder that writes to a pipe cannot know: it writes 0 or the largest number.
            return size in (0, 0xFFFFFFFF) or position + 8 + size <= len(data)
        position += 8 + size + size % 2
    return False


def is_complete_ogg(data: bytes) -> bool:
    """Whether the last page (RFC 3533, section 6) is marked as the end of the stream and ends within the file."""
    last = data.rfind(b"OggS")
    segments = data[last + 26] if last + 26 < len(data) else None
    if segments is None:
        return False
    table = data[last + 27 : last + 27 + segments]
    is_end = bool(data[last + 5] & 4)
    return is_end and len(table) == segments and last + 27 + segments + sum(table) <= len(data)


def is_complete_mp3(data: bytes) -> bool:
    """Whether the last frame of layer III ends within the file."""
    position = _skip_id3(data)
    while (size := _measure_mp3_frame(data, position)) is not None:
        position += size
    return position <= len(data)


def _skip_id3(data: bytes) -> int:
    if data[:3] != b"ID3" or len(data) < 10:
        return 0
    # Four times seven bits (id3v2.4.0-structure, section 3.1).
    return 10 + (data[6] << 21 | data[7] << 14 | data[8] << 7 | data[9])


#: Kilobits a second by index, and samples a second, of MPEG 1 layer III; MPEG 2 and 2.5 have rates of their own.
_MP3_KBPS = (
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
)
_MP3_RATES_HZ = (44_100, 48_000, 32_000)


def _measure_mp3_frame(data: bytes, position: int) -> int | None:
    """Return the size of the frame of layer III that begins here; None if none does."""
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
