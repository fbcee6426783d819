"""A disk that is full, as files and databases report it."""

from __future__ import annotations

import errno
import sqlite3

#: PostgreSQL's SQLSTATE disk_full.
_POSTGRESQL_DISK_FULL = "53100"


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error of the file system or of Django's database layer says that no room, or no quota, is left."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    # Django wraps the driver's exception, which alone carries the code.
    cause = error.__cause__ if error is not None else None
    if isinstance(cause, sqlite3.Error):
        return getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    return getattr(cause, "sqlstate", None) == _POSTGRESQL_DISK_FULL
