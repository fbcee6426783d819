"""
Audio in backups: copied into a target by content, once each; fetched from it, and added to the live storage.

A name is a file in the storage; an object is a content in a target. The storage and the objects are each listed once,
and only new files are read: a file copied before costs no request.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import secrets
import shutil
import threading
import zlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TypeVar

from django.conf import settings
from django.core.files.storage import default_storage
from pyrage.x25519 import Identity, Recipient

from avatar_site.lib.stored_files import MAX_FAILURES, StorageUnavailable, StoredEntry, get_site_storage
from avatar_site.operations.backups import catalogue, database, packing
from avatar_site.operations.backups.audio_cache import AudioCache, CachedFile
from avatar_site.operations.backups.manifest import (
    AudioPart,
    BadManifest,
    IndexedFile,
    Manifest,
    Member,
    StoredObject,
    encode,
    is_stored_name,
)
from avatar_site.operations.backups.targets import Target

logger = logging.getLogger(__name__)

CACHE = "backup-cache.json.gz"
OBJECTS = "audio/objects/"
#: Reading, hashing, packing and writing overlap; more would only queue at the disk, or at a bucket's door.
THREADS = 4
#: For each thread, so that none waits for the next item.
ITEMS_AHEAD = 8
CHUNK_BYTES = 1 << 20
#: The sample that shows whether a file compresses: speech in PCM saves 10 to 60 %, in Opus and FLAC none.
SAMPLE_BYTES = 256 * 1024
MIN_SAVED_SHARE = 0.1
_COMPRESSED_ALREADY = (b"OggS", b"fLaC")
#: The cache is written each time so many files were read, so that a run that is killed does not begin again.
FILES_BETWEEN_WRITES = 1000
#: Problems that are named; all are counted.
MAX_NAMED = 3
#: Room that a fetch leaves on the disk.
SPARE_BYTES = 64 << 20
#: Of every file field.
MAX_NAME_LENGTH = 200

#: Files done, files in all, bytes done.
Progress = Callable[[int, int, int], None]

Item = TypeVar("Item")
Result = TypeVar("Result")


def no_progress(files_done: int, files: int, bytes_done: int) -> None:
    """Show nothing."""


@dataclass(frozen=True, slots=True)
class CopiedAudio:
    """The audio part of a backup, and how many bytes of it this run wrote to the target."""

    part: AudioPart
    stored_bytes: int


@dataclass(frozen=True, slots=True)
class FetchedAudio:
    """Files of a backup that are in a folder now, and names of those only compared, because no key opens them."""

    files: list[IndexedFile]
    compared: list[str]


@dataclass(slots=True)
class MergedAudio:
    """The result of a merge. `renamed` maps names that the storage has for other content to the new ones."""

    added: int = 0
    identical: int = 0
    renamed: dict[str, str] = field(default_factory=dict)


def copy_audio(
    names: Sequence[str],
    *,
    name: str,
    target: Target,
    scratch: Path,
    recipients: Sequence[str],
    also_to: Sequence[Recipient] = (),
    progress: Progress = no_progress,
    threads: int = THREADS,
) -> CopiedAudio:
    """
    Copy the files of these names into a target, as the audio of backup `name`; stored contents are not rewritten.

    `also_to` are keys of this run alone; contents that earlier runs encrypted to the same `recipients` are used again.
    If the last verification found damage, they are read and compared first, and written again where they are damaged.

    A name without a file is missing only if a row has it still. A file that cannot be read is logged and is missing;
    several in a row mean that the storage is away. Raises StorageUnavailable, TargetError, BadKey, and OSError for a
    full disk. A run that is interrupted leaves objects that the next one uses.
    """
    cache = AudioCache(Path(settings.AVATAR_DATA_DIR) / CACHE)
    # An invalid name in a row written by hand: in an index it would make the whole backup unreadable.
    wanted = {each for each in names if is_stored_name(each)}
    listing = {entry.name: entry for entry in get_site_storage().list_entries() if entry.name in wanted}
    store = _ObjectStore(target, cache, recipients)
    copying = _Copying(store, cache, scratch, [*packing.check_recipients(recipients), *also_to], len(names), progress)
    try:
        copying.copy([listing[each] for each in sorted(listing)], threads=threads)
        # A listing may be older than the newest file; a name that no row has any more is not missing.
        gone = sorted(wanted - listing.keys()) + copying.take_missing()
        again = sorted(database.list_audio_names_alive(gone)) if gone else []
        copying.copy([StoredEntry(each, -1, "") for each in again], threads=threads)
        strange = database.list_audio_names_alive(set(names) - wanted)
        missing = tuple(sorted([*copying.take_missing(), *strange]))
    finally:
        cache.forget_others(wanted)
        cache.write()
    files = copying.list_files()
    objects = [store.get(digest) for digest in sorted({file.content_sha256 for file in files})]
    part = AudioPart(
        index=_write_list(files, f"audio/{name}.index.json", target, scratch, copying.keys),
        objects=_write_list(objects, f"audio/{name}.objects.json", target, scratch, ()),
        file_count=len(files),
        content_bytes=sum(file.content_bytes for file in files),
        missing=missing,
    )
    own_bytes = part.index.size_bytes + part.objects.size_bytes
    return CopiedAudio(part, copying.stored_bytes + own_bytes)


def fetch_audio(
    manifest: Manifest,
    *,
    target: Target,
    folder: Path,
    identities: Sequence[Identity],
    may_compare: bool = False,
    progress: Progress = no_progress,
    threads: int = THREADS,
) -> FetchedAudio:
    """
    Fetch a backup's audio into `media/` in a folder, each file under its name, compared with its SHA-256.

    `may_compare`: objects encrypted to none of the identities are not fetched, and their stored checksums are compared.
    All files are checked before Damaged is raised, which says how many are damaged. Raises NoKey, BadManifest,
    TargetError, and OSError when the disk has no room for them.
    """
    index = catalogue.read_index(target, manifest, identities)
    objects = {each.content_sha256: each for each in catalogue.read_objects(target, manifest)}
    files: dict[str, list[IndexedFile]] = defaultdict(list)
    for file in index:
        if file.content_sha256 not in objects:
            raise BadManifest(f"{file.name} is in no object of backup {manifest.name}")
        files[file.content_sha256].append(file)
    media = folder / "media"
    media.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_room(media, sum(same[0].content_bytes for same in files.values()))

    def fetch(same: list[IndexedFile]) -> bool:
        return _fetch_object(objects[same[0].content_sha256], same, target, media, identities, may_compare=may_compare)

    fetched = FetchedAudio([], [])
    damaged: list[str] = []
    files_done = bytes_done = 0
    with _running(fetch, files.values(), threads=threads) as results:
        for same, future in results:
            try:
                if future.result():
                    fetched.files.extend(same)
                else:
                    fetched.compared.extend(file.name for file in same)
            except packing.Damaged as error:
                damaged.append(f"{error} ({same[0].name})")
            files_done += len(same)
            bytes_done += sum(file.content_bytes for file in same)
            progress(files_done, len(index), bytes_done)
    if damaged:
        more = f"; and {len(damaged) - MAX_NAMED} more" if len(damaged) > MAX_NAMED else ""
        raise packing.Damaged(f"{len(damaged)} of {len(files)} audio files: {'; '.join(damaged[:MAX_NAMED])}{more}")
    fetched.files.sort(key=lambda file: file.name)
    fetched.compared.sort()
    return fetched


def merge_audio(
    folder: Path,
    names: Collection[str],
    *,
    files: Iterable[IndexedFile] = (),
    is_missing_only: bool = False,
    progress: Progress = no_progress,
    threads: int = THREADS,
) -> MergedAudio:
    """
    Add the files of these names in a folder to the live storage, where they are not. Nothing there is overwritten.

    A name that the storage has for another content is left, and the file added under a new one; with `is_missing_only`
    it is not added. `files`, with the contents' SHA-256, spare reading files that the last backup has read.
    On one disk files are hard-linked: those in the folder must not change. Raises OSError; files added until then have
    no row yet, and a second attempt reuses them.
    """
    wanted = set(names)
    present = {entry.name: entry for entry in get_site_storage().list_entries() if entry.name in wanted}
    digests = {file.name: file.content_sha256 for file in files}
    cache = AudioCache(Path(settings.AVATAR_DATA_DIR) / CACHE)
    there = [name for name in sorted(wanted) if (folder / name).is_file()]

    def merge(name: str) -> str | None:
        """Return the name that the file has in the storage; None if it was there."""
        source = folder / name
        entry = present.get(name)
        if entry is None:
            try:
                get_site_storage().add_file(name, source)
            except FileExistsError:
                entry = StoredEntry(name, default_storage.size(name), "")
            else:
                return name
        if is_missing_only or _is_same(source, entry, digests.get(name), cache):
            return None
        new_name = default_storage.get_available_name(name, max_length=MAX_NAME_LENGTH)
        get_site_storage().add_file(new_name, source)
        return new_name

    merged = MergedAudio()
    bytes_done = 0
    with _running(merge, there, threads=threads) as results:
        for files_done, (name, future) in enumerate(results, 1):
            new_name = future.result()
            if new_name is None:
                merged.identical += 1
            else:
                merged.added += 1
                if new_name != name:
                    merged.renamed[name] = new_name
            bytes_done += (folder / name).stat().st_size
            progress(files_done, len(there), bytes_done)
    return merged


def count_missing(names: Collection[str]) -> int:
    """Return how many of the names have no file in the live storage. Lists it once."""
    missing = set(names)
    missing.difference_update(entry.name for entry in get_site_storage().list_entries())
    return len(missing)


class _ObjectStore:
    """
    The objects of a target that a backup may use: those of contents that were stored, for the same readers, before.

    An object that some backup has must not be written again: encrypted once more it is another file, and no longer what
    that backup's list says. So an object that is there, and of which this machine remembers nothing, is looked for in
    the lists of earlier backups, the newest first.
    """

    def __init__(self, target: Target, cache: AudioCache, recipients: Sequence[str]) -> None:
        self.target = target
        self._cache = cache
        self._suffix = make_reader_suffix(recipients)
        self._is_encrypted = bool(recipients)
        self._backups = [backup for backup in catalogue.list_backups(target) if backup.has_audio]
        self._is_mistrusting = _found_damage(self._backups)
        self._sizes = {entry.key: entry.size_bytes for entry in target.list(OBJECTS)}
        self._earlier = self._read_earlier()
        self._listed: dict[str, StoredObject] = {}
        self._used: dict[str, StoredObject] = {}
        self._claimed: set[str] = set()
        self._lock = threading.Lock()

    def find(self, digest: str) -> StoredObject | None:
        """Return the object that has a content; None if there is none that can be used."""
        with self._lock:
            if digest in self._used:
                return self._used[digest]
            stored = next(filter(None, (self._find_intact(key) for key in self._list_keys(digest))), None)
        if stored and self._is_mistrusting:
            try:
                catalogue.check_stored(self.target, stored)
            except packing.Damaged as error:
                logger.warning("an object is damaged, and written again: %s", error)
                stored = None
        if stored:
            with self._lock:
                self._used[digest] = stored
                self._cache.add_object(self.target.address, stored)
        return stored

    def claim(self, digest: str) -> bool:
        """Return whether the caller is to store a content; False if it is there, or another thread stores it."""
        if self.find(digest):
            return False
        with self._lock:
            if digest in self._claimed:
                return False
            self._claimed.add(digest)
            return True

    def add(self, stored: StoredObject) -> None:
        with self._lock:
            self._used[stored.content_sha256] = stored
            self._cache.add_object(self.target.address, stored)

    def get(self, digest: str) -> StoredObject:
        """Return the object of a content that this run has found or stored."""
        return self._used[digest]

    def make_key(self, digest: str, *, is_compressed: bool) -> str:
        base = f"{OBJECTS}{digest[:2]}/{digest}{self._suffix}"
        return packing.make_key(base, is_compressed=is_compressed, is_encrypted=self._is_encrypted)

    def _list_keys(self, digest: str) -> list[str]:
        return [self.make_key(digest, is_compressed=is_compressed) for is_compressed in (False, True)]

    def _find_intact(self, key: str) -> StoredObject | None:
        if key not in self._sizes:
            return None
        stored = self._cache.find_object(self.target.address, key) or self._find_listed(key)
        return stored if stored and stored.size_bytes == self._sizes[key] else None

    def _find_listed(self, key: str) -> StoredObject | None:
        while key not in self._listed:
            earlier = next(self._earlier, None)
            if earlier is None:
                return None
            for each in earlier:
                self._listed.setdefault(each.key, each)
        return self._listed[key]

    def _read_earlier(self) -> Iterator[list[StoredObject]]:
        """Yield the objects of each backup in the target, of the newest first."""
        for backup in self._backups:
            if backup.manifest:
                try:
                    yield catalogue.read_objects(self.target, backup.manifest)
                except (BadManifest, packing.Damaged) as error:
                    logger.warning("what backup %s consists of cannot be read: %s", backup.name, error)


class _Copying:
    """One run: files are read in several threads, and counted in the caller's."""

    def __init__(
        self,
        store: _ObjectStore,
        cache: AudioCache,
        scratch: Path,
        keys: Sequence[Recipient],
        file_count: int,
        progress: Progress,
    ) -> None:
        self.stored_bytes = 0
        self.keys = keys
        self._store = store
        self._cache = cache
        self._scratch = scratch
        self._file_count = file_count
        self._progress = progress
        self._files: dict[str, IndexedFile] = {}
        self._missing: list[str] = []
        self._bytes_done = 0

    def copy(self, entries: Sequence[StoredEntry], *, threads: int) -> None:
        """Copy files that the storage lists. Those that are gone are in `take_missing` afterwards."""
        failures = 0
        with _running(self._copy_file, entries, threads=threads) as results:
            for count, (entry, future) in enumerate(results, 1):
                try:
                    file, stored_bytes = future.result()
                except _Gone:
                    self._missing.append(entry.name)
                except _Unreadable as error:
                    logger.error("%s cannot be read, and is not in the backup: %s", entry.name, error.__cause__)
                    self._missing.append(entry.name)
                    failures += 1
                    if failures == MAX_FAILURES:
                        raise StorageUnavailable(errno.EIO, str(error.__cause__), entry.name) from error
                else:
                    failures = 0
                    self.stored_bytes += stored_bytes
                    self._add(entry, file)
                if count % FILES_BETWEEN_WRITES == 0:
                    self._cache.write()

    def take_missing(self) -> list[str]:
        missing, self._missing = self._missing, []
        return missing

    def list_files(self) -> list[IndexedFile]:
        return [self._files[name] for name in sorted(self._files)]

    def _add(self, entry: StoredEntry, file: IndexedFile) -> None:
        self._files[file.name] = file
        if file.content_bytes == entry.size_bytes:
            self._cache.add_file(entry.name, CachedFile(entry.size_bytes, entry.version, file.content_sha256))
        self._bytes_done += file.content_bytes
        self._progress(len(self._files), self._file_count, self._bytes_done)

    def _copy_file(self, entry: StoredEntry) -> tuple[IndexedFile, int]:
        """Read a file and store its content, unless that was done before. Return how many bytes were stored, too."""
        known = self._cache.find_digest(entry.name, size_bytes=entry.size_bytes, version=entry.version)
        if known and self._store.find(known):
            return IndexedFile(entry.name, entry.size_bytes, known), 0
        path = self._scratch / f"audio-{secrets.token_hex(8)}"
        packed_path = path.with_suffix(".packed")
        try:
            size_bytes, digest = _read_file(entry.name, path)
            file = IndexedFile(entry.name, size_bytes, digest)
            if not self._store.claim(digest):
                return file, 0
            is_compressed = compresses(path)
            key = self._store.make_key(digest, is_compressed=is_compressed)
            if is_compressed or self.keys:
                packed = packing.pack(path, packed_path, compress=is_compressed, recipients=self.keys)
                stored = StoredObject(key, packed.size_bytes, packed.sha256, digest)
            else:
                packed_path = path
                stored = StoredObject(key, size_bytes, digest, digest)
            self._store.target.write(key, packed_path)
            self._store.add(stored)
            return file, stored.size_bytes
        finally:
            path.unlink(missing_ok=True)
            packed_path.unlink(missing_ok=True)


class _Gone(Exception):
    """The storage has no such file. Not an OSError: those are of the scratch folder and the target."""


class _Unreadable(Exception):
    """A file is there and cannot be read. Its cause says why."""


def compresses(path: Path) -> bool:
    """Return whether gzip makes a file noticeably smaller, by its beginning."""
    with path.open("rb") as file:
        sample = file.read(SAMPLE_BYTES)
    if not sample or sample.startswith(_COMPRESSED_ALREADY):
        return False
    return len(zlib.compress(sample)) <= (1 - MIN_SAVED_SHARE) * len(sample)


def make_reader_suffix(recipients: Sequence[str]) -> str:
    """
    Return what the keys of objects have before their endings: a mark of who can read them; empty if they are readable.

    Without it, a backup to new keys would use objects that only the old ones open, or replace them under old backups.
    """
    if not recipients:
        return ""
    return "." + hashlib.sha256("\n".join(sorted({each.strip() for each in recipients})).encode()).hexdigest()[:8]


def _found_damage(backups: Sequence[catalogue.ListedBackup]) -> bool:
    """Return whether the last verification of any of these backups found a problem."""
    records = [backup.record for backup in backups if backup.record]
    return bool(records) and bool(max(records, key=lambda record: record.verified_at).problem)


def _read_file(name: str, path: Path) -> tuple[int, str]:
    """Copy a file of the storage to a path; return its size and SHA-256. Raises _Gone and _Unreadable."""
    digest = hashlib.sha256()
    size_bytes = 0
    with path.open("xb") as copy:
        for chunk in _read_chunks(name):
            digest.update(chunk)
            size_bytes += len(chunk)
            copy.write(chunk)
    return size_bytes, digest.hexdigest()


def _read_chunks(name: str) -> Iterator[bytes]:
    try:
        with default_storage.open(name) as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk
    except FileNotFoundError as error:
        raise _Gone(name) from error
    except OSError as error:
        raise _Unreadable(name) from error


def _fetch_object(
    stored: StoredObject,
    same: Sequence[IndexedFile],
    target: Target,
    media: Path,
    identities: Sequence[Identity],
    *,
    may_compare: bool,
) -> bool:
    """Fetch a content into all files that have it; return False if it could only be compared."""
    first, *others = same
    destination = _place(media, first.name)
    member = Member(
        key=stored.key,
        size_bytes=stored.size_bytes,
        sha256=stored.sha256,
        content_bytes=first.content_bytes,
        content_sha256=first.content_sha256,
    )
    try:
        catalogue.fetch_member(target, member, destination, identities=identities)
    except packing.NoKey:
        # The stored checksum was compared before decrypting.
        if may_compare:
            return False
        raise
    for other in others:
        path = _place(media, other.name)
        try:
            path.hardlink_to(destination)
        except OSError:  # a file system without links, or too many of them
            shutil.copyfile(destination, path)
    return True


def _place(media: Path, name: str) -> Path:
    """Return the path of a file, in a folder that exists. Raises BadManifest for one outside."""
    path = media / name
    if not path.resolve().is_relative_to(media.resolve()):
        raise BadManifest(f"{name!r} leads out of the storage")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _is_same(source: Path, entry: StoredEntry, digest: str | None, cache: AudioCache) -> bool:
    """Return whether the storage has the content of a file under its name."""
    if source.stat().st_size != entry.size_bytes:
        return False
    known = cache.find_digest(entry.name, size_bytes=entry.size_bytes, version=entry.version)
    if digest is not None and known is not None:
        return known == digest
    with source.open("rb") as file, default_storage.open(entry.name) as other:
        while chunk := file.read(CHUNK_BYTES):
            if other.read(len(chunk)) != chunk:
                return False
    return True


def _write_list(
    values: list[IndexedFile] | list[StoredObject], key: str, target: Target, scratch: Path, keys: Sequence[Recipient]
) -> Member:
    """Pack a list, write it into a target, and return its member."""
    path = scratch / f"list-{secrets.token_hex(8)}"
    packed_path = path.with_suffix(".packed")
    try:
        path.write_bytes(encode(values))
        packed = packing.pack(path, packed_path, compress=True, recipients=keys)
        key = packing.make_key(key, is_compressed=True, is_encrypted=bool(keys))
        target.write(key, packed_path)
        return packed.as_member(key)
    finally:
        path.unlink(missing_ok=True)
        packed_path.unlink(missing_ok=True)


def _check_room(folder: Path, size_bytes: int) -> None:
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < size_bytes + SPARE_BYTES:
        raise OSError(
            errno.ENOSPC,
            f"the audio of the backup needs {(size_bytes + SPARE_BYTES) / 2**20:.0f} MiB, and "
            f"{free_bytes / 2**20:.0f} MiB are free",
            str(folder),
        )


@contextmanager
def _running(
    function: Callable[[Item], Result], items: Iterable[Item], *, threads: int
) -> Iterator[Iterator[tuple[Item, Future[Result]]]]:
    """Run a function for each item in several threads, a few ahead. Yields what yields items as they are done."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix="backup-audio")
    rest = iter(items)

    def run() -> Iterator[tuple[Item, Future[Result]]]:
        running: dict[Future[Result], Item] = {}
        while True:
            for item in islice(rest, ITEMS_AHEAD * threads - len(running)):
                running[pool.submit(function, item)] = item
            if not running:
                return
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield running.pop(future), future

    try:
        yield run()
    finally:
        # After an error: those that run are waited for, the others not begun.
        pool.shutdown(cancel_futures=True)
