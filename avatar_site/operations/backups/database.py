"""Snapshots, loaded copies and swaps of the database, for SQLite and PostgreSQL alike."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.db import DatabaseError, connection, transaction
from django.db.migrations.recorder import MigrationRecorder
from django.db.models import FileField, Model

from avatar_site.operations.backups import snapshot as snapshots
from avatar_site.operations.backups import sqlite
from avatar_site.operations.backups.snapshot import (
    DamagedDatabase,
    LoadFailed,
    Snapshot,
    SnapshotFailed,
    SwapRefused,
    Vendor,
)

if TYPE_CHECKING:
    from avatar_site.operations.backups.postgresql import Scratch

__all__ = [
    "DamagedDatabase",
    "LoadFailed",
    "LoadedDatabase",
    "Snapshot",
    "SnapshotFailed",
    "SwapRefused",
    "check_replaceable",
    "count_rows",
    "has_content",
    "list_audio_names",
    "list_audio_names_alive",
    "loaded",
    "read_vendor",
    "remove_replaced",
    "rename_audio",
    "swap",
    "take_snapshot",
]

#: Names that are looked for in one query.
BATCH = 500


def read_vendor() -> Vendor:
    """Return the kind of the live database."""
    return "sqlite" if connection.vendor == "sqlite" else "postgresql"


def has_content() -> bool:
    """Return whether there is a database with tables in it. Raises DatabaseError if it is damaged or away."""
    if connection.vendor == "sqlite":
        live = sqlite.find_live()
        # Connecting would make an empty one, or write the log into a damaged one.
        if not live.exists():
            return False
        if not sqlite.is_intact(live):
            raise DatabaseError(f"{live} is damaged")
    with connection.cursor() as cursor:
        return MigrationRecorder.Migration._meta.db_table in connection.introspection.table_names(cursor)


def take_snapshot(folder: Path) -> Snapshot:
    """
    Copy the live database into a folder while the product serves, without logins, the cache, and deleted words.

    Needs autocommit: what this process has not committed is not in it. Raises SnapshotFailed, DamagedDatabase, and
    OSError when the disk is full.
    """
    if connection.vendor == "sqlite":
        return sqlite.take(folder)
    from avatar_site.operations.backups import postgresql

    return postgresql.take(folder)


@dataclass(frozen=True, slots=True)
class LoadedDatabase:
    """A database from a backup, loaded so that a child process can open it."""

    vendor: Vendor
    #: Of SQLite's file, or of PostgreSQL's dump.
    path: Path
    #: None for SQLite.
    scratch: Scratch | None

    @property
    def database_url(self) -> str:
        """
        What DATABASE_URL is for a process that opens it; empty: it is to have none, but the folder as its data folder.

        It may have the password in it: for an environment, not for a command line.
        """
        return self.scratch.url if self.scratch else ""


@contextmanager
def loaded(path: Path, *, vendor: Vendor) -> Iterator[LoadedDatabase]:
    """
    Load a snapshot's database so that it can be opened until the end of the block.

    SQLite: it is the file itself. PostgreSQL: a scratch database on the server of the live one, which is dropped at the
    end, unless it was swapped in. Raises LoadFailed.
    """
    if vendor == "sqlite":
        yield LoadedDatabase(vendor, path, None)
        return
    if connection.vendor != "postgresql":
        raise LoadFailed(
            "This backup is of PostgreSQL, and this installation has no server to load it into: set DATABASE_URL."
        )
    from avatar_site.operations.backups import postgresql

    scratch = postgresql.load(path)
    try:
        yield LoadedDatabase(vendor, path, scratch)
    finally:
        # A swap has closed the lease: then the name is that of another, or of none.
        scratch.drop()


def check_replaceable(*, vendor: Vendor) -> None:
    """
    Raise SwapRefused if the live database cannot be replaced by one of this kind.

    To be asked before the long work of a restore; `swap` asks again.
    """
    if vendor != connection.vendor:
        names = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}
        raise SwapRefused(
            f"This backup is of {names[vendor]}, and this installation uses "
            f"{names.get(connection.vendor, connection.vendor)}: set DATABASE_URL as it was."
        )
    if vendor == "sqlite":
        sqlite.check_replaceable()
    else:
        from avatar_site.operations.backups import postgresql

        postgresql.check_replaceable()


def swap(loaded: LoadedDatabase, *, now: dt.datetime, keeps_live: bool = False) -> str | None:
    """
    Put a loaded database in the place of the live one, in one step. Closes this process's connections.

    Returns where the live one is kept: a folder, if it was damaged or `keeps_live` (SQLite), or the name of a database
    (PostgreSQL, always); None if it is not. Raises SwapRefused, and LoadFailed if the prepared one is unusable: then
    nothing has changed.
    """
    if loaded.vendor != connection.vendor:
        check_replaceable(vendor=loaded.vendor)
    if loaded.scratch is not None:
        from avatar_site.operations.backups import postgresql

        return postgresql.swap(loaded.scratch, now=now)
    kept = sqlite.swap(loaded.path, now=now, keeps_live=keeps_live)
    return str(kept) if kept else None


def remove_replaced(*, before: dt.datetime) -> list[str]:
    """
    Remove the databases that were kept when others took their place, until then. Return where they were.

    What people have deleted since is in them: they must not outlive backups. Raises LoadFailed, OSError.
    """
    if connection.vendor == "sqlite":
        return sqlite.remove_replaced(before=before)
    from avatar_site.operations.backups import postgresql

    return postgresql.remove_replaced(before=before)


def count_rows() -> dict[str, int]:
    """Return the number of rows in each table of the database that Django has, as a snapshot's `row_counts`."""
    if connection.vendor == "sqlite":
        tables = sqlite.list_tables(_query)
    else:
        from avatar_site.operations.backups import postgresql

        tables = postgresql.list_tables(_query)
    return snapshots.count_rows(_query, tables)


def list_audio_names() -> tuple[str, ...]:
    """Return the names of files that rows have in the database that Django has, sorted. Its schema is the code's."""
    return snapshots.read_audio_names(_query, snapshots.list_audio_columns())


def list_audio_names_alive(names: Collection[str]) -> set[str]:
    """Return those of the names that a row has in the database that Django has."""
    alive: set[str] = set()
    rest = (name for name in names if name)
    while batch := list(islice(rest, BATCH)):
        for model, field in _list_file_fields():
            found = model._base_manager.filter(**{f"{field.name}__in": batch})
            alive.update(found.values_list(field.name, flat=True))
    return alive


def rename_audio(renamed: Mapping[str, str]) -> int:
    """Rename files in the rows that name them. Return how many rows were changed."""
    changed = 0
    with transaction.atomic():
        for model, field in _list_file_fields():
            for name, new_name in renamed.items():
                changed += model._base_manager.filter(**{field.name: name}).update(**{field.name: new_name})
    return changed


def _list_file_fields() -> list[tuple[type[Model], FileField]]:
    return [
        (model, field)
        for model in apps.get_models()
        for field in model._meta.local_concrete_fields
        if isinstance(field, FileField)
    ]


def _query(statement: str) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall())
