"""An HTTP connection with a deadline for each stage of a request. Imports no Django."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any

from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web import http

from avatar_site.web.limits import is_body_too_slow

if TYPE_CHECKING:
    from avatar_site.web.server import Server


class Stage(Enum):
    HEAD = "waiting for the headers of a request"
    BODY = "reading the body of a request"
    REPLY = "waiting for the application"
    KEEP_ALIVE = "waiting for another request"
    FLUSHING = "closing when the response has been read"


class Channel(http.HTTPChannel):
    """
    Replaces Twisted's single deadline, which every received byte extends.

    After an upgrade the WebSocket takes over the transport, and no method here is called again.
    """

    factory: Any
    transport: Any

    def __init__(self) -> None:
        super().__init__()
        self._stage = Stage.HEAD
        self._is_behind = False
        self._window_bytes = 0

    @property
    def _server(self) -> Server:
        server: Server = self.factory.server
        return server

    # --- Twisted's events ---

    def connectionMade(self) -> None:
        super().connectionMade()  # starts the timer with the factory's `timeOut`, the deadline for a head
        self._server.admit(self.transport)

    def dataReceived(self, data: bytes) -> None:
        if self._stage is Stage.KEEP_ALIVE:
            self._enter(Stage.HEAD, self._server.limits.head_timeout_s)
        self._window_bytes += len(data)
        super().dataReceived(data)

    def allHeadersReceived(self) -> None:
        self._window_bytes = 0
        self._server.connected.mark_busy(self.transport)
        self._enter(Stage.BODY, self._server.limits.body_window_s)
        super().allHeadersReceived()

    def allContentReceived(self) -> None:
        self._stage = Stage.REPLY
        super().allContentReceived()  # stops the timer

    def requestDone(self, request: Any) -> None:
        self._stage = Stage.KEEP_ALIVE if self.persistent else Stage.FLUSHING
        self._server.connected.mark_idle(self.transport)
        super().requestDone(request)  # continues with a pipelined request, if there is one
        if self._stage is Stage.FLUSHING:
            self.setTimeout(self._server.limits.stall_timeout_s)
        elif self._stage is Stage.KEEP_ALIVE:
            self._wait_for_request()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._server.connected.leave(self.transport)
        super().connectionLost(reason)

    def pauseProducing(self) -> None:
        self._is_behind = True
        super().pauseProducing()

    def resumeProducing(self) -> None:
        self._is_behind = False
        if self._stage is Stage.KEEP_ALIVE:
            self._wait_for_request()
        super().resumeProducing()

    # --- deadlines ---

    def resetTimeout(self) -> None:
        """Keep the deadline: a received byte does not extend it."""

    def timeoutConnection(self) -> None:
        limits = self._server.limits
        match self._stage:
            case Stage.BODY:
                request = self.requests[-1]
                if request.is_refused:
                    return  # it has its own deadline
                if request.is_paused or not is_body_too_slow(limits, self._window_bytes):
                    self._window_bytes = 0
                    self.setTimeout(limits.body_window_s)
                    return
                self._server.report("body", f"the body of a request came too slowly from {self._peer}")
                request.refuse_slow_body()
            case Stage.HEAD:
                self._server.report(
                    "head", f"no complete request in {limits.head_timeout_s:g} s from {self._peer}, closed"
                )
                self.transport.abortConnection()
            case Stage.FLUSHING:
                self.transport.abortConnection()
            case _:
                super().timeoutConnection()

    def _enter(self, stage: Stage, deadline_s: float) -> None:
        self._stage = stage
        self.setTimeout(deadline_s)

    def _wait_for_request(self) -> None:
        # A large response may still be in the buffer after the application has finished.
        limits = self._server.limits
        self.setTimeout(limits.stall_timeout_s if self._is_behind else limits.keep_alive_s)

    @property
    def _peer(self) -> str:
        return str(getattr(self.transport.getPeer(), "host", "a Unix socket"))
