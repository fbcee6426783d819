"""A WebSocket with back-pressure in both directions. Imports no Django."""

from __future__ import annotations

import asyncio
import logging
import time
from socket import SO_SNDBUF, SOL_SOCKET
from typing import TYPE_CHECKING, Any

from daphne.ws_protocol import WebSocketFactory, WebSocketProtocol
from twisted.python.failure import Failure

from avatar_site.web.limits import Backlog

if TYPE_CHECKING:
    from avatar_site.web.server import Server

logger = logging.getLogger(__name__)

Message = dict[str, Any]

KERNEL_BUFFER_BYTES = 128 * 1024
#: How long a client may still read what was written before the socket was closed.
DROP_TIMEOUT_S = 5.0


class Socket(WebSocketProtocol):
    """
    Reading pauses while many messages wait for the application; `wait_for_room` returns when the client has read.

    It is its transport's producer, in place of the HTTP channel from which it took the transport over.
    """

    server: Server

    def connectionMade(self) -> None:
        limits = self.server.limits
        self._backlog = Backlog(limits)
        self._frames_per_turn = self._frames_left = limits.frames_per_turn
        self._is_held = False
        self._is_connecting = False
        self._dropping: Any = None
        self._has_room = asyncio.Event()
        self._has_room.set()
        # The kernel's own buffer grows to 4 MB: 90 seconds of unread speech.
        self.transport.getHandle().setsockopt(SOL_SOCKET, SO_SNDBUF, KERNEL_BUFFER_BYTES)
        self.transport.unregisterProducer()
        self.transport.registerProducer(self, True)
        super().connectionMade()

    def connectionLost(self, reason: Failure) -> None:
        self.server.connected.leave(self.transport)
        self._has_room.set()
        if self._dropping is not None and self._dropping.active():
            self._dropping.cancel()
        super().connectionLost(reason)

    def onConnect(self, request: Any) -> Any:
        self._is_connecting = True
        return super().onConnect(request)

    def onOpen(self) -> None:
        self._is_connecting = False
        super().onOpen()
        self.transport.resumeProducing()

    def onClose(self, wasClean: bool, code: int, reason: str) -> None:
        if self in self.server.connections:  # a handshake that failed at once never got there
            super().onClose(wasClean, code, reason)

    def dropConnection(self, abort: bool = False) -> None:
        super().dropConnection(abort)
        self._has_room.set()
        if not abort and self._dropping is None:
            # Twisted has no deadline for a client that does not read, and the application is told only afterwards.
            self._dropping = self.factory.reactor.callLater(DROP_TIMEOUT_S, self.transport.abortConnection)

    # --- receiving ---

    def dataReceived(self, data: bytes) -> None:
        if self._is_connecting:
            # Buffered; no more is read before the application has accepted.
            self.data += data
            self.transport.pauseProducing()
            return
        self._frames_left = self._frames_per_turn
        super().dataReceived(data)

    def processData(self) -> bool:
        """Autobahn's: parse one frame; False ends its loop, and the rest stays in `data`."""
        if self._backlog.is_long or self._frames_left <= 0:
            self._hold()
            return False
        self._frames_left -= 1
        return bool(super().processData())

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        if not self.muted:
            self._backlog.add(len(payload))
        super().onMessage(payload, isBinary)

    def onPing(self, payload: bytes) -> None:
        # Pongs to a client that does not read would fill the memory.
        if self._has_room.is_set():
            super().onPing(payload)

    def note_taken(self, message: Message) -> None:
        """Note that the application has received a message from its queue."""
        if message["type"] == "websocket.receive":
            self._backlog.take()
            if self._is_held and self._backlog.is_short:
                self._go_on()

    def _hold(self) -> None:
        if self._is_held:
            return
        self._is_held = True
        self.transport.pauseProducing()
        if not self._backlog.is_long:  # other connections have their turn first
            self.factory.reactor.callLater(0, self._go_on)

    def _go_on(self) -> None:
        if not self._is_held or self.state == self.STATE_CLOSED:
            return
        self._is_held = False
        self._frames_left = self._frames_per_turn
        self.consumeData()
        if not self._is_held and self.state != self.STATE_CLOSED:
            self.transport.resumeProducing()

    # --- sending ---

    def handle_reply(self, message: Message) -> None:
        # Between the client's close frame and the end of the connection the application is not told yet.
        if message["type"] == "websocket.send" and self.state in (self.STATE_CLOSING, self.STATE_CLOSED):
            return
        super().handle_reply(message)

    async def wait_for_room(self, timeout_s: float) -> None:
        """Return when the client has read what was written, or is gone. Disconnects it after `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._has_room.wait()
        except TimeoutError:
            logger.info("%s: nothing read for %d s, disconnected", self.path.decode(), timeout_s)
            self.transport.abortConnection()

    def serverClose(self, code: int | None = None) -> None:
        # `sendClose` refuses the registered codes, such as 1012 for a restart.
        self.sendCloseFrame(code=1000 if code is None else code)

    def pauseProducing(self) -> None:
        """Twisted's: the transport's buffer is full."""
        self._has_room.clear()

    def resumeProducing(self) -> None:
        """Twisted's: the transport's buffer is empty."""
        self._has_room.set()

    def stopProducing(self) -> None:
        """Twisted's: the connection is lost."""
        self._has_room.set()

    # --- pings ---

    def check_timeouts(self) -> None:
        # No ping while reading is paused: its pong would wait unread. And one at a time: Autobahn forgets the timer of
        # the previous one, which then ends a live connection.
        if self._is_held or self.autoPingTimeoutCall is not None:
            self.last_ping = time.time()
        super().check_timeouts()

    def onAutoPingTimeout(self) -> None:
        logger.info("%s: no answer to a ping for %g s, closed", self.path.decode(), self.autoPingTimeout)
        super().onAutoPingTimeout()


class SocketFactory(WebSocketFactory):
    protocol = Socket

    def resetProtocolOptions(self) -> None:
        super().resetProtocolOptions()
        # A message that is too large is answered with a close code, not with a lost connection.
        self.failByDrop = False

    def buildProtocol(self, address: Any) -> Any:
        protocol = super().buildProtocol(address)
        protocol.server = self.server_class
        return protocol
