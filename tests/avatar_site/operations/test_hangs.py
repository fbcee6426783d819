"""The processes of a site under the real supervisor: each is stopped, and found and restarted."""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.conf import settings

from avatar_site.operations import processes
from avatar_site.operations.heartbeats import NotifySocket
from avatar_site.operations.serve_state import ChildState, read_state
from avatar_site.operations.serving import ServePlan
from tests.ports import find_free_port
from tests.processes import OutputProcess, tie_to_tests

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="hangs are noticed on Linux only")

#: The supervisor's program, with the plan as `manage.py serve` would pass it.
SERVE = """
import asyncio, os, sys
from avatar_site.operations.serving import ServePlan, Serving
os.environ["WATCHDOG_PID"] = str(os.getpid())  # as systemd sets it
asyncio.run(Serving(ServePlan.from_json(sys.argv[1])).run())
"""


def make_environment(data_dir: Path, **others: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AVATAR_", "DJANGO_"))}
    return kept | {
        "AVATAR_ENV_FILE": "",
        "AVATAR_PROFILE": "fake",
        "AVATAR_DATA_DIR": str(data_dir),
        "DJANGO_SETTINGS_MODULE": "avatar_site.settings.prod",
        "PYTHONPATH": str(settings.BASE_DIR),
        "PYTHONUNBUFFERED": "1",
        **others,
    }


class Site:
    """All processes, with a heartbeat a second, and a socket in systemd's place."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        systemd = NotifySocket.open()
        assert systemd is not None
        self.systemd = systemd
        address = f"unix:{data_dir}/inference.sock"
        plan = ServePlan(
            names=processes.NAMES,
            data_dir=str(data_dir),
            profile="fake",
            host="127.0.0.1",
            port=find_free_port(),
            is_behind_proxy=False,
            inference_address=address,
            inference_secret="",
            opening=(),
            admin_username="",
            new_password="",
            is_verbose=False,
            began_s=time.monotonic(),
            heartbeat_s=1.0,
        )
        self.serve = OutputProcess(
            tie_to_tests([sys.executable, "-c", SERVE, plan.to_json()]),
            environment=make_environment(
                data_dir, AVATAR_INFERENCE_ADDRESS=address, NOTIFY_SOCKET=systemd.address, WATCHDOG_USEC="1500000"
            ),
            patience_s=60,
        )

    def close(self) -> None:
        self.serve.close()
        self.systemd.close()

    def read_systemd(self) -> list[tuple[int, bytes]]:
        """Return what systemd has received since the last call, at least one message."""
        select.select([self.systemd], [], [], 20)
        return list(self.systemd.receive())

    def children(self) -> dict[str, ChildState]:
        state = read_state(self.data_dir)
        return {} if state is None else {child.name: child for child in state.children}

    def wait_until(self, holds: Callable[[ChildState], bool]) -> dict[str, ChildState]:
        """Return the state once something holds for every process."""
        deadline = time.monotonic() + 60
        while not (children := self.children()) or not all(map(holds, children.values())):
            assert time.monotonic() < deadline, (children, self.serve.output)
            time.sleep(0.1)  # a file of another process: there is no event to wait for
        return children


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, prepared_data: Path) -> Iterator[Site]:
    data_dir = tmp_path_factory.mktemp("hangs") / "data"
    shutil.copytree(prepared_data, data_dir)
    site = Site(data_dir)
    yield site
    site.close()


class TestEachProcess:
    @pytest.mark.timeout(180)
    def test_is_restarted_when_it_hangs(self, site: Site) -> None:
        before = site.wait_until(lambda child: child.ready_at is not None)
        for child in before.values():
            assert child.pid is not None
            os.kill(child.pid, signal.SIGSTOP)

        for name in processes.NAMES:
            site.serve.wait_for(rf"^{name} hangs: it missed 3 heartbeats in a row and is killed")
            site.serve.wait_for(rf"^{name} was killed by SIGKILL; starting it again")
        after = site.wait_until(lambda child: bool(child.restarts) and child.ready_at is not None)

        for name, child in after.items():
            assert child.pid != before[name].pid
            assert child.last_problem == "missed 3 heartbeats"
            assert len(child.restarts) == 1
            site.serve.wait_for(rf"^{name} is ready again")

    @pytest.mark.timeout(180)
    def test_is_stood_for_by_the_supervisor_before_systemd(self, site: Site) -> None:
        site.serve.wait_for("AVATAR is ready")
        site.wait_until(lambda child: child.ready_at is not None)
        site.read_systemd()
        serving = site.read_systemd() + site.read_systemd()
        site.serve.close()
        stopping = site.read_systemd()

        # Of the supervisor's process alone: children have its socket, not systemd's.
        assert set(serving) == {(site.serve.process.pid, b"READY=1\nWATCHDOG=1")}
        assert (site.serve.process.pid, b"STOPPING=1") in stopping


class Heartbeats:
    """The socket of a supervisor that wants heartbeats every half second."""

    def __init__(self, path: Path) -> None:
        self._receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._receiver.bind(str(path))
        self._receiver.settimeout(60)
        self.environment = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "1500000"}

    def read(self) -> bytes:
        return self._receiver.recv(4096)

    def discard(self) -> None:
        self._receiver.setblocking(False)
        try:
            while self._receiver.recv(4096):
                pass
        except BlockingIOError:
            self._receiver.settimeout(60)

    def close(self) -> None:
        self._receiver.close()


@pytest.fixture
def heartbeats(tmp_path: Path) -> Iterator[Heartbeats]:
    heartbeats = Heartbeats(tmp_path / "notify")
    yield heartbeats
    heartbeats.close()


class TestWorker:
    @pytest.mark.timeout(180)
    def test_is_alive_while_redis_is_away(self, tmp_path: Path, prepared_data: Path, heartbeats: Heartbeats) -> None:
        shutil.copytree(prepared_data, tmp_path / "data")
        port = find_free_port()
        redis = OutputProcess(
            tie_to_tests(
                ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
            )
        )
        redis.wait_for("Ready to accept connections")
        (spec,) = processes.build_specs(names=("worker",), host="", port=0, is_behind_proxy=False)
        worker = OutputProcess(
            tie_to_tests(spec.command),
            environment=make_environment(
                tmp_path / "data", REDIS_URL=f"redis://127.0.0.1:{port}/0", **heartbeats.environment
            ),
            patience_s=60,
        )
        assert heartbeats.read() == b"READY=1\nWATCHDOG=1"

        redis.process.kill()
        worker.wait_for("Trying again in 4.00 seconds")  # it waits for longer than three heartbeats
        heartbeats.discard()
        away = [heartbeats.read() for _ in range(6)]
        worker.process.kill()
        worker.close()
        redis.close()

        assert away == [b"READY=1\nWATCHDOG=1"] * 6


class TestBeat:
    @pytest.mark.timeout(120)
    def test_is_alive_although_no_task_is_due(self, tmp_path: Path, heartbeats: Heartbeats) -> None:
        (spec,) = processes.build_specs(names=("beat",), host="", port=0, is_behind_proxy=False)
        beat = OutputProcess(
            tie_to_tests(spec.command), environment=make_environment(tmp_path / "data", **heartbeats.environment)
        )
        heartbeats.read()
        began = time.monotonic()

        messages = [heartbeats.read() for _ in range(10)]
        took_s = time.monotonic() - began
        beat.process.kill()
        beat.close()

        assert messages == [b"READY=1\nWATCHDOG=1"] * 10
        assert (tmp_path / "data" / "heartbeats" / "beat").exists()
        # By itself it would sleep until a task is due, up to a minute.
        assert took_s < 20
