"""WebSocket clients that do not play along, against the real server."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import httpx
import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from avatar_site.web.limits import Limits
from avatar_site.web.server import Server
from avatar_site.web.sockets import Socket, SocketFactory
from tests.avatar_site.web.served import HANDSHAKE, Served, make_frame, open_websocket, send_until_blocked
from tests.avatar_site.web.serving import MIB, PIECE_BYTES, ScriptedGate, application

#: What lies in the kernel's buffers of both ends, at most.
KERNEL_BYTES = 16 * MIB
FLOOD_BYTES = 64 * MIB
MOST_GROWTH_BYTES = 8 * MIB
CLOSE_FRAME = make_frame((1000).to_bytes(2, "big"), opcode=8)


@contextmanager
def serving(*settings: str) -> Iterator[Served]:
    served = Served(*settings)
    try:
        yield served
    finally:
        served.close()
    assert "Traceback" not in served.output
    assert "ERROR" not in served.output


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving() as served:
        yield served


class TestWhatIsReceived:
    @pytest.mark.parametrize("payload", [bytes(1000), b""], ids=["messages", "empty messages"])
    def test_is_not_read_while_the_application_is_behind(self, payload: bytes) -> None:
        with serving() as served, open_websocket(served, "/slow") as connection:

            def flood() -> tuple[int, list[str]]:
                sent = send_until_blocked(connection, make_frame(payload) * 100, FLOOD_BYTES)
                return sent, [httpx.get(served.url, timeout=5).text for _ in range(5)]

            (sent, answers), growth, _ = served.measure(flood)

            assert sent < KERNEL_BYTES
            assert growth < MOST_GROWTH_BYTES
            assert answers == ["0"] * 5

    def test_arrives_whole_when_much_is_sent_at_once(self, served: Served) -> None:
        with connect(f"ws://127.0.0.1:{served.port}/echo") as client:
            for size in range(1, 3001):
                client.send("x" * size)

            assert [client.recv(timeout=20) for _ in range(3000)] == [str(size) for size in range(1, 3001)]

    def test_is_read_to_a_close_code_when_a_message_is_too_large(self) -> None:
        with (
            serving("websocket_max_message_size=1000", "websocket_max_frame_size=1000") as served,
            connect(f"ws://127.0.0.1:{served.port}/echo") as client,
        ):
            client.send("x" * 1000)
            assert client.recv(timeout=20) == "1000"

            client.send("x" * 1001)
            with pytest.raises(ConnectionClosed) as closed:
                client.recv(timeout=20)

            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1009

    def test_is_not_read_before_the_application_has_accepted(self) -> None:
        with serving() as served, served.connect(HANDSHAKE.format(path="/pending")) as connection:
            served.wait_for("WSCONNECTING /pending")

            sent, growth, _ = served.measure(
                lambda: send_until_blocked(connection, make_frame(bytes(1000)), FLOOD_BYTES)
            )

            assert sent < KERNEL_BYTES
            assert growth < MOST_GROWTH_BYTES


class TestWhatIsSent:
    def test_waits_for_a_client_that_does_not_read(self) -> None:
        with serving() as served, open_websocket(served, "/talk"):
            said, growth, _ = served.measure(lambda: served.wait_for(r"waited in send after (\d+) pieces"))

            assert int(said.group(1)) * PIECE_BYTES < KERNEL_BYTES / 4
            assert growth < MOST_GROWTH_BYTES
            # The close frame is not read either.
            served.wait_for("left with 1006")

    def test_goes_on_when_it_is_read(self, served: Served) -> None:
        with connect(f"ws://127.0.0.1:{served.port}/talk", max_queue=1, close_timeout=0.1) as client:
            for _ in range(200):
                client.recv(timeout=20)

    def test_is_dropped_without_a_word_when_the_client_has_closed_and_reads_no_more(self) -> None:
        with serving("DROP_TIMEOUT_S=0.3") as served, open_websocket(served, "/chatter") as connection:
            served.wait_for("waits for its reader")
            connection.sendall(CLOSE_FRAME)

            # The application is told, though the response to the close frame cannot be delivered.
            served.wait_for("left with 1000")
            served.wait_for("no more is said")

    def test_are_no_pongs_for_a_client_that_does_not_read(self) -> None:
        with serving() as served, open_websocket(served, "/slow") as connection:
            pings = make_frame(bytes(125), opcode=9) * 100

            _, growth, _ = served.measure(lambda: send_until_blocked(connection, pings, 2 * KERNEL_BYTES))

            assert growth < MOST_GROWTH_BYTES
            assert httpx.get(served.url, timeout=5).text == "0"

    def test_is_a_close_code_that_is_registered(self, served: Served) -> None:
        with connect(f"ws://127.0.0.1:{served.port}/close-1012") as client:
            with pytest.raises(ConnectionClosed) as closed:
                client.recv(timeout=20)

            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1012


class TestADeadClient:
    def test_is_closed_and_the_application_told(self) -> None:
        with serving("ping_interval=0.1", "ping_timeout=0.3") as served, open_websocket(served, "/echo"):
            served.wait_for(r"/echo: no answer to a ping for 0\.3 s, closed")
            served.wait_for("left with 1006")

    async def test_is_not_one_that_answers_late(self) -> None:
        clock = Clock()
        socket, transport = await open_in_process(clock, ping_timeout_s=10)
        transport.clear()

        # Daphne looks every two seconds and would send a second ping, whose timer replaces the first one's.
        for _ in range(3):
            socket.last_ping = 0
            socket.check_timeouts()
        ping = transport.value()
        clock.advance(9)
        socket.dataReceived(make_frame(ping[2:], opcode=10))
        clock.advance(60)

        assert (ping[0], ping[1], len(ping)) == (0x89, 12, 14)
        assert not transport.disconnecting

    async def test_is_not_one_that_is_not_listened_to(self) -> None:
        clock = Clock()
        socket, transport = await open_in_process(clock, ping_timeout_s=10, max_waiting_messages=1)
        socket.dataReceived(make_frame(b"1") * 3)

        socket.last_ping = 0
        socket.check_timeouts()
        clock.advance(60)

        assert transport.producerState == "paused"
        assert not transport.disconnecting


class TestAHandshake:
    @pytest.mark.parametrize("version", ["", "Sec-WebSocket-Version: 12\n"])
    def test_that_is_none_is_answered_with_400(self, served: Served, version: str) -> None:
        with served.connect(
            f"GET /echo HTTP/1.1\nHost: localhost\nUpgrade: websocket\nConnection: Upgrade\n{version}\n"
        ) as connection:
            assert connection.recv(65536).startswith(b"HTTP/1.1 400 ")


class Transport(StringTransport):
    def getHandle(self) -> SimpleNamespace:
        return SimpleNamespace(setsockopt=lambda *option: None)


async def accepted(transport: StringTransport) -> None:
    while b" 101 " not in transport.value():  # noqa: ASYNC110 — the transport is Twisted's and has no event
        await asyncio.sleep(0)


async def open_in_process(clock: Clock, *, ping_timeout_s: int, **limits: int) -> tuple[Socket, StringTransport]:
    server = Server(application, gate=ScriptedGate(), limits=Limits(**limits), endpoints=["none"])
    server.connections = {}
    factory = SocketFactory(server)
    factory.setProtocolOptions(autoPingTimeout=ping_timeout_s)
    factory.reactor = clock
    factory._batched_timer = SimpleNamespace(call_later=clock.callLater)
    socket = factory.buildProtocol(None)
    socket._raw_query_string = b""
    transport = Transport(peerAddress=IPv4Address("TCP", "192.0.2.7", 40000))
    transport.registerProducer(object(), True)
    socket.makeConnection(transport)
    socket.dataReceived(HANDSHAKE.format(path="/slow").replace("\n", "\r\n").encode())
    await asyncio.wait_for(accepted(transport), 10)
    return socket, transport
