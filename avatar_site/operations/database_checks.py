"""
What is wrong with a database that opens: damaged, empty beside recordings, or of a newer program.

Looks before migrations run, so that nothing is written to what may be the wrong file. Knows SQLite's file and names of
migrations; whoever starts AVATAR says what was found and decides.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

Migration = tuple[str, str]

#: Folders of the storage that hold what people said, and the tables whose rows name those files.
_KEPT = {"conversations": "conversations_turn", "voices": "voices_recording"}


class Problem(StrEnum):
    DAMAGED = "database_damaged"
    EMPTY = "database_empty"
    NEWER = "database_newer"


@dataclass(frozen=True, slots=True)
class Finding:
    """`sentence` says what is wrong and what to do, in the language that is active; `detail` is for the log."""

    problem: Problem
    sentence: Promise | str
    detail: str


SENTENCES: dict[Problem, Promise | str] = {
    Problem.DAMAGED: _(
        "The database is damaged. Stop AVATAR, keep a copy of the data folder, and put the last backup of "
        "avatar.sqlite3 back."
    ),
    Problem.EMPTY: _(
        "The database is empty, but there are recordings in the data folder. Check that AVATAR_DATA_DIR and "
        "DATABASE_URL are those of before, or put the last backup of the database back."
    ),
    Problem.NEWER: _(
        "The database was made by a newer version of AVATAR. Install that version, or put a backup from before the "
        "update back."
    ),
}


def check_database(*, database: Path, media_root: Path, known: Collection[Migration]) -> list[Finding]:
    """
    Return what is wrong with a SQLite database. One that does not exist yet, and has nothing beside it, is fine.

    `known` are the migrations of this program. Reads the whole file (`quick_check`): a second for 500 MB from a cache.
    """
    if not database.exists():
        return _find_forgotten(media_root, {})
    try:
        # Read and write: a log left by a process that was killed can only be read by one who may write.
        with closing(sqlite3.connect(f"file:{database}?mode=rw", uri=True, timeout=20)) as connection:
            result = [row[0] for row in connection.execute("PRAGMA quick_check(1)")]
            if result != ["ok"]:
                return [_make_finding(Problem.DAMAGED, "; ".join(map(str, result)))]
            counts = {table: _count(connection, table) for table in _KEPT.values()}
            applied = _read_migrations(connection)
    except sqlite3.OperationalError:
        # Locked, or not ours to read: that is no damage.
        raise
    except sqlite3.DatabaseError as error:
        return [_make_finding(Problem.DAMAGED, str(error))]
    return find_newer(applied=applied, known=known) + _find_forgotten(media_root, counts)


def find_newer(*, applied: Collection[Migration], known: Collection[Migration]) -> list[Finding]:
    """Return a finding if migrations were applied that this program does not have. For any database."""
    known_apps = {app for app, _name in known}
    unknown = sorted({each for each in applied if each[0] in known_apps} - set(known))
    if not unknown:
        return []
    return [_make_finding(Problem.NEWER, ", ".join(f"{app}.{name}" for app, name in unknown))]


def _find_forgotten(media_root: Path, counts: dict[str, int]) -> list[Finding]:
    """Return a finding if there are files of people and not one row that could name any."""
    if any(counts.values()):
        return []
    found = [folder for folder in _KEPT if next(_list_files(media_root / folder), None) is not None]
    return [_make_finding(Problem.EMPTY, f"files in {', '.join(found)}")] if found else []


def _list_files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def _count(connection: sqlite3.Connection, table: str) -> int:
    if not _has_table(connection, table):
        return 0
    return int(connection.execute(f"SELECT EXISTS (SELECT 1 FROM {table})").fetchone()[0])  # noqa: S608 — named above


def _read_migrations(connection: sqlite3.Connection) -> set[Migration]:
    if not _has_table(connection, "django_migrations"):
        return set()
    return {(str(app), str(name)) for app, name in connection.execute("SELECT app, name FROM django_migrations")}


def _has_table(connection: sqlite3.Connection, table: str) -> bool:
    found = connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", [table]).fetchone()
    return found is not None


def _make_finding(problem: Problem, detail: str) -> Finding:
    return Finding(problem, SENTENCES[problem], detail)
