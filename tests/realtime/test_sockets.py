"""What only a real socket shows: the whole server in a process of its own, and clients that misbehave."""

from __future__ import annotations

import json
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.processes import OutputProcess
from tests.realtime.serving import REPLY

PATIENCE_S = 30.0
FIRST_SENTENCE = REPLY[: REPLY.index("。") + 1]


class Served(OutputProcess):
    """The site's server, with a login."""

    def __init__(self) -> None:
        super().__init__([sys.executable, "-u", "-m", "tests.realtime.serving"], patience_s=PATIENCE_S)
        self.session = self.wait_for(r"^session (\w+)$").group(1)
        self.port = int(self.wait_for(r"Listening on TCP address 127.0.0.1:(\d+)").group(1))

    def call(self, query: str = "") -> ClientConnection:
        return connect(
            f"ws://127.0.0.1:{self.port}/ws/chat{query}",
            additional_headers={"Cookie": f"sessionid={self.session}"},
            proxy=None,
            max_size=None,
        )


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    served = Served()
    yield served
    served.close()


@pytest.fixture
def served_alone() -> Iterator[Served]:
    """One that the test may end."""
    served = Served()
    yield served
    served.close()


def read_until(connection: ClientConnection, is_it: Callable[[Any], bool]) -> Any:
    """Return the next message, bytes or what was JSON, that `is_it`."""
    until = time.monotonic() + PATIENCE_S
    while True:
        data = connection.recv(timeout=until - time.monotonic())
        message = data if isinstance(data, bytes) else json.loads(data)
        if is_it(message):
            return message


def is_a(kind: str, **fields: Any) -> Callable[[Any], bool]:
    return lambda message: isinstance(message, dict) and {"type": kind, **fields}.items() <= message.items()


def read_close_code(connection: ClientConnection) -> int:
    with pytest.raises(ConnectionClosed) as closed:
        read_until(connection, lambda message: False)
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code


def ask(connection: ClientConnection) -> dict[str, Any]:
    """Type, and return once the answer is heard."""
    ready = read_until(connection, is_a("status", stage="ready"))
    connection.send(json.dumps({"type": "text", "text": "你好"}))
    read_until(connection, lambda message: isinstance(message, bytes))
    return dict(ready)


class TestEndingTheProcess:
    def test_ends_the_sentence_keeps_it_and_says_that_it_restarts(self, served_alone: Served) -> None:
        with served_alone.call() as talking, served_alone.call() as quiet:
            ask(talking)
            read_until(quiet, is_a("status", stage="ready"))
            served_alone.process.send_signal(signal.SIGTERM)
            assert read_close_code(quiet) == 1012
            with served_alone.call() as late:
                assert read_close_code(late) == 1012
            assert served_alone.process.poll() is None
            assert read_close_code(talking) == 1012
        assert served_alone.process.wait(PATIENCE_S) == 0
        kept = served_alone.wait_for(r"^kept avatar True (.*)$").group(1)

        assert kept.startswith(FIRST_SENTENCE)
        assert kept != REPLY
        assert "ERROR" not in served_alone.output


class TestAClient:
    def test_that_leaves_in_the_middle_of_an_answer_is_no_error(self, served: Served) -> None:
        for _ in range(3):
            with served.call() as connection:
                ask(connection)
                connection.socket.shutdown(socket.SHUT_RDWR)
        with served.call() as connection:
            ask(connection)
            connection.close()
        with served.call() as connection:
            read_until(connection, is_a("status", stage="ready"))

        assert "ERROR" not in served.output
        assert "Traceback" not in served.output

    def test_that_was_lost_gives_its_place_to_its_return(self, served: Served) -> None:
        with served.call() as lost:
            ready = ask(lost)
            # It is neither read nor closed any more: as after a walk out of the Wi-Fi's reach.
            with served.call(f"?conversation={ready['conversation_id']}") as back:
                resumed = read_until(back, is_a("status", stage="ready"))
                assert read_close_code(lost) == 4409

        assert resumed["is_resumed"] is True
        assert resumed["conversation_id"] == ready["conversation_id"]

    def test_that_floods_the_server_is_cut_off(self, served: Served) -> None:
        with served.call() as connection:
            read_until(connection, is_a("status", stage="ready"))
            with suppress(ConnectionClosed):
                for number in range(36_000):
                    connection.send(json.dumps({"type": "ping", "nonce": str(number)}))

            with pytest.raises(ConnectionClosed) as closed:
                read_until(connection, lambda message: False)
            # What the server has not read makes the kernel reset the connection, which may overtake the close frame.
            assert closed.value.rcvd is None or closed.value.rcvd.code == 4408
