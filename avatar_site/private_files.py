"""Denies other users of the machine access to stored files: the umask of every process, the modes of existing files."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

OTHERS = stat.S_IRWXG | stat.S_IRWXO
#: Folders whose content is protected by their own mode; they may hold 100,000 files.
_CLOSED_AS_A_WHOLE = frozenset({"backups", "media", "queue"})


def restrict_new_files() -> None:
    """Have this process and its children make files of mode 0600 and folders of mode 0700."""
    os.umask(OTHERS)


def close_to_others(data_dir: Path) -> list[Path]:
    """
    Take group's and others' rights from the data folder and what is in it. Return what was open to them.

    A folder that is not ours alone (sticky, as /tmp; or another user's) is left as it is, and so is a link.
    """
    closed = [path for path in _list_own(data_dir) if _close(path)]
    return closed


def _list_own(folder: Path) -> Iterator[Path]:
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & stat.S_ISVTX:
        return
    yield folder
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and not entry.is_symlink() and entry.name not in _CLOSED_AS_A_WHOLE:
            yield from _list_own(entry)
        else:
            yield entry


def _close(path: Path) -> bool:
    try:
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode) or status.st_uid != os.geteuid() or not status.st_mode & OTHERS:
            return False
        path.chmod(stat.S_IMODE(status.st_mode) & ~OTHERS)
    except FileNotFoundError:  # a temporary file of a process that runs
        return False
    return True
