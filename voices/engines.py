"""The inference process, as web and worker reach it, and how code that waits for rows waits for engines."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable, Coroutine
from functools import cache
from typing import Any, TypeVar

from django.conf import settings

from inference.client import InferenceClient
from inference.interfaces import Inference

Result = TypeVar("Result")
Report = Callable[[Any], None]


@cache
def get_inference() -> Inference:
    """The one client of the inference process in this process. Making it does not connect."""
    return InferenceClient(settings.AVATAR_INFERENCE_ADDRESS, secret=settings.AVATAR_INFERENCE_SECRET)


def run_beside(
    work: Callable[[Report], Coroutine[Any, Any, Result]],
    *,
    inference: Inference,
    on_report: Callable[[Any], None],
    on_wait: Callable[[], None],
    wait_s: float = 5.0,
) -> Result:
    """
    Run `work` in an event loop of its own, and meanwhile take what it reports, here, where rows may be written.

    `on_wait` is called when nothing was reported for `wait_s`. When either raises, the work is cancelled and the
    exception passes on; so does what the work raises.
    """
    reports: queue.SimpleQueue[Any] = queue.SimpleQueue()
    is_over = object()
    outcome: list[Result] = []
    failure: list[BaseException] = []
    running: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[None]]] = []

    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 — for the type checker: this is a task
        running.append((asyncio.get_running_loop(), task))
        try:
            outcome.append(await work(reports.put))
        finally:
            # This loop's connection; the client itself stays.
            await inference.close()

    def run() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:
            failure.append(error)
        finally:
            reports.put(is_over)

    thread = threading.Thread(target=run, name="engines", daemon=True)
    thread.start()
    try:
        while True:
            try:
                report = reports.get(timeout=wait_s)
            except queue.Empty:
                on_wait()
                continue
            if report is is_over:
                break
            on_report(report)
    except BaseException:
        if running:
            loop, task = running[0]
            with contextlib.suppress(RuntimeError):  # it has ended just now
                loop.call_soon_threadsafe(task.cancel)
        raise
    finally:
        thread.join(timeout=30)
    if failure:
        raise failure[0]
    return outcome[0]
