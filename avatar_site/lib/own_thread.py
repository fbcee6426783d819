"""A thread for work that may hang: it blocks nobody but those who wait for the same work."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, ParamSpec, TypeVar

from django.db import close_old_connections, connections

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class OwnThread:
    """
    Runs functions one after another, with database connections of its own, which are kept.

    `database_sync_to_async` uses one thread for all calls of a process: a query that hangs there blocks every other.
    The thread begins with the first function. It is a daemon: one that hangs does not keep the process from ending.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        #: The function that runs now, once its caller has given it up.
        self._hanging: Future[Any] | None = None

    async def run(
        self,
        function: Callable[Parameters, Result],
        /,
        timeout_s: float,
        *args: Parameters.args,
        **kwargs: Parameters.kwargs,
    ) -> Result:
        """
        Return what the function returns, and raise what it raises.

        Raises TimeoutError after `timeout_s`, and at once while an earlier function is running past its deadline. A
        function that had not begun by then is not run; one that had goes on, and its result is discarded.
        """
        if self._hanging is not None and not self._hanging.done():
            raise TimeoutError(f"the thread {self._name} hangs")
        future = self.submit(function, *args, **kwargs)
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.wrap_future(future)
        finally:
            if future.running():
                self._hanging = future

    def submit(
        self, function: Callable[Parameters, Result], /, *args: Parameters.args, **kwargs: Parameters.kwargs
    ) -> Future[Result]:
        """Have the function run after those before it, without waiting for it."""
        future: Future[Result] = Future()
        self._start().put(lambda: _run(future, lambda: function(*args, **kwargs)))
        return future

    def close(self) -> None:
        """Close the connections and end the thread, once what it runs has ended. It begins again when it is used."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()
            self._thread = None

    def _start(self) -> queue.SimpleQueue[Callable[[], None] | None]:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()
        return self._jobs

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
        connections.close_all()


def _run(future: Future[Result], function: Callable[[], Result]) -> None:
    if not future.set_running_or_notify_cancel():
        return  # it was given up before it began
    try:
        # As around a request: what has become unusable is closed.
        close_old_connections()
        result = function()
        close_old_connections()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)
