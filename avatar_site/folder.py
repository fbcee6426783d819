"""
Files in a folder, written atomically. Apart from `storage`, so that the S3 library is loaded only for buckets.

A process that is killed, or a disk that is full, in mid-write leaves a temporary file and never a part of a file under
its own name. Temporary files lie in the target's folder, have no row, and are removed as orphans.
"""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from django.core.files.storage import FileSystemStorage

from avatar_site.lib.stored_files import StoredEntry

TEMPORARY_SUFFIX = ".part"
#: What file systems without hard links answer.
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


class Folder(FileSystemStorage):
    """Writes under a temporary name, syncs, and gives the file its name last. Overwrites nothing."""

    def _save(self, name: str, content: Any) -> str:
        temporary = str(Path(name).parent / f".{uuid.uuid4().hex}{TEMPORARY_SUFFIX}")
        source = Path(self.path(temporary))
        try:
            super()._save(temporary, content)  # type: ignore[misc]  # django-stubs leaves it out
            _sync(source)
            while not _give_name(source, Path(self.path(name))):
                # Another process has just taken it: Django's own storage evades in the same way.
                name = self.get_available_name(name)
        finally:
            with suppress(FileNotFoundError):
                source.unlink()
        _sync(source.parent)
        return name.replace("\\", "/")

    def list_entries(self, prefix: str = "") -> Iterator[StoredEntry]:
        """As `SiteStorage` says."""
        folders = [(self.path(prefix) if prefix else self.location, f"{prefix}/" if prefix else "")]
        while folders:
            path, names = folders.pop()
            try:
                entries = os.scandir(path)
            except FileNotFoundError:
                continue
            with entries:
                for entry in entries:
                    # What is removed while it is listed is not there.
                    with suppress(FileNotFoundError):
                        if entry.is_dir():
                            folders.append((entry.path, f"{names}{entry.name}/"))
                        elif not entry.name.endswith(TEMPORARY_SUFFIX):
                            status = entry.stat()
                            yield StoredEntry(f"{names}{entry.name}", status.st_size, str(status.st_mtime_ns))

    def add_file(self, name: str, source: Path) -> None:
        """As `SiteStorage` says."""
        target = Path(self.path(name))
        target.parent.mkdir(parents=True, exist_ok=True)
        _sync(source)
        near = target.parent / f".{uuid.uuid4().hex}{TEMPORARY_SUFFIX}"
        try:
            try:
                os.link(source, near)
            except OSError as error:
                if error.errno not in (*_NO_LINKS, errno.EXDEV):
                    raise
                shutil.copyfile(source, near)
                _sync(near)
            if self.file_permissions_mode is not None:
                near.chmod(self.file_permissions_mode)
            if not _give_name(near, target):
                raise FileExistsError(errno.EEXIST, "the storage has a file of this name", name)
        finally:
            near.unlink(missing_ok=True)
        _sync(target.parent)


def _give_name(source: Path, target: Path) -> bool:
    """Let a file have a name as well, or instead, and return whether the name was free."""
    try:
        os.link(source, target)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if target.exists():
            return False
        source.replace(target)
    return True


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
