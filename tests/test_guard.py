"""The guard that keeps the tests from reaching what they did not start."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator

import grpc
import grpc.aio
import pytest
from django.conf import settings

from inference.client import InferenceClient
from inference.interfaces import InferenceUnavailable
from tests import guard
from tests.guard import Guard, ReachedOut

LISTEN = "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); input()"


@pytest.fixture
def listener() -> Iterator[int]:
    """The port of a server that is a process of its own."""
    command = [sys.executable, "-c", LISTEN]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.kill()


class TestGuard:
    def test_refuses_what_ran_before_the_tests(self, listener: int) -> None:
        found = Guard(guard.read_listeners(), guard.read_listeners)

        assert (
            found.find_objection(("127.0.0.1", listener))
            == f"what listens on port {listener} was there before the tests"
        )
        assert found.find_objection_to_target(f"localhost:{listener}") is not None

    def test_lets_tests_reach_what_they_have_started(self, listener: int) -> None:
        found = Guard({}, guard.read_listeners)

        assert found.find_objection(("127.0.0.1", listener)) is None
        assert found.find_objection_to_target(f"ipv4:127.0.0.1:{listener}") is None

    def test_lets_a_test_take_a_port_that_was_given_up(self, listener: int) -> None:
        found = Guard({listener: -1}, guard.read_listeners)

        assert found.find_objection(("::1", listener, 0, 0)) is None

    @pytest.mark.parametrize(
        "address",
        [
            ("127.0.0.1", 50051),
            ("127.0.0.1", 8000),
            ("::1", 6379, 0, 0),
            ("192.0.2.1", 80),
            ("avatar.example", 443),
            "/var/run/postgresql/.s.PGSQL.5432",
            b"/run/redis.sock",
        ],
    )
    def test_refuses_other_machines_and_the_places_of_products(self, address: object) -> None:
        assert Guard({}, dict).find_objection(address) is not None

    @pytest.mark.parametrize(
        "target", ["127.0.0.1:50051", "dns:///avatar.example:50052", "unix:/srv/avatar/var/s", "[::1]:6379"]
    )
    def test_refuses_them_as_targets_of_grpc(self, target: str) -> None:
        assert Guard({}, dict).find_objection_to_target(target) is not None

    def test_lets_no_name_server_be_asked(self) -> None:
        assert Guard({}, dict).find_objection_to_name("avatar.example") is not None
        assert Guard({}, dict).find_objection_to_name("localhost") is None


class TestThisRun:
    def test_is_guarded(self, refused: list[str]) -> None:
        with socket.socket() as connection, pytest.raises(ReachedOut):
            connection.connect(("127.0.0.1", 50051))
        with pytest.raises(ReachedOut):
            socket.getaddrinfo("avatar.example", 80)
        with pytest.raises(ReachedOut):
            grpc.insecure_channel("127.0.0.1:50051")
        with pytest.raises(ReachedOut):
            grpc.aio.insecure_channel("127.0.0.1:50051")

        assert len(refused) == 4
        refused.clear()

    async def test_has_no_engines_by_default(self) -> None:
        client = InferenceClient(settings.AVATAR_INFERENCE_ADDRESS)

        with pytest.raises(InferenceUnavailable):
            await client.status()

        await client.close()
