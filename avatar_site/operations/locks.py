"""Locks on the data folder, which the kernel releases however their holder ends."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: Held by a supervisor, and by commands that must not run at the same time.
SERVE_LOCK = "serve.lock"
#: Held while backups are made, verified, restored or pruned.
BACKUP_LOCK = "backup.lock"


class LockHeld(Exception):
    """Another process holds the lock."""


@contextmanager
def hold_lock(data_dir: Path, name: str) -> Iterator[int]:
    """Hold a lock, and yield its descriptor. Raises LockHeld at once when another process has it."""
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (data_dir / name).open("a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockHeld(f"{data_dir / name} is held by another process") from None
        yield file.fileno()
