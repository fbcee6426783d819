"""Background work of the web process; and, with real processes, how fast `/health` answers while others hang."""

import asyncio
import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from avatar_site.web import background
from tests.e2e.stack import Stack

TOKEN = "a token of the monitoring"
#: The promise is 50 ms; of many answers on a busy machine, the middle one.
PROMISE_S = 0.05
DEADLINE_S = 20.0


class TestKeepRunning:
    async def test_begins_again_what_failed_and_leaves_the_others_alone(self, caplog: pytest.LogCaptureFixture) -> None:
        begun: list[str] = []
        is_again = asyncio.Event()

        async def fail() -> None:
            begun.append("failing")
            if begun.count("failing") == 2:
                is_again.set()
                await asyncio.Event().wait()
            raise OSError("disk full")

        async def go_on() -> None:
            begun.append("going on")
            await asyncio.Event().wait()

        running = asyncio.create_task(background.keep_running({"failing": fail, "going on": go_on}, restart_s=0))
        async with asyncio.timeout(5):
            await is_again.wait()
        running.cancel()
        await asyncio.wait([running])

        assert begun == ["failing", "going on", "failing"]
        assert "background work 'failing' failed; it begins again" in caplog.text
        assert running.cancelled()


class Site(Stack):
    """Web and inference alone."""

    def __enter__(self) -> "Site":
        try:
            self.manage("migrate", "--verbosity", "0")
            self.start("inference")
            self.start("web")
            self.wait_until_ready()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def ask(self) -> dict[str, Any]:
        response = httpx.get(f"{self.url}/health", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=5)
        return dict(response.json())

    def wait_for_reason(self, *reasons: str) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while (found := self.ask()["reasons"]) != list(reasons):
            assert time.monotonic() < deadline, found

    def measure(self, count: int = 40) -> list[float]:
        """Seconds of each answer, sorted, over one connection and longer than a probe takes."""
        taken = []
        with httpx.Client(timeout=5) as client:
            client.get(f"{self.url}/health")
            for _ in range(count):
                began_s = time.perf_counter()
                client.get(f"{self.url}/health")
                taken.append(time.perf_counter() - began_s)
                time.sleep(0.05)  # spread over a probe and its deadline
        return sorted(taken)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with Site(profile="fake", ready_timeout_s=60, AVATAR_METRICS_TOKEN=TOKEN) as site:
        yield site


class TestHealthOfARealSite:
    def test_is_answered_at_once_while_inference_is_stopped(self, site: Site) -> None:
        pid = site.find_pid("inference")
        site.wait_for_reason()
        os.kill(pid, signal.SIGSTOP)
        try:
            taken = site.measure()
            site.wait_for_reason("inference_unreachable")
            status = httpx.get(f"{site.url}/ready", timeout=5).status_code
        finally:
            os.kill(pid, signal.SIGCONT)

        assert taken[len(taken) // 2] < PROMISE_S, taken
        assert status == 503
        site.wait_for_reason()

    def test_is_answered_at_once_while_the_database_is_locked(self, site: Site) -> None:
        site.wait_for_reason()
        other = sqlite3.connect(site.data_dir / "avatar.sqlite3", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        try:
            taken = site.measure()
            site.wait_for_reason("database_locked")
        finally:
            other.execute("ROLLBACK")
            other.close()

        assert taken[len(taken) // 2] < PROMISE_S, taken
        site.wait_for_reason()

    def test_knows_no_calls_and_the_memory(self, site: Site) -> None:
        body = site.ask()

        assert body["sessions"] == {"active": 0, "limit": 5, "waiting": 0}
        assert body["memory"]["kind"] == "ram"
        assert 0 < body["memory"]["used"] < body["memory"]["total"]
