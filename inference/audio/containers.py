"""Names the container of an audio file by its first bytes. Imports nothing but the standard library."""

from __future__ import annotations

from enum import StrEnum

#: Files that are neither a known container nor raw audio: AIFF, Sun audio, Core Audio, AMR, MIDI.
_FOREIGN_SIGNATURES = (b"FORM", b".snd", b"caff", b"#!AMR", b"MThd")


class Container(StrEnum):
    WAV = "wav"
    MP3 = "mp3"
    FLAC = "flac"
    OGG = "ogg"
    M4A = "m4a"
    WEBM = "webm"


def sniff_container(data: bytes) -> Container | None:
    """Name the container by its signature. None: another file, raw audio, or MP3 without an ID3 tag."""
    if data[:4] == b"RIFF":
        return Container.WAV
    if data[:4] == b"fLaC":
        return Container.FLAC
    if data[:4] == b"OggS":
        return Container.OGG
    if data[:4] == b"\x1a\x45\xdf\xa3":
        return Container.WEBM
    if data[4:8] == b"ftyp":
        return Container.M4A
    if data[:3] == b"ID3":
        return Container.MP3
    return None


def has_foreign_signature(data: bytes) -> bool:
    """Whether the first bytes are those of an audio file in a container that is never accepted."""
    return data.startswith(_FOREIGN_SIGNATURES)


def starts_with_mpeg_frame(data: bytes) -> bool:
    """Whether this may be MP3 without an ID3 tag. Raw audio may begin with the same bits: ask where there is none."""
    return len(data) > 2 and data[0] == 0xFF and data[1] & 0xE0 == 0xE0 and data[1] & 0x06 != 0
