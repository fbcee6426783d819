"""Copies of an SQLite database: taken while others write, cleaned, checked; and put in the place of the live one."""

from __future__ import annotations

import datetime as dt
import errno
import logging
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from django.conf import settings
from django.db import connection, connections

from avatar_site.lib import fts5
from avatar_site.operations.backups.snapshot import (
    DamagedDatabase,
    LoadFailed,
    Query,
    Snapshot,
    SnapshotFailed,
    SwapRefused,
    count_rows,
    list_audio_columns,
    list_tables_left_out,
    read_audio_names,
    read_schema,
)

logger = logging.getLogger(__name__)

NAME = "avatar.sqlite3"
#: What folders begin with that a database is kept in.
DAMAGED, REPLACED = "damaged", "replaced"
_TIME_FORMAT = "%Y%m%dT%H%M%SZ"
#: For how long a snapshot waits for others who hold the whole database (a recovery, a restore).
BUSY_TIMEOUT_S = 60
#: For how long a swap waits for other connections to close.
SWAP_TIMEOUT_S = 2
#: SQLite's side files. One of another database damages this one: SQLite would replay it.
COMPANIONS = ("-wal", "-shm", "-journal")
#: Free space that a snapshot must leave on the disk.
SPARE_BYTES = 16 * 1024 * 1024
#: More problems than this are not read from a damaged database.
_MAX_PROBLEMS = 5
#: Python raises UnicodeDecodeError for an error of SQLite that quotes bytes that are not UTF-8.
_UNREADABLE_MESSAGE = "its schema is not text"
_INTEGRITY_CHECK = f"PRAGMA integrity_check({_MAX_PROBLEMS})"


def find_live() -> Path:
    """Return the path of the live database. Raises SnapshotFailed for one in memory."""
    name = str(connection.settings_dict["NAME"])
    if ":memory:" in name or name.startswith("file:"):
        raise SnapshotFailed(f"The database {name} is not a file of its own, and cannot be backed up.")
    return Path(name)


def take(folder: Path, *, find_now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC)) -> Snapshot:
    """
    Copy the live database into a folder while others write. The copy has no deleted words, logins, or cache.

    One step: a copy in several is begun again with each write of another process. It takes twice the size of the
    database in the folder, of which one is left; 2 s for 100,000 turns (130 MB) on two busy cores. Raises
    SnapshotFailed, DamagedDatabase, and OSError when the disk is full.
    """
    live = find_live()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    working, final = folder / f"{NAME}.copy", folder / NAME
    try:
        for path in (working, final):
            _remove(path)
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        with _as_failure(live):
            taken_at = _copy(live, working, find_now)
            with _open(working) as database:
                _clean(database)
                # Rewrites every page, so that no deleted data is left in their unused parts. Indexes are
                # copied as they are: that one differs from its table is found below.
                database.execute("VACUUM INTO ?", [str(final)])
        _remove(working)
        with _as_failure(live), _open(final) as database:
            # Not WAL, which the live one is: a single file can be moved and stored.
            database.execute("PRAGMA journal_mode=DELETE")
            check(database)
            snapshot = _describe(database, final, taken_at)
        _sync(final)
        _sync(folder)
    except BaseException:
        for path in (working, final):
            _remove(path)
        raise
    return snapshot


def check(database: sqlite3.Connection) -> None:
    """Check a database's pages, indexes, foreign keys and search indexes. Raises DamagedDatabase."""
    _check_pages(database)
    broken = database.execute("PRAGMA foreign_key_check").fetchmany(_MAX_PROBLEMS)
    if broken:
        rows = ", ".join(f"{table} {row} → {parent}" for table, row, parent, _ in broken)
        raise DamagedDatabase(f"rows name others that do not exist: {rows}")
    for table in fts5.list_tables(database):
        try:
            fts5.check(database, table)
        except sqlite3.DatabaseError as error:
            raise DamagedDatabase(f"the search index {table} differs from what was said ({error})") from error


def check_replaceable() -> None:
    """Raise SwapRefused if another process has the live database open. A damaged one can be replaced."""
    connections.close_all()
    live = find_live()
    if live.exists() and is_intact(live):
        _close_log(live)


def swap(prepared: Path, *, now: dt.datetime, keeps_live: bool = False) -> Path | None:
    """
    Put a database in the place of the live one, in one step: a crash leaves the one or the other, whole.

    The prepared file is moved. The live one is gone afterwards, unless it is damaged, or has tables and `keeps_live`:
    then it is kept, with its side files, in a folder that is returned. Raises SwapRefused, and LoadFailed if the
    prepared file cannot be used.
    """
    connections.close_all()
    live = find_live()
    prepared = _make_single(prepared)
    if prepared.stat().st_dev != live.parent.stat().st_dev:
        prepared = _bring_near(prepared, live)
    _sync(prepared)
    kept = None
    with _holding(live) as database:
        if database is None:
            kept = _set_aside(live, DAMAGED, now)
        elif keeps_live and list_tables(database.execute):
            kept = _set_aside(live, REPLACED, now)
        for suffix in COMPANIONS:
            Path(f"{live}{suffix}").unlink(missing_ok=True)
        _sync(live.parent)
        prepared.replace(live)
        _sync(live.parent)
    return kept


def remove_replaced(*, before: dt.datetime) -> list[str]:
    """Remove the databases that swaps kept in folders before then. Return the folders."""
    removed = []
    for folder in sorted(Path(settings.AVATAR_DATA_DIR).glob(f"*-{'[0-9]' * 8}T{'[0-9]' * 6}Z")):
        purpose, _, time = folder.name.partition("-")
        if purpose in (DAMAGED, REPLACED) and dt.datetime.strptime(f"{time}+0000", f"{_TIME_FORMAT}%z") < before:
            shutil.rmtree(folder)
            removed.append(str(folder))
    return removed


def _copy(live: Path, working: Path, find_now: Callable[[], dt.datetime]) -> dt.datetime:
    """Copy all pages as they are at one moment; return when, or just before."""
    with _open(live, mode="rw") as source, _open(working) as copy:
        taken_at = find_now()
        # This read fixes the moment: whatever others commit from now on, this transaction does not see.
        source.execute("BEGIN")
        source.execute("SELECT count(*) FROM sqlite_master").fetchone()
        _check_room(source, working.parent)
        source.backup(copy, pages=-1)
        source.execute("ROLLBACK")
    return taken_at


def _check_room(source: sqlite3.Connection, folder: Path) -> None:
    ((size_bytes,),) = source.execute("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size")
    needed_bytes = 2 * size_bytes + SPARE_BYTES
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < needed_bytes:
        raise OSError(
            errno.ENOSPC,
            f"a copy of the database needs {needed_bytes / 2**20:.0f} MiB, and {free_bytes / 2**20:.0f} MiB are free",
            str(folder),
        )


def _clean(database: sqlite3.Connection) -> None:
    # A scratch file: after a crash it is discarded.
    database.execute("PRAGMA journal_mode=MEMORY")
    database.execute("PRAGMA synchronous=OFF")
    tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    for table in list_tables_left_out():
        if table in tables:
            database.execute(f"DELETE FROM {fts5.quote(table)}")  # noqa: S608 — quoted
    for table in fts5.list_tables(database):
        try:
            fts5.check(database, table)
        except sqlite3.DatabaseError as error:
            # It can be rebuilt from the turns, so it does not fail the backup.
            logger.error(
                "the search index %s differs from what was said (%s), and searches may miss something. The copy's is"
                " rebuilt; rebuild the live one by INSERT INTO %s(%s) VALUES ('rebuild')",
                *(table, error, table, table),
            )
            fts5.rebuild(database, table)
        fts5.merge_all(database, table)


def _check_pages(database: sqlite3.Connection) -> None:
    text_factory, database.text_factory = database.text_factory, bytes
    try:
        # It quotes damaged bytes, which need not be UTF-8.
        found = [line.decode(errors="replace") for (line,) in database.execute(_INTEGRITY_CHECK)]
    finally:
        database.text_factory = text_factory
    if found != ["ok"]:
        raise DamagedDatabase("; ".join(found))


def list_tables(query: Query) -> list[str]:
    """Return the tables with rows of the product: no FTS5 tables and no internal tables of SQLite."""
    indexes = {str(name) for (name,) in query(fts5.LIST_TABLES)}
    hidden = {*indexes, *(shadow for index in indexes for shadow in fts5.list_shadow_tables(index))}
    found = {str(name) for (name,) in query("SELECT name FROM sqlite_master WHERE type = 'table'")}
    return sorted(name for name in found - hidden if not name.startswith("sqlite_"))


def _describe(database: sqlite3.Connection, path: Path, taken_at: dt.datetime) -> Snapshot:
    tables = list_tables(database.execute)
    # That of a version before a column has it not yet: `serve --prepare` takes a snapshot before it migrates.
    columns = [
        (table, column)
        for table, column in list_audio_columns()
        if database.execute("SELECT 1 FROM pragma_table_info(?) WHERE name = ?", [table, column]).fetchone()
    ]
    return Snapshot(
        path=path,
        vendor="sqlite",
        taken_at=taken_at,
        row_counts=count_rows(database.execute, tables),
        audio_names=read_audio_names(database.execute, columns),
        schema=read_schema(database.execute) if "django_migrations" in tables else {},
    )


@contextmanager
def _as_failure(live: Path) -> Iterator[None]:
    """Return a sentence for an error of SQLite."""
    try:
        yield
    except DamagedDatabase as error:
        raise DamagedDatabase(f"The database {live} is damaged: {error}.") from error
    except fts5.MergeUnfinished as error:
        raise SnapshotFailed(f"Deleted words stay in the copy's search index {error}: it was not kept.") from error
    except UnicodeDecodeError as error:
        raise DamagedDatabase(f"The database {live} is damaged: {_UNREADABLE_MESSAGE}.") from error
    except sqlite3.Error as error:
        code = _find_code(error)
        if code == sqlite3.SQLITE_FULL:
            raise OSError(errno.ENOSPC, "no room for a copy of the database", str(live)) from error
        if _is_damage(error):
            raise DamagedDatabase(f"The database {live} is damaged: {error}.") from error
        raise SnapshotFailed(f"The database {live} could not be copied: {error}.") from error


def _find_code(error: sqlite3.Error) -> int:
    # The primary code, https://www.sqlite.org/rescode.html#primary_result_codes_versus_extended_result_codes
    return int(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)) & 0xFF


def _is_damage(error: sqlite3.Error) -> bool:
    return _find_code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


@contextmanager
def _open(path: Path, *, mode: str = "rw", timeout_s: float = BUSY_TIMEOUT_S) -> Iterator[sqlite3.Connection]:
    """Open a file that exists, in autocommit mode."""
    address = f"file:{quote(str(path.resolve()))}?mode={mode}"
    with closing(sqlite3.connect(address, uri=True, timeout=timeout_s, isolation_level=None)) as database:
        yield database


def is_intact(live: Path) -> bool:
    """Return whether a database is consistent. Reads all of it, and does not change it: it may be evidence."""
    try:
        # Only a reader does not write the log into the database when it leaves.
        with _open(live, mode="ro", timeout_s=SWAP_TIMEOUT_S) as database:
            _check_pages(database)
    except sqlite3.Error as error:
        if _is_busy(error):
            raise _make_refusal(live) from error
        logger.warning("the database %s is damaged: %s", live, error)
        return False
    except (DamagedDatabase, UnicodeDecodeError) as error:
        logger.warning("the database %s is damaged: %s", live, error)
        return False
    return True


def _close_log(live: Path) -> None:
    """
    Write the log into the database and remove it. Raises SwapRefused.

    Leaving WAL takes a lock on the whole file, which SQLite gives only to the one connection that there is.
    """
    try:
        with _open(live, timeout_s=SWAP_TIMEOUT_S) as database:
            ((mode,),) = database.execute("PRAGMA journal_mode=DELETE")
    except sqlite3.OperationalError as error:
        if _is_busy(error):
            raise _make_refusal(live) from error
        raise
    if mode != "delete":
        raise _make_refusal(live)


@contextmanager
def _holding(live: Path) -> Iterator[sqlite3.Connection | None]:
    """Lock the live database exclusively; yield a connection to it, None if it is not intact. Raises SwapRefused."""
    if not live.exists() or not is_intact(live):
        yield None
        return
    _close_log(live)
    with _open(live, timeout_s=SWAP_TIMEOUT_S) as database:
        try:
            database.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            raise _make_refusal(live) from error
        yield database


def _is_busy(error: sqlite3.Error) -> bool:
    return _find_code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _make_refusal(live: Path) -> SwapRefused:
    return SwapRefused(f"Another process has {live} open: stop it first.")


def _set_aside(live: Path, purpose: str, now: dt.datetime) -> Path | None:
    """Hard-link (or copy) a database and its side files into a folder; the old name stays until the swap."""
    found = [path for path in (live, *(Path(f"{live}{suffix}") for suffix in COMPANIONS)) if path.exists()]
    if not found:
        return None
    folder = Path(settings.AVATAR_DATA_DIR) / f"{purpose}-{now.astimezone(dt.UTC):{_TIME_FORMAT}}"
    folder.mkdir(mode=0o700, exist_ok=True)
    for path in found:
        kept = folder / path.name
        kept.unlink(missing_ok=True)
        try:
            os.link(path, kept)
        except OSError:  # another disk, or a file system without links
            shutil.copy2(path, kept)
            _sync(kept)
    _sync(folder)
    _sync(folder.parent)
    return folder


def _make_single(prepared: Path) -> Path:
    """Make sure that it is one file, without a WAL."""
    try:
        with _open(prepared, timeout_s=SWAP_TIMEOUT_S) as database:
            ((mode,),) = database.execute("PRAGMA journal_mode=DELETE")
    except sqlite3.Error as error:
        raise LoadFailed(f"The restored database {prepared} cannot be used: {error}.") from error
    if mode != "delete":
        raise LoadFailed(f"The restored database {prepared} is still open.")
    return prepared


def _bring_near(prepared: Path, live: Path) -> Path:
    """Copy it to the disk of the live one: only within a disk a rename is one step."""
    near = live.with_name(f"{live.name}.restoring")
    near.unlink(missing_ok=True)
    shutil.copyfile(prepared, near)
    near.chmod(0o600)
    return near


def _remove(path: Path) -> None:
    for suffix in ("", *COMPANIONS):
        Path(f"{path}{suffix}").unlink(missing_ok=True)


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
