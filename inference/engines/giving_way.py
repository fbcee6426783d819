"""Who is spoken with now: what nobody listens for waits meanwhile, and stops when somebody comes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from inference.engines.worker import Urgency

#: How long something in the background waits at most for those who are spoken with.
PATIENCE_S = 60.0


class Place:
    """
    A call's place in the queue. `give_way` stops what is being made for it, while something is.

    One that `is_overdue` has waited as long as it should have to: it waits no more, and is not stopped.
    """

    def __init__(self, urgency: Urgency) -> None:
        self.urgency = urgency
        self.is_background = urgency is Urgency.BACKGROUND
        self.is_overdue = False
        self.since_s = time.monotonic()
        self.give_way: Callable[[], None] | None = None


class Queue:
    """
    Keeps the background out of the way of live calls; the worker's order decides among these.

    An engine has one of its own. Engines that share the processor share one, for a conversation goes from one to the
    other: what is made in the background then waits until nobody has been heard, thought about or spoken to for
    `pause_s`, or until it has waited `patience_s`: where people talk all day, a voice is made all the same, slowly.
    Everything here happens in the event loop.
    """

    def __init__(self, *, pause_s: float = 0.0, patience_s: float = PATIENCE_S) -> None:
        self._pause_s = pause_s
        self._patience_s = patience_s
        self._live = 0
        self._background: set[Place] = set()
        self._is_quiet = asyncio.Event()
        self._is_quiet.set()
        self._pause: asyncio.TimerHandle | None = None

    @contextmanager
    def hold_a_place(self, urgency: Urgency) -> Iterator[Place]:
        place = Place(urgency)
        if place.is_background:
            self._background.add(place)
        else:
            self._begin()
        try:
            yield place
        finally:
            if place.is_background:
                self._background.discard(place)
            else:
                self._end()

    async def wait_for_turn(self, place: Place) -> None:
        if not place.is_background or place.is_overdue:
            return
        waited_s = time.monotonic() - place.since_s
        try:
            async with asyncio.timeout(max(0.0, self._patience_s - waited_s)):
                await self._is_quiet.wait()
        except TimeoutError:
            place.is_overdue = True

    def _begin(self) -> None:
        self._live += 1
        self._is_quiet.clear()
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        for other in self._background:
            if other.give_way is not None and not other.is_overdue:
                other.give_way()

    def _end(self) -> None:
        self._live -= 1
        if self._live:
            return
        if self._pause_s:
            self._pause = asyncio.get_running_loop().call_later(self._pause_s, self._is_quiet.set)
        else:
            self._is_quiet.set()
