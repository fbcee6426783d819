"""Background work of the web process; and, with real processes, how fast `/health` answers while others hang."""

import asyncio
import json
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from avatar_site.web import background
from tests import migrated
from tests.e2e.stack import Stack
from tests.ports import find_free_port

#: Prints a session key of each person.
PEOPLE = ("alice", "bob", "carol")
LOG_IN = f"""
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import User
from django.contrib.sessions.backends.db import SessionStore
for name in {PEOPLE!r}:
    user, session = User.objects.create_user(name), SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.create()
    print(session.session_key)
"""
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

    _second_port = 0

    def __enter__(self) -> "Site":
        try:
            migrated.write_database(self.data_dir / "avatar.sqlite3")
            self.cookies = self.manage("shell", "--no-imports", "--command", LOG_IN).split()
            self.start("inference")
            self.start("web")
            self.wait_until_ready()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *exception: Any) -> None:
        self.stop("second web")
        super().__exit__(*exception)

    def start_second_web(self) -> int:
        """Start another web process on the same data, once. Return its port."""
        if self._second_port:
            return self._second_port
        first, first_port, first_url = self._processes.pop("web"), self.port, self.url
        self.port = second_port = find_free_port()
        self.url = f"http://127.0.0.1:{second_port}"
        try:
            self.start("web")
            self._processes["second web"] = self._processes.pop("web")
            self.wait_until_ready()
        finally:
            self._processes["web"], self.port, self.url = first, first_port, first_url
        self._second_port = second_port
        return second_port

    def call(self, port: int, person: int) -> ClientConnection:
        """Open the voice socket as one of PEOPLE. What follows says whether there is a place: see `find_fate`."""
        cookie = {"Cookie": f"sessionid={self.cookies[person]}"}
        return connect(f"ws://127.0.0.1:{port}/ws/chat", additional_headers=cookie, open_timeout=DEADLINE_S)

    def ask(self) -> dict[str, Any]:
        response = httpx.get(f"{self.url}/health", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=5)
        return dict(response.json())

    def wait_for_reason(self, *reasons: str) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while (found := self.ask()["reasons"]) != list(reasons):
            assert time.monotonic() < deadline, found

    def wait_for_sessions(self, count: int) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while (found := self.ask()["sessions"]["active"]) != count:
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


def find_place(call: ClientConnection) -> int:
    """Return the next place in the waiting list that a call is told."""
    while (message := json.loads(call.recv(timeout=DEADLINE_S)))["type"] != "waiting":
        pass
    return int(message["place"])


def find_fate(call: ClientConnection, *, is_over: bool = False) -> str:
    """Return "ready", or the close code. With `is_over`: of a call that has begun."""
    try:
        while True:
            message = json.loads(call.recv(timeout=DEADLINE_S))
            if not is_over and message.get("stage") == "ready":
                return "ready"
    except ConnectionClosed as closed:
        return str(closed.rcvd.code if closed.rcvd else "cut off")


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    environment = {"AVATAR_METRICS_TOKEN": TOKEN, "AVATAR_MAX_EVENT_LOOP_LAG_MS": "300"}
    with Site(profile="fake", ready_timeout_s=60, **environment) as site:
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


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    """Closes calls."""
    with ExitStack() as opened:
        yield opened


@contextmanager
def held_up(pid: int) -> Iterator[None]:
    """Let a process run for 0.05 s of every 0.75 s: its timers of 0.25 s are each more than 0.3 s late."""
    is_over = threading.Event()

    def hold_up() -> None:
        while not is_over.wait(0.05):
            os.kill(pid, signal.SIGSTOP)
            is_over.wait(0.7)
            os.kill(pid, signal.SIGCONT)

    thread = threading.Thread(target=hold_up)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


class TestOverload:
    def test_refuses_new_calls_until_the_event_loop_is_on_time_again(self, site: Site, opened: ExitStack) -> None:
        with held_up(site.find_pid("web")):
            # On a busy machine it is now and then on time.
            deadline = time.monotonic() + 3 * DEADLINE_S
            while (fate := find_fate(opened.enter_context(site.call(site.port, 1)))) == "ready":
                assert time.monotonic() < deadline
                opened.close()
        opened.close()

        assert fate == "4431"
        deadline = time.monotonic() + DEADLINE_S
        while find_fate(opened.enter_context(site.call(site.port, 1))) != "ready":
            assert time.monotonic() < deadline
        opened.close()
        site.wait_for_sessions(0)


#: What a turn adds to.
COUNTERS = (
    "avatar_turns_total",
    'avatar_turn_seconds_count{stage="ttfa"}',
    'avatar_inference_seconds_count{engine="scripted",priority="live",role="llm",work="generate"}',
)


class TestMetricsOfARealSite:
    def scrape(self, site: Site) -> str:
        response = httpx.get(f"{site.url}/metrics", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=10)
        assert response.status_code == 200
        return response.text

    def read_counters(self, text: str) -> list[float]:
        """The values of COUNTERS; a series that has not begun is 0."""
        values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        return [float(values.get(name, 0)) for name in COUNTERS]

    def test_have_what_a_turn_took_in_both_processes_and_nothing_of_what_was_said(self, site: Site) -> None:
        before = self.read_counters(self.scrape(site))
        with site.call(site.port, 0) as call:
            assert find_fate(call) == "ready"
            assert "avatar_sessions 1.0" in self.scrape(site)
            call.send(json.dumps({"type": "text", "text": "芝麻開門"}))
            while not isinstance(said := call.recv(timeout=DEADLINE_S), str) or json.loads(said)["type"] != "turn_end":
                pass
            # Each process counts in its own time, and calls of other tests may have had turns.
            deadline = time.monotonic() + DEADLINE_S
            text = self.scrape(site)
            while not all(new > old for new, old in zip(self.read_counters(text), before, strict=True)):
                assert time.monotonic() < deadline, text
                text = self.scrape(site)
        site.wait_for_sessions(0)

        assert 'avatar_inference_role_ready{device="cpu",engine="fake",model="scripted",role="tts"} 1.0' in text
        assert "avatar_inference_reachable 1.0" in text.splitlines()
        assert "芝麻" not in text

    def test_are_left_out_while_the_database_is_locked(self, site: Site) -> None:
        site.wait_for_reason()
        other = sqlite3.connect(site.data_dir / "avatar.sqlite3", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        try:
            text = self.scrape(site)
        finally:
            other.execute("ROLLBACK")
            other.close()

        assert "avatar_info{" in text
        assert "avatar_turns_total" in text
        site.wait_for_reason()


class TestCallsOfTwoWebProcesses:
    """Without Redis: nothing but the database is between them."""

    def test_share_the_limits_and_are_ended_from_outside(self, site: Site, opened: ExitStack) -> None:
        second_port = site.start_second_web()
        calls = [opened.enter_context(site.call(port, 0)) for port in (site.port, second_port)]
        assert [find_fate(call) for call in calls] == ["ready", "ready"]

        refused, others = (opened.enter_context(site.call(second_port, person)) for person in (0, 1))
        assert (find_fate(refused), find_fate(others)) == ("4430", "ready")
        site.wait_for_sessions(3)

        with closing(sqlite3.connect(site.data_dir / "avatar.sqlite3", isolation_level=None)) as database:
            # As the admin of another process does.
            database.execute("UPDATE realtime_livecall SET state = 'ending' WHERE user_id = 1")
        assert [find_fate(call, is_over=True) for call in calls] == ["4411", "4411"]
        others.close()
        site.wait_for_sessions(0)

    def test_let_those_who_wait_in_in_order_whatever_becomes_of_a_process(self, site: Site, opened: ExitStack) -> None:
        second_port = site.start_second_web()
        with closing(sqlite3.connect(site.data_dir / "avatar.sqlite3", isolation_level=None)) as database:
            try:
                # Of another machine, whose last heartbeats hold for longer than the test takes.
                database.executemany(
                    "INSERT INTO realtime_livecall (session_id, user_id, state, process, began_at, last_seen_at)"
                    " VALUES (?, 1, 'active', 'elsewhere:1', datetime('now'), datetime('now', '+40 seconds'))",
                    [[f"{number:032x}"] for number in range(5)],
                )
                bobs = opened.enter_context(site.call(site.port, 1))
                assert find_place(bobs) == 1
                carols = opened.enter_context(site.call(second_port, 2))
                assert find_place(carols) == 2

                database.execute("DELETE FROM realtime_livecall WHERE session_id = ?", [f"{0:032x}"])
                assert (find_fate(bobs), find_place(carols)) == ("ready", 1)

                # The next of the list is in the process that is killed, and so is a call.
                carols.close()
                assert find_place(opened.enter_context(site.call(site.port, 1))) == 1
                carols = opened.enter_context(site.call(second_port, 2))
                assert find_place(carols) == 2
                os.kill(site.find_pid("web"), signal.SIGKILL)
                site.stop("web")
                site.start("web")
                site.wait_until_ready()
                assert find_fate(carols) == "ready"
            finally:
                database.execute("DELETE FROM realtime_livecall WHERE process = 'elsewhere:1'")
        opened.close()
        site.wait_for_sessions(0)

    def test_give_their_places_back_when_their_process_was_killed_and_is_there_again(
        self, site: Site, opened: ExitStack
    ) -> None:
        calls = [opened.enter_context(site.call(site.port, 0)) for _ in range(2)]
        assert [find_fate(call) for call in calls] == ["ready", "ready"]

        os.kill(site.find_pid("web"), signal.SIGKILL)
        site.stop("web")
        site.start("web")
        site.wait_until_ready()
        back = [opened.enter_context(site.call(site.port, 0)) for _ in range(2)]

        assert [find_fate(call) for call in back] == ["ready", "ready"]
