from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from realtime.call_output import MAX_QUEUED, CallOutput, CallOverrun
from realtime.messages import Pong, ServerMessage
from realtime.reply import Reply

pytestmark = pytest.mark.virtual_clock


class FakeReply:
    """What the output asks a reply."""

    is_stopped = False


def make_reply() -> Reply:
    return cast(Reply, FakeReply())


class Client:
    """Takes `write_s` for each message."""

    def __init__(self, write_s: float = 0.0) -> None:
        self.taken: list[Any] = []
        self.overruns: list[CallOverrun] = []
        self._write_s = write_s

    async def take(self, message: ServerMessage | bytes) -> None:
        await asyncio.sleep(self._write_s)
        self.taken.append(message)


@asynccontextmanager
async def writing(client: Client) -> AsyncIterator[CallOutput]:
    output = CallOutput(send_event=client.take, send_audio=client.take, on_overrun=client.overruns.append)
    task = asyncio.create_task(output.run())
    try:
        yield output
    finally:
        task.cancel()
        await asyncio.wait([task])


class TestCallOutput:
    async def test_keeps_the_order_of_messages_and_audio(self) -> None:
        client = Client(write_s=0.1)
        async with writing(client) as output:
            await output.put_of_reply(make_reply(), b"1")
            output.put(Pong(nonce="2"))
            await output.put_of_reply(make_reply(), b"3")
            await asyncio.sleep(1)

        assert client.taken == [b"1", Pong(nonce="2"), b"3"]

    async def test_drops_what_waits_of_a_reply_that_is_stopped(self) -> None:
        client, stopped, other = Client(write_s=0.1), make_reply(), make_reply()
        async with writing(client) as output:
            for piece in (b"1", b"2", b"3"):
                await output.put_of_reply(stopped, piece)
            await asyncio.sleep(0.05)  # the first is being written
            stopped.is_stopped = True
            output.put(Pong(nonce="stopped"))
            await output.put_of_reply(other, b"4")
            await asyncio.sleep(1)

        assert client.taken == [b"1", Pong(nonce="stopped"), b"4"]

    async def test_lets_a_reply_wait_and_reports_dropped_answers_when_it_is_full(self) -> None:
        client = Client(write_s=1.0)
        async with writing(client) as output:
            for _ in range(MAX_QUEUED):
                output.put(Pong())
            assert not client.overruns
            output.put(Pong())
            assert len(client.overruns) == 1
            began_at = asyncio.get_running_loop().time()
            await output.put_of_reply(make_reply(), b"1")

            assert asyncio.get_running_loop().time() - began_at < 1.1
