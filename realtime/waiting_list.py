"""
The calls of this process that wait for a place: what the table of live calls says of them, read for all at once.

The list itself is in the table, for all processes: see `call_table.advance_line`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from uuid import UUID

from django.conf import settings
from django.db import Error as AnyDatabaseError

from realtime.call_table import CallTable, Standing, call_table

logger = logging.getLogger(__name__)

#: Between two readings of the table while a call of this process waits: a place of another process is free so long.
POLL_S = 1.0


class Spot:
    """How one call stands. A standing that was not read before the next is dropped."""

    def __init__(self) -> None:
        self._latest: Standing | None = None
        self._unread: asyncio.Queue[Standing] = asyncio.Queue(1)

    def note(self, standing: Standing) -> None:
        if standing == self._latest:
            return
        self._latest = standing
        if self._unread.full():
            self._unread.get_nowait()
        self._unread.put_nowait(standing)

    async def read_next(self) -> Standing:
        """Return the standing, once it has changed."""
        return await self._unread.get()


class WaitingList:
    """Polls the table while calls wait, and tells each when its standing changes."""

    def __init__(self, table: CallTable) -> None:
        self._table = table
        self._spots: dict[UUID, Spot] = {}
        self._is_due: asyncio.Event | None = None
        self._is_failing = False

    @contextlib.contextmanager
    def joined(self, session_id: UUID) -> Iterator[Spot]:
        """Have the standing of a call read, which is in the table already."""
        spot = self._spots[session_id] = Spot()
        self.nudge()
        try:
            yield spot
        finally:
            del self._spots[session_id]

    def nudge(self) -> None:
        """Poll now: a call of this process has given its place back, or begins to wait."""
        if self._is_due is not None:
            self._is_due.set()

    async def run(self) -> None:
        """Poll until cancelled, every POLL_S; while no call waits, not at all."""
        self._is_due = is_due = asyncio.Event()
        try:
            while True:
                if self._spots:
                    await self.poll()
                # A call that joins during the poll has set the event.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POLL_S if self._spots else None):
                        await is_due.wait()
                is_due.clear()
        finally:
            self._is_due = None

    async def poll(self) -> None:
        """Give free places to the first in the list. While the database is away the list stays as it is."""
        try:
            standings = await self._table.advance(self._spots, limit=settings.AVATAR_MAX_SESSIONS)
        except (TimeoutError, AnyDatabaseError) as error:
            if not self._is_failing:
                logger.warning("the waiting list cannot be read: %s", error)
            self._is_failing = True
            return
        self._is_failing = False
        for session_id, standing in standings.items():
            if (spot := self._spots.get(session_id)) is not None:
                spot.note(standing)


waiting_list = WaitingList(call_table)
