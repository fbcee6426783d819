"""Recognises a full disk in the errors of files and databases, and words errors of files for operators."""

from __future__ import annotations

import errno
import sqlite3

#: PostgreSQL's SQLSTATE disk_full.
_POSTGRESQL_DISK_FULL = "53100"


def is_disk_full(error: BaseException | None) -> bool:
    """Return whether an error of the file system or of Django's database layer means a full disk or quota."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    # Only the driver's exception, which Django wraps, has the code.
    cause = error.__cause__ if error is not None else None
    if isinstance(cause, sqlite3.Error):
        return getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    return getattr(cause, "sqlstate", None) == _POSTGRESQL_DISK_FULL


def describe_error(error: BaseException) -> str:
    """Return the sentence of an error for an operator: of one of the system without its number, with its file."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(error)
