"""When the table is read for those who wait. What it says: test_call_table.py; what they do: test_consumers.py."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from django.db import OperationalError

from realtime.call_table import CallTable, Standing
from realtime.models import CallState
from realtime.waiting_list import POLL_S, WaitingList

pytestmark = pytest.mark.virtual_clock


class Table:
    """Answers as the test says, and counts how often it is asked, and for how many calls."""

    def __init__(self) -> None:
        self.asked: list[tuple[float, int]] = []
        self.standings: dict[UUID, Standing] = {}
        self.is_away = False
        self._began_at = asyncio.get_running_loop().time()

    async def advance(self, session_ids: Collection[UUID], *, limit: int) -> dict[UUID, Standing]:
        self.asked.append((asyncio.get_running_loop().time() - self._began_at, len(session_ids)))
        if self.is_away:
            raise OperationalError("the database is locked")
        return self.standings

    def read_times(self) -> list[float]:
        return [round(at, 3) for at, _ in self.asked]


@contextlib.asynccontextmanager
async def polled() -> AsyncIterator[tuple[Table, WaitingList]]:
    table = Table()
    waiting_list = WaitingList(cast(CallTable, cast(Any, table)))
    running = asyncio.create_task(waiting_list.run())
    await asyncio.sleep(0)
    try:
        yield table, waiting_list
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


def wait(place: int) -> Standing:
    return Standing(CallState.WAITING, place, 3)


class TestWaitingList:
    async def test_reads_nothing_while_nobody_waits(self) -> None:
        async with polled() as (table, waiting_list):
            await asyncio.sleep(3600)
            with waiting_list.joined(uuid4()):
                await asyncio.sleep(0.1)
            await asyncio.sleep(3600)

        assert len(table.asked) <= 2
        assert all(at < 3602 for at in table.read_times())

    async def test_reads_once_a_second_for_all_of_them(self) -> None:
        async with polled() as (table, waiting_list):
            with contextlib.ExitStack() as stack:
                for _ in range(5):
                    stack.enter_context(waiting_list.joined(uuid4()))
                await asyncio.sleep(10 * POLL_S + 0.5)

        assert len(table.asked) == 11
        assert {count for _, count in table.asked} == {5}

    async def test_reads_at_once_when_a_call_has_ended(self) -> None:
        async with polled() as (table, waiting_list):
            with waiting_list.joined(uuid4()):
                await asyncio.sleep(0.4)
                waiting_list.nudge()
                await asyncio.sleep(0.1)

        assert table.read_times() == [0.0, 0.4]

    async def test_tells_what_has_changed_and_only_that(self) -> None:
        session_id = uuid4()
        async with polled() as (table, waiting_list):
            table.standings = {session_id: wait(2), uuid4(): wait(1)}
            with waiting_list.joined(session_id) as spot:
                told = [await spot.read_next()]
                asyncio.get_running_loop().call_later(5.5, table.standings.update, {session_id: wait(1)})
                told.append(await spot.read_next())
                passed_s = table.read_times()[-1]

        assert told == [wait(2), wait(1)]
        assert passed_s == pytest.approx(6, abs=0.1)

    async def test_goes_on_after_the_database_was_away(self, caplog: pytest.LogCaptureFixture) -> None:
        session_id = uuid4()
        async with polled() as (table, waiting_list):
            table.is_away = True
            with waiting_list.joined(session_id) as spot:
                await asyncio.sleep(10)
                table.is_away, table.standings = False, {session_id: wait(1)}
                assert await spot.read_next() == wait(1)

        assert caplog.text.count("the waiting list cannot be read") == 1
