from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from avatar_site.lib import fts5

#: A name that has to be quoted.
INDEX = 'a "quoted" index'


@pytest.fixture
def database() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        database.execute("CREATE TABLE said (id integer PRIMARY KEY, words text)")
        database.execute(
            f"CREATE VIRTUAL TABLE {fts5.quote(INDEX)} USING fts5(words, content='said', content_rowid='id')"
        )
        for number in range(200):
            add(database, number, f"word{number} zanzibar{number}")
        yield database


def add(database: sqlite3.Connection, number: int, words: str) -> None:
    name = fts5.quote(INDEX)
    database.execute("INSERT INTO said VALUES (?, ?)", [number, words])
    database.execute(f"INSERT INTO {name}(rowid, words) VALUES (?, ?)", [number, words])  # noqa: S608 — quoted


def remove(database: sqlite3.Connection, number: int, words: str) -> None:
    name = fts5.quote(INDEX)
    database.execute("DELETE FROM said WHERE id = ?", [number])
    database.execute(f"INSERT INTO {name}({name}, rowid, words) VALUES ('delete', ?, ?)", [number, words])  # noqa: S608


def read_index(database: sqlite3.Connection) -> bytes:
    return b"".join(block for (block,) in database.execute(f"SELECT block FROM {fts5.quote(INDEX + '_data')}"))  # noqa: S608


def test_lists_indexes_and_their_tables(database: sqlite3.Connection) -> None:
    assert fts5.list_tables(database) == [INDEX]
    tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert tables - {INDEX, "said"} <= set(fts5.list_shadow_tables(INDEX))


def test_merging_leaves_no_deleted_word(database: sqlite3.Connection) -> None:
    for number in range(0, 200, 2):
        remove(database, number, f"word{number} zanzibar{number}")
    # Terms are stored without the beginning that they share with the one before.
    add(database, 500, "xyzzy")
    remove(database, 500, "xyzzy")
    assert b"xyzzy" in read_index(database)

    fts5.merge_all(database, INDEX)

    assert b"xyzzy" not in read_index(database)
    fts5.check(database, INDEX)


def test_a_merge_without_end_is_said(database: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fts5, "MAX_STEPS", 0)

    with pytest.raises(fts5.MergeUnfinished, match=INDEX):
        fts5.merge_all(database, INDEX)


def test_rebuilding_repairs_what_the_check_finds(database: sqlite3.Connection) -> None:
    database.execute("UPDATE said SET words = 'other' WHERE id = 7")
    with pytest.raises(sqlite3.DatabaseError):
        fts5.check(database, INDEX)

    fts5.rebuild(database, INDEX)

    fts5.check(database, INDEX)
