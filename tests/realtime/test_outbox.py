from __future__ import annotations

import asyncio

import pytest

from realtime import outbox
from realtime.messages import Pong
from realtime.outbox import MAX_QUEUED, ClientTooSlow, Outbox, OutboxFull, Outgoing


async def write_nothing(message: Outgoing) -> None:
    """A client that takes everything."""


class TestOutbox:
    async def test_writes_in_order(self) -> None:
        written: list[Outgoing] = []
        is_done = asyncio.Event()

        async def write(message: Outgoing) -> None:
            written.append(message)
            if len(written) == 3:
                is_done.set()

        box = Outbox(write)
        await box.put(b"1")
        box.put_nowait(Pong())
        box.offer(b"2")
        task = asyncio.create_task(box.run())
        await is_done.wait()
        task.cancel()

        assert written == [b"1", Pong(), b"2"]

    async def test_when_full_drops_offers_and_refuses_answers(self) -> None:
        box = Outbox(write_nothing)
        for _ in range(MAX_QUEUED):
            box.put_nowait(b"")

        box.offer(b"")
        with pytest.raises(OutboxFull):
            box.put_nowait(b"")

    async def test_when_full_lets_the_call_wait_for_a_while(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(outbox, "SEND_TIMEOUT_S", 0.01)
        box = Outbox(write_nothing)
        for _ in range(MAX_QUEUED):
            await box.put(b"")

        with pytest.raises(ClientTooSlow):
            await box.put(b"")

    async def test_gives_up_a_client_that_does_not_read(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(outbox, "SEND_TIMEOUT_S", 0.01)

        async def hang(message: Outgoing) -> None:
            await asyncio.Event().wait()

        box = Outbox(hang)
        box.put_nowait(b"")

        with pytest.raises(ClientTooSlow):
            await box.run()
