"""
Celery's part of the logs: our format, one line per task, and the ids of who sent it, in headers.

Imports no Django but its settings: beat loads nothing else.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from celery import Task, signals
from django.conf import settings
from structlog.contextvars import bind_contextvars, reset_contextvars

from inference.telemetry import context, logs
from inference.telemetry.logs import figures

logger = logging.getLogger(__name__)


def install_logs() -> None:
    """Have this process log Celery's work as all others log theirs."""
    # A receiver keeps Celery from a configuration of its own, and from its option --loglevel.
    signals.setup_logging.connect(_configure, weak=False)
    signals.before_task_publish.connect(_send_ids, weak=False)
    signals.task_prerun.connect(_begin, weak=False)
    signals.task_postrun.connect(_end, weak=False)


def _configure(**_: Any) -> None:
    logs.configure(settings.AVATAR_LOG_LEVEL)


def _send_ids(*, headers: dict[str, Any], **_: Any) -> None:
    """Add the ids to a message. A task that nothing in particular has sent begins a trace."""
    with context.bound(trace_id=context.read().get("trace_id") or context.make_trace_id()):
        headers.update(context.to_headers())


def _begin(*, task: Task, **_: Any) -> None:
    task.request.bound = bind_contextvars(**context.from_headers(vars(task.request)))
    task.request.began_s = time.monotonic()
    logger.debug("task %s: begun", task.name)


def _end(*, task: Task, task_id: str, state: str | None, **_: Any) -> None:
    seconds = round(time.monotonic() - task.request.began_s, 3)
    level = logging.ERROR if state == "FAILURE" else logging.INFO
    extra = figures(task=task.name, task_id=task_id, state=state, seconds=seconds)
    logger.log(level, "task %s: %s", task.name, str(state).lower(), extra=extra)
    reset_contextvars(**task.request.bound)
