"""Making deleted rows unreadable in the files of SQLite."""

from __future__ import annotations

from django.db import connection


def forget_deleted_rows() -> bool:
    """
    Have SQLite give up the copies of deleted rows in its write-ahead log. Return whether none are left.

    A reader in a long query keeps them: then it has to be done again. Rows themselves are overwritten when they
    are deleted (`secure_delete`). Connections are kept open, so that no last one that closes does it instead.
    """
    if connection.vendor != "sqlite":
        return True
    if connection.in_atomic_block:
        return False
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        is_busy, *_ = cursor.fetchone()
    return not is_busy
