"""What SQLite is asked in all other tests, asked of a real PostgreSQL of the test's own."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings as django_settings

ROOT = Path(__file__).parents[2]
FOLDERS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
PORT = "54329"

pytestmark = pytest.mark.skipif(not FOLDERS, reason="PostgreSQL is not installed (make test installs it)")


@pytest.fixture(scope="module")
def socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server on a socket in a folder that is thrown away. It refuses to run as root: then it is another user's."""
    folder = tmp_path_factory.mktemp("postgres")
    as_user: list[str] = []
    if os.geteuid() == 0:
        account = pwd.getpwnam("postgres")
        # Its parents belong to root alone.
        folder = Path("/tmp") / f"avatar-postgres-{os.getpid()}"  # noqa: S108 — made here, and removed below
        folder.mkdir(mode=0o700)
        os.chown(folder, account.pw_uid, account.pw_gid)
        as_user = ["runuser", "-u", "postgres", "--"]
    data = str(folder / "data")
    tools = FOLDERS[-1]

    def run(*command: str) -> None:
        subprocess.run([*as_user, *command], check=True, capture_output=True, cwd="/", timeout=60)

    try:
        run(str(tools / "initdb"), "-D", data, "-A", "trust", "-U", "avatar", "-E", "UTF8", "--locale=C", "--no-sync")
        options = f"-k {folder} -p {PORT} -c listen_addresses= -c fsync=off"
        run(str(tools / "pg_ctl"), "-D", data, "-o", options, "-l", str(folder / "log"), "-w", "start")
        try:
            yield f"{folder}:{PORT}"
        finally:
            run(str(tools / "pg_ctl"), "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_postgresql_does_what_sqlite_does(socket: str) -> None:
    """In a process of its own: this one's settings are for SQLite, and are read once."""
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "tests.conversations.postgres_settings",
        "AVATAR_TEST_POSTGRES": socket,
    }
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-rN",
        # The server is thrown away whole: nobody waits for threads that have not left yet.
        "--reuse-db",
        "--tb=short",
        "--ds=tests.conversations.postgres_settings",
    ]
    files = ["test_search_rows.py", "test_services.py", "test_retention.py", "test_api.py", "test_views.py"]
    tests = [str(Path(__file__).with_name(name)) for name in files]
    tests.append(str(ROOT / "tests/voices/test_claims.py"))

    finished = subprocess.run(
        [*command, *tests], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False
    )

    assert finished.returncode == 0, finished.stdout[-4000:] + finished.stderr[-2000:]
    assert django_settings.DATABASES["default"]["ENGINE"].endswith("sqlite3")
