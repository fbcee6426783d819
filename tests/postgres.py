"""A PostgreSQL server of a test's own, on a socket in a folder that is thrown away."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import psycopg

#: Of each installed version.
TOOLS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
#: Only in the name of the socket: it listens on no address.
PORT = "54329"
SUPERUSER = "avatar"


class Postgres:
    """A server, to be stopped and started. `address` is its socket's folder and its port. Nobody needs a password."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = f"{folder}:{PORT}"
        # It refuses to run as root: then it is another user's, whose folder has parents that it may pass.
        self._as_user: list[str] = []
        if os.geteuid() == 0:
            account = pwd.getpwnam("postgres")
            os.chown(folder, account.pw_uid, account.pw_gid)
            self._as_user = ["runuser", "-u", "postgres", "--"]
        self._data = str(folder / "data")
        initdb = str(TOOLS[-1] / "initdb")
        self._run(initdb, "-D", self._data, "-A", "trust", "-U", SUPERUSER, "-E", "UTF8", "--locale=C", "--no-sync")

    def start(self) -> None:
        self._control("-w", "start")

    def stop(self) -> None:
        self._control("-m", "immediate", "-w", "stop")

    def make_url(self, database: str, *, user: str = SUPERUSER) -> str:
        """Return what DATABASE_URL says of a database on it."""
        return f"postgres://{user}@/{database}?host={quote(str(self.folder), safe='')}&port={PORT}"

    def connect(self, database: str = "postgres", *, user: str = SUPERUSER) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(host=str(self.folder), port=PORT, user=user, dbname=database, autocommit=True)

    def _control(self, *command: str) -> None:
        options = f"-k {self.folder} -p {PORT} -c listen_addresses= -c fsync=off"
        log = str(self.folder / "log")
        self._run(str(TOOLS[-1] / "pg_ctl"), "-D", self._data, "-o", options, "-l", log, *command)

    def _run(self, *command: str) -> None:
        subprocess.run([*self._as_user, *command], check=True, capture_output=True, cwd="/", timeout=120)


@contextmanager
def running_postgres(name: str) -> Iterator[Postgres]:
    """Start a server, and throw it away at the end. The name tells it from others of the same process."""
    # Not pytest's folder: that belongs to root alone, and its path may be too long for a socket.
    folder = Path("/tmp") / f"avatar-{name}-{os.getpid()}"  # noqa: S108 — made here, and removed below
    folder.mkdir(mode=0o700)
    try:
        server = Postgres(folder)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
