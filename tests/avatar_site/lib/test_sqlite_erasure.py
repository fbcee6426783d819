from __future__ import annotations

import random
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import cache
from django.db import connection, transaction

from avatar_site.lib import sqlite_erasure
from avatar_site.lib.sqlite_erasure import (
    BUSY_TIMEOUT_MS,
    IS_ROOM_WARNED,
    MAX_ATTEMPTS,
    SPARE_BYTES,
    erase,
    erase_deleted_rows,
    erase_on_commit,
)

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif("connection.vendor != 'sqlite'", reason="PostgreSQL's autovacuum does it"),
]

ROWS = 300


def execute(sql: str, *values: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql, values)


def find_readable(numbers: list[int]) -> list[int]:
    """Which of the secrets can be read in the database's files."""
    database = Path(str(connection.settings_dict["NAME"]))
    data = b"".join(path.read_bytes() for path in database.parent.glob(f"{database.name}*"))
    return [number for number in numbers if f"SECRET{number:06d}".encode() in data]


@pytest.fixture
def deleted() -> Iterator[list[int]]:
    """
    Secrets whose rows were deleted, among rows that had grown.

    That is how turns are kept: a reply grows while it is spoken. The seed is one for which SQLite's balancing leaves
    a copy of a secret in the unused part of a page, as it does for one in twenty.
    """
    generator = random.Random(1000)
    execute("CREATE TABLE kept (id text PRIMARY KEY, secret text, reply text)")
    execute("PRAGMA wal_checkpoint(TRUNCATE)")
    ids: list[str] = []
    for number in range(ROWS):
        ids.append(uuid.UUID(int=generator.getrandbits(128)).hex)
        secret = f"SECRET{number:06d}" + "z" * generator.randint(0, 200)
        execute("INSERT INTO kept VALUES (%s, %s, '')", ids[-1], secret)
        if generator.random() < 0.3:
            grown = generator.choice(ids)
            execute("UPDATE kept SET reply = %s WHERE id = %s", "y" * generator.randint(0, 300), grown)
    numbers = generator.sample(range(ROWS), 20)
    for number in numbers:
        execute("DELETE FROM kept WHERE id = %s", ids[number])
    yield numbers
    execute("DROP TABLE kept")


class TestEraseDeletedRows:
    def test_leaves_no_copy_in_the_unused_parts_of_pages(self, deleted: list[int]) -> None:
        assert erase_deleted_rows()

        assert find_readable(deleted) == []
        assert len(find_readable(list(range(ROWS)))) == ROWS - len(deleted)

    def test_does_nothing_within_a_transaction(self, deleted: list[int]) -> None:
        with transaction.atomic():
            assert not erase_deleted_rows()

    def test_is_put_off_while_another_connection_writes(
        self, deleted: list[int], caplog: pytest.LogCaptureFixture
    ) -> None:
        other = connection.copy()
        execute("PRAGMA busy_timeout = 0")
        try:
            with other.cursor() as cursor:
                cursor.execute("BEGIN IMMEDIATE")
            assert not erase_deleted_rows()
            assert "locked" in caplog.text
        finally:
            other.close()
            connection.close()

    def test_waits_for_others_for_a_moment_only(self, deleted: list[int]) -> None:
        """A checkpoint blocks every writer for as long as it waits for a reader."""
        execute("PRAGMA busy_timeout = 12345")
        timeouts: list[tuple[int]] = []

        def note_timeout(run: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
            if sql == "VACUUM" or "wal_checkpoint" in sql:
                timeouts.extend(connection.connection.execute("PRAGMA busy_timeout").fetchall())
            return run(sql, params, many, context)

        with connection.execute_wrapper(note_timeout):
            assert erase_deleted_rows()

        assert timeouts == [(BUSY_TIMEOUT_MS,), (BUSY_TIMEOUT_MS,)]
        assert connection.connection.execute("PRAGMA busy_timeout").fetchall() == [(12345,)]
        connection.close()

    def test_is_put_off_while_a_statement_of_its_connection_is_not_finished(self, deleted: list[int]) -> None:
        rows = connection.connection.execute("SELECT * FROM kept")
        rows.fetchone()

        assert not erase_deleted_rows()

        rows.close()


class TestWithoutRoom:
    @pytest.fixture(autouse=True)
    def _one_disk(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """SQLite's temporary files are on the disk of the database."""
        monkeypatch.setenv("SQLITE_TMPDIR", str(Path(str(connection.settings_dict["NAME"])).parent))
        cache.delete(IS_ROOM_WARNED)

    def test_does_all_but_rewrite_the_pages_and_does_that_once_there_is_room(self, deleted: list[int]) -> None:
        statements: list[str] = []

        connection.connection.set_trace_callback(statements.append)
        try:
            assert not erase_deleted_rows(measure_free_bytes=lambda folder: SPARE_BYTES)
        finally:
            connection.connection.set_trace_callback(None)

        assert "VACUUM" not in statements
        assert any("'merge'" in sql for sql in statements)
        assert "PRAGMA wal_checkpoint(TRUNCATE)" in statements
        # What the warning says: a copy is still there.
        assert find_readable(deleted) != []
        assert erase_deleted_rows()
        assert find_readable(deleted) == []

    def test_says_once_what_to_do_and_again_after_there_was_room(
        self, deleted: list[int], caplog: pytest.LogCaptureFixture
    ) -> None:
        for _ in range(3):
            erase_deleted_rows(measure_free_bytes=lambda folder: 0)
        (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]

        assert "copies of deleted text may stay readable" in warning
        assert f"MiB in {Path(str(connection.settings_dict['NAME'])).parent}, which has 0 MiB" in warning
        assert "SQLITE_TMPDIR" in warning
        erase_deleted_rows()
        erase_deleted_rows(measure_free_bytes=lambda folder: 0)
        assert caplog.text.count("no room to rewrite the database") == 2

    def test_counts_both_copies_on_one_disk(self, deleted: list[int]) -> None:
        execute("VACUUM")
        size_bytes = sqlite_erasure._measure_bytes()

        assert not erase_deleted_rows(measure_free_bytes=lambda folder: SPARE_BYTES + size_bytes)
        assert erase_deleted_rows(measure_free_bytes=lambda folder: SPARE_BYTES + 2 * size_bytes)

    def test_asks_the_disk_of_the_temporary_folder_too(
        self, deleted: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setenv("SQLITE_TMPDIR", str(tmp_path))

        assert not erase_deleted_rows(measure_free_bytes=lambda folder: 0 if folder == tmp_path else 2**40)

        assert f"in {tmp_path}, which has 0 MiB" in caplog.text


class TestErase:
    def test_is_queued_where_the_cache_cannot_be_written(self, monkeypatch: pytest.MonkeyPatch) -> None:
        cache.clear()
        queued: list[Any] = []
        monkeypatch.setattr(erase, "apply_async", lambda **options: queued.append(options))
        monkeypatch.setattr(sqlite_erasure, "erase_deleted_rows", lambda: False)
        # As the cache in the database does, which swallows the error.
        monkeypatch.setattr(cache, "add", lambda *arguments: False)

        erase_on_commit()

        assert len(queued) == 1

    def test_is_queued_again_after_the_broker_was_away(self, monkeypatch: pytest.MonkeyPatch) -> None:
        cache.clear()
        queued: list[Any] = []

        def refuse(**options: Any) -> None:
            raise ConnectionError

        monkeypatch.setattr(sqlite_erasure, "erase_deleted_rows", lambda: False)
        monkeypatch.setattr(erase, "apply_async", refuse)
        erase_on_commit()
        monkeypatch.setattr(erase, "apply_async", lambda **options: queued.append(options))

        erase_on_commit()

        assert len(queued) == 1

    def test_is_tried_again_with_a_back_off_while_another_is_in_the_way(self, monkeypatch: pytest.MonkeyPatch) -> None:
        cache.clear()
        queued: list[Any] = []
        monkeypatch.setattr(erase, "apply_async", lambda **options: queued.append(options))
        monkeypatch.setattr(sqlite_erasure, "erase_deleted_rows", lambda: False)

        erase_on_commit()
        while len(queued) <= MAX_ATTEMPTS:
            erase(**queued[-1]["kwargs"])
        erase(**queued[-1]["kwargs"])

        assert [each["countdown"] for each in queued] == [60, 120, 240, 480]

    def test_is_left_to_a_caller_that_deletes_much(self, monkeypatch: pytest.MonkeyPatch) -> None:
        runs: list[bool] = []
        monkeypatch.setattr(sqlite_erasure, "erase_deleted_rows", lambda: runs.append(True) or True)

        with sqlite_erasure.left_to_caller(), transaction.atomic():
            erase_on_commit()
            # As hooks of a deletion do.
            transaction.on_commit(erase_on_commit)
        assert runs == []

        erase_on_commit()
        assert runs == [True]
