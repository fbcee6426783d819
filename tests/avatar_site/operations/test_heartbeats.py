import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest

from avatar_site.operations.heartbeats import (
    Activity,
    HangPolicy,
    HangWatch,
    Heartbeat,
    NotifySocket,
    read_activity_of,
    read_thread_states,
)
from inference import sd_notify
from tests.virtual_clock import VirtualClockLoop

POLICY = HangPolicy(max_missed=3, max_missed_while_working=6, max_missed_while_starting=10)
IDLE = Activity(cpu_s=7.0, is_waiting=False)


def compute() -> Iterator[Activity]:
    """Uses very little of the processor, as on a starved machine."""
    for step in range(1000):
        yield Activity(cpu_s=step / 100, is_waiting=False)


def count_checks_until_hung(
    heartbeat: Heartbeat, activities: Iterator[Activity | None], *, most: int = 50
) -> int | None:
    return next((n for n in range(1, most + 1) if heartbeat.check(lambda: next(activities))), None)


def repeat(activity: Activity | None) -> Iterator[Activity | None]:
    while True:
        yield activity


@pytest.fixture
def ready() -> Heartbeat:
    """Of a child that serves, and has just been checked."""
    heartbeat = Heartbeat(POLICY)
    heartbeat.note_answer(100.0, is_ready=True)
    assert not heartbeat.check(lambda: IDLE)
    return heartbeat


class TestHeartbeat:
    def test_hangs_after_three_misses(self, ready: Heartbeat) -> None:
        assert count_checks_until_hung(ready, repeat(IDLE)) == 3
        assert ready.missed == 3

    def test_does_not_hang_while_it_answers(self, ready: Heartbeat) -> None:
        for now in range(50):
            ready.note_answer(now, is_ready=True)
            assert not ready.check(lambda: IDLE)

    def test_begins_to_count_anew_with_an_answer(self, ready: Heartbeat) -> None:
        assert not ready.check(lambda: IDLE)
        assert not ready.check(lambda: IDLE)
        ready.note_answer(115.0, is_ready=True)
        assert not ready.check(lambda: IDLE)

        assert count_checks_until_hung(ready, repeat(IDLE)) == 3

    def test_is_given_longer_while_it_computes(self, ready: Heartbeat) -> None:
        assert count_checks_until_hung(ready, compute()) == 6

    def test_is_given_longer_while_it_waits_for_the_disk(self, ready: Heartbeat) -> None:
        assert count_checks_until_hung(ready, repeat(Activity(7.0, is_waiting=True))) == 6

    def test_hangs_when_it_stops_computing(self, ready: Heartbeat) -> None:
        def stop() -> Iterator[Activity]:
            yield from (Activity(1.0, False), Activity(1.1, False), Activity(1.2, False))
            yield from repeat(Activity(1.2, False))  # type: ignore[misc]

        assert count_checks_until_hung(ready, stop()) == 4

    def test_does_not_hang_when_it_is_ending(self, ready: Heartbeat) -> None:
        assert count_checks_until_hung(ready, repeat(None)) is None

    def test_may_load_models_for_minutes(self) -> None:
        heartbeat = Heartbeat(POLICY)
        heartbeat.note_answer(100.0, is_ready=False)

        assert count_checks_until_hung(heartbeat, compute(), most=500) is None
        assert heartbeat.ready_at is None

    def test_hangs_in_its_start_when_it_does_nothing_for_very_long(self) -> None:
        # The first check comes right after the start.
        assert count_checks_until_hung(Heartbeat(POLICY), repeat(IDLE)) == 11

    def test_remembers_when_it_became_ready(self, ready: Heartbeat) -> None:
        ready.note_answer(105.0, is_ready=True)

        assert (ready.ready_at, ready.last_answer_at) == (100.0, 105.0)


class TestHangPolicy:
    def test_notices_after_three_times_five_seconds(self) -> None:
        assert HangPolicy().watchdog_usec == 15_000_000

    def test_gives_a_working_process_a_minute(self) -> None:
        policy = HangPolicy()

        assert policy.interval_s * policy.max_missed_while_working == 60


@pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets are Linux's")
class TestNotifySocket:
    def test_says_which_process_sent_each_message(self, monkeypatch: pytest.MonkeyPatch) -> None:
        receiver = NotifySocket.open()
        assert receiver is not None
        monkeypatch.setenv("NOTIFY_SOCKET", receiver.address)
        send = "from inference import sd_notify; sd_notify.notify('READY=1')"

        sd_notify.notify("WATCHDOG=1")
        with subprocess.Popen([sys.executable, "-c", send], env=os.environ | {"PYTHONPATH": os.getcwd()}) as child:  # noqa: PTH109
            child.wait(20)
        received = list(receiver.receive())
        receiver.close()

        assert received == [(os.getpid(), b"WATCHDOG=1"), (child.pid, b"READY=1")]


class Watch(HangWatch):
    """Watches this process, which is ready, does nothing, and sends heartbeats when told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ready: list[str] = []
        super().__init__(HangPolicy(), on_ready=self.ready.append, read_activity=lambda pid: IDLE)
        self._monkeypatch = monkeypatch

    def beat(self) -> None:
        for name, value in self.environment.items():
            self._monkeypatch.setenv(name, value)
        assert sd_notify.notify("READY=1", "WATCHDOG=1")


@pytest.mark.virtual_clock
@pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets are Linux's")
class TestHangWatch:
    @pytest.fixture
    async def watch(self, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Watch]:
        watch = Watch(monkeypatch)
        with watch.listening():
            watching = asyncio.create_task(watch.run())
            yield watch
            watching.cancel()
            await asyncio.wait([watching])

    async def test_reports_a_child_that_is_silent_for_fifteen_seconds(self, watch: Watch) -> None:
        hangs = watch.begin("web", os.getpid())
        watch.beat()
        loop = asyncio.get_running_loop()
        began = loop.time()

        await hangs.wait()

        # The first check finds the heartbeat, and three find none.
        assert loop.time() - began == pytest.approx(20, abs=0.1)
        assert watch.ready == ["web"]

    async def test_does_not_report_one_that_sends_a_heartbeat_in_each_interval(self, watch: Watch) -> None:
        hangs = watch.begin("web", os.getpid())

        for _ in range(100):
            watch.beat()
            await asyncio.sleep(5)

        assert not hangs.is_set()
        assert watch.ready == ["web"]

    async def test_counts_nothing_as_missed_while_it_is_late_itself(self, watch: Watch) -> None:
        hangs = watch.begin("web", os.getpid())
        watch.beat()
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualClockLoop)

        for _ in range(100):
            await asyncio.sleep(4)
            loop.now += 10  # the machine stood still

        assert not hangs.is_set()
        await asyncio.sleep(30)
        assert hangs.is_set()

    async def test_forgets_a_child_that_has_ended(self, watch: Watch) -> None:
        hangs = watch.begin("web", os.getpid())
        watch.beat()
        await asyncio.sleep(5)
        watch.end("web")

        await asyncio.sleep(100)

        assert not hangs.is_set()
        assert watch.find("web") is None


class TestReadActivity:
    def test_changes_when_the_process_computes(self) -> None:
        before = read_activity_of(os.getpid())
        assert before is not None
        until_s = psutil.Process().cpu_times().user + 0.05
        while psutil.Process().cpu_times().user < until_s:
            pass

        now = read_activity_of(os.getpid())

        assert now is not None
        assert now.cpu_s > before.cpu_s

    @pytest.mark.skipif(sys.platform != "linux", reason="of /proc")
    @pytest.mark.parametrize(
        ("code", "is_stopped", "expected"),
        [("while True: pass", False, True), ("while True: pass", True, False), ("input()", False, False)],
        ids=["computes", "is stopped", "sleeps"],
    )
    def test_knows_a_process_that_waits_for_the_processor(self, code: str, is_stopped: bool, expected: bool) -> None:
        with subprocess.Popen(
            [sys.executable, "-c", f"print(flush=True)\n{code}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            try:
                assert process.stdout is not None
                process.stdout.readline()
                if is_stopped:
                    process.send_signal(signal.SIGSTOP)
                deadline = time.monotonic() + 20
                while (activity := read_activity_of(process.pid)) is None or activity.is_waiting is not expected:
                    assert time.monotonic() < deadline  # it has written its line, and does the rest soon
            finally:
                process.kill()

    @pytest.mark.skipif(sys.platform != "linux", reason="of /proc")
    def test_knows_the_states_of_all_threads(self) -> None:
        waiting = threading.Event()
        thread = threading.Thread(target=waiting.wait)
        thread.start()

        states = read_thread_states(os.getpid())
        waiting.set()
        thread.join()

        assert states == {"R", "S"}

    def test_is_none_for_a_process_that_is_gone(self, tmp_path: Path) -> None:
        with subprocess.Popen([sys.executable, "-c", ""]) as process:
            process.wait(20)

        assert read_activity_of(process.pid) is None
