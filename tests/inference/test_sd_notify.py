import asyncio
import os
import resource
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from inference import sd_notify
from inference.sd_notify import LoopWatch


@pytest.fixture
def received(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The socket of a supervisor that wants heartbeats every 10 ms."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "30000")
        yield receiver


def read_waiting(receiver: socket.socket) -> list[bytes]:
    receiver.setblocking(False)
    messages = []
    while True:
        try:
            messages.append(receiver.recv(4096))
        except BlockingIOError:
            return messages


class TestNotify:
    def test_sends_all_states_in_one_message(self, received: socket.socket) -> None:
        assert sd_notify.notify("READY=1", "STATUS=serves")

        assert received.recv(4096) == b"READY=1\nSTATUS=serves"

    def test_reaches_an_abstract_address(self, monkeypatch: pytest.MonkeyPatch) -> None:
        name = f"avatar-test-{os.getpid()}"
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
            receiver.bind(f"\0{name}")

            assert sd_notify.notify("READY=1")
            assert read_waiting(receiver) == [b"READY=1"]

    @pytest.mark.parametrize("address", ["", "relative", "@nobody-listens-here"])
    def test_sends_nothing_where_nobody_listens(self, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("NOTIFY_SOCKET", address)

        assert not sd_notify.notify("READY=1")

    def test_does_not_block_when_nobody_reads(self, received: socket.socket) -> None:
        sent = [sd_notify.notify("WATCHDOG=1") for _ in range(2000)]

        assert sent[0]
        assert not sent[-1]

    def test_works_in_a_process_without_free_descriptors(self, received: socket.socket) -> None:
        sd_notify.notify("READY=1")
        received.recv(4096)
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)

        resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
        try:
            was_sent = sd_notify.notify("WATCHDOG=1")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)

        assert was_sent
        assert received.recv(4096) == b"WATCHDOG=1"


class TestReadInterval:
    @pytest.mark.parametrize(
        ("environment", "expected_s"),
        [
            ({}, None),
            ({"WATCHDOG_USEC": "15000000"}, 5.0),
            ({"WATCHDOG_USEC": "3000000"}, 1.0),
            ({"WATCHDOG_USEC": "60000000"}, 5.0),
            ({"WATCHDOG_USEC": "0"}, None),
            ({"WATCHDOG_USEC": "soon"}, None),
            # Of the process that started us.
            ({"WATCHDOG_USEC": "15000000", "WATCHDOG_PID": "1"}, None),
        ],
    )
    def test_lets_three_heartbeats_fit_into_the_limit(
        self, environment: dict[str, str], expected_s: float | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("WATCHDOG_USEC", "WATCHDOG_PID"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)

        assert sd_notify.read_interval_s() == expected_s


class TestSendHeartbeats:
    async def test_says_that_it_is_ready_once_it_is_and_repeats_it(
        self, received: socket.socket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sd_notify, "STARTING_INTERVAL_S", 0.01)
        readiness = iter([False, False, True, True])

        async with asyncio.timeout(10):
            beating = asyncio.create_task(sd_notify.send_heartbeats(is_ready=lambda: next(readiness, True)))
            messages = [await asyncio.to_thread(received.recv, 4096) for _ in range(4)]
        beating.cancel()

        assert messages == [b"WATCHDOG=1", b"WATCHDOG=1", b"READY=1\nWATCHDOG=1", b"READY=1\nWATCHDOG=1"]

    async def test_ends_when_ready_if_no_heartbeats_are_wanted(
        self, received: socket.socket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("WATCHDOG_USEC")
        monkeypatch.setattr(sd_notify, "STARTING_INTERVAL_S", 0.01)

        async with asyncio.timeout(10):
            await sd_notify.send_heartbeats()

        assert read_waiting(received) == [b"READY=1\nWATCHDOG=1"]


class TestLoopWatch:
    def test_says_nothing_before_the_first_turn(self, received: socket.socket) -> None:
        watch = LoopWatch()

        with watch.waiting():
            watch.beat()

        assert read_waiting(received) == []

    def test_says_at_once_that_it_is_ready(self, received: socket.socket) -> None:
        LoopWatch().note_turn()

        assert read_waiting(received) == [b"READY=1\nWATCHDOG=1"]

    def test_is_silent_when_the_loop_stands_still(self, received: socket.socket) -> None:
        watch = LoopWatch()
        watch.note_turn()
        watch.note_turn()
        read_waiting(received)

        watch.beat()
        first = read_waiting(received)
        watch.beat()

        assert first == [b"READY=1\nWATCHDOG=1"]
        assert read_waiting(received) == []

    def test_speaks_for_a_loop_that_waits(self, received: socket.socket) -> None:
        watch = LoopWatch()
        watch.note_turn()
        with watch.waiting():
            for _ in range(3):
                watch.beat()
        waited = read_waiting(received)
        watch.beat()

        assert len(waited) == 4
        assert read_waiting(received) == []

    def test_needs_no_thread_where_nobody_wants_heartbeats(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("WATCHDOG_USEC", raising=False)
        threads = threading.active_count()

        LoopWatch().start()

        assert threading.active_count() == threads

    def test_calls_what_it_is_given_although_nobody_wants_heartbeats(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("WATCHDOG_USEC", raising=False)
        monkeypatch.setattr(sd_notify, "INTERVAL_S", 0.01)
        beats = threading.Semaphore(0)
        watch = LoopWatch(on_beat=beats.release)
        watch.start()

        with watch.waiting():
            watch.note_turn()

            assert all(beats.acquire(timeout=10) for _ in range(3))

    def test_beats_in_a_thread_of_its_own(self, received: socket.socket) -> None:
        watch = LoopWatch()
        watch.start()
        watch.note_turn()
        received.recv(4096)

        watch.note_turn()

        assert received.recv(4096) == b"READY=1\nWATCHDOG=1"
