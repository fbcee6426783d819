"""Work that is handed from a request to a worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import transaction

if TYPE_CHECKING:
    from celery import Task


def delay_on_commit(task: Task, **arguments: Any) -> None:
    """
    Queue a task once the transaction is committed; rows and files stay, whatever becomes of the message.

    A broker that is away is logged and not raised: what was committed is kept, and beat queues forgotten work again.
    """

    # Django names the function in its log, which a partial cannot be.
    def queue() -> None:
        task.delay(**arguments)

    transaction.on_commit(queue, robust=True)
