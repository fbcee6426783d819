"""Preempts background jobs while a call is live, and bounds how long they wait. Runs in the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from inference.engines.priority_worker import Priority

#: The longest that a background job waits for live calls.
MAX_WAIT_S = 60.0


class GatedWork:
    """
    Work of one call at the gate: live, or in the background.

    `preempt` stops what is being computed for it, while something is. A background job that `is_overdue` has waited for
    as long as it may: it neither waits nor is preempted any more.
    """

    def __init__(self, priority: Priority, gate: BackgroundGate) -> None:
        self.priority = priority
        self.is_background = priority is Priority.BACKGROUND
        self.is_overdue = False
        self.since_s = asyncio.get_running_loop().time()
        self.preempt: Callable[[], None] | None = None
        self._gate = gate

    async def wait_for_turn(self) -> None:
        """Return at once for live work; for a background job, when no call is live or it is overdue."""
        if self.is_background and not self.is_overdue:
            self.is_overdue = not await self._gate.wait_until_quiet(since_s=self.since_s)


class BackgroundGate:
    """
    Holds background jobs back while calls are live; the worker's order decides among live calls.

    An engine has one of its own. Engines that share the processor share one, because a conversation passes from one to
    the other: a background job then waits until no call was live for `pause_s`, or until it has waited for
    `max_wait_s`, so that it gets done, slowly, where people talk all day.
    """

    def __init__(self, *, pause_s: float = 0.0, max_wait_s: float = MAX_WAIT_S) -> None:
        self._pause_s = pause_s
        self._max_wait_s = max_wait_s
        self._live = 0
        self._background: set[GatedWork] = set()
        self._is_quiet = asyncio.Event()
        self._is_quiet.set()
        self._pause: asyncio.TimerHandle | None = None

    @contextmanager
    def admit(self, priority: Priority) -> Iterator[GatedWork]:
        """Enter as a live call or as a background job, whichever the priority says."""
        with self.background_job() if priority is Priority.BACKGROUND else self.live_call(priority) as work:
            yield work

    @contextmanager
    def live_call(self, priority: Priority = Priority.FINAL) -> Iterator[GatedWork]:
        """Preempt the background jobs, and let none of them go on inside."""
        self._begin()
        try:
            yield GatedWork(priority, self)
        finally:
            self._end()

    @contextmanager
    def background_job(self) -> Iterator[GatedWork]:
        job = GatedWork(Priority.BACKGROUND, self)
        self._background.add(job)
        try:
            yield job
        finally:
            self._background.discard(job)

    async def wait_until_quiet(self, *, since_s: float) -> bool:
        """Return whether no call is live; False when a wait that began at `since_s` has lasted for `max_wait_s`."""
        waited_s = asyncio.get_running_loop().time() - since_s
        try:
            async with asyncio.timeout(max(0.0, self._max_wait_s - waited_s)):
                await self._is_quiet.wait()
        except TimeoutError:
            return False
        return True

    def _begin(self) -> None:
        self._live += 1
        self._is_quiet.clear()
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        for job in self._background:
            if job.preempt is not None and not job.is_overdue:
                job.preempt()

    def _end(self) -> None:
        self._live -= 1
        if self._live:
            return
        if self._pause_s:
            self._pause = asyncio.get_running_loop().call_later(self._pause_s, self._is_quiet.set)
        else:
            self._is_quiet.set()
