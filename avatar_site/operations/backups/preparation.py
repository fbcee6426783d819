"""Works on a copy of the data, in the child process: checks it, or prepares it to take the place of the live data."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import msgspec
from django.contrib.sessions.models import Session
from django.core.files.storage import default_storage
from django.core.management import call_command
from django.db import transaction

from avatar_site.lib import sqlite_erasure
from avatar_site.operations import database_checks, services
from avatar_site.operations.backups import database
from avatar_site.operations.backups.manifest import IndexedFile
from avatar_site.operations.models import BackupRun, Restore, RunState
from avatar_site.operations.tombstones import applying, log


class CheckRequest(msgspec.Struct):
    """What the manifest says: rows of each table, the files of the index, and names without a file."""

    row_counts: dict[str, int]
    #: None: the backup has no audio.
    files: list[IndexedFile] | None
    missing: list[str]


class CheckResult(msgspec.Struct):
    """Each a sentence; none: the copy is what the manifest says."""

    problems: list[str]


class PrepareRequest(msgspec.Struct):
    """`entries` and `present` are paths of files in the copy's folder; `present` may be empty."""

    name: str
    taken_at: dt.datetime
    restored_at: dt.datetime
    safety_name: str
    entries: str
    present: str


class PrepareResult(msgspec.Struct):
    """The names of the audio that the rows of the prepared copy have, and what was removed on the way, in sentences."""

    audio_names: list[str]
    applied: list[str]


class RenameRequest(msgspec.Struct):
    """Names of audio whose content has another name in the live storage."""

    names: dict[str, str]


class RenameResult(msgspec.Struct):
    """How many rows were changed."""

    rows: int


class NewerSchema(Exception):
    """The database was made by a newer version than this program."""


def check(request: CheckRequest) -> CheckResult:
    """Compare the copy with its manifest. One of an older schema is migrated, to see that it can be."""
    problems = []
    counts = database.count_rows()
    for table in sorted(counts.keys() | request.row_counts.keys()):
        if counts.get(table) != request.row_counts.get(table):
            problems.append(f"{table} has {counts.get(table)} rows instead of {request.row_counts.get(table)}")
    for file in request.files or ():
        try:
            size_bytes = default_storage.size(file.name)
        except FileNotFoundError:
            problems.append(f"{file.name} is missing")
        else:
            if size_bytes != file.content_bytes:
                problems.append(f"{file.name} has {size_bytes} bytes instead of {file.content_bytes}")
    if not problems and not database_checks.is_newer_than_program():
        if finding := database_checks.check_before_start():
            problems.append(finding.problem)
        else:
            call_command("migrate", interactive=False, verbosity=0)
            problems += _find_names_without_file(request)
    return CheckResult(problems)


def _find_names_without_file(request: CheckRequest) -> list[str]:
    if request.files is None:
        return []
    known = {file.name for file in request.files} | set(request.missing)
    return [
        f"{name} is named by a row and is not in the backup"
        for name in database.list_audio_names()
        if name not in known
    ]


def prepare(request: PrepareRequest) -> PrepareResult:
    """
    Bring the copy to the present: migrate, apply the tombstones, end all logins, mark it as restored, purge, erase.

    Raises NewerSchema.
    """
    if database_checks.is_newer_than_program():
        raise NewerSchema("the backup was made by a newer AVATAR than this one")
    services.prepare_database()
    entries = applying.decode_entries(Path(request.entries).read_bytes())
    present = applying.decode_present(Path(request.present).read_bytes()) if request.present else None
    # The tombstones that this adds to the outbox are drained once the copy is live.
    with log.suspended():
        applied = applying.apply(entries, since=request.taken_at, present=present)
        _settle(request)
        call_command("purge_expired", verbosity=0)
    sqlite_erasure.erase_deleted_rows()
    return PrepareResult(list(database.list_audio_names()), applied.describe())


@transaction.atomic
def _settle(request: PrepareRequest) -> None:
    """End all logins, forget the run that made the backup, which the snapshot shows as going on, and set the mark."""
    Session.objects.all().delete()
    BackupRun.objects.filter(state=RunState.RUNNING).delete()
    Restore.objects.create(name=request.name, restored_at=request.restored_at, safety_name=request.safety_name)


def rename(request: RenameRequest) -> RenameResult:
    """Give rows the names that their audio has in the live storage."""
    return RenameResult(database.rename_audio(request.names))
