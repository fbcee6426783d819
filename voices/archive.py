"""
The archive of a voice: a zip of `profile.json`, its recordings and its reference clip.

An import uses nothing but the name, the language and the recordings, which are checked as uploads are.
"""

from __future__ import annotations

import base64
import io
import json
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from voices.models import Consent, VoiceProfile

FORMAT = "avatar-voice"
VERSION = 1
MAX_RECORDINGS = 20
#: Larger than the longest recording at the highest rate that is stored, unpacked.
MAX_ENTRY_BYTES = 20 * 1024 * 1024
MAX_JSON_BYTES = 1024 * 1024
MAX_ARCHIVE_BYTES = 100 * 1024 * 1024
#: Of all recordings of a voice, so that every voice that is exported can be imported.
MAX_RECORDINGS_BYTES = MAX_ARCHIVE_BYTES - 4 * 1024 * 1024
_READING_BYTES = 64 * 1024
#: zipfile reads the directory at once, and makes an object of each entry.
_MAX_READ_BYTES = 128 * 1024
#: zipfile bounds the output of a read of these; 4 kB of bzip2 become 80 MB.
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


#: What zipfile raises for broken archives, and what reading the JSON does.
_NOT_OURS = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, NotImplementedError, RuntimeError),
    *(KeyError, TypeError, ValueError),
)


class Unreadable(Exception):
    """The file is not an exported voice, or is damaged."""


@dataclass(frozen=True, slots=True)
class Archive:
    """What is read of an exported voice."""

    name: str
    language: str
    #: Unpacked one at a time, lazily. Raises Unreadable.
    recordings: Iterator[bytes]


def write_archive(profile: VoiceProfile) -> bytes:
    """Return everything about a voice as a zip. Raises FileNotFoundError if a recording is gone."""
    file = io.BytesIO()
    # FLAC does not compress further.
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        recordings = []
        of_voice = profile.recordings.select_related("consent").oldest_first()
        for number, recording in enumerate(of_voice, start=1):
            name = f"recordings/{number:02}.flac"
            with recording.audio.open("rb") as audio:
                archive.writestr(name, audio.read())
            recordings.append(
                {
                    "file": name,
                    "consent": _describe_consent(recording.consent),
                    "duration_s": recording.duration_s,
                    "speech_s": recording.speech_s,
                    "snr_db": recording.snr_db,
                    "transcript": recording.transcript,
                    "created_at": recording.created_at.isoformat(),
                }
            )
        if profile.clip:
            with profile.clip.open("rb") as clip:
                archive.writestr("clip.flac", clip.read())
        archive.writestr("profile.json", json.dumps(_describe(profile, recordings), ensure_ascii=False, indent=2))
    return file.getvalue()


def _describe(profile: VoiceProfile, recordings: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "version": VERSION,
        "name": profile.name,
        "language": profile.language,
        "gender": profile.gender,
        "kind": profile.kind,
        "encoder": profile.encoder,
        "embedding": base64.b64encode(bytes(profile.embedding)).decode(),
        "engine_voice": profile.engine_voice,
        "style": base64.b64encode(bytes(profile.style)).decode(),
        "similarity": profile.best_similarity,
        "clip": {"file": "clip.flac", "transcript": profile.clip_transcript} if profile.clip else None,
        "consent": _describe_consent(profile.consent),
        "recordings": recordings,
        "created_at": profile.created_at.isoformat(),
    }


def _describe_consent(consent: Consent | None) -> dict[str, str] | None:
    """For information: an import needs a consent of its own."""
    if consent is None:
        return None
    return {
        "attestation": consent.attestation,
        "text": consent.text,
        "text_sha256": consent.text_sha256,
        "given_at": consent.given_at.isoformat(),
    }


def read_archive(data: bytes) -> Archive:
    """
    Read an exported voice; its recordings are unpacked lazily. Raises Unreadable.

    At most one recording is in memory, and together they are at most `MAX_RECORDINGS_BYTES`, whatever the file says.
    """
    with _unreadable_on_error():
        archive = zipfile.ZipFile(_ReadInPieces(data))
        entries = archive.infolist()
        names_in_zip = {entry.filename for entry in entries}
        if len(names_in_zip) < len(entries) or len(entries) > MAX_RECORDINGS + 2:
            raise Unreadable(f"{len(entries)} entries of {len(names_in_zip)} names")
        if any(entry.compress_type not in _COMPRESSIONS for entry in entries):
            raise Unreadable("a compression that is unpacked without a limit")
        described = json.loads(_read_entry(archive, "profile.json", MAX_JSON_BYTES))
        if not isinstance(described, dict) or described.get("format") != FORMAT:
            raise Unreadable("not a voice")
        if described.get("version") != VERSION:
            raise Unreadable(f"version {described.get('version')!r}")
        names = [str(each["file"]) for each in described["recordings"]]
        if not 1 <= len(names) <= MAX_RECORDINGS:
            raise Unreadable(f"{len(names)} recordings")
        if len(set(names)) < len(names):
            raise Unreadable("a recording is named twice")
    return Archive(str(described.get("name", "")), str(described.get("language", "")), _read_recordings(archive, names))


def _read_recordings(archive: zipfile.ZipFile, names: list[str]) -> Iterator[bytes]:
    left_bytes = MAX_RECORDINGS_BYTES
    for name in names:
        with _unreadable_on_error():
            content = _read_entry(archive, name, min(MAX_ENTRY_BYTES, left_bytes))
        left_bytes -= len(content)
        yield content


class _ReadInPieces(io.BytesIO):
    """A file that refuses large reads: the directory of a zip with a million entries is one."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            position = self.tell()
            size = self.seek(0, io.SEEK_END) - position
            self.seek(position)
        if size > _MAX_READ_BYTES:
            raise Unreadable(f"a read of {size} bytes")
        return super().read(size)


@contextmanager
def _unreadable_on_error() -> Iterator[None]:
    try:
        yield
    except _NOT_OURS as error:
        raise Unreadable(str(error)) from error


def _read_entry(archive: zipfile.ZipFile, name: str, most_bytes: int) -> bytes:
    content = io.BytesIO()
    with archive.open(name) as entry:
        # The size in the directory need not be true.
        while piece := entry.read(_READING_BYTES):
            content.write(piece)
            if content.tell() > most_bytes:
                raise Unreadable(f"{name} is larger than {most_bytes} bytes")
    return content.getvalue()
