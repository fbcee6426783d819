"""What only a real socket shows: the whole server in a process of its own, and clients that misbehave."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from django.conf import settings
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.realtime.serving import REPLY

PATIENCE_S = 30.0
FIRST_SENTENCE = REPLY[: REPLY.index("。") + 1]


class Served:
    """The server, and what it has said."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-m", "tests.realtime.serving"],
            cwd=settings.BASE_DIR,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.output = ""
        self._said = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.session = self.wait_for(r"^session (\w+)$")
        self.port = int(self.wait_for(r"Listening on TCP address 127.0.0.1:(\d+)"))

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._said:
                self.output += line
                self._said.notify_all()

    def wait_for(self, pattern: str) -> str:
        def find() -> re.Match[str] | None:
            return re.search(pattern, self.output, re.MULTILINE)

        with self._said:
            if not self._said.wait_for(find, PATIENCE_S):
                pytest.fail(f"never said {pattern!r}:\n{self.output}")
            match = find()
        assert match is not None
        return match[match.lastindex or 0]

    def call(self, query: str = "") -> ClientConnection:
        return connect(
            f"ws://127.0.0.1:{self.port}/ws/chat{query}",
            additional_headers={"Cookie": f"sessionid={self.session}"},
            proxy=None,
            max_size=None,
        )

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(PATIENCE_S)
        self._reader.join(10)
        assert self.process.stdout is not None
        self.process.stdout.close()


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
        kept = served_alone.wait_for(r"^kept avatar True (.*)$")

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
