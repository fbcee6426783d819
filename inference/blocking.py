"""
Engines for code that is not async: one event loop per process, in a thread of its own. Knows no Django.

One loop means one connection to the inference process, which stays open from job to job.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

Result = TypeVar("Result")

#: What a loop that does not come back within a deadline is given besides. Then it is stuck, which it never should be.
_GRACE_S = 5.0


class Job(Generic[Result]):
    """A coroutine that runs in the process's loop, and is waited for here."""

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
        """Call back in the loop's thread, or at once if it has ended."""
        self._ended.add_done_callback(lambda _: callback())

    def result(self, timeout_s: float | None = None) -> Result:
        """Wait for what it returns or raises. Raises TimeoutError; the work itself continues."""
        return self._ended.result(timeout_s)

    def cancel(self, *, timeout_s: float = 30.0) -> None:
        """Cancel it, and return when it has cleaned up after itself."""
        self._loop.call_soon_threadsafe(lambda: self._task and self._task.cancel())
        concurrent.futures.wait([self._ended], timeout_s)


def ask(coroutine: Coroutine[Any, Any, Result], *, timeout_s: float) -> Result:
    """Run a coroutine in the process's loop and return what it returns. Raises TimeoutError, and what it raises."""
    job = Job(_within(coroutine, timeout_s))
    try:
        return job.result(timeout_s + _GRACE_S)
    except BaseException:
        # A deadline, or an interrupt of this thread. A job that has ended has nothing to cancel.
        job.cancel(timeout_s=_GRACE_S)
        raise


async def _within(coroutine: Coroutine[Any, Any, Result], timeout_s: float) -> Result:
    async with asyncio.timeout(timeout_s):
        return await coroutine


_lock = threading.Lock()
_running: tuple[asyncio.AbstractEventLoop, threading.Thread] | None = None


def _get_loop() -> asyncio.AbstractEventLoop:
    global _running
    with _lock:
        if _running is None:
            loop = asyncio.new_event_loop()
            thread = threading.Thread(target=loop.run_forever, name="engines", daemon=True)
            thread.start()
            _running = loop, thread
        loop, thread = _running
    if threading.current_thread() is thread:
        raise RuntimeError("this is the loop's own thread: await the coroutine")
    return loop


def _forget_loop() -> None:
    """A forked child has the loop and not its thread."""
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
