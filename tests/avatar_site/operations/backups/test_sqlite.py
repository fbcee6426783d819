"""Snapshots of a real SQLite file while another process writes, and the swap of one for another."""

from __future__ import annotations

import datetime as dt
import errno
import os
import random
import sqlite3
import stat
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.db import DatabaseError, connection
from django.utils import timezone
from pytest_django import DjangoDbBlocker, Settings

from avatar_site.operations.backups import database, sqlite
from avatar_site.operations.models import Tombstone
from conversations.models import Conversation, Turn
from tests import factories
from tests.databases import as_default
from tests.processes import OutputProcess

#: Of the tests' own database, of which each test here has a copy for its own.
pytestmark = [
    pytest.mark.django_db,
    # Python 3.12 on says so of any fork; the child only runs the tested code, and ends.
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]

NOW = dt.datetime(2026, 11, 26, 3, 30, tzinfo=dt.UTC)

#: Writes pairs of rows, each pair in a transaction, and says which is committed.
WRITER = """
import itertools, sqlite3, sys
database = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
database.execute("PRAGMA synchronous=NORMAL")
for number in itertools.count():
    database.execute("BEGIN IMMEDIATE")
    for half in (0, 1):
        database.execute("INSERT INTO pairs VALUES (?, ?, ?)", (number, half, "x" * (number % 700)))
    database.execute("COMMIT")
    print(number, flush=True)
"""

#: Opens a database, in a transaction that writes if it is told to, and keeps it open.
HOLDER = """
import signal, sqlite3, sys
database = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
database.execute(sys.argv[2])
database.execute("SELECT count(*) FROM auth_user").fetchone()
print("open", flush=True)
signal.pause()
"""

DYING_WRITER = """
import os, sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("PRAGMA journal_mode=WAL")
# Deleting writes nothing where there are no users; this writes something, and not to the first page.
database.execute("INSERT INTO auth_group (name) VALUES ('written last')")
database.execute("DELETE FROM auth_user")
os._exit(0)
"""


@pytest.fixture(scope="module")
def migrated(
    tmp_path_factory: pytest.TempPathFactory, django_db_setup: None, django_db_blocker: DjangoDbBlocker
) -> Path:
    path = tmp_path_factory.mktemp("migrated") / "avatar.sqlite3"
    with django_db_blocker.unblock():
        connection.ensure_connection()
        with closing(sqlite3.connect(path)) as copy:
            connection.connection.backup(copy)
    return path


@pytest.fixture
def live(tmp_path: Path, migrated: Path, settings: Settings) -> Iterator[Path]:
    """A database for this test in the data folder, as Django's default."""
    settings.AVATAR_DATA_DIR = tmp_path / "data"
    settings.AVATAR_DATA_DIR.mkdir()
    path = Path(settings.AVATAR_DATA_DIR) / "avatar.sqlite3"
    path.write_bytes(migrated.read_bytes())
    with as_default(f"sqlite:///{path}"):
        # Makes the log, as the product does.
        assert User.objects.count() == 0
        yield path


def read(path: Path, statement: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as copy:
        return copy.execute(statement).fetchall()


def list_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def hold_open(path: Path, statement: str = "SELECT 1") -> OutputProcess:
    process = OutputProcess([sys.executable, "-c", HOLDER, str(path), statement])
    process.wait_for("^open$")
    return process


def say(word: str, owner: User | None = None) -> Turn:
    conversation = factories.create_conversation(owner or factories.create_user(), title="Places")
    return factories.create_turn(conversation, text=f"We speak of {word} and of the weather.")


class TestTake:
    def test_describes_what_it_has(self, live: Path, tmp_path: Path) -> None:
        turn = factories.create_turn(audio=factories.make_flac())

        snapshot = sqlite.take(tmp_path / "copy", find_now=lambda: NOW)

        assert (snapshot.vendor, snapshot.taken_at) == ("sqlite", NOW)
        assert snapshot.path == tmp_path / "copy" / "avatar.sqlite3"
        assert snapshot.row_counts["conversations_turn"] == 1
        assert snapshot.row_counts == database.count_rows()
        assert snapshot.audio_names == (turn.audio_name,)
        assert snapshot.schema["conversations"] >= "0007"
        assert not [table for table in snapshot.row_counts if "fts" in table or table.startswith("sqlite_")]

    def test_is_one_file_that_only_we_can_read(self, live: Path, tmp_path: Path) -> None:
        snapshot = sqlite.take(tmp_path / "copy")

        assert list_names(snapshot.path.parent) == ["avatar.sqlite3"]
        assert stat.S_IMODE(snapshot.path.stat().st_mode) == 0o600
        assert stat.S_IMODE(snapshot.path.parent.stat().st_mode) == 0o700
        assert read(snapshot.path, "PRAGMA journal_mode") == [("delete",)]
        # Of the header: 1 is a rollback journal, 2 a log.
        assert snapshot.path.read_bytes()[18:20] == b"\x01\x01"

    def test_has_no_logins_no_live_calls_no_cache_and_no_outbox(self, live: Path, tmp_path: Path) -> None:
        call = factories.create_live_call(factories.create_user())
        Session.objects.create(session_key="of-somebody", session_data="x", expire_date=timezone.now())
        Tombstone.objects.create(at="2026", table="t", key="sent-later", is_deletion=True)
        with connection.cursor() as cursor:
            cursor.execute("CREATE TABLE cache (cache_key text, value text)")
            cursor.execute("INSERT INTO cache VALUES ('cached-name', 'x')")

        snapshot = sqlite.take(tmp_path / "copy")

        for table in ("django_session", "cache", "operations_tombstone", "realtime_livecall"):
            assert read(snapshot.path, f"SELECT count(*) FROM {table}") == [(0,)]  # noqa: S608 — above
            assert table not in snapshot.row_counts
        content = snapshot.path.read_bytes()
        secrets = (b"of-somebody", b"cached-name", b"sent-later", call.session_id.hex.encode())
        assert not [secret for secret in secrets if secret in content]
        assert (Session.objects.count(), Tombstone.objects.filter(key="sent-later").count()) == (1, 1)

    def test_has_no_word_that_was_deleted_not_in_the_search_index_either(self, live: Path, tmp_path: Path) -> None:
        with connection.cursor() as cursor:
            # Without secure_delete, so that only the snapshot's cleaning counts.
            cursor.execute("PRAGMA secure_delete=OFF")
        generator = random.Random(7)
        owner = factories.create_user()
        for number in range(60):
            say(f"zanzibar{generator.randint(10**6, 10**7)} x{number}", owner)
        kept = say("Honolulu", owner)
        with connection.cursor() as cursor:
            cursor.execute("DELETE FROM conversations_turnsearch WHERE text LIKE '%zanzibar%'")
            cursor.execute("DELETE FROM conversations_turn WHERE text LIKE '%zanzibar%'")
            cursor.execute("PRAGMA wal_checkpoint(PASSIVE)")
        assert b"zanzibar" in b"".join(path.read_bytes().lower() for path in live.parent.glob("avatar.sqlite3*"))

        snapshot = sqlite.take(tmp_path / "copy")

        content = snapshot.path.read_bytes().lower()
        assert b"zanzibar" not in content
        assert b"honolulu" in content
        found = "SELECT rowid FROM conversations_turnsearch_fts WHERE conversations_turnsearch_fts MATCH 'honolulu'"
        assert len(read(snapshot.path, found)) == 1
        assert read(snapshot.path, "SELECT id FROM conversations_turn") == [(kept.pk.hex,)]

    def test_has_every_pair_that_was_committed_before_and_no_half(self, live: Path, tmp_path: Path) -> None:
        with connection.cursor() as cursor:
            cursor.execute("CREATE TABLE pairs (number integer, half integer, filling text)")
        writer = OutputProcess([sys.executable, "-c", WRITER, str(live)])
        try:
            writer.wait_for("^50$")
            for attempt in range(4):
                committed = int(writer.output.rpartition("\n")[0].rpartition("\n")[2])

                snapshot = sqlite.take(tmp_path / f"copy{attempt}")

                pairs = read(snapshot.path, "SELECT number, count(*), sum(half) FROM pairs GROUP BY number ORDER BY 1")
                assert pairs == [(number, 2, 1) for number in range(len(pairs))]
                assert len(pairs) > committed
                # It goes on writing: nobody waits for a snapshot.
                writer.wait_for(f"^{len(pairs) + 20}$")
        finally:
            writer.close()

    def test_sees_what_only_the_log_has(self, live: Path, tmp_path: Path) -> None:
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA wal_autocheckpoint=0")
        say("Honolulu")
        assert b"Honolulu" not in live.read_bytes()

        assert b"Honolulu" in sqlite.take(tmp_path / "copy").path.read_bytes()

    def test_of_an_older_schema_has_the_columns_that_there_are(self, live: Path, tmp_path: Path) -> None:
        with connection.cursor() as cursor:
            cursor.execute("DROP TABLE voices_preview")

        assert "voices_preview" not in sqlite.take(tmp_path / "copy").row_counts

    def test_leaves_nothing_where_the_database_is_missing(self, live: Path, tmp_path: Path) -> None:
        connection.close()
        live.unlink()

        with pytest.raises(database.SnapshotFailed, match="unable to open"):
            sqlite.take(tmp_path / "copy")

        assert not live.exists()
        assert list_names(tmp_path / "copy") == []

    @pytest.mark.parametrize("share", [0.5, 1.5], ids=["while it copies", "while it cleans"])
    def test_leaves_nothing_on_a_disk_that_fills_up(
        self, live: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float
    ) -> None:
        """Other processes write to the disk as well: the free space at the start is no guarantee."""
        monkeypatch.setattr(sqlite, "_check_room", lambda source, folder: None)
        connection.close()
        small = tmp_path / "small"
        small.mkdir()
        size_bytes = int(share * live.stat().st_size)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(small)]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("no right to mount")
        try:
            with pytest.raises(OSError, match="no room for a copy of the database") as caught:
                sqlite.take(small / "copy")

            assert caught.value.errno == errno.ENOSPC
            assert list_names(small / "copy") == []
        finally:
            subprocess.run(["umount", str(small)], check=True)

    def test_foresees_a_full_disk(self, live: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sqlite, "SPARE_BYTES", 1 << 60)

        with pytest.raises(OSError, match=r"needs \d+ MiB, and \d+ MiB are free") as caught:
            sqlite.take(tmp_path / "copy")

        assert caught.value.errno == errno.ENOSPC
        assert list_names(tmp_path / "copy") == []


class TestDamage:
    """A snapshot of a database that contradicts itself is none: it would replace good ones."""

    def test_of_pages_is_found(self, live: Path, tmp_path: Path) -> None:
        say("Honolulu")
        connection.close()
        content = bytearray(live.read_bytes())
        # All but the first page, which has the header and the schema.
        for position in range(4096 + 100, len(content), 4096):
            content[position : position + 200] = b"\xff" * 200
        live.write_bytes(content)

        with pytest.raises(database.DamagedDatabase, match="is damaged"):
            sqlite.take(tmp_path / "copy")

        assert list_names(tmp_path / "copy") == []

    def test_of_an_index_is_not_hidden_by_writing_it_anew(self, live: Path, tmp_path: Path) -> None:
        factories.create_user("alice")
        connection.close()
        with closing(sqlite3.connect(live, isolation_level=None)) as file:
            file.execute("PRAGMA writable_schema=ON")
            # The index does not have the row that is added while it is out of the schema.
            entry = file.execute(
                "SELECT * FROM sqlite_master WHERE name = 'auth_user_groups_user_id_6a12ed8b'"
            ).fetchone()
            file.execute("DELETE FROM sqlite_master WHERE name = ?", [entry[1]])
        with closing(sqlite3.connect(live, isolation_level=None)) as file:
            file.execute("INSERT INTO auth_group VALUES (1, 'g')")
            file.execute("INSERT INTO auth_user_groups VALUES (1, 1, 1)")
            file.execute("PRAGMA writable_schema=ON")
            file.execute("INSERT INTO sqlite_master VALUES (?, ?, ?, ?, ?)", entry)

        with pytest.raises(database.DamagedDatabase, match="index"):
            sqlite.take(tmp_path / "copy")

    def test_of_references_is_found(self, live: Path, tmp_path: Path) -> None:
        conversation = factories.create_conversation()
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA foreign_keys=OFF")
            cursor.execute("DELETE FROM auth_user")

        with pytest.raises(database.DamagedDatabase, match=r"conversations_conversation \d+ → auth_user"):
            sqlite.take(tmp_path / "copy")
        assert Conversation.objects.get() == conversation

    def test_of_a_search_index_is_repaired_in_the_copy(
        self, live: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It can be rebuilt from the turns, so it does not fail the backup."""
        say("Honolulu")
        with connection.cursor() as cursor:
            cursor.execute("DROP TRIGGER conversations_turnsearch_changed")
            cursor.execute("UPDATE conversations_turnsearch SET text = 'zanzibar'")

        snapshot = sqlite.take(tmp_path / "copy")

        assert "the search index conversations_turnsearch_fts differs from what was said" in caplog.text
        found = "SELECT count(*) FROM conversations_turnsearch_fts WHERE conversations_turnsearch_fts MATCH '{}'"
        assert [read(snapshot.path, found.format(word)) for word in ("zanzibar", "honolulu")] == [[(1,)], [(0,)]]
        assert [read(live, found.format(word)) for word in ("zanzibar", "honolulu")] == [[(0,)], [(1,)]]

    def test_of_a_search_index_that_stays_is_found(self, live: Path, tmp_path: Path) -> None:
        say("Honolulu")
        copy = sqlite.take(tmp_path / "copy").path
        with closing(sqlite3.connect(copy, isolation_level=None)) as file:
            file.execute("UPDATE conversations_turnsearch_fts_data SET block = zeroblob(40) WHERE id > 10")

            with pytest.raises(database.DamagedDatabase, match="the search index conversations_turnsearch_fts differs"):
                sqlite.check(file)

    def test_is_left_as_it_was_found(self, live: Path) -> None:
        leave_log(live)
        live.write_bytes(b"x" * 100 + live.read_bytes()[100:])
        found = [(path, path.read_bytes()) for path in (live, Path(f"{live}-wal"))]

        with pytest.raises(DatabaseError, match="is damaged"):
            database.has_content()
        sqlite.check_replaceable()

        assert [(path, path.read_bytes()) for path, _ in found] == found

    def test_of_the_first_page_is_found(self, live: Path, tmp_path: Path) -> None:
        connection.close()
        live.write_bytes(b"not a database" * 1000)

        with pytest.raises(database.DamagedDatabase, match="file is not a database"):
            sqlite.take(tmp_path / "copy")


class TestSwap:
    @pytest.fixture
    def prepared(self, live: Path, tmp_path: Path) -> Path:
        """A database with Alice; the live one then has Bob as well, and a log."""
        factories.create_user("alice")
        path = sqlite.take(tmp_path / "data" / "scratch").path
        factories.create_user("bob")
        assert Path(f"{live}-wal").exists()
        return path

    @staticmethod
    def list_users() -> list[str]:
        return sorted(User.objects.values_list("username", flat=True))

    def test_puts_one_in_the_place_of_the_other(self, live: Path, prepared: Path) -> None:
        assert sqlite.swap(prepared, now=NOW) is None

        assert sorted(path.name for path in live.parent.glob("avatar.sqlite3*")) == ["avatar.sqlite3"]
        assert self.list_users() == ["alice"]
        assert not prepared.exists()
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA journal_mode")
            assert cursor.fetchone() == ("wal",)

    def test_takes_along_what_the_prepared_ones_log_has(self, live: Path, prepared: Path) -> None:
        leave_log(prepared)

        sqlite.swap(prepared, now=NOW)

        assert self.list_users() == []

    @pytest.mark.parametrize("statement", ["SELECT 1", "BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"])
    def test_refuses_while_another_process_has_it_open(
        self, live: Path, prepared: Path, statement: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sqlite, "SWAP_TIMEOUT_S", 0.05)
        connection.close()
        holder = hold_open(live, statement)
        try:
            with pytest.raises(database.SwapRefused, match=f"Another process has {live} open: stop it first"):
                sqlite.swap(prepared, now=NOW)
            with pytest.raises(database.SwapRefused):
                sqlite.check_replaceable()
        finally:
            holder.process.kill()
            holder.close()

        assert self.list_users() == ["alice", "bob"]
        connection.close()
        sqlite.swap(prepared, now=NOW)
        assert self.list_users() == ["alice"]

    def test_keeps_others_out_until_it_is_done(
        self, live: Path, prepared: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Their writes in between would be lost with the old file."""
        refusals: list[str] = []
        replace = Path.replace

        def write_before(source: Path, target: Path) -> Path:
            with closing(sqlite3.connect(live, timeout=0)) as other:
                try:
                    other.execute("DELETE FROM auth_user")
                except sqlite3.OperationalError as error:
                    refusals.append(str(error))
            return replace(source, target)

        monkeypatch.setattr(Path, "replace", write_before)

        sqlite.swap(prepared, now=NOW)

        assert refusals == ["database is locked"]

    def test_where_there_is_none(self, live: Path, prepared: Path) -> None:
        connection.close()
        live.unlink()

        assert sqlite.swap(prepared, now=NOW) is None
        assert self.list_users() == ["alice"]

    def test_keeps_a_log_whose_database_is_missing_from_the_new_one(self, live: Path, prepared: Path) -> None:
        """SQLite would replay it, into another database."""
        leave_log(live)
        log = Path(f"{live}-wal").read_bytes()
        live.unlink()

        kept = sqlite.swap(prepared, now=NOW)

        assert kept == live.parent / "damaged-20261126T033000Z"
        assert (kept / "avatar.sqlite3-wal").read_bytes() == log
        assert self.list_users() == ["alice"]
        assert read(live, "PRAGMA integrity_check") == [("ok",)]

    def test_keeps_a_damaged_one_with_its_log(self, live: Path, prepared: Path) -> None:
        leave_log(live)
        before = live.read_bytes()
        live.write_bytes(b"x" * 100 + before[100:])

        kept = sqlite.swap(prepared, now=NOW)

        assert kept is not None
        assert stat.S_IMODE(kept.stat().st_mode) == 0o700
        assert (kept / "avatar.sqlite3").read_bytes() == b"x" * 100 + before[100:]
        assert (kept / "avatar.sqlite3-wal").stat().st_size
        assert sorted(path.name for path in live.parent.glob("avatar.sqlite3*")) == ["avatar.sqlite3"]
        assert self.list_users() == ["alice"]

    def test_keeps_one_that_contradicts_itself(self, live: Path, prepared: Path) -> None:
        connection.close()
        content = bytearray(live.read_bytes())
        for position in range(4096 + 100, len(content), 4096):
            content[position : position + 200] = b"\xff" * 200
        live.write_bytes(content)

        kept = sqlite.swap(prepared, now=NOW)

        assert kept is not None
        assert (kept / "avatar.sqlite3").read_bytes() == content
        assert self.list_users() == ["alice"]

    def test_keeps_one_of_which_there_is_no_backup(self, live: Path, prepared: Path) -> None:
        """Its references are broken, say: then no snapshot of it is taken, and it can be used all the same."""
        kept = sqlite.swap(prepared, now=NOW, keeps_live=True)

        assert kept == live.parent / "replaced-20261126T033000Z"
        assert list_names(kept) == ["avatar.sqlite3"]
        assert read(kept / "avatar.sqlite3", "SELECT username FROM auth_user ORDER BY 1") == [("alice",), ("bob",)]
        assert self.list_users() == ["alice"]

    def test_keeps_no_empty_one(self, live: Path, prepared: Path) -> None:
        connection.close()
        live.unlink()
        connection.ensure_connection()
        connection.close()
        assert live.exists()

        assert sqlite.swap(prepared, now=NOW, keeps_live=True) is None
        assert self.list_users() == ["alice"]

    def test_keeps_what_it_replaced_no_longer_than_backups(self, live: Path, prepared: Path) -> None:
        kept = sqlite.swap(prepared, now=NOW, keeps_live=True)
        (live.parent / "damaged-20261126T032959Z").mkdir()
        (live.parent / "exports-20251126T032959Z").mkdir()

        assert database.remove_replaced(before=NOW) == [str(live.parent / "damaged-20261126T032959Z")]
        assert database.remove_replaced(before=NOW + dt.timedelta(seconds=1)) == [str(kept)]
        assert [path.name for path in live.parent.iterdir() if "-2" in path.name] == ["exports-20251126T032959Z"]

    def test_refuses_what_is_no_database(self, live: Path, prepared: Path) -> None:
        prepared.write_bytes(b"not a database" * 1000)

        with pytest.raises(database.LoadFailed, match="cannot be used"):
            sqlite.swap(prepared, now=NOW)

        assert self.list_users() == ["alice", "bob"]

    def test_leaves_the_one_or_the_other_wherever_it_is_killed(self, live: Path, prepared: Path) -> None:
        seen: list[list[str]] = []
        for deadly_step in range(100):
            connection.close()
            if not fork_and_die_at(deadly_step, lambda: sqlite.swap(prepared, now=NOW)):
                break
            seen.append(self.list_users())
            assert read(live, "PRAGMA integrity_check") == [("ok",)]
            if not prepared.exists():
                break

        assert seen > [["alice", "bob"]] * 5
        assert self.list_users() == ["alice"]
        assert all(users in (["alice"], ["alice", "bob"]) for users in seen)

    def test_of_a_damaged_one_keeps_it_wherever_it_is_killed(self, live: Path, prepared: Path) -> None:
        leave_log(live)
        live.write_bytes(b"x" * 100 + live.read_bytes()[100:])
        damaged, log = live.read_bytes(), Path(f"{live}-wal").read_bytes()
        kept = live.parent / "damaged-20261126T033000Z"
        steps = 0
        while prepared.exists() and fork_and_die_at(steps, lambda: sqlite.swap(prepared, now=NOW)):
            found = [path.read_bytes() for path in (live, kept / live.name) if path.exists()]
            assert damaged in found
            logs = [path.read_bytes() for path in (Path(f"{live}-wal"), kept / f"{live.name}-wal") if path.exists()]
            assert log in logs
            steps += 1

        assert steps > 5
        assert self.list_users() == ["alice"]
        assert ((kept / live.name).read_bytes(), (kept / f"{live.name}-wal").read_bytes()) == (damaged, log)

    def test_brings_one_from_another_disk_near_first(self, live: Path, prepared: Path) -> None:
        elsewhere = Path("/dev/shm") / f"avatar-data-{os.getpid()}.sqlite3"  # noqa: S108 — removed below
        elsewhere.write_bytes(prepared.read_bytes())
        if elsewhere.stat().st_dev == live.stat().st_dev:
            pytest.skip("there is one disk")
        try:
            sqlite.swap(elsewhere, now=NOW)
        finally:
            elsewhere.unlink(missing_ok=True)

        assert sorted(path.name for path in live.parent.glob("avatar.sqlite3*")) == ["avatar.sqlite3"]
        assert stat.S_IMODE(live.stat().st_mode) == 0o600
        assert self.list_users() == ["alice"]


def leave_log(path: Path) -> None:
    """Have a process write to a database and die, as a power cut leaves it."""
    connection.close()
    subprocess.run([sys.executable, "-c", DYING_WRITER, str(path)], check=True)
    assert Path(f"{path}-wal").stat().st_size


def fork_and_die_at(step: int, action: Callable[[], object]) -> bool:
    """Run an action in a copy of this process, which ends at the n-th time it touches a file. Return whether it did."""
    child = os.fork()
    if child == 0:
        left = step

        def count(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal left
            if event in {"open", "os.rename", "os.remove", "os.link", "os.mkdir", "sqlite3.connect"}:
                if left == 0:
                    os._exit(9)
                left -= 1

        sys.addaudithook(count)
        try:
            action()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9)
    return code == 9
