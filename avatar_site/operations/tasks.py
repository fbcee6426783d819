"""Celery tasks of operations. Safe to deliver twice: by a lock, and a night that has its backup is left alone."""

from __future__ import annotations

import logging

from celery import Task, shared_task
from django.contrib.auth.models import User
from django.utils import timezone

from avatar_site.operations import maintenance
from avatar_site.operations.backups.targets import TargetError
from avatar_site.operations.locks import LockHeld
from avatar_site.operations.tombstones.log import LogBusy
from conversations.call_store import replay_all_spooled_turns

logger = logging.getLogger(__name__)

#: A task that finds the lock of backups held is queued again, so that its thread is free for short tasks.
RETRY_S = 60
#: Then it is given up: three hours.
MAX_ATTEMPTS = 180


@shared_task
def run_night(*, attempt: int = 0) -> None:
    """Purge, erase, back up and verify, prune, remove orphans."""
    try:
        maintenance.run_night(now=timezone.now())
    except LockHeld:
        _queue_again(run_night, attempt=attempt)


@shared_task
def retry_night() -> None:
    """Run the night again if it has no verified backup, which beat asks hourly. While the lock is held, do nothing."""
    try:
        maintenance.retry_night(now=timezone.now())
    except LockHeld:
        logger.info("night: not retried while backups are locked")


@shared_task(bind=True)
def back_up(self: Task, *, requested_by_id: int | None = None, request_id: str | None = None, attempt: int = 0) -> None:
    """
    Make a backup, as an operator has asked.

    Redis redelivers a message, with the same task id, while its task still runs: `request_id` is that id, passed on to
    the messages that replace it while the lock is held.
    """
    maintenance.forget_request()
    request_id = request_id or self.request.id
    try:
        maintenance.back_up(requested_by=_find_user(requested_by_id), request_id=request_id)
    except LockHeld:
        _queue_again(back_up, requested_by_id=requested_by_id, request_id=request_id, attempt=attempt)


@shared_task
def verify_backup(*, name: str, requested_by_id: int | None = None, attempt: int = 0) -> None:
    """Restore a backup into a scratch folder, as an operator has asked."""
    maintenance.forget_request()
    try:
        maintenance.verify(name=name, requested_by=_find_user(requested_by_id))
    except LockHeld:
        _queue_again(verify_backup, name=name, requested_by_id=requested_by_id, attempt=attempt)


@shared_task
def ship_tombstones() -> None:
    """Ship tombstones to the target of backups. Beat retries when the target is away."""
    try:
        maintenance.ship_tombstones()
    except (TargetError, LogBusy) as error:
        logger.warning("deletions are not at the target of backups yet: %s", error)


@shared_task
def replay_spooled_turns() -> None:
    """Save what calls could not save while the database was away. Run twice, the second run has nothing to save."""
    replay_all_spooled_turns()


def _find_user(pk: int | None) -> User | None:
    """Return the user; None also if it has been deleted."""
    return None if pk is None else User.objects.filter(pk=pk).first()


def _queue_again(task: Task, *, attempt: int, **arguments: object) -> None:
    if attempt >= MAX_ATTEMPTS:
        logger.error("%s is given up: backups have been locked for %d minutes", task.name, attempt * RETRY_S // 60)
        return
    task.apply_async(kwargs={**arguments, "attempt": attempt + 1}, countdown=RETRY_S)
