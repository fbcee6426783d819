"""A site in a temporary folder, driven by `manage.py` as an operator drives it, for tests and benches of backups."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from tests import migrated

ROOT = Path(__file__).parents[1]

#: Fills a site quickly: rows in bulk, files as a call writes them. Arguments: turns, bytes a file, a label.
_FILL = """
import hashlib, os, random, sys, uuid
from pathlib import Path
from django.contrib.auth.models import User
from django.core.files.storage import default_storage
from django.core.files.base import ContentFile
from conversations.models import Conversation, Turn, TurnSearch, audio_path
from conversations.search import index_text
from tests import factories
turns, size, label = {turns}, {size}, {label!r}
generator = random.Random(label)
alice = User.objects.filter(username="alice").first() or factories.create_user("alice")
for start in range(0, turns, 20):
    conversation = factories.create_conversation(alice, title=f"{{label}} {{start}}")
    batch = []
    for number in range(start, min(start + 20, turns)):
        turn = Turn(conversation=conversation, sequence=number - start + 1, speaker=("user", "avatar")[number % 2],
                    text=f"{{label}} 第 {{number}} 句，今天天氣怎麼樣？", audio_bytes=size, audio_duration_ms=1000)
        content = generator.randbytes(size)
        name = audio_path(turn, "turn.opus")
        if {is_folder}:
            path = Path(default_storage.path(name))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        else:
            default_storage.save(name, ContentFile(content))
        turn.audio = name
        batch.append(turn)
    Turn.objects.bulk_create(batch)
    TurnSearch.objects.bulk_create(
        TurnSearch(turn=turn, conversation=conversation, owner_id=alice.pk, text=index_text(turn.text))
        for turn in batch
    )
    conversation.last_turn_at = batch[-1].created_at
    conversation.save()
"""

#: Prints all rows of all tables that a backup has, as one digest a table.
_ROWS = """
import hashlib, json
from django.db import connection
from avatar_site.operations.backups import database
tables = sorted(database.count_rows())
with connection.cursor() as cursor:
    found = {}
    for table in tables:
        cursor.execute(f'SELECT * FROM {connection.ops.quote_name(table)}')
        rows = sorted(repr([bytes(v) if isinstance(v, memoryview) else v for v in row]) for row in cursor.fetchall())
        found[table] = [len(rows), hashlib.sha256("\\n".join(rows).encode()).hexdigest()]
print(json.dumps(found))
"""


#: Tables that backups and restores themselves write; a restore runs the retention.
WRITTEN_BY_OPERATIONS = {
    *("operations_backuprun", "operations_restore", "operations_tombstone"),
    "conversations_retentionrun",
}


#: Of SQLite's tables: its own, the search index's, logins, the cache.
NOT_IN_BACKUPS = ("sqlite_", "conversations_turnsearch_fts", "django_session", "cache", "realtime_livecall")


class CommandFailed(AssertionError):
    """A command ended with an unexpected error; has its output."""


class BackupSite:
    """A data folder, a target of backups next to it, and the commands on both."""

    def __init__(self, folder: Path, *, target: str | None = None, **environment: str) -> None:
        self.data_dir = folder / "data"
        self.target = target or str(folder / "target")
        self.environment: Mapping[str, str] = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("AVATAR_", "DJANGO_")) and name not in ("DATABASE_URL", "REDIS_URL")
        } | {
            "AVATAR_ENV_FILE": "",
            "AVATAR_DATA_DIR": str(self.data_dir),
            "AVATAR_PROFILE": "fake",
            "AVATAR_BACKUP_TARGET": self.target,
            "AVATAR_INFERENCE_ADDRESS": "unix:/nonexistent/inference.sock",
            "DJANGO_SETTINGS_MODULE": "avatar_site.settings.prod",
            **environment,
        }

    @property
    def media_dir(self) -> Path:
        return self.data_dir / "media"

    def list_scratch(self) -> list[str]:
        """Return the names in the scratch folder, which each command removes and makes anew."""
        try:
            return [path.name for path in (self.data_dir / "scratch").iterdir()]
        except FileNotFoundError:
            return []

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command in a new process group; the caller waits for its end."""
        return subprocess.Popen(
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, whatever that is."""
        process = self.start(*arguments)
        output, errors = process.communicate()
        return subprocess.CompletedProcess(arguments, process.returncode, output, errors)

    def manage(self, *arguments: str) -> str:
        """Run a command and return its output. Raises CommandFailed."""
        done = self.run(*arguments)
        if done.returncode != 0:
            raise CommandFailed(f"manage.py {' '.join(arguments)[:200]}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def fail(self, *arguments: str) -> str:
        """Run a command that must fail with a sentence, not a traceback, and return its output."""
        done = self.run(*arguments)
        assert done.returncode == 1, f"{done.returncode}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr, done.stderr
        return done.stdout + done.stderr

    def shell(self, code: str) -> str:
        return self.manage("shell", "--no-imports", "--command", code)

    def ask(self, code: str) -> Any:
        """Run code that prints JSON, and return it."""
        return json.loads(self.shell(code).strip().splitlines()[-1])

    def prepare(self) -> None:
        if self.environment.get("DATABASE_URL"):
            self.shell(migrated.MIGRATE)
        else:
            migrated.write_database(self.data_dir / "avatar.sqlite3")

    def fill(self, turns: int, *, size: int = 3000, label: str = "turn") -> None:
        is_folder = self.environment.get("AVATAR_STORAGE", "folder") == "folder"
        self.shell(_FILL.format(turns=turns, size=size, label=label, is_folder=is_folder))

    def back_up(self, *arguments: str) -> str:
        """Make a backup and return its name."""
        return self.manage("backup", *arguments).split()[1]

    def find_newest(self) -> str:
        """Return the name of the newest backup in a target that is a folder."""
        return max(path.name.split(".")[0] for path in (Path(self.target) / "manifests").iterdir())

    def read_rows(self) -> dict[str, list[Any]]:
        """Return the number of rows and a digest of each table that backups have."""
        if self.environment.get("DATABASE_URL"):
            rows: dict[str, list[Any]] = self.ask(_ROWS)
            return rows
        with closing(sqlite3.connect(self.data_dir / "avatar.sqlite3")) as database:
            names = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            tables = sorted(name for name in names if not name.startswith(NOT_IN_BACKUPS))
            # Names of tables, and nothing that anyone has written.
            return {table: _describe(database.execute(f'SELECT * FROM "{table}"').fetchall()) for table in tables}  # noqa: S608

    def read_files(self) -> dict[str, str]:
        """Return the digest of each file of the folder storage."""
        return {
            str(path.relative_to(self.media_dir)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in self.media_dir.rglob("*")
            if path.is_file()
        }


def _describe(rows: list[tuple[Any, ...]]) -> list[Any]:
    return [len(rows), hashlib.sha256("\n".join(sorted(map(repr, rows))).encode()).hexdigest()]


def without_own(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Return the rows but for those that backups and restores write themselves."""
    return {table: found for table, found in rows.items() if table not in WRITTEN_BY_OPERATIONS}


def kill_after(site: BackupSite, *arguments: str, after_s: float) -> bool:
    """Kill a command with its children after so long. Return whether it was still running."""
    process = site.start(*arguments)
    try:
        process.communicate(timeout=after_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return True
    return False
