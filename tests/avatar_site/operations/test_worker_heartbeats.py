from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_django import Settings

from avatar_site.operations import heartbeat_files
from avatar_site.operations.worker_heartbeats import HeartbeatStep
from inference import sd_notify


class Timer:
    """Calls when told to."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], object]] = []

    def call_repeatedly(self, interval_s: float, call: Callable[..., object], arguments: tuple[Any, ...]) -> Timer:
        self.calls.append(lambda: call(*arguments))
        return self

    def cancel(self) -> None:
        self.calls.clear()

    def tick(self) -> None:
        for call in self.calls:
            call()


class Consumer:
    """A consumer of Celery whose loop turns when told to. With a hub, timers are part of the loop."""

    def __init__(self, hub: object = None, hostname: str = "celery@host") -> None:
        self.hub = hub
        self.hostname = hostname
        self.timer = Timer()
        self._pending: deque[Callable[[], object]] = deque()

    def call_soon(self, call: Callable[[], object]) -> None:
        self._pending.append(call)

    def turn(self) -> None:
        while self._pending:
            self._pending.popleft()()


@pytest.fixture(autouse=True)
def data_dir(settings: Settings, tmp_path: Path) -> Path:
    settings.AVATAR_DATA_DIR = tmp_path / "data"
    return tmp_path / "data"


@pytest.fixture
def received(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The socket of a supervisor that wants heartbeats once an hour: the thread sends none by itself."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", str(3 * 3600 * 1_000_000))
        monkeypatch.setattr(sd_notify, "INTERVAL_S", 3600)
        yield receiver


def count(receiver: socket.socket) -> int:
    number = 0
    while True:
        try:
            receiver.recv(4096)
        except BlockingIOError:
            return number
        number += 1


class TestHeartbeatStep:
    def test_is_ready_when_the_consumers_loop_turns(self, received: socket.socket) -> None:
        consumer = Consumer()
        HeartbeatStep(consumer).start(consumer)

        consumer.timer.tick()
        asked = count(received)
        consumer.turn()

        assert (asked, count(received)) == (0, 1)

    def test_is_silent_while_the_loop_stands_still_although_the_timer_runs(self, received: socket.socket) -> None:
        consumer = Consumer()
        step = HeartbeatStep(consumer)
        step.start(consumer)
        consumer.timer.tick()
        consumer.turn()
        count(received)

        for _ in range(5):
            consumer.timer.tick()
            step._watch.beat()

        assert count(received) == 0

    def test_counts_a_timer_as_a_turn_where_the_loop_runs_it(self, received: socket.socket) -> None:
        consumer = Consumer(hub=object())
        HeartbeatStep(consumer).start(consumer)

        consumer.timer.tick()

        assert count(received) == 1

    def test_speaks_for_the_loop_while_there_is_no_connection(self, received: socket.socket) -> None:
        consumer = Consumer()
        step = HeartbeatStep(consumer)
        step.start(consumer)
        consumer.timer.tick()
        consumer.turn()
        count(received)

        step.stop(consumer)
        step.stop(consumer)
        step._watch.beat()
        away = count(received)
        step.start(consumer)
        step._watch.beat()

        assert (away, count(received)) == (1, 0)

    @pytest.mark.parametrize(
        ("hostname", "files"),
        [("celery@host", {"worker"}), ("maintenance@host", {"maintenance"}), ("another@host", set())],
    )
    def test_renews_the_file_of_its_process_with_each_heartbeat(
        self, received: socket.socket, data_dir: Path, hostname: str, files: set[str]
    ) -> None:
        consumer = Consumer(hub=object(), hostname=hostname)
        step = HeartbeatStep(consumer)
        step.start(consumer)
        consumer.timer.tick()
        folder = data_dir / heartbeat_files.FOLDER
        assert {path.name for path in folder.glob("*")} == files
        for path in folder.glob("*"):
            os.utime(path, (0, 0))

        step._watch.beat()
        still = {path.stat().st_mtime for path in folder.glob("*")}
        consumer.timer.tick()
        step._watch.beat()

        assert still == ({0.0} if files else set())
        assert all(path.stat().st_mtime > 0 for path in folder.glob("*"))
