"""Search indexes of FTS5, on a plain connection of sqlite3: merged until nothing deleted is left, checked, rebuilt."""

from __future__ import annotations

import sqlite3

#: Pages of an index that are merged in one transaction: other writers wait for its end.
PAGES_A_STEP = 64
#: Far more than an index has: a bound, should a merge find work without end.
MAX_STEPS = 100_000
#: Returns the names of the indexes.
LIST_TABLES = "SELECT name FROM sqlite_master WHERE sql LIKE 'CREATE VIRTUAL TABLE%USING fts5%' ORDER BY name"
#: An index is a virtual table, and these tables: https://www.sqlite.org/fts5.html#fts5_data_structures.
_SHADOWS = ("data", "idx", "content", "docsize", "config")


class MergeUnfinished(Exception):
    """Raised when a merge goes on without end. The index works; it may still have deleted words."""


def list_tables(database: sqlite3.Connection) -> list[str]:
    """Return the names of the indexes."""
    return [name for (name,) in database.execute(LIST_TABLES)]


def list_shadow_tables(table: str) -> list[str]:
    """Return the names of the tables that an index may keep its data in."""
    return [f"{table}_{suffix}" for suffix in _SHADOWS]


def merge_all(database: sqlite3.Connection, table: str) -> None:
    """
    Merge an index into one segment without deleted rows, in steps between which others can write.

    In autocommit mode (`isolation_level=None`). Raises MergeUnfinished.
    """
    pages = -PAGES_A_STEP  # negative: all segments at once, whatever their sizes
    for _ in range(MAX_STEPS):
        if not _merge(database, table, pages):
            return
        pages = PAGES_A_STEP
    raise MergeUnfinished(table)


def check(database: sqlite3.Connection, table: str) -> None:
    """Check an index for consistency, and against the rows that it covers. Raises sqlite3.DatabaseError."""
    name = quote(table)
    database.execute(f"INSERT INTO {name}({name}, rank) VALUES ('integrity-check', 1)")  # noqa: S608 — quoted


def rebuild(database: sqlite3.Connection, table: str) -> None:
    """Rebuild an index from the rows that it covers."""
    name = quote(table)
    database.execute(f"INSERT INTO {name}({name}) VALUES ('rebuild')")  # noqa: S608 — quoted


def quote(name: str) -> str:
    """Return a name as SQL writes it."""
    return '"{}"'.format(name.replace('"', '""'))


def _merge(database: sqlite3.Connection, table: str, pages: int) -> bool:
    """Merge about this many pages. Return whether there was anything to merge: then there is more than one change."""
    name = quote(table)
    before = database.total_changes
    database.execute(f"INSERT INTO {name}({name}, rank) VALUES ('merge', ?)", [pages])  # noqa: S608 — quoted
    return database.total_changes - before > 1
