"""Work that is handed from a request to a worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import transaction

if TYPE_CHECKING:
    from celery import Task


def delay_on_commit(task: Task, **arguments: Any) -> None:
    """
    Queue a task once the transaction is committed; rows and files stay, whatever becomes of the message.

    A broker that is away is logged and not raised: what was committed is kept. Whether beat queues the task again is
    the caller's matter. It does for voices (`voices.tasks.requeue_lost_work`), and not for an answer that was to be
    rendered in high quality: its row does not tell it from one that cannot be, and it keeps the sound that it has.
    """

    # Django names the function in its log, which a partial cannot be.
    def queue() -> None:
        task.delay(**arguments)

    transaction.on_commit(queue, robust=True)
