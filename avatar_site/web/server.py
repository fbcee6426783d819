"""
Daphne, with limits and back-pressure in both directions. Imports no Django.

Plain Daphne buffers a request's whole body before it calls the application, and the whole response. Here a body is
refused while it arrives, and a response waits for its reader. Connections have limits (`limits.py`), deadlines
(`channel.py`) and back-pressure (`sockets.py`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, replace
from functools import partial
from http import HTTPStatus
from io import BytesIO
from typing import IO, Any, Protocol
from urllib.parse import unquote

import daphne.server  # before anything else of Twisted: it chooses the reactor
from daphne.http_protocol import HTTPFactory, WebRequest
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from avatar_site.web.access_log import remove_query
from avatar_site.web.channel import Channel
from avatar_site.web.limits import Connections, Limits, Tally
from avatar_site.web.sockets import Socket, SocketFactory
from inference import sd_notify
from inference.telemetry import context

logger = logging.getLogger(__name__)

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]

PIECE_BYTES = 64 * 1024
#: How much of a refused body is still read and discarded. Closing earlier may reset the connection under a client that
#: is still sending, which then never sees the reason.
LINGER_BYTES = 64 * 1024 * 1024
LINGER_S = 15.0
#: How long stopping waits for the application to drain. The supervisor waits a little longer.
DRAIN_S = 20.0
#: How long stopping then waits for background work to end.
END_BACKGROUND_S = 4.0


@dataclass(frozen=True, slots=True)
class Head:
    """A request before its body: the path without the query, and two headers."""

    path: str
    cookie: str
    accept_language: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """A response in place of the application's."""

    status: int
    content_type: str
    body: bytes


class Gate(Protocol):
    """Decides how large a request body may be."""

    #: For every client and URL.
    max_anonymous_bytes: int

    def decide_max_bytes(self, head: Head) -> int:
        """Return how much a logged-in user may send to this path."""

    async def is_logged_in(self, head: Head) -> bool:
        """Whether the request has a valid login. Called only for bodies above `max_anonymous_bytes`."""

    def refuse_anonymous(self, head: Head) -> Refusal: ...

    def refuse_size(self, head: Head) -> Refusal: ...


class Request(WebRequest):
    """A request whose body is measured while it arrives, and whose response waits while its reader is behind."""

    content: Any

    def __init__(self, *args: Any, **options: Any) -> None:
        # Twisted would parse forms in memory; Django does it anyway.
        super().__init__(*args, parsePOSTFormSubmission=False, **options)
        self._gate: Gate = self.server.gate
        self._received_bytes = 0
        self._asking: asyncio.Task[None] | None = None
        self.is_refused = False
        self._is_complete = False
        self._giving_up: Any = None
        self._body: IO[bytes] | None = None
        self._has_room = asyncio.Event()
        self._has_room.set()

    def __repr__(self) -> str:
        # Daphne logs it. Twisted's shows the query, which holds what users search for.
        return f"<Request {self.method.decode('latin-1')} {remove_query(self.uri.decode('latin-1'))}>"

    # --- the body ---

    def gotLength(self, length: int | None) -> None:
        """Twisted's: the headers are complete. `length` is None for a chunked body."""
        self._head = Head(
            path=unquote(self.channel._path.split(b"?", 1)[0].decode("latin-1")),
            cookie=self._read_header(b"cookie"),
            accept_language=self._read_header(b"accept-language"),
        )
        self._max_bytes = self._gate.decide_max_bytes(self._head)
        self._measure(length or 0)
        if self.is_refused:
            length = 0  # nothing of it is kept: no temporary file
            self.requestHeaders.removeHeader(b"Expect")  # no "100 Continue" after the answer
        super().gotLength(length)

    def handleContentChunk(self, data: bytes) -> None:
        """Twisted's: a part of the body."""
        self._received_bytes += len(data)
        if not self.is_refused:
            self._measure(self._received_bytes)
        if not self.is_refused:
            super().handleContentChunk(data)
        elif self._received_bytes > LINGER_BYTES:
            self._give_up()

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """Twisted's: the body is complete."""
        self._is_complete = True
        if self.is_refused:
            self.channel.loseConnection()
        else:
            super().requestReceived(command, path, version)

    @property
    def is_paused(self) -> bool:
        """Whether reading the body waits for the gate rather than the client."""
        return self._asking is not None and not self._asking.done()

    def refuse_slow_body(self) -> None:
        self._refuse(Refusal(HTTPStatus.REQUEST_TIMEOUT, "text/plain", b""))

    def take_body(self) -> IO[bytes]:
        """Hand the body over, to be read at the application's pace; Daphne would queue all of it."""
        self._body, self.content = self.content, BytesIO()
        self._body.seek(0)
        return self._body

    def _measure(self, size: int) -> None:
        if size > self._max_bytes:
            self._refuse(self._gate.refuse_size(self._head))
        elif size > self._gate.max_anonymous_bytes and self._asking is None:
            self.transport.pauseProducing()
            self._asking = asyncio.ensure_future(self._ask_whether_known())

    async def _ask_whether_known(self) -> None:
        refusal = None
        try:
            if not await self._gate.is_logged_in(self._head):
                refusal = self._gate.refuse_anonymous(self._head)
        except Exception:
            logger.exception("the login of a request to %s could not be checked", self._head.path)
            refusal = Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", b"")
        if self.channel is None or self._is_complete or self.is_refused:
            return
        if refusal is not None:
            self._refuse(refusal)
        self.transport.resumeProducing()

    def _refuse(self, refusal: Refusal) -> None:
        """Respond at once, read and discard for a while, and close."""
        self.is_refused = True
        if self.content is not None:
            self.content.close()
            self.content = BytesIO()
        self.method, self.uri, self.clientproto = self.channel._command, self.channel._path, self.channel._version
        self.channel.persistent = False
        headers = [
            (b"Content-Type", refusal.content_type.encode()),
            (b"Content-Length", str(len(refusal.body)).encode()),
            (b"Connection", b"close"),
        ]
        super().handle_reply({"type": "http.response.start", "status": refusal.status, "headers": headers})
        super().handle_reply({"type": "http.response.body", "body": refusal.body, "more_body": True})
        self._giving_up = self.channel.callLater(LINGER_S, self._give_up)
        logger.info("%s %s refused with %d", self.method.decode("latin-1"), self._head.path, refusal.status)

    def _give_up(self) -> None:
        if self.channel is not None:
            self.channel.transport.abortConnection()

    def _read_header(self, name: bytes) -> str:
        return b"; ".join(self.requestHeaders.getRawHeaders(name, [])).decode("latin-1")

    # --- the response ---

    def handle_reply(self, message: Message) -> None:
        """Daphne's: a part of the response."""
        is_open = not self.finished and self.channel is not None
        if is_open and message["type"] == "http.response.body" and message.get("more_body") and self.producer is None:
            self.registerProducer(self, streaming=True)
        super().handle_reply(message)

    async def wait_for_room(self, timeout_s: float) -> None:
        """Return when the client has read what was written, or is gone. Disconnects it after `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._has_room.wait()
        except TimeoutError:
            logger.info("%s: nothing read for %d s, disconnected", self._head.path, timeout_s)
            self._give_up()

    def pauseProducing(self) -> None:
        """Twisted's: the connection's buffer is full."""
        self._has_room.clear()

    def resumeProducing(self) -> None:
        """Twisted's: the connection's buffer is empty."""
        self._has_room.set()

    def stopProducing(self) -> None:
        """Twisted's: the connection is lost."""
        self._has_room.set()

    # --- the end ---

    def finish(self) -> None:
        if self.producer is not None:
            self.unregisterProducer()
        self._let_go()
        super().finish()

    def connectionLost(self, reason: Failure) -> None:
        self._let_go()
        super().connectionLost(reason)

    def _let_go(self) -> None:
        self._has_room.set()
        if self._giving_up is not None and self._giving_up.active():
            self._giving_up.cancel()
        if self._body is not None:
            self._body.close()


class Factory(HTTPFactory):
    # Twisted's own channel would also negotiate HTTP/2.
    protocol = Channel

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self.timeOut = server.limits.head_timeout_s

    def buildProtocol(self, address: Any) -> Any:
        protocol = super().buildProtocol(address)
        protocol.requestFactory = Request
        return protocol


async def _drain_nothing() -> None:
    """For an application without live calls."""


class Server(daphne.server.Server):
    """
    `drain` is awaited when the process is told to stop, while everything is still served.

    `background` runs from the start until after the drain, and is then cancelled.
    """

    def __init__(
        self,
        application: Any,
        *,
        gate: Gate,
        limits: Limits,
        drain: Callable[[], Awaitable[None]] = _drain_nothing,
        background: Callable[[], Coroutine[Any, Any, None]] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(partial(_feed, application), **options)
        self.gate = gate
        self.drain = drain
        self.background = background
        self._in_background: asyncio.Task[None] | None = None
        if self.proxy_forwarded_address_header:
            # All connections are the proxy's.
            limits = replace(limits, max_connections_per_address=None)
        self.limits = limits
        #: By transport.
        self.connected: Connections[Any] = Connections(limits)
        self._tally = Tally()
        self._beating: asyncio.Task[None] | None = None

    def listen_success(self, port: Any) -> None:
        """Daphne's: from now on, heartbeats come from the event loop that serves every connection."""
        super().listen_success(port)
        daphne.server.reactor.callLater(0, self._begin_heartbeats)

    def _begin_heartbeats(self) -> None:
        if self._beating is None:  # one for all listening sockets
            self._beating = asyncio.ensure_future(sd_notify.send_heartbeats())

    def run(self) -> None:
        # Daphne looks its factories up by name inside this method.
        daphne.server.HTTPFactory = Factory
        daphne.server.WebSocketFactory = SocketFactory
        # Once the loop runs.
        daphne.server.reactor.callLater(0, self._begin_background)
        super().run()

    def admit(self, transport: Any) -> None:
        """Count a new connection. At a limit, close an idle one, or else the new one."""
        host = str(getattr(transport.getPeer(), "host", ""))
        admission = self.connected.enter(transport, host)
        if not admission.is_admitted:
            self.report("refused", f"{admission.reason}, none of them idle: {host} refused")
            transport.abortConnection()
        elif admission.replaced is not None:
            self.report("replaced", f"{admission.reason}: the longest idle one closed for another of {host}")
            admission.replaced.abortConnection()

    def report(self, kind: str, sentence: str) -> None:
        """Log events that anonymous clients can cause at will: one line per kind and ten seconds."""
        count = self._tally.add(kind, time.monotonic())
        if count:
            logger.warning("%s%s", sentence, f" ({count} times since the last such line)" if count > 1 else "")

    def create_application(self, protocol: Any, scope: Message) -> Any:
        if isinstance(protocol, Request):
            scope["avatar.body"] = protocol.take_body()
        else:
            scope["avatar.socket"] = protocol
        return super().create_application(protocol, scope)

    def kill_all_applications(self) -> Any:
        """Daphne's, called before the reactor stops: drain the application first."""
        sd_notify.notify(sd_notify.STOPPING)
        draining = Deferred.fromFuture(asyncio.ensure_future(self._drain()))
        return draining.addBoth(lambda _: super(Server, self).kill_all_applications())

    async def _drain(self) -> None:
        try:
            async with asyncio.timeout(DRAIN_S):
                await self.drain()
        except TimeoutError:
            logger.warning("draining took more than %g s and was cut off", DRAIN_S)
        except Exception:
            logger.exception("the application could not be drained")
        finally:
            if self._beating is not None:
                self._beating.cancel()
        await self._end_background()

    def _begin_background(self) -> None:
        if self.background is not None:
            self._in_background = asyncio.get_running_loop().create_task(self.background(), name="background")

    async def _end_background(self) -> None:
        task, self._in_background = self._in_background, None
        if task is None:
            return
        task.cancel()
        await asyncio.wait([task], timeout=END_BACKGROUND_S)
        if task.done() and not task.cancelled() and (error := task.exception()) is not None:
            logger.error("background work failed", exc_info=error)

    async def handle_reply(self, protocol: Any, message: Message) -> None:
        await super().handle_reply(protocol, message)
        if isinstance(protocol, Request) or message["type"] == "websocket.send":
            await protocol.wait_for_room(self.limits.stall_timeout_s)

    def log_action(self, protocol: str, action: str, details: dict[str, Any]) -> None:
        # Whatever logs it: see `access_log.py`.
        super().log_action(protocol, action, details | {"path": remove_query(str(details["path"]))})


async def _feed(application: Any, scope: Message, receive: Receive, send: Any) -> None:
    body: IO[bytes] | None = scope.pop("avatar.body", None)
    socket: Socket | None = scope.pop("avatar.socket", None)
    if body is not None:
        receive = partial(_read, body, receive)
    elif socket is not None:
        receive = partial(_receive, socket, receive)
    # A call binds ids of its own.
    with context.bound(trace_id=context.make_trace_id() if scope["type"] == "http" else None):
        await application(scope, receive, send)


async def _receive(socket: Socket, receive: Receive) -> Message:
    message = await receive()
    socket.note_taken(message)
    return message


async def _read(body: IO[bytes], receive: Receive) -> Message:
    """Return a piece of the body; after the last one Daphne's messages: the end, or that the client is gone."""
    piece = b"" if body.closed else body.read(PIECE_BYTES)
    if not piece:
        body.close()
        return await receive()
    await asyncio.sleep(0)  # let other requests run between the pieces of a large body
    return {"type": "http.request", "body": piece, "more_body": True}
