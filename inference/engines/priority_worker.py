"""A thread that runs blocking functions by priority, for asyncio callers that may be cancelled."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import threading
from collections.abc import Callable
from enum import IntEnum
from typing import Any, TypeVar

from inference.interfaces import SynthesisOptions

T = TypeVar("T")


class Priority(IntEnum):
    """Smaller runs first. Recognition and synthesis have a worker each, and their own names for the same numbers."""

    FINAL = 0
    PARTIAL = 1

    FIRST_CLAUSE = 0
    CLAUSE = 1
    BACKGROUND = 2

    @classmethod
    def of(cls, options: SynthesisOptions) -> Priority:
        if options.is_background:
            return cls.BACKGROUND
        return cls.FIRST_CLAUSE if options.is_first else cls.CLAUSE


class Worker:
    """
    Runs functions one at a time in its own thread, by priority, equal ones in the order of their calls.

    A call that is cancelled before its turn costs nothing. A function that has begun runs to its end unless it polls
    something that its caller sets.
    """

    def __init__(self, name: str) -> None:
        self._waiting: list[tuple[int, int, Callable[[], Any], asyncio.Future[Any], asyncio.AbstractEventLoop]] = []
        self._order = itertools.count()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    async def run(self, function: Callable[[], T], priority: Priority = Priority.FINAL) -> T:
        """Wait for the function's turn and its result. Raises what it raises; RuntimeError once closed."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        with self._changed:
            if self._closed:
                raise RuntimeError("the worker is closed")
            heapq.heappush(self._waiting, (priority, next(self._order), function, future, loop))
            self._changed.notify()
        return await future

    @property
    def has_work_waiting(self) -> bool:
        with self._changed:
            return bool(self._waiting)

    @property
    def waiting(self) -> int:
        """How many calls wait for their turn."""
        with self._changed:
            return sum(not future.cancelled() for _, _, _, future, _ in self._waiting)

    def has_waiting(self, priority: Priority) -> bool:
        """Whether a call of at least this priority waits."""
        with self._changed:
            return any(each <= priority and not future.cancelled() for each, _, _, future, _ in self._waiting)

    def close(self) -> None:
        """Let the running function finish; the calls that wait raise RuntimeError."""
        with self._changed:
            self._closed = True
            refused, self._waiting = self._waiting, []
            self._changed.notify()
        for _, _, _, future, loop in refused:
            _tell(loop, future, error=RuntimeError("the worker is closed"))
        self._thread.join(timeout=10)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._waiting)
                if self._closed:
                    return
                turn = [heapq.heappop(self._waiting)]
            _run_one(*turn.pop()[2:])


def _run_one(function: Callable[[], Any], future: asyncio.Future[Any], loop: asyncio.AbstractEventLoop) -> None:
    # In a frame of its own: the frame of an idle thread would keep the last arguments, a person's voice, for hours.
    if future.cancelled():
        return
    try:
        result = function()
    except BaseException as error:  # raised in the caller, whatever it is: the thread goes on
        _tell(loop, future, error=error)
    else:
        _tell(loop, future, result=result)


def _tell(
    loop: asyncio.AbstractEventLoop,
    future: asyncio.Future[Any],
    *,
    result: Any = None,
    error: BaseException | None = None,
) -> None:
    def settle() -> None:
        if future.cancelled():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)

    try:
        loop.call_soon_threadsafe(settle)
    except RuntimeError:  # the loop is closed, and with it the caller
        return
