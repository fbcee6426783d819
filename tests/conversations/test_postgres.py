"""What SQLite is asked in all other tests, asked of a real PostgreSQL of the test's own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings as django_settings

from tests.postgres import TOOLS, Postgres, running_postgres

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(not TOOLS, reason="PostgreSQL is not installed (make test installs it)")


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with running_postgres("postgres") as server:
        yield server


#: A call, in a process of its own. What it says is what its person is told; a line in is something said.
CALL = """
import asyncio, sys
from uuid import uuid4
import django
django.setup()
from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import close_old_connections
from conversations.models import Conversation
from realtime.call.turns import SaidTurn
from realtime.recorder import Recorder

async def hold_call(conversation_id):
    recorder = Recorder(conversation_id=conversation_id, on_trouble=lambda trouble: print(trouble.name, flush=True))
    while line := (await asyncio.to_thread(sys.stdin.readline)).strip():
        recorder.record(SaidTurn(uuid4(), "user", line, "zh"))
        while recorder._waiting:
            await asyncio.sleep(0.01)
        print("saved or spooled", flush=True)
    await recorder.close()

call_command("migrate", verbosity=0)
conversation = Conversation.objects.create(owner=User.objects.create_user(str(uuid4())))
print("begun", flush=True)
asyncio.run(hold_call(conversation.pk))
close_old_connections()
print(*conversation.turns.in_order().values_list("text", flat=True), flush=True)
"""


def test_a_restart_of_postgresql_costs_a_call_nothing(postgres: Postgres, tmp_path: Path) -> None:
    """Its connection is kept, and dead afterwards. What is said while there is no server waits on the disk."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AVATAR_")} | {
        "DJANGO_SETTINGS_MODULE": "avatar_site.settings.base",
        "DATABASE_URL": postgres.make_url("postgres"),
        "AVATAR_ENV_FILE": "",
        "AVATAR_PROFILE": "fake",
        "AVATAR_DATA_DIR": str(tmp_path),
        "PYTHONPATH": str(ROOT),
    }
    log = (tmp_path / "log").open("w")
    call = subprocess.Popen(
        [sys.executable, "-c", CALL],
        env=environment,
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
    )
    assert call.stdin is not None
    assert call.stdout is not None

    def say(line: str) -> None:
        assert call.stdin is not None
        call.stdin.write(f"{line}\n")
        call.stdin.flush()

    def told() -> str:
        assert call.stdout is not None
        return call.stdout.readline().strip()

    try:
        assert told() == "begun", (tmp_path / "log").read_text()[-2000:]
        say("before")
        assert told() == "saved or spooled"
        postgres.stop()
        postgres.start()
        say("after")
        # Not as much as one attempt failed.
        assert told() == "saved or spooled"
        postgres.stop()
        say("without")
        assert [told(), told()] == ["DELAYED", "saved or spooled"]
        assert "without" in next((tmp_path / "spool").glob("*.jsonl")).read_text()
        postgres.start()
        assert told() == "RECOVERED"
        say("")
        assert told() == "before after without"
    finally:
        call.kill()
        call.communicate()
        log.close()
    assert (tmp_path / "log").read_text().count("is not saved now") == 1


@pytest.mark.parametrize(
    "paths",
    [
        [
            f"conversations/test_{name}.py"
            for name in ("search_rows", "services", "queries", "retention", "api", "views")
        ],
        ["voices/test_leases.py", "voices/test_migrations.py"],
        [f"avatar_site/operations/tombstones/test_{name}.py" for name in ("triggers", "watching", "log", "applying")],
        [f"avatar_site/monitoring/test_{name}.py" for name in ("alerts", "rollups", "sampling", "watching")],
    ],
    ids=["conversations", "voices", "tombstones", "monitoring"],
)
def test_postgresql_does_what_sqlite_does(postgres: Postgres, paths: list[str]) -> None:
    """In a process of its own: this one's settings are for SQLite, and are read once."""
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "tests.conversations.postgres_settings",
        "AVATAR_TEST_POSTGRES": postgres.address,
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
    tests = [str(ROOT / "tests" / path) for path in paths]

    finished = subprocess.run(
        [*command, *tests], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False
    )

    assert finished.returncode == 0, finished.stdout[-4000:] + finished.stderr[-2000:]
    assert django_settings.DATABASES["default"]["ENGINE"].endswith("sqlite3")
