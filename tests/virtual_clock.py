"""
An event loop whose clock jumps to the next timer when there is nothing else to do: hours of a call take milliseconds.

A test gets it by `@pytest.mark.virtual_clock`, in a folder whose conftest has the hook `pytest_asyncio_loop_factories`.
It must wait for nothing outside of the loop but threads: sockets and processes would see the clock run away. While a
thread of `run_in_executor` works the clock stands still, for THREAD_S of real time at most: it may hang on purpose.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Mapping
from typing import Any

#: What a turn of the loop takes: a wait for a rounding error has to end as well.
TURN_S = 1e-7
#: How long the clock waits for a thread before it jumps.
THREAD_S = 0.5
#: How long a loop without timers waits for a thread before a test is said to be stuck.
STUCK_S = 10.0


class VirtualClockLoop(asyncio.SelectorEventLoop):
    """`time` begins at 1000 and hardly moves while anything is ready to run."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.threads: set[asyncio.Future[Any]] = set()
        super().__init__(_JumpingSelector(self))

    def time(self) -> float:
        return self.now

    def run_in_executor(self, executor: Any, function: Any, *args: Any) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = super().run_in_executor(executor, function, *args)
        self.threads.add(future)
        future.add_done_callback(self.threads.discard)
        return future


class _JumpingSelector(selectors.SelectSelector):
    def __init__(self, loop: VirtualClockLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Take what is ready now, or else jump. `timeout` is the time to the next timer; None: there is none."""
        self._loop.now += TURN_S
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            ready = super().select(STUCK_S)
            assert ready, "nothing is ready, no timer is set, and no thread reports: this test would wait without end"
            return ready
        if self._loop.threads and (ready := super().select(THREAD_S)):
            return ready
        self._loop.now += timeout
        return []


def list_loop_factories(item: Any) -> Mapping[str, Any]:
    """Return the loop that a test runs in, as pytest-asyncio wants it."""
    if item.get_closest_marker("virtual_clock"):
        return {"virtual": VirtualClockLoop}
    return {"real": asyncio.new_event_loop}
