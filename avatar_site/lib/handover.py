"""Queues tasks for workers from a request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import transaction

if TYPE_CHECKING:
    from celery import Task


def delay_on_commit(task: Task, **arguments: Any) -> None:
    """
    Queue a task once the transaction is committed. Logs, and does not raise, if the broker is away.

    Whether the task is queued again is up to the caller: beat does it for voices (`voices.tasks.requeue_lost_work`),
    not for the resynthesis of a reply, which keeps the audio that it has.
    """

    # Django names the function in its log, which a partial cannot be.
    def queue() -> None:
        task.delay(**arguments)

    transaction.on_commit(queue, robust=True)
