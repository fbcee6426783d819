"""The backups in a target: lists and reads them, fetches their files, and prunes those that are too old."""

from __future__ import annotations

import datetime as dt
import hashlib
import io
import logging
import re
import secrets
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from pyrage.x25519 import Identity

from avatar_site.operations.backups import packing
from avatar_site.operations.backups.manifest import (
    NAME,
    OBJECT_KEY,
    BadManifest,
    IndexedFile,
    Manifest,
    Member,
    StoredObject,
    VerificationRecord,
    decode_index,
    decode_manifest,
    decode_objects,
    decode_record,
    encode,
    is_name,
)
from avatar_site.operations.backups.packing import Damaged, Writer
from avatar_site.operations.backups.targets import Entry, Target, TargetError

logger = logging.getLogger(__name__)

#: Larger ones are none of ours; a target that is damaged, or another's, must not fill the memory. A manifest names the
#: missing files; a record is a sentence; a list has some 300 bytes for each file, so this is 800,000 files.
MAX_MANIFEST_BYTES = 16 << 20
MAX_RECORD_BYTES = 1 << 20
MAX_LIST_BYTES = 256 << 20
#: A file that no manifest names and that is younger may belong to a backup that is being made.
MIN_UNNAMED_AGE = dt.timedelta(days=1)

_FOLDERS = ("db/", "audio/", "manifests/")
_MANIFEST_KEY = re.compile(rf"manifests/({NAME.pattern})\.json")
_RECORD_KEY = re.compile(rf"manifests/({NAME.pattern})\.verified\.json")
_MEMBER_KEY = re.compile(rf"(?:db|audio)/({NAME.pattern})(?:\.[a-z0-9]+)+")


class NoSuchBackup(Exception):
    """The target has no backup of this name. The message says which it is."""


@dataclass(frozen=True, slots=True)
class ListedBackup:
    """A backup in a target. Without a manifest, or without its database, `problem` says why it cannot be used."""

    name: str
    manifest: Manifest | None
    record: VerificationRecord | None = None
    problem: str = ""

    @property
    def taken_at(self) -> dt.datetime:
        """When it was taken; to the second, from its name, if its manifest cannot be read."""
        if self.manifest:
            return self.manifest.taken_at
        return dt.datetime.strptime(self.name[:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=dt.UTC)

    @property
    def has_database(self) -> bool:
        return self.manifest is not None and self.manifest.database is not None

    @property
    def has_audio(self) -> bool:
        return self.manifest is not None and self.manifest.audio is not None

    @property
    def stored_bytes(self) -> int:
        """What its own files take in the target. Audio is shared between backups and not counted."""
        return sum(member.size_bytes for member in list_members(self.manifest)) if self.manifest else 0

    @property
    def is_verified(self) -> bool:
        """Whether restoring it has succeeded, and nothing was found wrong with it since."""
        record = self.record
        if self.problem or record is None or record.problem:
            return False
        return record.restored_at is not None or not record.is_checksum_only


@dataclass(frozen=True, slots=True)
class Choice:
    """What pruning removes, by the names of backups: all of some, one part of others."""

    backups: tuple[str, ...] = ()
    databases: tuple[str, ...] = ()
    audio: tuple[str, ...] = ()


@dataclass(slots=True)
class Pruned:
    """What pruning has removed."""

    choice: Choice
    #: Contents of audio files that no kept backup has.
    object_count: int = 0
    file_count: int = 0
    freed_bytes: int = 0
    #: Why contents of audio files were left alone, though no backup may need them; empty: they were not.
    problem: str = field(default="")


def make_manifest_key(name: str) -> str:
    return f"manifests/{name}.json"


def make_record_key(name: str) -> str:
    return f"manifests/{name}.verified.json"


def list_members(manifest: Manifest) -> list[Member]:
    """Return the files that are this backup's alone: the database, the index and the list of objects."""
    members = [manifest.database] if manifest.database else []
    return [*members, manifest.audio.index, manifest.audio.objects] if manifest.audio else members


def list_backups(target: Target) -> list[ListedBackup]:
    """
    Return the backups in a target, newest first, with those that cannot be used.

    Reads each manifest and record, and which databases are there; audio is not looked at. Raises TargetError.
    """
    keys = {entry.key for entry in target.list("manifests/")}
    sizes = {entry.key: entry.size_bytes for entry in target.list("db/")}
    names = [match[1] for key in keys if (match := _MANIFEST_KEY.fullmatch(key))]
    backups = []
    for name in names:
        # It may be pruned now.
        with suppress(NoSuchBackup):
            record = read_record(target, name) if make_record_key(name) in keys else None
            backups.append(_look_at(target, name, record, sizes))
    return sorted(backups, key=lambda backup: (backup.taken_at, backup.name), reverse=True)


def find_latest(target: Target, parts: Collection[str]) -> ListedBackup:
    """Return the newest verified backup that has these parts. Raises NoSuchBackup and TargetError."""
    for backup in list_backups(target):
        there = {"database": backup.has_database, "audio": backup.has_audio}
        if backup.is_verified and any(there[part] for part in parts):
            return backup
    raise NoSuchBackup(f"There is no verified backup in {target.address}. `manage.py list_backups` shows the others.")


def find_newest(target: Target) -> str:
    """Return the name of the newest backup, whatever its state. Raises NoSuchBackup if there is none, TargetError."""
    # Names begin with the time.
    names = [match[1] for entry in target.list("manifests/") if (match := _MANIFEST_KEY.fullmatch(entry.key))]
    if not names:
        raise NoSuchBackup(f"There are no backups in {target.address}.")
    return max(names)


def read_manifest(target: Target, name: str) -> Manifest:
    """Raises NoSuchBackup, BadManifest and TargetError."""
    if not is_name(name):
        raise NoSuchBackup(f"{name!r} is not the name of a backup; `manage.py list_backups` shows them.")
    try:
        manifest = decode_manifest(_read_bytes(target, make_manifest_key(name), MAX_MANIFEST_BYTES))
    except FileNotFoundError:
        raise NoSuchBackup(f"There is no backup {name} in {target.address}.") from None
    if manifest.name != name:
        raise BadManifest(f"it is of backup {manifest.name}")
    return manifest


def write_manifest(target: Target, manifest: Manifest) -> None:
    """From now on the backup exists: all its files must be there. Raises TargetError."""
    _write_bytes(target, make_manifest_key(manifest.name), encode(manifest))


def read_record(target: Target, name: str) -> VerificationRecord | None:
    """Return the last verification of a backup; None if there is none that can be read. Raises TargetError."""
    try:
        record = decode_record(_read_bytes(target, make_record_key(name), MAX_RECORD_BYTES))
    except (FileNotFoundError, BadManifest):
        # What cannot be read proves nothing: the backup counts as not verified.
        return None
    return record if record.name == name else None


def write_record(target: Target, record: VerificationRecord) -> None:
    """Replace the last verification. Raises TargetError."""
    _write_bytes(target, make_record_key(record.name), encode(record))


def read_objects(target: Target, manifest: Manifest) -> list[StoredObject]:
    """
    Return what a backup's audio lies in; nothing without audio. Held in memory.

    Raises BadManifest, Damaged (it may be missing) and TargetError.
    """
    if manifest.audio is None:
        return []
    return decode_objects(_read_member(target, manifest.audio.objects, identities=()))


def read_index(target: Target, manifest: Manifest, identities: Sequence[Identity]) -> list[IndexedFile]:
    """
    Return the audio files of a backup, by name; none without audio. Held in memory.

    Raises BadManifest, Damaged (it may be missing), NoKey and TargetError.
    """
    if manifest.audio is None:
        return []
    return decode_index(_read_member(target, manifest.audio.index, identities=identities))


def fetch_member(target: Target, member: Member, destination: Path, *, identities: Sequence[Identity]) -> None:
    """
    Fetch a file of a backup and unpack it. Needs room for the packed file beside the destination.

    The destination has mode 0600, appears when it is whole and compared, and is not synced to disk. Raises Damaged (it
    may be missing), NoKey, TargetError, and OSError for this side's disk.
    """
    stored = destination.with_name(f".{destination.name[:200]}.{secrets.token_hex(8)}.stored")
    with _naming(member.key):
        try:
            with stored.open("xb") as file:
                stored.chmod(0o600)
                _read_stored(target, member.key, file, size_bytes=member.size_bytes, sha256=member.sha256)
            packing.unpack(
                stored,
                destination,
                is_encrypted=packing.is_encrypted_key(member.key),
                is_compressed=packing.is_compressed_key(member.key),
                identities=identities,
                content_bytes=member.content_bytes,
                content_sha256=member.content_sha256,
            )
        finally:
            stored.unlink(missing_ok=True)


def check_stored(target: Target, member: Member | StoredObject) -> None:
    """
    Read a stored file through and compare its size and SHA-256; needs no key and no room.

    Raises Damaged (it may be missing) and TargetError.
    """
    with _naming(member.key):
        _read_stored(target, member.key, None, size_bytes=member.size_bytes, sha256=member.sha256)


def choose_to_prune(
    backups: Collection[ListedBackup], *, now: dt.datetime, database_days: float, audio_days: float
) -> Choice:
    """
    Choose what is too old: databases and audio each after their days, a backup once no part of it is left.

    Of each part, the newest verified backup stays whatever its age, the database with its audio; the newest one if none
    is verified. One that cannot be read goes after the longer of both: it may hold either part.
    """
    newest_first = sorted(backups, key=lambda backup: (backup.taken_at, backup.name), reverse=True)
    last_database = _find_last_verified(newest_first, lambda backup: backup.has_database)
    last_audio = _find_last_verified(newest_first, lambda backup: backup.has_audio)
    whole: list[str] = []
    databases: list[str] = []
    audio: list[str] = []
    for backup in newest_first:
        age = now - backup.taken_at
        if backup.manifest is None:
            if age > dt.timedelta(days=max(database_days, audio_days)):
                whole.append(backup.name)
            continue
        is_last = backup.name == last_database
        keeps_database = backup.has_database and (is_last or age <= dt.timedelta(days=database_days))
        keeps_audio = backup.has_audio and (
            is_last or backup.name == last_audio or age <= dt.timedelta(days=audio_days)
        )
        if not keeps_database and not keeps_audio:
            whole.append(backup.name)
        elif backup.has_database and not keeps_database:
            databases.append(backup.name)
        elif backup.has_audio and not keeps_audio:
            audio.append(backup.name)
    return Choice(tuple(whole), tuple(databases), tuple(audio))


def prune(target: Target, *, now: dt.datetime, database_days: float, audio_days: float) -> Pruned:
    """
    Remove what is too old, then every file that no manifest names any more and that is at least a day old.

    The caller holds the lock of backups: nothing else writes to the target. Manifests change first, so that one that is
    interrupted leaves files without a name and never a name without its files; the next one removes those.
    Raises TargetError.
    """
    backups = list_backups(target)
    choice = choose_to_prune(backups, now=now, database_days=database_days, audio_days=audio_days)
    pruned = Pruned(choice)
    kept: list[ListedBackup] = []
    for backup in backups:
        if backup.name in choice.backups:
            target.delete(make_manifest_key(backup.name))
            target.delete(make_record_key(backup.name))
            continue
        if backup.manifest and backup.name in choice.databases:
            backup = _drop(target, backup, msgspec.structs.replace(backup.manifest, database=None))
        elif backup.manifest and backup.name in choice.audio:
            backup = _drop(target, backup, msgspec.structs.replace(backup.manifest, audio=None))
        kept.append(backup)
    _remove_unnamed(target, kept, pruned, before=now - MIN_UNNAMED_AGE)
    remove_partial_writes(target, before=now - MIN_UNNAMED_AGE)
    return pruned


def remove_partial_writes(target: Target, *, before: dt.datetime) -> None:
    """
    Remove what writes of backups left that began before then and were interrupted.

    On failure it is left, and logged: it only takes room, and a bucket's key may not be allowed to look for it.
    """
    try:
        for folder in _FOLDERS:
            target.remove_partial_writes(folder, before=before)
    except TargetError as error:
        logger.warning("what interrupted writes have left was not removed: %s", error)


def _look_at(target: Target, name: str, record: VerificationRecord | None, sizes: dict[str, int]) -> ListedBackup:
    try:
        manifest = read_manifest(target, name)
    except BadManifest as error:
        return ListedBackup(name, None, record, f"its manifest cannot be read: {error}")
    problem = ""
    if manifest.database and manifest.database.key not in sizes:
        problem = "its database is missing"
    elif manifest.database and sizes[manifest.database.key] != manifest.database.size_bytes:
        problem = f"its database has {sizes[manifest.database.key]:,} bytes instead of {manifest.database.size_bytes:,}"
    return ListedBackup(name, manifest, record, problem)


def _find_last_verified(newest_first: list[ListedBackup], has_part: Callable[[ListedBackup], bool]) -> str | None:
    having = [backup for backup in newest_first if has_part(backup)]
    verified = [backup for backup in having if backup.is_verified]
    return next((backup.name for backup in verified or having), None)


def _drop(target: Target, backup: ListedBackup, manifest: Manifest) -> ListedBackup:
    write_manifest(target, manifest)
    return ListedBackup(backup.name, manifest, backup.record, backup.problem)


def _remove_unnamed(target: Target, kept: list[ListedBackup], pruned: Pruned, *, before: dt.datetime) -> None:
    """Remove what no kept backup names: at once if this pruning took its name, else once it is old enough."""
    members = {member.key for backup in kept if backup.manifest for member in list_members(backup.manifest)}
    unreadable = {backup.name for backup in kept if backup.manifest is None}
    just_pruned = {*pruned.choice.backups, *pruned.choice.databases, *pruned.choice.audio}
    # Before anything is removed: a list may be among what is unreadable.
    needed = _read_needed_objects(target, kept, pruned)

    def is_removable(entry: Entry) -> bool:
        if match := _MEMBER_KEY.fullmatch(entry.key):
            if entry.key in members or match[1] in unreadable:
                return False
            return match[1] in just_pruned or entry.modified_at < before
        if OBJECT_KEY.fullmatch(entry.key):
            return needed is not None and entry.key not in needed and entry.modified_at < before
        if match := _RECORD_KEY.fullmatch(entry.key):
            return match[1] not in names and entry.modified_at < before
        # Not ours.
        return False

    names = {backup.name for backup in kept}
    for folder in _FOLDERS:
        # Listed to the end first: a server may skip keys when others are deleted between its pages.
        for entry in [entry for entry in target.list(folder) if is_removable(entry)]:
            target.delete(entry.key)
            pruned.freed_bytes += entry.size_bytes
            if entry.key.startswith("audio/objects/"):
                pruned.object_count += 1
            else:
                pruned.file_count += 1


def _read_needed_objects(target: Target, kept: list[ListedBackup], pruned: Pruned) -> set[str] | None:
    """Return the objects that kept backups have; None if one cannot say, which `pruned.problem` then names."""
    needed: set[str] = set()
    for backup in kept:
        try:
            if backup.manifest is None:
                raise BadManifest(backup.problem)
            needed.update(each.key for each in read_objects(target, backup.manifest))
        except (BadManifest, Damaged) as error:
            pruned.problem = f"No audio was removed: what backup {backup.name} needs is unknown ({error})."
            return None
    return needed


def _read_member(target: Target, member: Member, *, identities: Sequence[Identity]) -> bytes:
    """Return the content of a file. Raises Damaged, NoKey, BadManifest if it is too large, and TargetError."""
    if max(member.size_bytes, member.content_bytes) > MAX_LIST_BYTES:
        raise BadManifest(f"{member.key} is too large: {member.content_bytes:,} bytes")
    stored, content = io.BytesIO(), io.BytesIO()
    with _naming(member.key):
        _read_stored(target, member.key, stored, size_bytes=member.size_bytes, sha256=member.sha256)
        stored.seek(0)
        packing.unpack_stream(
            stored,
            content,
            is_encrypted=packing.is_encrypted_key(member.key),
            is_compressed=packing.is_compressed_key(member.key),
            identities=identities,
            content_bytes=member.content_bytes,
            content_sha256=member.content_sha256,
        )
    return content.getvalue()


def _read_stored(target: Target, key: str, destination: Writer | None, *, size_bytes: int, sha256: str) -> None:
    """Copy a stored file, unless None, and compare it. Raises Damaged and TargetError."""
    sink = _Sink(destination, max_bytes=size_bytes)
    try:
        target.read(key, sink)
    except FileNotFoundError:
        raise Damaged("it is missing") from None
    except _TooLarge:
        raise Damaged(f"it has more than its {size_bytes:,} bytes") from None
    if sink.size_bytes != size_bytes:
        raise Damaged(f"it has {sink.size_bytes:,} bytes instead of {size_bytes:,}")
    if sink.sha256 != sha256:
        raise Damaged("it has changed: its SHA-256 is another one")


def _read_bytes(target: Target, key: str, max_bytes: int) -> bytes:
    """Raises FileNotFoundError, BadManifest if it is too large, and TargetError."""
    content = io.BytesIO()
    try:
        target.read(key, _Sink(content, max_bytes=max_bytes))
    except _TooLarge:
        raise BadManifest(f"it has more than {max_bytes:,} bytes") from None
    return content.getvalue()


def _write_bytes(target: Target, key: str, data: bytes) -> None:
    with tempfile.NamedTemporaryFile(prefix="avatar-") as file:
        file.write(data)
        file.flush()
        target.write(key, Path(file.name))


@contextmanager
def _naming(key: str) -> Iterator[None]:
    """Say of damage which file it is in."""
    try:
        yield
    except (Damaged, packing.NoKey) as error:
        raise type(error)(f"{key}: {error}") from error


class _TooLarge(Exception):
    """A file is larger than it should be."""


class _Sink:
    """Measures what is written, hands it on unless the destination is None, and raises _TooLarge beyond `max_bytes`."""

    def __init__(self, destination: Writer | None, *, max_bytes: int) -> None:
        self._destination = destination
        self._max_bytes = max_bytes
        self._digest = hashlib.sha256()
        self.size_bytes = 0

    def write(self, data: bytes, /) -> None:
        self.size_bytes += len(data)
        if self.size_bytes > self._max_bytes:
            raise _TooLarge
        self._digest.update(data)
        if self._destination is not None:
            self._destination.write(data)

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()
