from __future__ import annotations

import asyncio

import pytest

from inference.engines.giving_way import Queue
from inference.engines.worker import Urgency
from inference.interfaces import SynthesisOptions

LIVE, BACKGROUND = Urgency.FIRST_CLAUSE, Urgency.BACKGROUND


class TestQueue:
    async def test_lets_the_background_wait_while_somebody_listens(self) -> None:
        queue = Queue()
        with queue.hold_a_place(BACKGROUND) as place:
            with queue.hold_a_place(LIVE), queue.hold_a_place(LIVE):
                waiting = asyncio.create_task(queue.wait_for_turn(place))
                await asyncio.sleep(0)
                assert not waiting.done()
            await asyncio.wait_for(waiting, 5)

    async def test_lets_nobody_wait_who_is_listened_to(self) -> None:
        queue = Queue()
        with queue.hold_a_place(BACKGROUND), queue.hold_a_place(LIVE), queue.hold_a_place(LIVE) as place:
            await asyncio.wait_for(queue.wait_for_turn(place), 5)

    async def test_stops_the_background_when_somebody_listens(self) -> None:
        queue, stopped = Queue(), []
        with (
            queue.hold_a_place(BACKGROUND) as place,
            queue.hold_a_place(BACKGROUND),
            queue.hold_a_place(LIVE) as other,
        ):
            place.give_way = lambda: stopped.append("background")
            other.give_way = lambda: stopped.append("live")
            with queue.hold_a_place(LIVE):
                pass

        assert stopped == ["background"]

    async def test_waits_for_a_pause_in_the_conversation(self) -> None:
        queue = Queue(pause_s=0.2)
        with queue.hold_a_place(BACKGROUND) as place:
            with queue.hold_a_place(LIVE):
                waiting = asyncio.create_task(queue.wait_for_turn(place))
            await asyncio.sleep(0.1)
            with queue.hold_a_place(LIVE):
                pass
            await asyncio.sleep(0.15)
            # A quarter of a second after the first, not yet a pause after the second.
            assert not waiting.done()
            await asyncio.wait_for(waiting, 5)

    async def test_lets_nobody_wait_for_ever(self) -> None:
        queue, stopped = Queue(patience_s=0.1), []
        with queue.hold_a_place(BACKGROUND) as place, queue.hold_a_place(LIVE):
            await asyncio.wait_for(queue.wait_for_turn(place), 5)
            place.give_way = lambda: stopped.append("overdue")
            with queue.hold_a_place(LIVE):
                await asyncio.wait_for(queue.wait_for_turn(place), 0.05)

        assert stopped == []

    async def test_counts_all_that_was_waited(self) -> None:
        queue = Queue(patience_s=0.2)
        with queue.hold_a_place(BACKGROUND) as place:
            await asyncio.sleep(0.2)
            await queue.wait_for_turn(place)
            # It had its turn at once; what stops it then is the first that it has to wait for.
            assert not place.is_overdue
            with queue.hold_a_place(LIVE):
                await asyncio.wait_for(queue.wait_for_turn(place), 0.1)

            assert place.is_overdue

    async def test_forgets_who_has_left(self) -> None:
        queue = Queue()
        with pytest.raises(ZeroDivisionError), queue.hold_a_place(LIVE):
            _ = 1 / 0

        with queue.hold_a_place(BACKGROUND) as place:
            await asyncio.wait_for(queue.wait_for_turn(place), 5)
        assert not queue._background


class TestUrgency:
    def test_is_that_of_first_clauses_before_others_and_both_before_the_background(self) -> None:
        first, later, background = (
            Urgency.of(options)
            for options in (
                SynthesisOptions(),
                SynthesisOptions(is_first=False),
                SynthesisOptions(is_background=True),
            )
        )

        assert first < later < background
