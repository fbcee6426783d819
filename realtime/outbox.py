"""The outgoing messages of one socket: a bounded queue with back-pressure. Imports no Django and no Channels."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from realtime.messages import ServerMessage

#: Audio runs at most two seconds ahead of playout, so a full queue means that the client has stopped reading. Nothing
#: is dropped: the sender waits, and after SEND_TIMEOUT_S the call ends. Only what `offer` is given is dropped.
MAX_QUEUED = 256
SEND_TIMEOUT_S = 10.0

Outgoing = ServerMessage | bytes


class ClientTooSlow(Exception):
    """Raised when the client has stopped reading."""


class ClientLeft(Exception):
    """Raised by `write` when the client is gone. The socket's end follows."""


class OutboxFull(Exception):
    """Raised when an answer finds no room: the client sends without reading."""


class Outbox:
    """Queues messages, which `run` writes in order by `write`."""

    def __init__(self, write: Callable[[Outgoing], Awaitable[None]]) -> None:
        self._write = write
        self._queue: asyncio.Queue[Outgoing] = asyncio.Queue(MAX_QUEUED)

    async def put(self, message: Outgoing) -> None:
        """Queue a message; wait for room. Raises ClientTooSlow."""
        try:
            self._queue.put_nowait(message)
        except asyncio.QueueFull:
            await _within_time(self._queue.put(message))

    def put_nowait(self, message: Outgoing) -> None:
        """Queue a message. Raises OutboxFull."""
        try:
            self._queue.put_nowait(message)
        except asyncio.QueueFull:
            raise OutboxFull("answers wait to be read") from None

    def offer(self, message: Outgoing) -> None:
        """Queue a message, or drop it when there is no room."""
        with contextlib.suppress(asyncio.QueueFull):
            self._queue.put_nowait(message)

    async def run(self) -> None:
        """Write until cancelled. Raises ClientTooSlow, and what `write` raises."""
        while True:
            await _within_time(self._write(await self._queue.get()))


async def _within_time(work: Awaitable[None]) -> None:
    try:
        async with asyncio.timeout(SEND_TIMEOUT_S):
            await work
    except TimeoutError:
        raise ClientTooSlow from None
