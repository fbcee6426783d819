"""A snapshot of the database, and queries on it: rows of each table, names of audio files, migrations."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from django.apps import apps
from django.conf import settings
from django.contrib.sessions.models import Session
from django.db.models import FileField

from avatar_site.lib import fts5
from avatar_site.operations.models import Tombstone
from realtime.models import LiveCall

Vendor = Literal["sqlite", "postgresql"]
#: Runs a statement without parameters and returns its rows.
Query = Callable[[str], Iterable[tuple[Any, ...]]]

#: An installation that uses Redis now may still have it.
_DEFAULT_CACHE_TABLE = "cache"


class SnapshotFailed(Exception):
    """No snapshot could be taken. The message says why, and what to do."""


class DamagedDatabase(SnapshotFailed):
    """The database, or a copy of it, is inconsistent."""


class SwapRefused(Exception):
    """The live database cannot be replaced: another process has it open, say. The message says why, and what to do."""


class LoadFailed(Exception):
    """A database could not be put where it can be opened. The message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A consistent copy of the database in a separate file, without logins, live calls and the cache."""

    #: avatar.sqlite3, or database.pgdump (`pg_dump -Fc`).
    path: Path
    vendor: Vendor
    #: Just before the copy: every transaction committed by then is in it.
    taken_at: dt.datetime
    row_counts: Mapping[str, int]
    #: Of audio files, sorted: a row of the snapshot has each of them.
    audio_names: tuple[str, ...]
    #: The newest migration of each app.
    schema: Mapping[str, str]


def list_tables_left_out() -> list[str]:
    """Return the tables whose rows are in no backup: logins, live calls, the cache, the outbox of the tombstone log."""
    caches = [
        str(options.get("LOCATION"))
        for options in settings.CACHES.values()
        if options["BACKEND"] == "django.core.cache.backends.db.DatabaseCache"
    ]
    models = (Session, LiveCall, Tombstone)
    return sorted({*(model._meta.db_table for model in models), _DEFAULT_CACHE_TABLE, *caches})


def list_audio_columns() -> list[tuple[str, str]]:
    """Return table and column of all file fields."""
    return sorted(
        (model._meta.db_table, str(field.column))
        for model in apps.get_models()
        for field in model._meta.local_concrete_fields
        if isinstance(field, FileField)
    )


def count_rows(query: Query, tables: Iterable[str]) -> dict[str, int]:
    """Return the number of rows in each of the tables, but for those that are in no backup. Reads them all."""
    left_out = set(list_tables_left_out())
    counts = {}
    for table in sorted(set(tables) - left_out):
        ((count,),) = query(f"SELECT count(*) FROM {fts5.quote(table)}")  # noqa: S608 — quoted
        counts[table] = int(count)
    return counts


def read_audio_names(query: Query, columns: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """Return the names in these columns, sorted, each once."""
    names: set[str] = set()
    for table, column in columns:
        name = fts5.quote(column)
        rows = query(f"SELECT {name} FROM {fts5.quote(table)} WHERE {name} <> ''")  # noqa: S608 — quoted
        names.update(str(found) for (found,) in rows)
    return tuple(sorted(names))


def read_schema(query: Query) -> dict[str, str]:
    """Return the newest migration of each app."""
    return {str(app): str(name) for app, name in query("SELECT app, max(name) FROM django_migrations GROUP BY app")}
