"""
What `release_switch.py` asks of the code of a release, and what the code has to know of releases.

The program replaces the code, so it imports none of it: it runs `manage.py work_on_release` and reads JSON. A release
has to answer those before it and after it: add to the answers, and take nothing away.
"""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.db import DatabaseError

from avatar_site import version
from avatar_site.operations import services
from avatar_site.operations.backups import catalogue, creation, database, packing
from avatar_site.operations.backups.creation import PARTS, Created, Part
from avatar_site.operations.backups.manifest import Reason
from avatar_site.operations.backups.packing import BadKey
from avatar_site.operations.backups.targets import BadTarget, FolderTarget, Target, open_target
from avatar_site.operations.backups.verification import VerificationFailed
from avatar_site.operations.locks import LockHeld
from conversations.models import Conversation, Turn
from voices.models import VoiceProfile

#: In the data folder: copies of the database for rolling back, where the target needs a network or a key.
LOCAL_BACKUPS = "release-backups"

Say = Callable[[str], None]

_FAILURES = (BadTarget, BadKey, database.SnapshotFailed, VerificationFailed, DatabaseError, OSError)


def describe() -> dict[str, Any]:
    """Return the identity of the code, the migrations of the database, and the paths of the installation."""
    applied: dict[str, str] = {}
    with suppress(DatabaseError):
        applied = version.read_applied_heads()
    return version.describe() | {
        "applied": {app: name for app, name in applied.items() if app in version.read_schema_heads()},
        "code": [name for name in version.CODE if (settings.BASE_DIR / name).exists()],
        "data_dir": str(settings.AVATAR_DATA_DIR),
        "profile": settings.AVATAR_PROFILE,
    }


class BackupFailed(Exception):
    """Nothing was backed up, or not well. The message says why."""


def back_up_database(*, say: Say) -> Created:
    """Back up the database alone, before it is migrated, and verify. Raises BackupFailed."""
    with _translating_failures():
        return creation.create_backup(
            target=open_target(settings.AVATAR_BACKUP_TARGET),
            parts={"database"},
            recipients=creation.read_recipients(),
            reason="before-migration",
            say=say,
        )


def back_up(*, reason: Reason, parts: frozenset[Part] = PARTS, say: Say) -> dict[str, str] | None:
    """
    Back up for a switch of releases, and verify. Return the backup to go back to the present state with.

    None if there is nothing to back up. That backup is one that can be restored without a network and without a key: if
    the target is a bucket, or encrypts to a key that is not here, the database alone is also copied, unencrypted, to a
    folder in the data folder. Raises BackupFailed.
    """
    with _translating_failures():
        return _back_up(reason=reason, parts=parts, say=say) if database.has_content() else None


def _back_up(*, reason: Reason, parts: frozenset[Part], say: Say) -> dict[str, str]:
    target, recipients = open_target(settings.AVATAR_BACKUP_TARGET), creation.read_recipients()
    only = "database" if parts == {"database"} else ""
    is_local = isinstance(target, FolderTarget)
    # Going back must not fail because a bucket is away.
    if is_local or reason != "before-restore":
        created = creation.create_backup(target=target, parts=parts, recipients=recipients, reason=reason, say=say)
    if not is_local or (recipients and not _has_identity()):
        say("Copying the database for rolling back without a network and without a key …")
        target, only = open_target(str(settings.AVATAR_DATA_DIR / LOCAL_BACKUPS)), "database"
        created = creation.create_backup(target=target, parts={"database"}, reason=reason, say=say)
    manifest = created.manifest
    return {
        "name": manifest.name,
        "target": target.address,
        "taken_at": manifest.taken_at.isoformat(timespec="seconds"),
        "only": only,
    }


def count_since(*, name: str, target: Target) -> dict[str, int]:
    """Return how many rows were created since a backup. Raises catalogue.NoSuchBackup, BadManifest, TargetError."""
    taken_at = catalogue.read_manifest(target, name).taken_at
    return {
        "turns": Turn.objects.filter(created_at__gt=taken_at).count(),
        "conversations": Conversation.objects.filter(created_at__gt=taken_at).count(),
        "voices": VoiceProfile.objects.filter(created_at__gt=taken_at).count(),
        "users": User.objects.filter(date_joined__gt=taken_at).count(),
    }


def migrate(*, say: Say) -> None:
    """Migrate: the switch has made its backup before it."""
    services.prepare_database(say=say)


def prune_local_backups(*, now: dt.datetime) -> None:
    """
    Remove copies in the data folder that are older than backups of the database are kept. The caller holds the lock.

    The last one, too, which the target's pruning would keep: what people deleted is in it, and nothing else is there.
    """
    folder = Path(settings.AVATAR_DATA_DIR) / LOCAL_BACKUPS
    if not folder.is_dir():
        return
    days = settings.AVATAR_BACKUP_DATABASE_DAYS
    target = open_target(str(folder))
    backups = catalogue.list_backups(target)
    if not backups or backups[0].taken_at < now - dt.timedelta(days=days):
        shutil.rmtree(folder)
    else:
        catalogue.prune(target, now=now, database_days=days, audio_days=days)


@contextmanager
def _translating_failures() -> Iterator[None]:
    try:
        yield
    except LockHeld as error:
        raise BackupFailed("another backup is being made, verified or restored; wait for its end") from error
    except _FAILURES as error:
        raise BackupFailed(str(error)) from error


def _has_identity() -> bool:
    path = settings.AVATAR_BACKUP_IDENTITY_FILE
    try:
        return bool(path) and bool(packing.read_identities(Path(path)))
    except BadKey:
        return False
