"""Where backups lie: what every target does, and folders. Buckets are in `bucket.py`, which costs 18 MiB of boto3."""

from __future__ import annotations

import datetime as dt
import errno
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from django.conf import settings
from django.utils.translation import gettext as _

from avatar_site.lib.disk import is_disk_full
from avatar_site.operations.backups.packing import Writer

#: Size of the chunks in which files are copied.
CHUNK_BYTES = 1 << 20
#: The temporary name of a file that is being written: `.NAME.TOKEN.part`, in the same folder.
PARTIAL = re.compile(r"\..+\.[0-9a-f]{16}\.part")
#: The folders in the data folder that may be a target: the default, and `releases.LOCAL_BACKUPS`. AVATAR backs up,
#: sweeps or replaces everything else in there.
TARGETS_IN_DATA_FOLDER = ("backups", "release-backups")
#: A bucket's name, by the rules of S3.
BUCKET_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


class TargetError(OSError):
    """The target cannot be reached, is full, or refuses. The message is for the operator, and names the target."""


class BadTarget(ValueError):
    """The given address is not a valid target. The message says why."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file in a target."""

    key: str
    size_bytes: int
    modified_at: dt.datetime


class Target(Protocol):
    """
    Files by key, `/` between folders. Safe to use from several threads.

    Everything but reading a missing key raises TargetError when it fails, also for a key that leads out of the target.
    An error of the file that is read from or written to on this side is raised as it is.
    """

    #: For operators: the folder, or s3://bucket/prefix.
    address: str

    def write(self, key: str, source: Path) -> None:
        """Store a file atomically, and synced. Replaces a file with this key; of concurrent writes, one wins."""

    def read(self, key: str, destination: Writer) -> None:
        """Copy a file to an open one, in constant memory. Raises FileNotFoundError."""

    def list(self, prefix: str) -> Iterator[Entry]:
        """Yield the files whose keys begin with `prefix` (a folder, ending in `/`); none if there is none."""

    def delete(self, key: str) -> None:
        """Delete a file, if there is one of this key."""

    def remove_partial_writes(self, prefix: str, *, before: dt.datetime) -> int:
        """
        Remove leftovers of interrupted writes of such keys that began before then. Return how many.

        `prefix` as in `list`: a bucket may be shared with others, whose uploads are not ours to abort.
        """

    def describe_risk(self) -> str:
        """Say, in the operator's language, why these backups may be lost together with the data; empty if not."""


def open_target(address: str) -> Target:
    """Return the target of a path or of s3://bucket/prefix. Connects to nothing. Raises BadTarget."""
    text = address.strip()
    if text.lower().startswith("s3:"):
        return _open_bucket(text)
    if not text or "\0" in text:
        raise BadTarget("A target is a folder or s3://bucket/prefix; it is empty.")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
        raise BadTarget(f"{text.partition('://')[0]}:// is no target: give a folder or s3://bucket/prefix.")
    folder = Path(text).expanduser().absolute()
    if folder.exists() and not folder.is_dir():
        raise BadTarget(f"{folder} is not a folder.")
    resolved, data_dir = folder.resolve(), Path(settings.AVATAR_DATA_DIR).resolve()
    if resolved.is_relative_to(data_dir) and not any(
        resolved.is_relative_to(data_dir / name) for name in TARGETS_IN_DATA_FOLDER
    ):
        raise BadTarget(
            f"{folder} cannot be a target: {data_dir} holds the data itself. Give its folder `backups`, or better a "
            "folder on another disk."
        )
    return FolderTarget(folder)


class FolderTarget:
    """
    A folder. Files have mode 0600 and folders 0700.

    A file is written under a temporary name, synced and renamed; then its folder is synced. A crash leaves at worst the
    temporary file, which `list` does not show. The folder itself is made if the one above it exists: a disk that is not
    mounted is an error, not a new folder on the system's disk.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.address = str(folder)

    def write(self, key: str, source: Path) -> None:
        path = self._path(key)
        with source.open("rb") as file:
            size_bytes = os.fstat(file.fileno()).st_size
            with self._translating_errors(size_bytes=size_bytes):
                self._make_folder(path.parent)
                # Hidden, and unique: another process may write the same key now.
                partial = path.with_name(f".{path.name[:200]}.{secrets.token_hex(8)}.part")
                descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            try:
                with os.fdopen(descriptor, "wb", buffering=0) as copy:
                    while chunk := file.read(CHUNK_BYTES):
                        with self._translating_errors(size_bytes=size_bytes):
                            _write_all(copy.fileno(), chunk)
                    with self._translating_errors(size_bytes=size_bytes):
                        os.fsync(copy.fileno())
                with self._translating_errors():
                    partial.replace(path)
                    _sync_folder(path.parent)
            except BaseException:
                with suppress(OSError):
                    partial.unlink()
                raise

    def read(self, key: str, destination: Writer) -> None:
        path = self._path(key)
        try:
            file = path.open("rb", buffering=0)
        except (FileNotFoundError, NotADirectoryError) as error:
            self._check_is_there()
            raise FileNotFoundError(errno.ENOENT, "no such file in the target", key) from error
        except OSError as error:
            raise self._translate(error) from error
        with file:
            while True:
                with self._translating_errors():
                    chunk = file.read(CHUNK_BYTES)
                if not chunk:
                    return
                destination.write(chunk)

    def list(self, prefix: str) -> Iterator[Entry]:
        for path, status in self._walk(self._find_folder(prefix)):
            key = path.relative_to(self._folder).as_posix()
            # Partial writes are hidden files; other hidden files are not ours.
            if is_safe_key(key):
                yield Entry(key, status.st_size, dt.datetime.fromtimestamp(status.st_mtime, dt.UTC))

    def delete(self, key: str) -> None:
        path = self._path(key)
        with self._translating_errors(), suppress(FileNotFoundError, NotADirectoryError):
            path.unlink()

    def remove_partial_writes(self, prefix: str, *, before: dt.datetime) -> int:
        count = 0
        for path, status in self._walk(self._find_folder(prefix)):
            if PARTIAL.fullmatch(path.name) and status.st_mtime < before.timestamp():
                with self._translating_errors():
                    path.unlink(missing_ok=True)
                count += 1
        return count

    def describe_risk(self) -> str:
        try:
            if _find_device(self._folder) != _find_device(Path(settings.AVATAR_DATA_DIR)):
                return ""
        except OSError:
            # The next read or write reports it.
            return ""
        return _(
            "Backups in %(target)s lie on the same disk as the data: if that disk is lost, so are both. "
            "Set AVATAR_BACKUP_TARGET to a folder on another disk, or to s3://bucket/prefix."
        ) % {"target": self.address}

    def _path(self, key: str) -> Path:
        check_key(key, self.address)
        return self._folder / key

    def _find_folder(self, prefix: str) -> Path:
        check_prefix(prefix, self.address)
        return self._folder / prefix

    def _make_folder(self, folder: Path) -> None:
        """Make a folder of the target, with those above it that are missing, and sync the folders that list them."""
        if folder.is_dir():
            return
        if folder == self._folder:
            self._check_is_there()
        else:
            self._make_folder(folder.parent)
        # Another thread or process may make it at the same time.
        folder.mkdir(mode=0o700, exist_ok=True)
        _sync_folder(folder.parent)

    def _walk(self, folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
        """Yield the files under a folder, sorted by name. Skips links, and files that are deleted during the walk."""
        with self._translating_errors():
            try:
                entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
            except (FileNotFoundError, NotADirectoryError):
                self._check_is_there()
                return
        for entry in entries:
            with self._translating_errors():
                if entry.is_dir(follow_symlinks=False):
                    status = None
                else:
                    try:
                        status = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue
            if status is None:
                yield from self._walk(Path(entry.path))
            elif entry.is_file(follow_symlinks=False):
                yield Path(entry.path), status

    def _check_is_there(self) -> None:
        """Raise TargetError if not even the folder above the target exists: a target not used yet can be made there."""
        if not self._folder.is_dir() and not self._folder.parent.is_dir():
            raise TargetError(f"{self.address}: {self._folder.parent} is not there. Is its disk mounted?")

    @contextmanager
    def _translating_errors(self, *, size_bytes: int = 0) -> Iterator[None]:
        try:
            yield
        except TargetError:
            raise
        except OSError as error:
            raise self._translate(error, size_bytes=size_bytes) from error

    def _translate(self, error: OSError, *, size_bytes: int = 0) -> TargetError:
        if is_disk_full(error):
            message = f"the disk is full: a file of {size_bytes:,} bytes did not fit. Free some, or use another target."
        elif error.errno in (errno.EACCES, errno.EPERM):
            message = f"access to {error.filename or 'it'} is denied: it must belong to the user that runs AVATAR."
        elif error.errno == errno.EFBIG:
            message = f"its file system takes no file of {size_bytes:,} bytes. Format it for large files (exFAT, ext4)."
        elif error.errno == errno.EROFS:
            message = "this disk can only be read."
        else:
            message = f"{error.strerror or error} ({error.filename})" if error.filename else str(error)
        return make_error(f"{self.address}: {message}", error)


def is_safe_key(key: str) -> bool:
    """Return whether a key names a file below the target: no `..`, no empty part, nothing hidden, no backslash."""
    return all(
        part and not part.startswith(".") and not any(c in "\\\0" or ord(c) < 32 for c in part)
        for part in key.split("/")
    )


def check_key(key: str, address: str) -> None:
    if not is_safe_key(key):
        raise TargetError(f"{address}: {key!r} is not the name of a file in a target")


def check_prefix(prefix: str, address: str) -> None:
    if prefix and not prefix.endswith("/"):
        raise ValueError(f"{prefix!r}: expected a folder, ending in /")
    if prefix:
        check_key(prefix.removesuffix("/"), address)


def _open_bucket(text: str) -> Target:
    parts = urlsplit(text)
    if parts.scheme != "s3" or not text.lower().startswith("s3://"):
        raise BadTarget("The address of a bucket is s3://bucket/prefix.")
    # It may be a key: it is not repeated.
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise BadTarget("The address of a bucket is s3://bucket/prefix; keys are set with AVATAR_BACKUP_S3_….")
    if not BUCKET_NAME.fullmatch(parts.netloc):
        raise BadTarget(f"{parts.netloc!r} is not the name of a bucket: 3 to 63 of a-z, 0-9, hyphen and full stop.")
    prefix = parts.path.strip("/")
    if prefix and not is_safe_key(prefix):
        raise BadTarget(f"{prefix!r} is not a prefix of names in a bucket.")
    # Imported here: every process of the site loads this module, and few of them use a bucket.
    from avatar_site.operations.backups.bucket import BucketTarget

    return BucketTarget(parts.netloc, prefix)


def make_error(message: str, cause: BaseException) -> TargetError:
    error = TargetError(message)
    # Alone, without `strerror`, it does not change the message.
    error.errno = getattr(cause, "errno", None)
    return error


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot sync a folder.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def _find_device(path: Path) -> int:
    """Return the device of a path, or of the nearest folder above it that exists."""
    while True:
        try:
            return path.stat().st_dev
        except FileNotFoundError:
            if path == path.parent:
                raise
            path = path.parent
