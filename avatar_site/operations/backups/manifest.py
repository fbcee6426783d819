"""
The manifest of a backup: its files, its source, and their encoding. Values only.

Files of a backup called NAME in a target:

    manifests/NAME.json                 the manifest, written last: a backup without one does not exist
    manifests/NAME.verified.json        the last verification, see `VerificationRecord`
    db/NAME.sqlite3.gz or NAME.pgdump   the database
    audio/NAME.index.json.gz            `AudioIndex`: the file names in the storage, each with its content's SHA-256
    audio/NAME.objects.json.gz          `ObjectList`: the objects that they are in; readable without the key
    audio/objects/ab/abcdef…[.gz]       contents, by their SHA-256; shared by all backups. The key of an encrypted one
                                        has a mark of its recipients as well: abcdef….1234abcd.gz.age

Encrypted files have `.age` appended to their names; manifests, records and lists of objects are never encrypted.
"""

from __future__ import annotations

import datetime as dt
import re
import secrets
from collections.abc import Mapping
from typing import Literal

import msgspec

FORMAT = 1

#: A name has its time in it: names sort by age. Anything else is not one, `../` least of all.
NAME = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{4}")
SHA256 = re.compile(r"[0-9a-f]{64}")
#: The key of an object: the SHA-256 of its content, a mark of its recipients if it is encrypted, its packing.
OBJECT_KEY = re.compile(
    r"audio/objects/(?P<folder>[0-9a-f]{2})/(?P<digest>(?P=folder)[0-9a-f]{62})(\.[0-9a-f]{8})?(\.gz)?(\.age)?"
)

Reason = Literal["manual", "nightly", "before-migration", "before-restore", "before-upgrade"]


class BadManifest(Exception):
    """A manifest, index or record that cannot be read. The message names the defect."""


class Member(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of a backup: as it is stored, and as it is once decrypted and decompressed."""

    key: str
    size_bytes: int
    sha256: str
    content_bytes: int
    content_sha256: str


class AudioPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The audio of a backup, in figures; the files themselves are in its index."""

    index: Member
    objects: Member
    file_count: int
    content_bytes: int
    #: Names that a row had when the backup was made, whose file was missing then.
    missing: tuple[str, ...] = ()


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A backup. A part that was left out (`--only`) is None."""

    name: str
    #: When the snapshot of the database was taken, in UTC: transactions committed later are not in it.
    taken_at: dt.datetime
    reason: Reason
    #: Of the product that made it, and the newest migration of each app.
    version: str
    build: str
    schema: Mapping[str, str]
    vendor: Literal["sqlite", "postgresql"]
    #: Rows of each table; without the shadow tables of FTS5, logins, and the cache.
    row_counts: Mapping[str, int]
    database: Member | None = None
    audio: AudioPart | None = None
    #: Public keys that it is encrypted to. Empty: it is not.
    recipients: tuple[str, ...] = ()
    #: Role to engine and model, as the inference process reported them; empty if it did not run.
    engines: Mapping[str, str] = {}
    format: int = FORMAT

    @property
    def is_encrypted(self) -> bool:
        return bool(self.recipients)


class IndexedFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file in the storage, by name, and which object has its content."""

    name: str
    content_bytes: int
    content_sha256: str


class StoredObject(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An object of `audio/objects/`: its key, as it is stored, and the SHA-256 of its content."""

    key: str
    size_bytes: int
    sha256: str
    content_sha256: str


class VerificationRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The result of restoring a backup into a scratch folder. Replaced by the next verification."""

    name: str
    verified_at: dt.datetime
    took_s: float
    #: The defect that was found; empty if there is none.
    problem: str = ""
    #: It is encrypted and no key was at hand: stored files were compared with their checksums, nothing was restored.
    is_checksum_only: bool = False
    #: When restoring it last succeeded, by this verification or by an earlier one.
    restored_at: dt.datetime | None = None


def make_name(taken_at: dt.datetime) -> str:
    return f"{taken_at.astimezone(dt.UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"


def is_name(text: str) -> bool:
    return NAME.fullmatch(text) is not None


def is_stored_name(text: str) -> bool:
    """Return whether a file in the storage may have this name: a path, which leads nowhere else."""
    return not {"", ".", ".."} & set(text.split("/")) and not set("\\\0") & set(text)


def encode(value: msgspec.Struct | list[IndexedFile] | list[StoredObject]) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n"


def decode_manifest(data: bytes) -> Manifest:
    """Raises BadManifest, also for one of a newer format and for one whose keys are not its own."""
    try:
        outline = msgspec.json.decode(data)
        if isinstance(outline, dict) and isinstance(outline.get("format"), int) and outline["format"] > FORMAT:
            raise BadManifest(f"it is of format {outline['format']}, made by a newer AVATAR; this one reads {FORMAT}")
        manifest = msgspec.json.decode(data, type=Manifest)
    except msgspec.MsgspecError as error:
        raise BadManifest(str(error)) from error
    if not is_name(manifest.name):
        raise BadManifest(f"{manifest.name!r} is not the name of a backup")
    members = [manifest.database] if manifest.database else []
    if manifest.audio:
        members += [manifest.audio.index, manifest.audio.objects]
    for member in members:
        if not re.fullmatch(rf"(db|audio)/{manifest.name}(\.[a-z0-9]+)+", member.key):
            raise BadManifest(f"{member.key!r} is not a file of backup {manifest.name}")
    return manifest


def decode_index(data: bytes) -> list[IndexedFile]:
    """Raises BadManifest, also for a name that leads out of the storage."""
    try:
        files = msgspec.json.decode(data, type=list[IndexedFile])
    except msgspec.MsgspecError as error:
        raise BadManifest(str(error)) from error
    for file in files:
        if not is_stored_name(file.name):
            raise BadManifest(f"{file.name!r} is not the name of a stored file")
        if not SHA256.fullmatch(file.content_sha256):
            raise BadManifest(f"{file.name!r} has no SHA-256")
    return files


def decode_objects(data: bytes) -> list[StoredObject]:
    """Raises BadManifest, also for a key that is not one of an object."""
    try:
        objects = msgspec.json.decode(data, type=list[StoredObject])
    except msgspec.MsgspecError as error:
        raise BadManifest(str(error)) from error
    for each in objects:
        match = OBJECT_KEY.fullmatch(each.key)
        if match is None or match["digest"] != each.content_sha256:
            raise BadManifest(f"{each.key!r} is not the key of an object")
    return objects


def decode_record(data: bytes) -> VerificationRecord:
    """Raises BadManifest."""
    try:
        return msgspec.json.decode(data, type=VerificationRecord)
    except msgspec.MsgspecError as error:
        raise BadManifest(str(error)) from error
