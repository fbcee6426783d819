"""Strangers who keep connections, against the real server with short deadlines."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import httpx
import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from avatar_site.web.channel import Channel
from avatar_site.web.limits import Limits
from avatar_site.web.server import Factory, Server
from tests.avatar_site.web.served import Served
from tests.avatar_site.web.serving import ScriptedGate, application

BUSY = "GET /flood HTTP/1.1\nHost: localhost\n\n"


@contextmanager
def serving(*limits: str) -> Iterator[Served]:
    served = Served(*limits)
    try:
        yield served
    finally:
        served.close()
    assert "Traceback" not in served.output


def is_closed(connection: socket.socket) -> bool:
    """Wait for the end of a connection on which nothing more comes."""
    with suppress(ConnectionResetError):
        return connection.recv(1) == b""
    return True


class TestAHead:
    @pytest.mark.parametrize("begun", ["", "GET / HTTP/1.1\n", "GET / HTTP/1.1\nHost: localhost\n"])
    def test_has_a_deadline(self, begun: str) -> None:
        with serving("head_timeout_s=0.3") as served, served.connect(begun) as connection:
            assert is_closed(connection)
            served.wait_for(r"WARNING no complete request in 0\.3 s from 127\.0\.0\.1, closed")

    def test_has_a_deadline_that_further_bytes_do_not_put_off(self) -> None:
        with serving("head_timeout_s=0.5") as served, served.connect("GET / HTTP/1.1\nX: ") as connection:
            connection.settimeout(0.02)
            for _ in range(1000):
                try:
                    connection.send(b"x")
                    if connection.recv(1) == b"":
                        return
                except TimeoutError:
                    continue
                except OSError:
                    return

        pytest.fail("a byte every 20 ms kept the connection")

    def test_of_a_further_request_has_a_deadline_of_its_own(self) -> None:
        with (
            serving("head_timeout_s=0.3") as served,
            served.connect("GET / HTTP/1.1\nHost: localhost\n\n") as connection,
        ):
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
            connection.sendall(b"GET / HT")

            assert is_closed(connection)


class TestABody:
    def test_is_refused_when_it_comes_too_slowly(self) -> None:
        with (
            serving("body_window_s=0.3", "min_body_bytes_per_s=1000") as served,
            served.connect("POST / HTTP/1.1\nHost: localhost\nContent-Length: 100000\n\nx") as connection,
        ):
            assert connection.recv(65536).startswith(b"HTTP/1.1 408 ")
            served.wait_for(r"WARNING the body of a request came too slowly from 127\.0\.0\.1")


class TestAnIdleConnection:
    def test_is_closed_after_a_while(self) -> None:
        with serving("keep_alive_s=0.3") as served, served.connect("GET / HTTP/1.1\nHost: localhost\n\n") as connection:
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")

            assert is_closed(connection)


class TestManyConnections:
    def test_of_silent_strangers_keep_nobody_out(self) -> None:
        with serving("max_connections=20", "max_connections_per_address=1000") as served:
            silent = [served.connect("") for _ in range(60)]
            try:
                assert httpx.get(served.url).text == "0"
                assert is_closed(silent[0])
                served.wait_for("WARNING 20 connections in all: the longest idle one closed for another of 127.0.0.1")
            finally:
                for connection in silent:
                    connection.close()

    def test_of_one_address_that_are_busy_are_refused(self) -> None:
        with serving("max_connections_per_address=3") as served:
            busy = [served.connect(BUSY) for _ in range(3)]
            try:
                for connection in busy:
                    assert connection.recv(1)
                with served.connect(BUSY) as another:
                    assert is_closed(another)
                served.wait_for(r"WARNING 3 connections of 127\.0\.0\.1, none of them idle: 127\.0\.0\.1 refused")
            finally:
                for connection in busy:
                    connection.close()
            served.wait_for("(?s)(left in the middle.*){3}")

            assert httpx.get(served.url).text == "0"

    def test_are_logged_once_in_a_while(self) -> None:
        with serving("max_connections_per_address=1") as served:
            connections = [served.connect("") for _ in range(50)]
            for connection in connections[:-1]:
                assert is_closed(connection)
            for connection in connections:
                connection.close()

        assert served.output.count("WARNING") == 1


class TestTheAccessLog:
    def test_has_no_queries(self) -> None:
        with serving() as served:
            httpx.get(f"{served.url}/conversations?q=%E7%A7%98%E5%AF%86&words=secret")

            served.wait_for(r'"GET /conversations" 200')
            assert "secret" not in served.output
            assert "%E7" not in served.output


class TestDeadlinesOnAClock:
    def test_let_a_slow_body_pass_that_keeps_the_pace(self) -> None:
        clock, channel, transport = make_channel(body_window_s=20, min_body_bytes_per_s=500)
        channel.dataReceived(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n")

        for _ in range(9):
            clock.advance(19)
            channel.dataReceived(bytes(10_000))
            clock.advance(1)
        assert transport.value() == b""

        clock.advance(20)
        assert transport.value().startswith(b"HTTP/1.1 408 ")

    def test_give_a_response_that_is_being_read_more_time_than_an_idle_connection(self) -> None:
        clock, channel, transport = make_channel(keep_alive_s=75, stall_timeout_s=300)
        channel.pauseProducing()
        channel.requests = [channel]
        channel.requestDone(channel)

        clock.advance(299)
        assert not transport.disconnecting

        channel.resumeProducing()
        clock.advance(74)
        assert not transport.disconnecting
        clock.advance(1)
        assert transport.disconnecting


class TestBehindAProxy:
    def test_there_is_no_limit_per_address(self) -> None:
        served = make_server(proxy_forwarded_address_header="X-Forwarded-For")

        assert served.limits.max_connections_per_address is None
        assert make_server().limits.max_connections_per_address == 100


def make_server(*, proxy_forwarded_address_header: str | None = None, **limits: float) -> Server:
    server = Server(
        application,
        gate=ScriptedGate(),
        limits=Limits(**limits),  # type: ignore[arg-type]  # whole numbers among them
        endpoints=["none"],
        proxy_forwarded_address_header=proxy_forwarded_address_header,
    )
    server.connections = {}
    return server


def make_channel(**limits: float) -> tuple[Clock, Channel, StringTransport]:
    clock = Clock()
    factory = Factory(make_server(**limits))
    factory.reactor = clock
    channel = factory.buildProtocol(None)
    transport = StringTransport(peerAddress=IPv4Address("TCP", "192.0.2.7", 40000))
    channel.makeConnection(transport)
    return clock, channel, transport
