"""Operators' requests to the maintenance worker: queued once, and not while a backup or verification runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from django.conf import settings
from kombu.exceptions import ChannelError, OperationalError

from avatar_site.operations import maintenance, tasks
from avatar_site.operations.locks import BACKUP_LOCK, LockHeld, hold_lock
from avatar_site.operations.models import BackupRun, RunState

if TYPE_CHECKING:
    from celery import Task
    from django.contrib.auth.models import User

#: A message that no worker has taken by then expires, together with the flag that it is queued.
QUEUED_FOR_S = 60 * 60


class AlreadyQueued(Exception):
    """A backup or a verification waits for the worker already."""


class AlreadyRunning(Exception):
    """A backup or a verification is being made."""


class QueueUnavailable(Exception):
    """The queue cannot be written: Redis is away, or the disk is full."""


def request_backup(*, requested_by: User) -> None:
    """Queue a backup. Raises AlreadyQueued, AlreadyRunning, QueueUnavailable."""
    _request(tasks.back_up, requested_by_id=requested_by.pk)


def request_verification(*, name: str, requested_by: User) -> None:
    """Queue the verification of a backup. Raises as `request_backup` does."""
    _request(tasks.verify_backup, name=name, requested_by_id=requested_by.pk)


def find_running() -> BackupRun | None:
    """Return the run in progress; None if there is none. A killed process holds no lock: its run does not count."""
    run = BackupRun.objects.filter(state=RunState.RUNNING).newest_first().first()
    if run is None:
        return None
    try:
        # For a moment, and only where there is a run: one that begins now would be told to try again.
        with hold_lock(Path(settings.AVATAR_DATA_DIR), BACKUP_LOCK):
            return None
    except LockHeld:
        return run


def _request(task: Task, **arguments: object) -> None:
    if find_running() is not None:
        raise AlreadyRunning
    if not maintenance.note_request(for_s=QUEUED_FOR_S):
        raise AlreadyQueued
    try:
        task.apply_async(kwargs=arguments, expires=QUEUED_FOR_S)
    except (ChannelError, OperationalError) as error:
        maintenance.forget_request()
        raise QueueUnavailable(str(error)) from error
