"""The command that the supervisor starts, over real sockets."""

import base64
import json
from collections.abc import Iterator

import psutil
import pytest
from pytest_django import Settings
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from avatar_site.web.__main__ import Command
from avatar_site.web.upload_limits import read_limits
from realtime import messages
from tests.avatar_site.web.served import Served


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """With few open files, as a login shell gives."""
    served = Served(
        command=("avatar_site.web", "--port", "0", "tests.avatar_site.web.site:application"), open_files=256
    )
    yield served
    served.close()


@pytest.fixture(scope="module")
def site() -> Iterator[Served]:
    served = Served(command=("avatar_site.web", "--port", "0", "avatar_site.asgi:application"))
    yield served
    served.close()


def make_chunk(size: int) -> str:
    return json.dumps({"type": "audio_chunk", "data": base64.b64encode(bytes(size)).decode(), "final": False})


class TestAMessage:
    def test_may_have_a_chunk_of_the_size_that_is_promised(self, served: Served) -> None:
        chunk = make_chunk(messages.MAX_CHUNK_BYTES)

        with connect(f"ws://127.0.0.1:{served.port}/echo") as client:
            client.send(chunk)

            assert client.recv(timeout=20) == str(len(chunk))

    def test_that_is_a_little_too_large_reaches_the_application_which_says_so(self, served: Served) -> None:
        with connect(f"ws://127.0.0.1:{served.port}/echo") as client:
            client.send(make_chunk(messages.MAX_CHUNK_BYTES * 3 // 2))

            assert client.recv(timeout=20).isdecimal()

    def test_that_is_far_too_large_closes_the_socket(self, served: Served) -> None:
        with connect(f"ws://127.0.0.1:{served.port}/echo") as client:
            client.send(make_chunk(messages.MAX_CHUNK_BYTES * 3))

            with pytest.raises(ConnectionClosed) as closed:
                client.recv(timeout=20)

        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009


class TestOpenFiles:
    def test_are_as_many_as_the_system_allows(self, served: Served) -> None:
        said = served.wait_for(r"open files: at most (\d+), raised from 256")
        soft, hard = psutil.Process(served.process.pid).rlimit(psutil.RLIMIT_NOFILE)

        assert int(said.group(1)) == soft == hard > 256

    def test_limit_connections_when_the_system_allows_few(self, settings: Settings) -> None:
        settings.AVATAR_MAX_CONNECTIONS = 1000

        assert read_limits(open_files=1024).max_connections == 462
        assert read_limits(open_files=20_000).max_connections == 1000


class TestGarbageCollections:
    def test_leave_out_what_the_site_has_loaded(self, site: Served) -> None:
        said = site.wait_for(r"(\d+) objects are left out of garbage collections")

        assert int(said.group(1)) > 100_000


class TestASocketOfAnotherAddress:
    def test_is_closed_with_a_code(self, site: Served) -> None:
        with connect(f"ws://127.0.0.1:{site.port}/ws/nothing") as client, pytest.raises(ConnectionClosed) as closed:
            client.recv(timeout=20)

        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == messages.CLOSE_UNKNOWN_CONVERSATION
        assert "Traceback" not in site.output


class TestPings:
    def test_end_a_dead_call_in_a_quarter_of_a_minute(self) -> None:
        options = Command().parser.parse_args(["site:application"])

        assert (options.ping_interval, options.ping_timeout) == (5, 10)
