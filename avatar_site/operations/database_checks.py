"""Checks of the database before the start: damaged, from a newer version, or empty although recordings exist."""

from __future__ import annotations

import logging
import sys
import threading
from dataclasses import dataclass

from django.apps import apps
from django.conf import settings
from django.contrib.auth.models import User
from django.core.files.storage import default_storage
from django.db import DatabaseError, OperationalError, connection, connections
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from django.db.models import Model

from avatar_site.lib.stored_files import FEW_ORPHANS
from conversations.models import AUDIO_ROOT, Turn
from voices.models import Recording

VOICES_ROOT = "voices"
SCHEMA_TIMEOUT_S = 10.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Finding:
    """Why AVATAR must not start, and what the operator can do about it."""

    problem: str
    remedy: str


def check_before_start() -> Finding | None:
    """Return the first problem; None if the database can be used. Reads a whole SQLite file once."""
    try:
        return _check_file() or check_schema() or _check_rows()
    except OperationalError as error:
        # Away or locked, not damaged: the processes that use it report that and retry.
        if connection.vendor == "sqlite" and "malformed" not in str(error):
            raise
        return _damaged(str(error)) if connection.vendor == "sqlite" else None
    except DatabaseError as error:
        return _damaged(str(error))


def _check_file() -> Finding | None:
    if connection.vendor != "sqlite":
        return None
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA quick_check(1)")
        result = cursor.fetchone()[0]
    return None if result == "ok" else _damaged(result)


def _damaged(detail: str) -> Finding:
    return Finding(
        f"The database {settings.DATABASES['default']['NAME']} is damaged: {detail}",
        "Nothing was changed. Keep a copy of the file, restore the last backup, and start again.",
    )


def is_newer_than_program() -> bool:
    """Return whether the database has migrations that this program does not know."""
    return check_schema() is not None


def check_schema() -> Finding | None:
    """Find a database that a newer version has migrated. Reads the list of migrations only."""
    known = MigrationLoader(None, ignore_no_migrations=True).disk_migrations
    ours = {config.label for config in apps.get_app_configs()}
    # A squashed migration is recorded under the names that it replaces.
    replaced = {name for migration in known.values() for name in migration.replaces}
    applied = MigrationRecorder(connection).applied_migrations()
    unknown = sorted(key for key in applied if key[0] in ours and key not in known and key not in replaced)
    if not unknown:
        return None
    app, name = unknown[-1]
    return Finding(
        f"The database was made by a newer AVATAR: it knows {app}.{name}, this program does not.",
        "Nothing was changed. Start the newer version, or restore the backup that was made before it was installed.",
    )


def _check_rows() -> Finding | None:
    """
    Find recordings without rows: the old database file is missing, or the data folder is another one's.

    With users, a few orphaned files may remain of deleted recordings; the sweep removes them.
    """
    tables = connection.introspection.table_names()

    def has_rows(model: type[Model]) -> bool:
        return model._meta.db_table in tables and model._default_manager.exists()

    limit = FEW_ORPHANS if has_rows(User) else 0
    for model, folder in ((Turn, AUDIO_ROOT), (Recording, VOICES_ROOT)):
        if not has_rows(model) and _count_files(folder, limit=limit + 1) > limit:
            name = settings.DATABASES["default"]["NAME"]
            return Finding(
                f"The database {name} knows of no recordings, but there are some in {folder}/.",
                "Nothing was changed. Restore the database that belongs to them; or, to start empty, move the "
                "recordings out of the way first.",
            )
    return None


def refuse_newer_database() -> None:
    """
    End this process, with a sentence, if the database was made by a newer version.

    For a process that is started alone; a supervisor has checked before. An unreachable database does not end it: its
    users report that and try again.
    """
    found: list[Finding | None] = []

    def check() -> None:
        try:
            found.append(check_schema())
        except DatabaseError as error:
            logger.warning("the schema of the database cannot be checked: %s", error)
        finally:
            connections.close_all()

    # In a thread: connecting to a machine that is switched off takes minutes.
    checking = threading.Thread(target=check, name="schema", daemon=True)
    checking.start()
    checking.join(SCHEMA_TIMEOUT_S)
    if found and (finding := found[0]) is not None:
        sys.exit(f"{finding.problem}\n{finding.remedy}")


def _count_files(folder: str, *, limit: int) -> int:
    """Return how many files are anywhere below a folder of the storage; `limit` if there are more."""
    try:
        folders, files = default_storage.listdir(folder)
    except FileNotFoundError:
        return 0
    count = len(files)
    for each in folders:
        if count >= limit:
            break
        count += _count_files(f"{folder}/{each}", limit=limit - count)
    return min(count, limit)
