"""
The inference process for synchronous code: one client and one event loop per process, the loop in a thread of its own.

One loop means one connection to the inference process, kept from request to request. Asynchronous code uses
`get_inference` alone and awaits.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import os
import queue
import threading
import time
from collections.abc import Callable, Coroutine
from functools import cache
from typing import Any, Generic, TypeVar

from django.conf import settings

from inference.interfaces import Inference
from inference.offline import EngineSilent

Result = TypeVar("Result")
Report = Callable[[Any], None]

#: What a loop that has missed a deadline is given to cancel the coroutine. A loop that needs longer is blocked.
_GRACE_S = 5.0
#: Between two reports there are a few questions to engines, each with a deadline of its own: see `inference.offline`.
STALLED_AFTER_S = 15 * 60.0


@cache
def get_inference() -> Inference:
    """Return this process's one client of the inference process. Does not connect yet."""
    # Here, as few programs ask: gRPC takes 0.1 s to import.
    from inference.client import InferenceClient

    return InferenceClient(settings.AVATAR_INFERENCE_ADDRESS, secret=settings.AVATAR_INFERENCE_SECRET)


def ask(coroutine: Coroutine[Any, Any, Result], *, timeout_s: float) -> Result:
    """
    Run a coroutine in the process's loop and return its result.

    Raises TimeoutError, and what the coroutine raises; RuntimeError in the loop's own thread.
    """
    task = LoopTask(_within(coroutine, timeout_s))
    try:
        return task.result(timeout_s + _GRACE_S)
    except BaseException:
        # A deadline, or an interrupt of this thread. A task that has ended has nothing to cancel.
        task.cancel(timeout_s=_GRACE_S)
        raise


async def _within(coroutine: Coroutine[Any, Any, Result], timeout_s: float) -> Result:
    async with asyncio.timeout(timeout_s):
        return await coroutine


def run_with_heartbeat(
    work: Callable[[Report], Coroutine[Any, Any, Result]],
    *,
    on_report: Callable[[Any], None],
    on_wait: Callable[[], None],
    wait_s: float = 5.0,
    clock: Callable[[], float] = time.monotonic,
) -> Result:
    """
    Run `work` in the process's loop and handle its reports in this thread, which may write rows.

    `on_wait` is called after each `wait_s` without a report: the heartbeat of a lease. After STALLED_AFTER_S without
    a report the work is cancelled and EngineSilent raised, so that the heartbeat ends with the progress. An exception
    of a callback cancels the work and propagates; so does one of the work.
    """
    reports: queue.SimpleQueue[Any] = queue.SimpleQueue()
    has_ended = object()
    task = LoopTask(work(reports.put))
    task.when_ended(lambda: reports.put(has_ended))
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
            if report is has_ended:
                return task.result()
            reported_at = clock()
            on_report(report)
    except BaseException:
        task.cancel()
        raise


class LoopTask(Generic[Result]):
    """A coroutine that runs in the process's loop. Other threads wait for it or cancel it."""

    def __init__(self, coroutine: Coroutine[Any, Any, Result]) -> None:
        try:
            self._loop = _get_loop()
        except RuntimeError:
            coroutine.close()
            raise
        self._ended: concurrent.futures.Future[Result] = concurrent.futures.Future()
        self._task: asyncio.Task[Result] | None = None
        self._loop.call_soon_threadsafe(self._start, coroutine)

    def _start(self, coroutine: Coroutine[Any, Any, Result]) -> None:
        self._task = self._loop.create_task(coroutine)
        self._task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[Result]) -> None:
        if task.cancelled():
            self._ended.set_exception(asyncio.CancelledError())
        elif (error := task.exception()) is not None:
            self._ended.set_exception(error)
        else:
            self._ended.set_result(task.result())

    def when_ended(self, callback: Callable[[], None]) -> None:
        """Call back in the loop's thread, or at once if the coroutine has ended."""
        self._ended.add_done_callback(lambda _: callback())

    def result(self, timeout_s: float | None = None) -> Result:
        """Wait for what the coroutine returns or raises. After TimeoutError it is still running."""
        return self._ended.result(timeout_s)

    def cancel(self, *, timeout_s: float = 30.0) -> None:
        """Cancel the coroutine and wait until it has cleaned up."""
        self._loop.call_soon_threadsafe(lambda: self._task and self._task.cancel())
        concurrent.futures.wait([self._ended], timeout_s)


_lock = threading.Lock()
_running: tuple[asyncio.AbstractEventLoop, threading.Thread] | None = None


def _get_loop() -> asyncio.AbstractEventLoop:
    global _running
    with _lock:
        if _running is None:
            loop = asyncio.new_event_loop()
            thread = threading.Thread(target=loop.run_forever, name="inference-client", daemon=True)
            thread.start()
            _running = loop, thread
        loop, thread = _running
    if threading.current_thread() is thread:
        raise RuntimeError("this is the loop's own thread: await the coroutine")
    return loop


def _forget_loop() -> None:
    """Reset after a fork: the child has the loop and not its thread."""
    global _lock, _running
    _lock = threading.Lock()
    _running = None


@atexit.register
def _stop_loop() -> None:
    if _running is not None:
        loop, thread = _running
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout=1.0)


os.register_at_fork(after_in_child=_forget_loop)
