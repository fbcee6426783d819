"""A migrated database to copy, made once a run: to migrate takes four seconds of processor time."""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]

#: Names the folder that the processes of a run share.
_FOLDER = "MIGRATED_DATABASE_DIR"
#: In one process: a start of Django takes longer than the second command.
MIGRATE = """
from django.core.management import call_command
call_command("migrate", verbosity=0)
call_command("createcachetable")
"""


def share() -> str | None:
    """Make the folder that this process and those that it starts share. Return it; None if there is one already."""
    if _FOLDER in os.environ:
        return None
    os.environ[_FOLDER] = tempfile.mkdtemp(prefix="avatar-migrated-")
    return os.environ[_FOLDER]


def unshare(folder: str) -> None:
    del os.environ[_FOLDER]
    shutil.rmtree(folder, ignore_errors=True)


def write_database(path: Path) -> None:
    """Write SQLite's file of a site that is migrated, with the table of the cache, as `migrate` would have made it."""
    if (own := share()) is not None:  # a bench, or the screenshots
        atexit.register(unshare, own)
    folder = Path(os.environ[_FOLDER])
    made = folder / "data" / "avatar.sqlite3"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "done").exists():
            _migrate(folder / "data")
            (folder / "done").touch()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    shutil.copy(made, path)


def _migrate(data_dir: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AVATAR_", "DJANGO_"))}
    for name in ("DATABASE_URL", "REDIS_URL"):
        kept.pop(name, None)
    own = {
        "AVATAR_ENV_FILE": "",
        "AVATAR_PROFILE": "fake",
        "AVATAR_DATA_DIR": str(data_dir),
        "DJANGO_SETTINGS_MODULE": "avatar_site.settings.prod",
    }
    command = [sys.executable, "manage.py", "shell", "--no-imports", "--command", MIGRATE]
    subprocess.run(command, cwd=ROOT, env=kept | own, check=True)
