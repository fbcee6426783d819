"""
Makes deleted rows unreadable in the files of SQLite. On PostgreSQL, autovacuum does it in its own time.

`secure_delete` alone is not enough, for three reasons:
- FTS5 marks the words of a deleted row in its index, and keeps them until the segments that they are in are merged.
- When SQLite balances a b-tree it moves cells between pages and does not clear what the smaller page no longer uses: a
  copy of a row stays behind, which the later deletion of the row does not reach. Only VACUUM rewrites every page.
- The write-ahead log has copies of pages until a checkpoint truncates it.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from celery import shared_task
from django.conf import settings
from django.core.cache import cache
from django.db import OperationalError, connection, transaction

from avatar_site.lib import fts5

logger = logging.getLogger(__name__)

#: A database up to this size is erased at once, while the person who deleted waits: 0.2 s on idle cores. In a larger
#: one deleted rows stay readable for AVATAR_ERASE_AFTER_S, and one run serves all deletions until then.
MAX_BYTES_AT_ONCE = 32 * 1024 * 1024
#: Further runs, each after twice the time, while another connection is in the way. Then it is left to the nightly run.
MAX_ATTEMPTS = 3
#: For how long another connection is waited for.
BUSY_TIMEOUT_MS = 500
#: A run that is still queued after this is taken for lost.
_QUEUED_FOR_S = 15 * 60
#: The key in the cache that is set while a run is queued.
IS_QUEUED = "sqlite_erasure.is_queued"
#: What VACUUM leaves of a disk to those who write at the same time.
SPARE_BYTES = 16 * 1024 * 1024
#: The key in the cache that is set once operators were told that there is no room for VACUUM, and for how long.
IS_ROOM_WARNED = "sqlite_erasure.is_room_warned"
_ROOM_WARNED_FOR_S = 24 * 60 * 60
_is_left_to_caller = ContextVar("is_left_to_caller", default=False)


def erase_on_commit() -> None:
    """
    Make what this transaction deletes unreadable once it is committed: at once, or by a worker within minutes.

    Call it with every deletion of content. If neither erasing nor queuing succeeds, the nightly retention run erases.
    """
    if not _is_left_to_caller.get():
        transaction.on_commit(_erase_or_queue, robust=True)


@contextmanager
def left_to_caller() -> Iterator[None]:
    """Erase nothing by `erase_on_commit`: the caller deletes much, and calls `erase_deleted_rows` at the end."""
    token = _is_left_to_caller.set(True)
    try:
        yield
    finally:
        _is_left_to_caller.reset(token)


def _erase_or_queue() -> None:
    if connection.vendor != "sqlite" or (_measure_bytes() <= MAX_BYTES_AT_ONCE and erase_deleted_rows()):
        return
    _queue(attempt=0)


def _queue(*, attempt: int) -> None:
    # A cache in a database that cannot be written adds nothing either, and says the same.
    if not cache.add(IS_QUEUED, True, _QUEUED_FOR_S) and cache.get(IS_QUEUED):
        return
    try:
        erase.apply_async(kwargs={"attempt": attempt}, countdown=settings.AVATAR_ERASE_AFTER_S * 2**attempt)
    except Exception:
        cache.delete(IS_QUEUED)
        raise


# Queued messages of earlier versions have this name.
@shared_task(name="conversations.tasks.erase_deleted_words")
def erase(*, attempt: int = 0) -> None:
    """Make deleted rows unreadable, now or, with a back-off, later. A deletion from now on queues another run."""
    cache.delete(IS_QUEUED)
    if not erase_deleted_rows() and attempt < MAX_ATTEMPTS:
        _queue(attempt=attempt + 1)


def measure_free_bytes(folder: Path) -> int:
    """Return how much this process may still write to the disk of a folder."""
    return shutil.disk_usage(folder).free


def erase_deleted_rows(*, measure_free_bytes: Callable[[Path], int] = measure_free_bytes) -> bool:
    """
    Merge the search indexes, VACUUM, and truncate the write-ahead log. Return whether nothing is left to erase.

    False within a transaction, and where another connection is in the way: then it has to be done again. VACUUM keeps
    other writers waiting, not readers: 0.6 s for 100,000 turns (110 MB) on idle cores, 2 s on busy ones. It needs room
    for a second copy of the database in SQLite's temporary folder and for a third in the log; without that, all but
    VACUUM is done, and False returned.
    """
    if connection.vendor != "sqlite":
        return True
    if connection.in_atomic_block:
        return False
    started_at = time.monotonic()
    with _impatient():
        try:
            _merge_indexes()
            lacking = _describe_lack_of_room(measure_free_bytes)
            if lacking is None:
                with connection.cursor() as cursor:
                    cursor.execute("VACUUM")
        except OperationalError as error:
            # Locked, a statement of this connection that is not finished, or a full disk.
            logger.warning("deleted rows are not erased from the database's file yet: %s", error)
            _truncate_log()
            return False
        if not _truncate_log():
            logger.warning("copies of deleted rows stay in the database's log: another connection reads it")
            return False
    if lacking is not None:
        _warn_of_lack_of_room(lacking)
        return False
    cache.delete(IS_ROOM_WARNED)
    logger.info("deleted rows were erased in %.1f s", time.monotonic() - started_at)
    return True


@contextmanager
def _impatient() -> Iterator[None]:
    """Wait for other connections for a moment only: a checkpoint that waits for a reader blocks every writer."""
    ((before_ms,),) = _run_pragma("busy_timeout")
    _run_pragma(f"busy_timeout = {BUSY_TIMEOUT_MS}")
    try:
        yield
    finally:
        _run_pragma(f"busy_timeout = {int(before_ms)}")


def _run_pragma(pragma: str) -> list[tuple[Any, ...]]:
    # All rows, and a closed cursor: VACUUM fails while a statement is unfinished.
    with connection.cursor() as cursor:
        cursor.execute(f"PRAGMA {pragma}")
        return list(cursor.fetchall())


def _measure_bytes() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size")
        return int(cursor.fetchone()[0])


def _describe_lack_of_room(measure_free_bytes: Callable[[Path], int]) -> str | None:
    """Return what the disks lack for VACUUM, for an operator to read; None: there is room."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT file, (page_count - freelist_count) * page_size"
            " FROM pragma_database_list, pragma_page_count, pragma_freelist_count, pragma_page_size WHERE name = 'main'"
        )
        file, size_bytes = cursor.fetchone()
    if not file:  # a database in memory
        return None
    folders = (Path(file).parent, _find_temporary_folder())
    copies = Counter(folder.stat().st_dev for folder in folders)
    for folder in folders:
        needed_bytes = copies[folder.stat().st_dev] * size_bytes + SPARE_BYTES
        free_bytes = measure_free_bytes(folder)
        if free_bytes < needed_bytes:
            return f"{needed_bytes / 2**20:.0f} MiB in {folder}, which has {free_bytes / 2**20:.0f} MiB"
    return None


def _find_temporary_folder() -> Path:
    """Return where SQLite puts temporary files, https://www.sqlite.org/tempfiles.html#temporary_file_storage_locations."""
    named = (os.environ.get("SQLITE_TMPDIR"), os.environ.get("TMPDIR"), "/var/tmp", "/usr/tmp", "/tmp")  # noqa: S108 — SQLite's
    usable = (folder for folder in named if folder and Path(folder).is_dir() and os.access(folder, os.W_OK | os.X_OK))
    return Path(next(usable, "."))


def _warn_of_lack_of_room(lacking: str) -> None:
    """Warn once a day, not with every attempt."""
    # As in `_queue`: a cache that cannot be written must not silence the warning.
    if cache.add(IS_ROOM_WARNED, True, _ROOM_WARNED_FOR_S) or not cache.get(IS_ROOM_WARNED):
        logger.warning(
            "no room to rewrite the database: copies of deleted text may stay readable in unused parts of its file"
            " until the next erasure. Make room for %s, or set SQLITE_TMPDIR to a folder on another disk",
            lacking,
        )


def _merge_indexes() -> None:
    """Raises django.db.OperationalError."""
    connection.ensure_connection()
    with connection.wrap_database_errors:
        for table in fts5.list_tables(connection.connection):
            try:
                fts5.merge_all(connection.connection, table)
            except fts5.MergeUnfinished:
                logger.error("the index %s was not merged to its end", table)


def _truncate_log() -> bool:
    """Write the log into the database and empty it. Return False where a reader in a long query holds it."""
    try:
        ((is_busy, *_),) = _run_pragma("wal_checkpoint(TRUNCATE)")
    except OperationalError:
        # A statement of this connection that is not finished.
        return False
    return not is_busy
