"""
Copies of the site's data, and work on them in a child process that has nothing else.

The child's data folder, database and storage are the copy's; it reads no `.env`, so that nothing that it does can reach
the live data, the queue, or the target of backups.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import msgspec
from django.conf import settings

from avatar_site.operations.child_logs import make_plain
from avatar_site.operations.locks import BACKUP_LOCK, LockHeld, hold_lock

SCRATCH = "scratch"
#: Checking and migrating 50,000 turns took 82 s on two busy cores.
CHILD_TIMEOUT_S = 60 * 60

Result = TypeVar("Result", bound=msgspec.Struct)


class CopyFailed(Exception):
    """The child ended with an error. The message has the last line that it wrote."""


@contextmanager
def make_scratch(purpose: str) -> Iterator[Path]:
    """Make a folder that only this user can read, on the disk of the data, and remove it at the end."""
    parent = Path(settings.AVATAR_DATA_DIR) / SCRATCH
    parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{purpose}-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def hold_backup_lock() -> Iterator[None]:
    """
    Hold the lock that making, verifying, restoring and pruning backups share. Raises LockHeld.

    What a run that was killed has left in the scratch folder is removed.
    """
    data_dir = Path(settings.AVATAR_DATA_DIR)
    with hold_lock(data_dir, BACKUP_LOCK):
        shutil.rmtree(data_dir / SCRATCH, ignore_errors=True)
        yield


def remove_leftovers() -> None:
    """Remove what a killed restore or verification has left: all audio, perhaps. Does nothing while one runs."""
    with suppress(LockHeld), hold_backup_lock():
        pass


def work_on_copy(
    action: str, request: msgspec.Struct, result_type: type[Result], *, folder: Path, database_url: str
) -> Result:
    """
    Run `manage.py work_on_copy` on the copy in a folder, and return its result. Raises CopyFailed.

    `database_url` is that of a scratch database; empty: `avatar.sqlite3` in the folder.
    """
    asked, answered = folder / f"{action}.request.json", folder / f"{action}.result.json"
    asked.write_bytes(msgspec.json.encode(request))
    answered.unlink(missing_ok=True)
    try:
        child = subprocess.run(  # noqa: S603 — ourselves
            [sys.executable, str(settings.BASE_DIR / "manage.py"), "work_on_copy", action, str(asked), str(answered)],
            env=_make_environment(folder, database_url),
            cwd=settings.BASE_DIR,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=CHILD_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        raise CopyFailed(f"{action}: no end after {CHILD_TIMEOUT_S // 60} minutes") from None
    if child.returncode != 0:
        lines = child.stderr.decode(errors="replace").strip().splitlines() or [f"ended with {child.returncode}"]
        raise CopyFailed(f"{action}: {make_plain(lines[-1])}")
    return msgspec.json.decode(answered.read_bytes(), type=result_type)


def _make_environment(folder: Path, database_url: str) -> dict[str, str]:
    return os.environ | {
        "DJANGO_SETTINGS_MODULE": "avatar_site.settings.prod",
        "AVATAR_ENV_FILE": "",
        "AVATAR_DATA_DIR": str(folder),
        "AVATAR_STORAGE": "folder",
        "AVATAR_BACKUP_TARGET": str(folder / "no-target"),
        "AVATAR_BACKUP_RECIPIENTS": "",
        "AVATAR_BACKUP_IDENTITY_FILE": "",
        "AVATAR_INFERENCE_ADDRESS": "unix:/nonexistent/inference.sock",
        "AVATAR_INFERENCE_SECRET": "",
        "AVATAR_LOG_LEVEL": "WARNING",
        "DATABASE_URL": database_url,
        "REDIS_URL": "",
    }
