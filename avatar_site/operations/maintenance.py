"""
The work of the maintenance worker: the night, and backups and verifications that operators request.

One at a time, by the lock of backups. An operator's request is queued once: a flag in the cache is set until its task
begins, or both expire.
"""

from __future__ import annotations

import datetime as dt
import logging
import time
from typing import TYPE_CHECKING

from django.conf import settings
from django.core.cache import cache
from django.core.management import call_command
from django.utils import timezone

from avatar_site.lib import sqlite_erasure
from avatar_site.lib.stored_files import SweepRefused
from avatar_site.operations import nightly, releases
from avatar_site.operations.backups import catalogue, creation, database, targets, verification
from avatar_site.operations.backups.copies import hold_backup_lock
from avatar_site.operations.models import BackupRun
from avatar_site.operations.tombstones import log, shipping, triggers
from conversations.orphans import remove_orphans
from conversations.retention import purge_expired
from voices.services import delete_orphans

if TYPE_CHECKING:
    from django.contrib.auth.models import User

    from avatar_site.operations.backups.targets import Target

logger = logging.getLogger(__name__)

#: A night that has its backup is not repeated within this time: its message was delivered twice. Longer than Redis
#: waits before it delivers the message of a task that still runs again, which is an hour.
SAME_NIGHT = dt.timedelta(hours=6)
#: Backups are pruned once a day. One that would expire before the next time is removed now, so that the pages' "at
#: most 30 days" also holds for data deleted an hour after a backup.
NIGHT_DAYS = 0.5
#: Entries of the tombstone log that are kept beyond the oldest backup: clocks differ.
TOMBSTONE_MARGIN = dt.timedelta(days=1)

#: The key in the cache that is set while a backup or a verification that was asked for is queued.
IS_QUEUED = "operations.maintenance.is_queued"
#: The keys, with its id, of a request for a backup that was carried out; and, with the date, of the night's retries.
REQUEST_DONE = "operations.maintenance.done"
RETRIES = "operations.maintenance.retries"
#: Longer than a message can be redelivered, and than a night's retries are counted.
REMEMBERED_FOR_S = 2 * 24 * 60 * 60


class NotErased(Exception):
    """Deleted rows are still in the database's file. The log says why; the next night tries again."""


class NotPruned(Exception):
    """Not everything that is too old could be removed. The message says what, and why."""


def run_night(*, now: dt.datetime) -> list[nightly.Outcome]:
    """
    Run the night's steps, and return how each ended; nothing if this night has a verified backup.

    Raises LockHeld while a backup is made, verified or restored.
    """
    with hold_backup_lock():
        if BackupRun.objects.verified_nights().filter(finished_at__gte=now - SAME_NIGHT).exists():
            logger.info("night: there is a backup of this night already")
            return []
        return _run_night(now)


def retry_night(*, now: dt.datetime) -> list[nightly.Outcome]:
    """
    Run the night again if it has no verified backup: its process was killed, or the target was away.

    Return how each step ended; nothing if no retry is due. Raises LockHeld while a backup is made, verified or
    restored.
    """
    local_now = timezone.localtime(now)
    if not nightly.is_retry_due(now=local_now, backed_up_at=_find_backed_up_at(), retries=_count_retries(local_now)):
        return []
    with hold_backup_lock():
        # The backup may have ended since.
        retries = _count_retries(local_now)
        if not nightly.is_retry_due(now=local_now, backed_up_at=_find_backed_up_at(), retries=retries):
            return []
        # Counted before it runs: a step that gets the process killed must not be repeated each hour.
        cache.set(_make_retries_key(local_now), retries + 1, REMEMBERED_FOR_S)
        logger.warning(
            "night: there is no verified backup of this night: retry %d of %d", retries + 1, nightly.MAX_RETRIES
        )
        return _run_night(now)


def back_up(*, requested_by: User | None, request_id: str | None = None) -> creation.Created | None:
    """
    Make the backup that an operator has asked for. Raises what `creation.create_backup` does.

    Return None if the request with this id has been carried out already, whether it succeeded or not. One whose process
    was killed is carried out again.
    """
    with hold_backup_lock():
        key = f"{REQUEST_DONE}.{request_id}"
        if request_id is not None and cache.get(key):
            logger.info("backup: request %s was delivered again, and is done already", request_id)
            return None
        try:
            return creation.create_while_locked(
                target=open_target(), recipients=creation.read_recipients(), reason="manual", requested_by=requested_by
            )
        finally:
            if request_id is not None:
                cache.set(key, True, REMEMBERED_FOR_S)


def verify(*, name: str, requested_by: User | None) -> None:
    """Verify the backup that an operator has asked for. Raises what `verification.verify_backup` does."""
    verification.verify_backup(
        target=open_target(), name=name, identities=creation.read_identities(), requested_by=requested_by
    )


def ship_tombstones() -> int:
    """Ship tombstones to the target. Return how many. Raises TargetError, LogBusy."""
    if missing := triggers.install():
        # A migration was killed. `serve` migrates before it starts anything; other ways to start may not.
        logger.error("deletions were not logged since a migration that did not end: %s", ", ".join(missing))
    log.drain()
    return shipping.ship(open_target(), creation.read_recipients())


def open_target() -> Target:
    return targets.open_target(settings.AVATAR_BACKUP_TARGET)


def _run_night(now: dt.datetime) -> list[nightly.Outcome]:
    actions = nightly.Actions(
        clear_logins=lambda: call_command("clearsessions"),
        purge=lambda: purge_expired(now=timezone.now()),
        erase=_erase,
        back_up=_back_up,
        prune=_prune,
        remove_orphans=_remove_orphans,
        verify_oldest=_verify_oldest,
    )
    return nightly.run(actions, today=timezone.localdate(now), clock=time.monotonic)


def _find_backed_up_at() -> dt.datetime | None:
    run = BackupRun.objects.verified_nights().order_by("-finished_at", "-pk").first()
    return run.finished_at if run else None


def _count_retries(local_now: dt.datetime) -> int:
    return int(cache.get(_make_retries_key(local_now), 0))


def _make_retries_key(local_now: dt.datetime) -> str:
    return f"{RETRIES}.{local_now:%Y-%m-%d}"


def _erase() -> None:
    if not sqlite_erasure.erase_deleted_rows():
        raise NotErased("deleted rows are not erased from the database's file yet")


def _back_up() -> None:
    created = creation.create_while_locked(
        target=open_target(), recipients=creation.read_recipients(), reason="nightly"
    )
    audio = created.manifest.audio
    if audio is not None and audio.missing:
        # Not a failure of the backup: the sweep of orphans, which runs next, says so in these turns.
        logger.error(
            "%d files of audio are missing in the storage, %s among them", len(audio.missing), audio.missing[0]
        )


def _prune() -> None:
    try:
        _prune_backups()
    finally:
        # Whatever failed: what people have deleted leaves the log on this machine.
        _prune_tombstones()


def _prune_backups() -> None:
    releases.prune_local_backups(now=timezone.now())
    days = max(settings.AVATAR_BACKUP_DATABASE_DAYS, settings.AVATAR_BACKUP_AUDIO_DAYS) - NIGHT_DAYS
    for kept in database.remove_replaced(before=timezone.now() - dt.timedelta(days=days)):
        logger.info("the database that a restore has replaced is removed: %s", kept)
    pruned = catalogue.prune(
        open_target(),
        now=timezone.now(),
        database_days=settings.AVATAR_BACKUP_DATABASE_DAYS - NIGHT_DAYS,
        audio_days=settings.AVATAR_BACKUP_AUDIO_DAYS - NIGHT_DAYS,
    )
    if pruned.problem:
        raise NotPruned(pruned.problem)


def _prune_tombstones() -> None:
    try:
        target = open_target()
        backups = catalogue.list_backups(target)
    except (targets.BadTarget, targets.TargetError):
        # How old its backups are is not known: deletions stay, and texts that were deleted or replaced since go.
        log.prune(before=dt.datetime.min.replace(tzinfo=dt.UTC))
        raise
    oldest_at = (
        backups[-1].taken_at if backups else timezone.now() - dt.timedelta(days=settings.AVATAR_BACKUP_DATABASE_DAYS)
    )
    log.prune(before=oldest_at - TOMBSTONE_MARGIN)
    shipping.prune(target, before=oldest_at - TOMBSTONE_MARGIN)


def _remove_orphans() -> None:
    try:
        remove_orphans(now=timezone.now())
        delete_orphans(now=timezone.now())
    except SweepRefused as refusal:
        raise nightly.StepSkipped(str(refusal)) from refusal


def _verify_oldest() -> None:
    target = open_target()
    readable = [backup for backup in catalogue.list_backups(target) if backup.manifest is not None]
    if readable:
        verification.verify_while_locked(target=target, name=readable[-1].name, identities=creation.read_identities())


def note_request(*, for_s: float) -> bool:
    """Remember that something was asked for. Return whether nothing was: only then it is to be queued."""
    return bool(cache.add(IS_QUEUED, True, for_s))


def forget_request() -> None:
    cache.delete(IS_QUEUED)


def is_requested() -> bool:
    return bool(cache.get(IS_QUEUED))
