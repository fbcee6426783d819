"""On SQLite here, and on PostgreSQL by tests/conversations/test_postgres.py."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from django.contrib.auth.models import Group, User
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from avatar_site.operations.models import Tombstone
from avatar_site.operations.tombstones import log
from avatar_site.operations.tombstones.watching import may_write_tombstones
from conversations.models import RetentionChoice, TurnSearch
from tests import factories

pytestmark = pytest.mark.django_db(transaction=True)


def read_keys(table: str) -> list[str]:
    return [entry.key for entry in log.read_log() if entry.table == table]


needs_sqlite = pytest.mark.skipif(connection.vendor != "sqlite", reason="drained by the maintenance worker alone")


@pytest.mark.skipif(connection.vendor == "sqlite", reason="drained after each commit")
class TestWithoutSqlite:
    def test_leaves_the_rows_to_the_machine_that_ships(self, alice: User, tombstones_dir: Path) -> None:
        """A web process on another machine has a log of its own, which nobody ships."""
        User.objects.filter(pk=alice.pk).update(is_active=False)
        with transaction.atomic():
            User.objects.filter(pk=alice.pk).update(is_staff=True)
        log.drain_or_leave()

        assert not tombstones_dir.exists()
        assert Tombstone.objects.count() == 2

        assert log.drain() == 2
        assert read_keys("auth_user") == [str(alice.pk)] * 2


@needs_sqlite
class TestWatching:
    def test_drains_after_a_statement_of_its_own(self, alice: User) -> None:
        User.objects.filter(pk=alice.pk).update(is_active=False)

        assert read_keys("auth_user") == [str(alice.pk)]
        assert not Tombstone.objects.exists()

    def test_drains_after_raw_sql(self, alice: User) -> None:
        with connection.cursor() as cursor:
            cursor.execute("update auth_user set is_active = %s where id = %s", [False, alice.pk])

        assert read_keys("auth_user") == [str(alice.pk)]

    def test_drains_once_the_transaction_is_committed(self, alice: User) -> None:
        with transaction.atomic():
            User.objects.filter(pk=alice.pk).update(is_active=False)
            User.objects.filter(pk=alice.pk).update(is_staff=True)
            assert read_keys("auth_user") == []

        assert read_keys("auth_user") == [str(alice.pk)] * 2

    def test_logs_nothing_of_what_is_rolled_back(self, alice: User) -> None:
        with transaction.atomic():
            User.objects.filter(pk=alice.pk).update(is_active=False)
            transaction.set_rollback(True)

        assert read_keys("auth_user") == []
        assert not Tombstone.objects.exists()

    def test_drains_what_follows_a_savepoint_that_is_rolled_back(self, alice: User) -> None:
        with transaction.atomic():
            with transaction.atomic():
                User.objects.filter(pk=alice.pk).update(is_active=False)
                transaction.set_rollback(True)
            User.objects.filter(pk=alice.pk).update(is_staff=True)

        assert [entry.values.get("is_staff") for entry in log.read_log()] in ([1], [True])

    def test_drains_once_a_commit(self, alice: User) -> None:
        with CaptureQueriesContext(connection) as queries, transaction.atomic():
            for value in (True, False, True):
                User.objects.filter(pk=alice.pk).update(is_staff=value)

        assert sum("INSERT" in query["sql"] or "SELECT 1" in query["sql"] for query in queries) == 1
        assert len(read_keys("auth_user")) == 3

    def test_drains_what_a_cascade_of_a_table_that_is_not_watched_deletes(self, alice: User) -> None:
        turn = factories.create_turn(factories.create_conversation(alice))
        TurnSearch.objects.all().delete()

        alice.delete()

        assert read_keys("conversations_turn") == [str(turn.pk)]
        assert not Tombstone.objects.exists()

    def test_is_on_every_connection(self, alice: User) -> None:
        def deactivate() -> None:
            User.objects.filter(pk=alice.pk).update(is_active=False)
            connection.close()

        thread = threading.Thread(target=deactivate)
        thread.start()
        thread.join()

        assert read_keys("auth_user") == [str(alice.pk)]

    def test_is_there_once_after_connecting_again(self, alice: User) -> None:
        before = list(connection.execute_wrappers)

        connection.close()
        User.objects.exists()

        assert connection.execute_wrappers == before

    def test_survives_the_wrapper_of_another_who_connects(self, alice: User) -> None:
        connection.close()
        connection.execute_wrappers.clear()

        with connection.execute_wrapper(lambda execute, *arguments: execute(*arguments)):
            User.objects.filter(pk=alice.pk).update(is_active=False)
        User.objects.filter(pk=alice.pk).update(is_staff=True)

        assert len(read_keys("auth_user")) == 2

    def test_costs_a_turn_that_is_saved_one_query(self, alice: User) -> None:
        conversation = factories.create_conversation(alice)
        factories.create_turn(conversation)

        with CaptureQueriesContext(connection) as queries:
            factories.create_turn(conversation)

        ours = [query["sql"] for query in queries if "operations_tombstone" in query["sql"]]
        assert ours == ["SELECT 1 FROM operations_tombstone LIMIT 1"]

    def test_leaves_what_returns_rows_to_the_next_drain(self, alice: User, caplog: pytest.LogCaptureFixture) -> None:
        """SQLite cannot commit before they are fetched."""
        alice.groups.through.objects.create(user=alice, group=Group.objects.create(name="staff"))

        assert caplog.records == []
        assert Tombstone.objects.count() == 1
        assert log.drain() == 1
        assert len(read_keys("auth_user_groups")) == 1

    def test_drains_what_returns_rows_once_it_is_committed(self, alice: User) -> None:
        with transaction.atomic():
            RetentionChoice.objects.create(user=alice, audio_days=3)

        assert not Tombstone.objects.exists()
        assert len(read_keys("conversations_retentionchoice")) == 1

    @pytest.mark.parametrize(
        ("sql", "expected"),
        [
            ('DELETE FROM "auth_user" WHERE', True),
            ("  delete\n from auth_user where", True),
            ('UPDATE "conversations_turn" SET', True),
            ('INSERT INTO "auth_user_groups" (', True),
            ('INSERT INTO "conversations_turn" (', False),
            ('UPDATE "auth_usera" SET', False),
            ('UPDATE "voices_voicejob" SET', False),
            ('DELETE FROM "operations_tombstone" WHERE', False),
            ('SELECT "auth_user"."id" FROM "auth_user"', False),
        ],
    )
    def test_looks_at_the_statement(self, sql: str, expected: bool) -> None:
        assert may_write_tombstones(sql) is expected

    def test_fails_no_statement_where_the_log_cannot_be_written(self, alice: User, tombstones_dir: Path) -> None:
        tombstones_dir.write_text("a file in its place")
        try:
            User.objects.filter(pk=alice.pk).update(is_active=False)
            assert Tombstone.objects.count() == 1
        finally:
            tombstones_dir.unlink()

        User.objects.filter(pk=alice.pk).update(is_staff=True)

        assert read_keys("auth_user") == [str(alice.pk)] * 2
