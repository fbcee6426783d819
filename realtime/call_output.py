"""The output queue of a call: its own messages, and its replies' text and audio. Imports no Django, no Channels."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from realtime.messages import ServerMessage
from realtime.reply import Reply

#: Messages that wait to be written. When the queue is full, replies wait, and a message of the call ends it.
MAX_QUEUED = 256


class CallOverrun(Exception):
    """The client sends requests faster than they can be handled, or than it reads their answers."""


class CallOutput:
    """Sends in order, and drops what is queued of a reply once that reply is stopped."""

    def __init__(
        self,
        *,
        send_event: Callable[[ServerMessage], Awaitable[None]],
        send_audio: Callable[[bytes], Awaitable[None]],
        on_overrun: Callable[[CallOverrun], None],
    ) -> None:
        self._send_event = send_event
        self._send_audio = send_audio
        self._on_overrun = on_overrun
        self._queue: asyncio.Queue[tuple[ServerMessage | bytes, Reply | None]] = asyncio.Queue(MAX_QUEUED)

    def put(self, message: ServerMessage) -> None:
        """
        Send a message of the call.

        It is dropped where the client reads no answers: `on_overrun` is told, which ends the call. It is not raised, so
        that what else follows from an event is done: a turn that was said is recorded.
        """
        try:
            self._queue.put_nowait((message, None))
        except asyncio.QueueFull:
            self._on_overrun(CallOverrun("answers wait to be read"))

    async def put_of_reply(self, reply: Reply, message: ServerMessage | bytes) -> None:
        await self._queue.put((message, reply))

    async def run(self) -> None:
        while True:
            message, reply = await self._queue.get()
            if reply is not None and reply.is_stopped:
                continue
            if isinstance(message, bytes):
                await self._send_audio(message)
            else:
                await self._send_event(message)
