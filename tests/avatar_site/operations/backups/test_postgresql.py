"""Dumps of a real PostgreSQL while another process writes, scratch databases, and the exchange of one for another."""

from __future__ import annotations

import datetime as dt
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.core.management import call_command
from django.db import connection
from django.utils import timezone
from pytest_django import DjangoDbBlocker

from avatar_site.operations.backups import database, postgresql
from avatar_site.operations.models import Tombstone
from tests import factories
from tests.backup_site import BackupSite, without_own
from tests.databases import as_default
from tests.postgres import SUPERUSER, TOOLS, Postgres, running_postgres
from tests.processes import OutputProcess

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.skipif(not TOOLS, reason="PostgreSQL is not installed (make test installs it)"),
]

NOW = dt.datetime(2026, 11, 26, 3, 30, tzinfo=dt.UTC)
#: It owns its database and may create others; no more.
SITE = "site"

#: Writes pairs of rows, each pair in a transaction, and says which is committed.
WRITER = """
import itertools, psycopg, sys
with psycopg.connect(sys.argv[1]) as database:
    for number in itertools.count():
        for half in (0, 1):
            database.execute("INSERT INTO pairs VALUES (%s, %s)", (number, half))
        database.commit()
        print(number, flush=True)
"""


@pytest.fixture(scope="module")
def server(django_db_blocker: DjangoDbBlocker) -> Iterator[Postgres]:
    """A server with a migrated database to copy."""
    with running_postgres("backups") as server:
        with server.connect() as admin:
            admin.execute(f"CREATE ROLE {SITE} LOGIN CREATEDB")
            admin.execute("CREATE ROLE guest LOGIN")
            admin.execute(f"CREATE DATABASE migrated OWNER {SITE}")
        with django_db_blocker.unblock(), as_default(server.make_url("migrated", user=SITE)):
            call_command("migrate", verbosity=0)
        yield server


@pytest.fixture
def live(server: Postgres) -> Iterator[str]:
    """A database for this test, as Django's default."""
    name = "avatar"
    with server.connect() as admin:
        admin.execute(f"CREATE DATABASE {name} OWNER {SITE} TEMPLATE migrated")
    with as_default(server.make_url(name, user=SITE)):
        yield name
    with server.connect() as admin:
        for left in list_databases(server):
            admin.execute(f'DROP DATABASE "{left}" WITH (FORCE)')


def list_databases(server: Postgres) -> list[str]:
    with server.connect() as admin:
        found = admin.execute("SELECT datname FROM pg_database WHERE datname LIKE 'avatar%' ORDER BY 1").fetchall()
    return [str(name) for (name,) in found]


def ask(server: Postgres, database_name: str, statement: str) -> list[tuple[Any, ...]]:
    with server.connect(database_name) as admin:
        return admin.execute(statement).fetchall()


def list_users() -> list[str]:
    return sorted(User.objects.values_list("username", flat=True))


@pytest.mark.usefixtures("live")
class TestTake:
    def test_describes_what_it_has(self, tmp_path: Path) -> None:
        turn = factories.create_turn(audio=factories.make_flac())

        snapshot = postgresql.take(tmp_path / "copy", find_now=lambda: NOW)

        assert (snapshot.vendor, snapshot.taken_at) == ("postgresql", NOW)
        assert snapshot.row_counts["conversations_turn"] == 1
        assert snapshot.row_counts == database.count_rows()
        assert snapshot.audio_names == (turn.audio_name,)
        assert snapshot.schema["conversations"] >= "0007"
        assert snapshot.path == tmp_path / "copy" / "database.pgdump"
        assert stat.S_IMODE(snapshot.path.stat().st_mode) == 0o600

    def test_has_no_logins_no_cache_and_no_outbox(self, server: Postgres, tmp_path: Path) -> None:
        Session.objects.create(session_key="of-somebody", session_data="x", expire_date=timezone.now())
        Tombstone.objects.create(at="2026", table="t", key="sent-later", is_deletion=True)
        with connection.cursor() as cursor:
            cursor.execute("CREATE TABLE cache (cache_key text)")
            cursor.execute("INSERT INTO cache VALUES ('cached')")

        snapshot = postgresql.take(tmp_path / "copy")

        with database.loaded(snapshot.path, vendor="postgresql") as loaded:
            assert loaded.scratch
            for table in ("django_session", "cache", "operations_tombstone", "realtime_livecall"):
                assert ask(server, loaded.scratch.name, f"SELECT count(*) FROM {table}") == [(0,)]  # noqa: S608 — above
                assert table not in snapshot.row_counts

    def test_has_every_pair_that_was_committed_before_and_no_half(self, server: Postgres, tmp_path: Path) -> None:
        with connection.cursor() as cursor:
            cursor.execute("CREATE TABLE pairs (number integer, half integer)")
        address = f"host={server.folder} port=54329 user={SITE} dbname=avatar"
        writer = OutputProcess([sys.executable, "-c", WRITER, address])
        try:
            writer.wait_for("^50$")
            committed = int(writer.output.rpartition("\n")[0].rpartition("\n")[2])

            snapshot = postgresql.take(tmp_path / "copy")

            writer.wait_for(f"^{snapshot.row_counts['pairs'] // 2 + 20}$")
        finally:
            writer.close()
        with database.loaded(snapshot.path, vendor="postgresql") as loaded:
            assert loaded.scratch
            pairs = ask(
                server, loaded.scratch.name, "SELECT number, count(*), sum(half) FROM pairs GROUP BY 1 ORDER BY 1"
            )
        assert pairs == [(number, 2, 1) for number in range(len(pairs))]
        assert len(pairs) > committed
        assert snapshot.row_counts["pairs"] == 2 * len(pairs)

    def test_shows_nobody_the_password(self, server: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        commands: list[tuple[list[str], dict[str, str]]] = []
        run = subprocess.run

        def note(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
            commands.append((command, options.get("env", {})))
            return run(command, **options)

        monkeypatch.setattr(subprocess, "run", note)
        url = server.make_url("avatar", user=f"{SITE}:s3cr3t%2F")

        with as_default(url):
            snapshot = postgresql.take(tmp_path / "copy")
            with database.loaded(snapshot.path, vendor="postgresql") as loaded:
                assert "s3cr3t%2F" in loaded.database_url
                assert "s3cr3t" not in repr(loaded)

        assert not [command for command, _ in commands if "s3cr3t" in " ".join(command)]
        tools = [environment for _, environment in commands if environment]
        assert [environment["PGPASSWORD"] for environment in tools] == ["s3cr3t/", "s3cr3t/"]

    def test_says_what_pg_dump_says(self, server: Postgres, tmp_path: Path) -> None:
        with server.connect("avatar") as admin:
            admin.execute("CREATE TABLE not_ours (x integer)")

        with pytest.raises(database.SnapshotFailed, match=r"(?s)permission denied for table not_ours"):
            postgresql.take(tmp_path / "copy")

        assert list((tmp_path / "copy").iterdir()) == []


def test_a_server_that_is_away_is_named(server: Postgres, tmp_path: Path) -> None:
    nowhere = server.make_url("avatar").replace(str(server.folder.name), "no-such-folder")

    with as_default(nowhere), pytest.raises(database.SnapshotFailed, match="PostgreSQL does not let us in"):
        postgresql.take(tmp_path / "copy")


class TestFindTool:
    @staticmethod
    def install(folder: Path, version: str) -> Path:
        folder.mkdir(parents=True)
        tool = folder / "pg_dump"
        tool.write_text(f"#!/bin/sh\necho 'pg_dump (PostgreSQL) {version}'\n")
        tool.chmod(0o755)
        return tool

    def find(self, tmp_path: Path, major: int) -> Path:
        return postgresql.find_tool(
            "pg_dump",
            major,
            failure=database.SnapshotFailed,
            packaged=tmp_path / "packaged",
            environment={"PATH": str(tmp_path / "path")},
        )

    def test_takes_the_one_of_the_servers_version(self, tmp_path: Path) -> None:
        wanted = self.install(tmp_path / "packaged" / "15" / "bin", "15.18 (Debian 15.18-0+deb12u1)")
        self.install(tmp_path / "packaged" / "16" / "bin", "16.2")
        self.install(tmp_path / "path", "17.1")

        assert self.find(tmp_path, 15) == wanted

    def test_takes_that_of_the_path(self, tmp_path: Path) -> None:
        wanted = self.install(tmp_path / "path", "17beta1")

        assert self.find(tmp_path, 17) == wanted

    def test_says_what_to_install(self, tmp_path: Path) -> None:
        tool = self.install(tmp_path / "path", "17.1")

        with pytest.raises(database.SnapshotFailed) as caught:
            self.find(tmp_path, 15)

        assert str(caught.value) == (
            f"The server is PostgreSQL 15, and pg_dump of that version is not installed ({tool} is of version 17): "
            "install postgresql-client-15."
        )


@pytest.mark.usefixtures("live")
class TestLoad:
    @pytest.fixture
    def dump(self, live: str, tmp_path: Path) -> Path:
        factories.create_user("alice")
        return postgresql.take(tmp_path / "copy").path

    def test_gives_a_database_that_a_url_opens_and_drops_it(self, server: Postgres, dump: Path) -> None:
        with database.loaded(dump, vendor="postgresql") as loaded:
            with as_default(loaded.database_url):
                assert connection.settings_dict["NAME"].startswith("avatar_restore_")
                assert list_users() == ["alice"]
                factories.create_turn(text="in the scratch database")
            assert len(list_databases(server)) == 2

        assert list_databases(server) == ["avatar"]

    def test_drops_what_a_killed_run_left_and_nothing_that_is_in_use(self, server: Postgres, dump: Path) -> None:
        with server.connect() as admin:
            for name in ("avatar_restore_0123abcd", "avatar_restore_89abcdef", "avatar_restore_of_somebody"):
                admin.execute(f"CREATE DATABASE {name} OWNER {SITE}")

        with server.connect("avatar_restore_89abcdef"), database.loaded(dump, vendor="postgresql") as loaded:
            assert loaded.scratch
            with database.loaded(dump, vendor="postgresql") as second:
                assert second.scratch
                assert list_databases(server) == sorted(
                    [
                        "avatar",
                        "avatar_restore_89abcdef",
                        "avatar_restore_of_somebody",
                        loaded.scratch.name,
                        second.scratch.name,
                    ]
                )

    @pytest.mark.parametrize(
        "options",
        ["LC_COLLATE 'C' LC_CTYPE 'C.UTF-8'", "LOCALE_PROVIDER icu ICU_LOCALE 'zh-Hant-TW'"],
        ids=["c", "icu"],
    )
    def test_sorts_texts_as_the_live_one_does(self, server: Postgres, dump: Path, options: str) -> None:
        name = "avatar_sorted"
        with server.connect() as admin:
            admin.execute(f"CREATE DATABASE {name} OWNER {SITE} TEMPLATE template0 {options}")

        with (
            as_default(server.make_url(name, user=SITE)),
            database.loaded(dump, vendor="postgresql") as loaded,
        ):
            assert loaded.scratch
            assert loaded.scratch.name.startswith(f"{name}_restore_")
            statement = (
                "SELECT encoding, datlocprovider, datcollate, datctype, daticulocale FROM pg_database"
                " WHERE datname = '{}'"
            )
            assert ask(server, "postgres", statement.format(loaded.scratch.name)) == ask(
                server, "postgres", statement.format(name)
            )

    @pytest.mark.parametrize("damage", ["truncated", "changed", "other"])
    def test_refuses_what_is_damaged_and_leaves_nothing(self, server: Postgres, dump: Path, damage: str) -> None:
        content = dump.read_bytes()
        match damage:
            case "truncated":
                dump.write_bytes(content[: len(content) // 2])
            case "changed":
                middle = len(content) - 3000
                dump.write_bytes(content[:middle] + bytes(byte ^ 0xFF for byte in content[middle:]))
            case "other":
                dump.write_bytes(b"not a dump")

        with (
            pytest.raises(database.LoadFailed, match="pg_restore failed"),
            database.loaded(dump, vendor="postgresql"),
        ):
            pass

        assert list_databases(server) == ["avatar"]

    def test_says_which_right_is_missing(self, server: Postgres, dump: Path) -> None:
        with (
            as_default(server.make_url("avatar", user="guest")),
            pytest.raises(database.LoadFailed, match='ALTER ROLE "guest" CREATEDB;'),
            database.loaded(dump, vendor="postgresql"),
        ):
            pass

    def test_needs_a_server(self, dump: Path, tmp_path: Path) -> None:
        with (
            as_default(f"sqlite:///{tmp_path}/other.sqlite3"),
            pytest.raises(database.LoadFailed, match="set DATABASE_URL"),
            database.loaded(dump, vendor="postgresql"),
        ):
            pass


class TestSwap:
    @pytest.fixture
    def dump(self, live: str, tmp_path: Path) -> Path:
        """A dump with Alice; the live database then has Bob as well."""
        factories.create_user("alice")
        path = postgresql.take(tmp_path / "copy").path
        factories.create_user("bob")
        connection.close()
        return path

    @staticmethod
    def swap(dump: Path, *, now: dt.datetime = NOW) -> str | None:
        with database.loaded(dump, vendor="postgresql") as loaded:
            return database.swap(loaded, now=now)

    def test_exchanges_the_names_and_keeps_the_last_one(self, server: Postgres, dump: Path) -> None:
        kept = self.swap(dump)

        assert kept == "avatar_before_20261126t033000z"
        assert list_databases(server) == ["avatar", kept]
        assert list_users() == ["alice"]
        assert ask(server, kept, "SELECT username FROM auth_user ORDER BY 1") == [("alice",), ("bob",)]

        again = self.swap(dump, now=NOW + dt.timedelta(days=1))
        assert list_databases(server) == ["avatar", again]

    def test_keeps_what_it_replaced_no_longer_than_backups(self, server: Postgres, dump: Path) -> None:
        kept = self.swap(dump)

        assert database.remove_replaced(before=NOW) == []
        assert list_databases(server) == ["avatar", kept]
        assert database.remove_replaced(before=NOW + dt.timedelta(seconds=1)) == [kept]
        assert list_databases(server) == ["avatar"]

    def test_goes_on_counting_where_the_copy_stopped(self, dump: Path) -> None:
        self.swap(dump)

        assert factories.create_user("carol").pk > User.objects.get(username="alice").pk
        tombstone = Tombstone.objects.create(at="2026", table="t", key="1", is_deletion=True)
        assert Tombstone.objects.filter(pk__gte=tombstone.pk).count() == 1

    def test_keeps_the_settings_of_the_database(
        self, server: Postgres, dump: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with server.connect() as admin:
            admin.execute("ALTER DATABASE avatar SET default_statistics_target TO '77'")
            admin.execute("ALTER DATABASE avatar SET search_path TO public, pg_catalog")
            admin.execute("ALTER DATABASE avatar SET log_statement TO 'ddl'")  # which only a superuser may

        self.swap(dump)

        assert "log_statement=ddl of the database is not taken over" in caplog.text
        assert ask(server, "avatar", "SHOW default_statistics_target") == [("77",)]
        assert ask(server, "avatar", "SHOW search_path") == [("public, pg_catalog",)]
        assert list_users() == ["alice"]

    def test_refuses_while_somebody_is_connected_and_says_who(self, server: Postgres, dump: Path) -> None:
        with psycopg.connect(
            host=str(server.folder), port=54329, user=SITE, dbname="avatar", application_name="worker"
        ):
            with pytest.raises(
                database.SwapRefused,
                match=r"The database avatar is in use by 1 session: site with worker from this machine \(1\)",
            ):
                self.swap(dump)
            with pytest.raises(database.SwapRefused, match="Stop what is connected first"):
                database.check_replaceable(vendor="postgresql")

        assert list_databases(server) == ["avatar"]
        assert list_users() == ["alice", "bob"]

    def test_renames_both_or_none(self, server: Postgres, dump: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Somebody connects after they were counted."""
        monkeypatch.setattr(postgresql, "_check_sessions", lambda connection, live: None)

        with database.loaded(dump, vendor="postgresql") as loaded:
            assert loaded.scratch
            with server.connect(loaded.scratch.name), pytest.raises(database.SwapRefused, match="is connected"):
                database.swap(loaded, now=NOW)

        assert list_databases(server) == ["avatar"]
        assert list_users() == ["alice", "bob"]

    def test_where_there_is_none(self, server: Postgres, dump: Path) -> None:
        with server.connect() as admin:
            admin.execute("DROP DATABASE avatar")

        assert self.swap(dump) is None
        assert list_databases(server) == ["avatar"]
        assert list_users() == ["alice"]

    def test_refuses_a_database_of_another_role(self, server: Postgres, dump: Path) -> None:
        with server.connect() as admin:
            admin.execute(f"ALTER DATABASE avatar OWNER TO {SUPERUSER}")

        with pytest.raises(database.SwapRefused, match='ALTER DATABASE "avatar" OWNER TO "site"'):
            database.check_replaceable(vendor="postgresql")

    def test_refuses_a_backup_of_sqlite(self, live: str, tmp_path: Path) -> None:
        with (
            database.loaded(tmp_path / "avatar.sqlite3", vendor="sqlite") as loaded,
            pytest.raises(database.SwapRefused, match="is of SQLite, and this installation uses PostgreSQL"),
        ):
            database.swap(loaded, now=NOW)


def test_long_names_leave_room_for_what_is_appended() -> None:
    assert postgresql._cut("資料庫" * 10) == "資料庫" * 4
    assert len(f"{postgresql._cut('x' * 63)}_before_20261126t033000z".encode()) <= 63


class TestSite:
    """By the commands, as an operator does it."""

    @pytest.fixture
    def site(self, server: Postgres, live: str, tmp_path: Path) -> BackupSite:
        connection.close()
        site = BackupSite(tmp_path / "site", DATABASE_URL=server.make_url(live, user=SITE))
        site.prepare()
        site.fill(20)
        return site

    def test_is_restored_in_place_and_elsewhere(self, server: Postgres, site: BackupSite, tmp_path: Path) -> None:
        rows, files = site.read_rows(), site.read_files()
        name = site.back_up()
        assert list_databases(server) == ["avatar"]
        site.fill(6, label="after")

        said = site.manage("restore", name, "--yes")

        before = list_databases(server)[1]
        assert list_databases(server) == ["avatar", before]
        assert f"The database before it is kept as {before}." in said
        assert without_own(site.read_rows()) == without_own(rows)
        # Audio of later turns stays in the storage until the restore is confirmed.
        assert files.items() < site.read_files().items()

        with server.connect() as admin:
            admin.execute(f"CREATE DATABASE avatar_elsewhere OWNER {SITE}")
        other = BackupSite(
            tmp_path / "other", target=site.target, DATABASE_URL=server.make_url("avatar_elsewhere", user=SITE)
        )
        other.manage("restore", name, "--yes")
        assert without_own(other.read_rows()) == without_own(rows)
        assert other.read_files() == files

    def test_is_not_restored_while_something_is_connected(self, server: Postgres, site: BackupSite) -> None:
        name = site.back_up()
        rows = site.read_rows()

        with server.connect("avatar"):
            said = site.fail("restore", name, "--yes")

        assert "The database avatar is in use by 1 session" in said
        assert "Nothing was changed" in said
        assert site.read_rows() == rows
        assert list_databases(server) == ["avatar"]
