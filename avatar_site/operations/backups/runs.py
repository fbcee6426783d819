"""Records runs of backups and verifications, for the admin. A database without the table has none to show."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from django.db import DatabaseError, transaction
from django.utils import timezone

from avatar_site.operations.models import BackupRun, RunKind, RunState

if TYPE_CHECKING:
    from django.contrib.auth.models import User

logger = logging.getLogger(__name__)

INTERRUPTED = "It was interrupted."


@contextmanager
def recorded(
    kind: RunKind, *, name: str = "", reason: str = "", requested_by: User | None = None
) -> Iterator[BackupRun]:
    """
    Record a run and how it ends. The caller holds the lock of backups, and may set `name` and `stored_bytes`.

    Before the migration that makes the table, nothing is recorded; nor where the database is away: the run goes on.
    """
    run = BackupRun(kind=kind, name=name, reason=reason, requested_by=requested_by, started_at=timezone.now())
    _save(run, is_first=True)
    try:
        yield run
    except BaseException as error:
        run.state, run.problem = RunState.FAILED, str(error) or INTERRUPTED
        raise
    else:
        run.state = RunState.DONE
    finally:
        run.finished_at = timezone.now()
        _save(run)


def _save(run: BackupRun, *, is_first: bool = False) -> None:
    try:
        with transaction.atomic():
            if is_first:
                close_interrupted()
            run.save()
    except DatabaseError as error:
        logger.info("this run is not recorded: %s", error)


def close_interrupted() -> int:
    """Mark runs that were killed as failed: only one can run, and its lock is ours."""
    return BackupRun.objects.filter(state=RunState.RUNNING).update(
        state=RunState.FAILED, finished_at=timezone.now(), problem=INTERRUPTED
    )
