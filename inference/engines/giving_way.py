"""Who speaks now: what nobody listens for waits while somebody is spoken to, and stops when somebody comes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from inference.engines.worker import Urgency
from inference.interfaces import SynthesisOptions


class Place:
    """A call's place in the queue. `give_way` stops what is being made for it, while something is."""

    def __init__(self, options: SynthesisOptions) -> None:
        self.is_background = options.is_background
        self.urgency = (
            Urgency.BACKGROUND
            if options.is_background
            else Urgency.FIRST_CLAUSE
            if options.is_first
            else Urgency.CLAUSE
        )
        self.give_way: Callable[[], None] | None = None


class Queue:
    """
    Keeps the background out of the way of live calls; the worker's order decides among these.

    Everything here happens in the event loop.
    """

    def __init__(self) -> None:
        self._live = 0
        self._background: set[Place] = set()
        self._is_quiet = asyncio.Event()
        self._is_quiet.set()

    @contextmanager
    def hold_a_place(self, options: SynthesisOptions) -> Iterator[Place]:
        place = Place(options)
        if place.is_background:
            self._background.add(place)
        else:
            self._live += 1
            self._is_quiet.clear()
            for other in self._background:
                if other.give_way is not None:
                    other.give_way()
        try:
            yield place
        finally:
            self._background.discard(place)
            if not place.is_background:
                self._live -= 1
                if self._live == 0:
                    self._is_quiet.set()

    async def wait_for_turn(self, place: Place) -> None:
        if place.is_background:
            await self._is_quiet.wait()
