"""Drains the table of tombstones after each commit that may have written to it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from django.db import DEFAULT_DB_ALIAS, transaction

from avatar_site.operations.tombstones.log import drain_or_leave
from avatar_site.operations.tombstones.triggers import WATCHED

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper

#: Looks at the beginning only: most statements are over after one character.
_WRITES = re.compile(
    r"\s*(?:(?:DELETE\s+FROM|UPDATE)\s+\"?(?:{})|INSERT\s+INTO\s+\"?(?:{}))[\"\s]".format(
        "|".join(each.table for each in WATCHED),
        "|".join(each.table for each in WATCHED if each.has_insertions),
    ),
    re.IGNORECASE,
)
#: Searched for in statements of watched tables only. A name or a value that has the word in it costs one drain.
_RETURNS_ROWS = re.compile(r"\bRETURNING\b", re.IGNORECASE)
#: Of the hooks of a transaction. One that does not find its own among them drains once more, for one small query.
_HOOKS_LOOKED_AT = 8


def watch_connection(connection: BaseDatabaseWrapper, **kwargs: Any) -> None:
    """
    Handle `connection_created`: look at what this connection executes from now on.

    Not where processes may run on several machines: each would drain to the log of its own data folder, and only that
    of the maintenance worker is shipped. The rows wait in the table, which all see, for `maintenance.ship_tombstones`.
    """
    if connection.vendor != "sqlite":
        return
    if connection.alias == DEFAULT_DB_ALIAS and _drain_after_commit not in connection.execute_wrappers:
        # First: who adds a wrapper for a while takes the last one away.
        connection.execute_wrappers.insert(0, _drain_after_commit)


def may_write_tombstones(sql: object) -> bool:
    return isinstance(sql, str) and _WRITES.match(sql) is not None


def _drain_after_commit(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: dict[str, Any]) -> Any:
    result = execute(sql, params, many, context)
    if may_write_tombstones(sql):
        connection: BaseDatabaseWrapper = context["connection"]
        # In autocommit the hook runs at once, and SQLite commits nothing while a statement has rows to be fetched: what
        # returns some is left to the next drain, that of the task of each minute at the latest.
        can_hook = connection.in_atomic_block or (connection.get_autocommit() and not _RETURNS_ROWS.search(sql))
        if can_hook and not _is_scheduled(connection):
            transaction.on_commit(drain_or_leave, using=connection.alias, robust=True)
    return result


def _is_scheduled(connection: BaseDatabaseWrapper) -> bool:
    """Whether this commit drains already. A savepoint that is rolled back takes its hooks away with its statements."""
    return any(hook is drain_or_leave for _, hook, *_ in connection.run_on_commit[-_HOOKS_LOOKED_AT:])
