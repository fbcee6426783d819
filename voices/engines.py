"""The inference process, as web and worker reach it, and how code that waits for rows waits for engines."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Coroutine
from functools import cache
from typing import Any, TypeVar

from django.conf import settings

from inference.blocking import Job
from inference.client import InferenceClient
from inference.interfaces import Inference
from voices.asking import EngineSilent

Result = TypeVar("Result")
Report = Callable[[Any], None]

#: Between two reports lie a few questions to engines, each with a deadline of its own: see `asking`.
STALLED_AFTER_S = 15 * 60.0


@cache
def get_inference() -> Inference:
    """The one client of the inference process in this process. Making it does not connect."""
    return InferenceClient(settings.AVATAR_INFERENCE_ADDRESS, secret=settings.AVATAR_INFERENCE_SECRET)


def run_beside(
    work: Callable[[Report], Coroutine[Any, Any, Result]],
    *,
    on_report: Callable[[Any], None],
    on_wait: Callable[[], None],
    wait_s: float = 5.0,
    clock: Callable[[], float] = time.monotonic,
) -> Result:
    """
    Run `work` in the process's event loop, and take what it reports here, where rows may be written.

    `on_wait` is called when nothing was reported for `wait_s`: the heartbeat of a lease. It ends with the progress:
    after `STALLED_AFTER_S` without a report, the work is cancelled and EngineSilent raised. When a callback raises,
    the work is cancelled and the exception passes on; so does what the work raises.
    """
    reports: queue.SimpleQueue[Any] = queue.SimpleQueue()
    is_over = object()
    job = Job(work(reports.put))
    job.when_ended(lambda: reports.put(is_over))
    reported_at = clock()
    try:
        while True:
            try:
                report = reports.get(timeout=wait_s)
            except queue.Empty:
                if clock() - reported_at > STALLED_AFTER_S:
                    raise EngineSilent(f"no progress for {STALLED_AFTER_S:.0f} s") from None
                on_wait()
                continue
            if report is is_over:
                return job.result()
            reported_at = clock()
            on_report(report)
    except BaseException:
        job.cancel()
        raise
