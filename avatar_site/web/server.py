"""
Daphne, with limits in both directions. Knows nothing of Django, pages or people.

By itself it takes a request's body whole before it calls the application, and of a response all that the application
has to give. Here a body is refused while it comes, and a response waits for its reader. Connections have limits
(`limits.py`), deadlines (`channel.py`) and back-pressure (`sockets.py`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
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

from avatar_site.web.channel import Channel
from avatar_site.web.limits import Connections, Limits, Tally
from avatar_site.web.sockets import Socket, SocketFactory

logger = logging.getLogger(__name__)

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]

PIECE_BYTES = 64 * 1024
#: What is still read, and thrown away, of a body that was refused. Closed before that, a connection may be reset under
#: the client that is still sending, and the reason lost with it.
LINGER_BYTES = 64 * 1024 * 1024
LINGER_S = 15.0
#: How long the end of the process waits for the application. The supervisor waits a little longer.
DRAIN_S = 20.0


@dataclass(frozen=True, slots=True)
class Head:
    """What is known of a request before its body: its path without the query, and two of its headers."""

    path: str
    cookie: str
    accept_language: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer instead of the application's."""

    status: int
    content_type: str
    body: bytes


class Gate(Protocol):
    """Decides what may come in."""

    #: What everybody may send, everywhere.
    most_bytes_of_strangers: int

    def find_most_bytes(self, head: Head) -> int:
        """How much a person who is known may send to this path."""

    async def knows(self, head: Head) -> bool:
        """Whether it comes from a person who is logged in. Asked only of requests larger than a stranger's."""

    def refuse_stranger(self, head: Head) -> Refusal: ...

    def refuse_size(self, head: Head) -> Refusal: ...


class Request(WebRequest):
    """A request whose body is measured while it comes, and whose response waits while its reader is behind."""

    content: Any

    def __init__(self, *args: Any, **options: Any) -> None:
        # Twisted would take forms apart in memory; Django does it anyway.
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

    # --- the body ---

    def gotLength(self, length: int | None) -> None:
        """Twisted's: the headers are there. `length` is None for a body in chunks."""
        self._head = Head(
            path=unquote(self.channel._path.split(b"?", 1)[0].decode("latin-1")),
            cookie=self._read_header(b"cookie"),
            accept_language=self._read_header(b"accept-language"),
        )
        self._most_bytes = self._gate.find_most_bytes(self._head)
        self._measure(length or 0)
        if self.is_refused:
            length = 0  # nothing of it is kept: no file
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
        """Whether reading the body waits for the gate, not for the client."""
        return self._asking is not None and not self._asking.done()

    def refuse_slow_body(self) -> None:
        self._refuse(Refusal(HTTPStatus.REQUEST_TIMEOUT, "text/plain", b""))

    def take_body(self) -> IO[bytes]:
        """The body, to be read by the application at its pace; daphne would put all of it into a queue."""
        self._body, self.content = self.content, BytesIO()
        self._body.seek(0)
        return self._body

    def _measure(self, size: int) -> None:
        if size > self._most_bytes:
            self._refuse(self._gate.refuse_size(self._head))
        elif size > self._gate.most_bytes_of_strangers and self._asking is None:
            self.transport.pauseProducing()
            self._asking = asyncio.ensure_future(self._ask_whether_known())

    async def _ask_whether_known(self) -> None:
        refusal = None
        try:
            if not await self._gate.knows(self._head):
                refusal = self._gate.refuse_stranger(self._head)
        except Exception:
            logger.exception("whether %s comes from somebody who is logged in", self._head.path)
            refusal = Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", b"")
        if self.channel is None or self._is_complete or self.is_refused:
            return
        if refusal is not None:
            self._refuse(refusal)
        self.transport.resumeProducing()

    def _refuse(self, refusal: Refusal) -> None:
        """Answer at once, read on for a while without keeping anything, and close."""
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
        """Return when the client has taken what was written, or is gone. It is cut off after `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._has_room.wait()
        except TimeoutError:
            logger.info("%s: taken no further for %d s, given up", self._head.path, timeout_s)
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
    # Twisted's own would choose between HTTP/1.1 and HTTP/2, which is not spoken here.
    protocol = Channel

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self.timeOut = server.limits.head_timeout_s

    def buildProtocol(self, address: Any) -> Any:
        protocol = super().buildProtocol(address)
        protocol.requestFactory = Request
        return protocol


async def _drain_nothing() -> None:
    """For an application that has nothing to end."""


class Server(daphne.server.Server):
    """`drain` is awaited when the process is told to stop, while everything is still served."""

    def __init__(
        self,
        application: Any,
        *,
        gate: Gate,
        limits: Limits,
        drain: Callable[[], Awaitable[None]] = _drain_nothing,
        **options: Any,
    ) -> None:
        super().__init__(partial(_feed, application), **options)
        self.gate = gate
        self.drain = drain
        if self.proxy_forwarded_address_header:
            # All connections are the proxy's.
            limits = replace(limits, max_connections_per_address=None)
        self.limits = limits
        #: By transport.
        self.connected: Connections[Any] = Connections(limits)
        self._tally = Tally()

    def run(self) -> None:
        # Daphne makes its factories in the middle of this method, by their names.
        daphne.server.HTTPFactory = Factory
        daphne.server.WebSocketFactory = SocketFactory
        super().run()

    def admit(self, transport: Any) -> None:
        """Count a new connection. Where there is no room, an idle one is closed, or else the new one."""
        host = str(getattr(transport.getPeer(), "host", ""))
        admission = self.connected.enter(transport, host)
        if not admission.is_admitted:
            self.report("refused", f"{admission.reason}, none of them idle: {host} refused")
            transport.abortConnection()
        elif admission.replaced is not None:
            self.report("replaced", f"{admission.reason}: the longest idle one closed for another of {host}")
            admission.replaced.abortConnection()

    def report(self, kind: str, sentence: str) -> None:
        """Log what strangers can cause as often as they like: one line per kind and ten seconds."""
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
        """Daphne's, called before the reactor stops: first let the application end what it is at."""
        draining = Deferred.fromFuture(asyncio.ensure_future(self._drain()))
        return draining.addBoth(lambda _: super(Server, self).kill_all_applications())

    async def _drain(self) -> None:
        try:
            async with asyncio.timeout(DRAIN_S):
                await self.drain()
        except TimeoutError:
            logger.warning("not everything has ended by itself within %g s", DRAIN_S)
        except Exception:
            logger.exception("the application could not be drained")

    async def handle_reply(self, protocol: Any, message: Message) -> None:
        await super().handle_reply(protocol, message)
        if isinstance(protocol, Request) or message["type"] == "websocket.send":
            await protocol.wait_for_room(self.limits.stall_timeout_s)

    def log_action(self, protocol: str, action: str, details: dict[str, Any]) -> None:
        # What people search for stands in the query.
        super().log_action(protocol, action, details | {"path": details["path"].partition("?")[0]})


async def _feed(application: Any, scope: Message, receive: Receive, send: Any) -> None:
    body: IO[bytes] | None = scope.pop("avatar.body", None)
    socket: Socket | None = scope.pop("avatar.socket", None)
    if body is not None:
        receive = partial(_read, body, receive)
    elif socket is not None:
        receive = partial(_take, socket, receive)
    await application(scope, receive, send)


async def _take(socket: Socket, receive: Receive) -> Message:
    message = await receive()
    socket.note_taken(message)
    return message


async def _read(body: IO[bytes], receive: Receive) -> Message:
    """A piece of the body; after the last one what daphne says: that there is no more, that the client is gone."""
    piece = b"" if body.closed else body.read(PIECE_BYTES)
    if not piece:
        body.close()
        return await receive()
    await asyncio.sleep(0)  # a large body is not the only thing that happens
    return {"type": "http.request", "body": piece, "more_body": True}
