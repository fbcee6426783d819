from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from inference.engines.giving_way import Queue
from inference.interfaces import SynthesisOptions

LIVE, BACKGROUND = SynthesisOptions(), SynthesisOptions(is_background=True)


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

    def test_puts_first_clauses_before_others_and_both_before_the_background(self) -> None:
        queue = Queue()
        with (
            queue.hold_a_place(BACKGROUND) as background,
            queue.hold_a_place(replace(LIVE, is_first=False)) as later,
            queue.hold_a_place(LIVE) as first,
        ):
            assert first.urgency < later.urgency < background.urgency

    async def test_forgets_who_has_left(self) -> None:
        queue = Queue()
        with pytest.raises(ZeroDivisionError), queue.hold_a_place(LIVE):
            _ = 1 / 0

        with queue.hold_a_place(BACKGROUND) as place:
            await asyncio.wait_for(queue.wait_for_turn(place), 5)
        assert not queue._background
