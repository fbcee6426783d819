"""
Files in Django's storage, a folder or a bucket: written or not there, removed, swept when no row names them.

A file is written before its row and removed before it. A process that is killed leaves at worst a file without a row,
an orphan, which the sweep removes once it is too old to be about to get one.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Protocol, cast

from django.core.files.base import ContentFile
from django.core.files.storage import default_storage

if TYPE_CHECKING:
    from django.db.models.fields.files import FieldFile

logger = logging.getLogger(__name__)

#: A file without a row that is younger may be about to get it.
MIN_ORPHAN_AGE = dt.timedelta(hours=1)
#: A crash leaves fewer orphans than this; more, and more than this share of all files, mean a database from elsewhere.
FEW_ORPHANS = 10
MAX_ORPHANED_SHARE = 0.5
#: As many failures in a row are the storage's, not these files'.
MAX_FAILURES = 3
#: Names that are looked for in one query.
BATCH = 500

#: Each returns why no sweep may remove files now, for an operator to read; empty if it knows of no reason.
Guard = Callable[[], str]
_guards: list[Guard] = []


class StorageUnavailable(OSError):
    """The storage cannot be reached, or refuses. Not raised for a missing file, which is FileNotFoundError."""


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """A file in the storage, as a listing has it."""

    name: str
    size_bytes: int
    #: Another one for another content of this name: when it was written, in a bucket its ETag as well.
    version: str


class SiteStorage(Protocol):
    """What both our storages can do besides what Django asks of one."""

    def list_entries(self, prefix: str = "") -> Iterator[StoredEntry]:
        """
        Yield the files under a folder, or all, but for those that are being written; none if there is no folder.

        One listing: no request, nor look at the disk, a file. Raises OSError.
        """

    def add_file(self, name: str, source: Path) -> None:
        """
        Let the storage have a file of this disk, whole or not at all; the source may be linked, and must not change.

        The caller has seen in a listing that the name is free: a bucket would overwrite, a folder raises
        FileExistsError. Raises OSError.
        """


def get_site_storage() -> SiteStorage:
    """Return the default storage, which is one of ours."""
    return cast(SiteStorage, default_storage)


class SweepRefused(Exception):
    """No sweep may remove files now. The message says why, and what an operator can do about it."""


class RemovalAborted(Exception):
    """Files could not be removed, one after the other: the storage is away. `removed` are those that are gone."""

    def __init__(self, removed: list[str]) -> None:
        super().__init__(f"aborted after {len(removed)} files")
        self.removed = removed


def write_file(file: FieldFile, content: bytes, *, filename: str = "") -> None:
    """
    Write a new file and let the field name it; saving the row is the caller's. A write that fails leaves nothing.

    A file that has this name already, left by a process that was killed before its row, is replaced. Raises OSError.
    """
    # Generated here, so that a partial file can be deleted by its name.
    name = file.field.generate_filename(file.instance, filename)
    if file.storage.exists(name):
        logger.warning("replacing %s, which had no row", name)
        file.storage.delete(name)
    try:
        name = file.storage.save(name, ContentFile(content), max_length=file.field.max_length)
    except BaseException:
        with suppress(OSError):
            file.storage.delete(name)
        raise
    setattr(file.instance, file.field.attname, name)


def delete_file(name: str | None) -> None:
    """Delete a file, if there is one of this name. Raises OSError."""
    if name:
        default_storage.delete(name)


def delete_or_leave(name: str | None) -> None:
    """Delete a file that no row names any more. On failure it is left to the sweep of orphans."""
    try:
        delete_file(name)
    except OSError:
        logger.exception("%s is left to the sweep of orphans", name)


def remove_files(names: Iterable[str], *, max_failures: int = MAX_FAILURES) -> list[str]:
    """
    Remove files, and the folders that are empty then. Return those that are gone.

    One that cannot be removed is logged and skipped. Raises RemovalAborted after `max_failures` in a row: each may take
    the storage's timeout.
    """
    removed: list[str] = []
    failures = 0
    try:
        for name in names:
            try:
                default_storage.delete(name)
            except OSError:
                logger.exception("could not remove %s", name)
                failures += 1
                if failures == max_failures:
                    raise RemovalAborted(removed) from None
            else:
                failures = 0
                removed.append(name)
    finally:
        for folder in {str(PurePosixPath(name).parent) for name in removed}:
            remove_empty_folders(folder)
    return removed


def remove_folder(folder: str) -> None:
    """Remove a folder with its files, and the folders above it that are empty then. Raises OSError."""
    for name in list_files(folder):
        default_storage.delete(name)
    remove_empty_folders(folder)


def remove_empty_folders(folder: str) -> None:
    """Remove a folder and those above it, while they are empty; never the top one, which is an app's."""
    path = PurePosixPath(folder)
    while len(path.parts) > 1:
        try:
            # A bucket has no folders, and deletes a key that does not exist.
            default_storage.delete(str(path))
        except OSError:
            return
        path = path.parent


def list_files(folder: str) -> Iterator[str]:
    """Yield the names of all files under a folder, temporary ones as well; none if there is no folder."""
    try:
        folders, files = default_storage.listdir(folder)
    except FileNotFoundError:
        return
    for name in files:
        yield f"{folder}/{name}"
    for name in folders:
        yield from list_files(f"{folder}/{name}")


def list_folders(folder: str) -> list[str]:
    """Return the names of the folders in a folder; none if there is no folder."""
    try:
        return default_storage.listdir(folder)[0]
    except FileNotFoundError:
        return []


def add_guard(guard: Guard) -> None:
    """Let a guard say, before each sweep, whether it may remove anything."""
    if guard not in _guards:
        _guards.append(guard)


def check_guards() -> None:
    """Raises SweepRefused."""
    for guard in _guards:
        if reason := guard():
            raise SweepRefused(reason)


@dataclass(slots=True)
class Sweep:
    """What lies under a folder. `files` are those without a row, old enough to be orphans."""

    files: list[str] = field(default_factory=list)
    file_bytes: int = 0
    #: All files there, with a row or without.
    file_count: int = 0

    @property
    def is_doubtful(self) -> bool:
        """Whether so many have no row that the database is probably another site's."""
        orphans = len(self.files)
        return orphans > FEW_ORPHANS and orphans > self.file_count * MAX_ORPHANED_SHARE


def find_orphans(folder: str, *, find_named: Callable[[list[str]], set[str]], now: dt.datetime) -> Sweep:
    """Look at every file under a folder. `find_named` returns those of some names that rows have."""
    sweep = Sweep()
    files = list_files(folder)
    while batch := list(islice(files, BATCH)):
        sweep.file_count += len(batch)
        named = find_named(batch)
        for name in batch:
            # A file may be removed while the sweep looks at it.
            with suppress(FileNotFoundError):
                if name not in named and default_storage.get_modified_time(name) < now - MIN_ORPHAN_AGE:
                    sweep.file_bytes += default_storage.size(name)
                    sweep.files.append(name)
    return sweep
