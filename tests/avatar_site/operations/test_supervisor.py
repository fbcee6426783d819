import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from avatar_site.operations.heartbeats import HangPolicy
from avatar_site.operations.supervisor import (
    CANNOT_START,
    ChildDied,
    ChildEvent,
    ChildHung,
    ChildReady,
    ChildSpec,
    ChildStarted,
    ChildStopped,
    LogFailed,
    RestartPolicy,
    Supervisor,
)

SLEEPS = "import time; print('awake', flush=True); time.sleep(600)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEPS
HAS_A_CHILD = (
    "import subprocess, sys, time; "
    f"print(subprocess.Popen([sys.executable, '-c', {STUBBORN!r}]).pid, flush=True); time.sleep(600)"
)
QUICK = RestartPolicy(first_delay_s=0.01)
#: Fast, and patient enough for a machine that has other things to do.
HANGS_SOON = HangPolicy(interval_s=0.2, max_missed=3, max_missed_while_working=8, max_own_lateness_s=0.05)
#: Sends heartbeats, and calls `block()` in the loop that sends them when it is told to by SIGUSR1.
BEATS = """
import asyncio, signal, threading, time
from inference import sd_notify

def compute(until=float("inf")):
    while time.monotonic() < until:
        pass

async def main():
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, block)
    print("beats", flush=True)
    await sd_notify.send_heartbeats()

def block():
    print("blocks", flush=True)
    {block}
    print("goes on", flush=True)

asyncio.run(main())
"""
DIES = "import sys; print('last words'); sys.exit(3)"


def python(name: str, code: str, stop_timeout_s: float = 10.0) -> ChildSpec:
    return ChildSpec(name, (sys.executable, "-c", code), stop_timeout_s)


class Run:
    """A supervisor that runs, what it said, and a way to wait for what it says next."""

    def __init__(self, specs: list[ChildSpec], log_dir: Path, policy: RestartPolicy, hang_policy: HangPolicy) -> None:
        self.events: list[ChildEvent] = []
        self.lines: list[tuple[str, str]] = []
        self._changed = asyncio.Event()
        self.supervisor = Supervisor(
            specs,
            log_dir=log_dir,
            environment=os.environ | {"PYTHONFAULTHANDLER": "1"},
            on_event=lambda event: self._note(self.events, event),
            on_line=lambda name, line: self._note(self.lines, (name, line)),
            policy=policy,
            hang_policy=hang_policy,
        )

    def _note(self, notes: list, note: object) -> None:
        notes.append(note)
        self._changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    def of(self, kind: type) -> list:
        return [event for event in self.events if isinstance(event, kind)]


@asynccontextmanager
async def running(
    tmp_path: Path, *specs: ChildSpec, policy: RestartPolicy = QUICK, hang_policy: HangPolicy = HANGS_SOON
) -> AsyncIterator[Run]:
    run = Run(list(specs), tmp_path / "logs", policy, hang_policy)
    task = asyncio.create_task(run.supervisor.run())
    try:
        yield run
        run.supervisor.stop()
        async with asyncio.timeout(20):
            await task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def read_log(tmp_path: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / "logs" / f"{name}.log").read_text(encoding="utf-8").splitlines()]


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def until_gone(pid: int) -> None:
    async with asyncio.timeout(20):
        while is_alive(pid):  # noqa: ASYNC110 — it is not our child: there is no event to wait for
            await asyncio.sleep(0.01)


class TestRestartPolicy:
    def test_waits_longer_each_time_up_to_a_limit(self) -> None:
        policy = RestartPolicy(first_delay_s=0.5, max_delay_s=30)

        assert [policy.delay_s(deaths) for deaths in (1, 2, 3, 7, 8, 10_000)] == [0.5, 1, 2, 30, 30, 30]


class TestSupervisor:
    async def test_starts_a_child_that_died_again(self, tmp_path: Path) -> None:
        async with running(tmp_path, python("web", DIES)) as run:
            await run.until(lambda: len(run.of(ChildDied)) >= 3)

            deaths = run.of(ChildDied)[:3]

        assert [(death.name, death.code, death.deaths) for death in deaths] == [("web", 3, n) for n in (1, 2, 3)]
        assert [death.restart_in_s for death in deaths] == [0.01, 0.02, 0.04]
        assert deaths[0].last_lines == ("last words",)
        assert len({started.pid for started in run.of(ChildStarted)}) >= 3

    async def test_starts_a_child_that_was_killed_again(self, tmp_path: Path) -> None:
        async with running(tmp_path, python("web", SLEEPS), python("worker", SLEEPS)) as run:
            await run.until(lambda: len(run.lines) == 2)
            worker = run.supervisor.pids["worker"]

            os.kill(run.supervisor.pids["web"], signal.SIGKILL)
            await run.until(lambda: len(run.lines) == 3)

            assert run.of(ChildDied)[0].code == -signal.SIGKILL
            assert run.supervisor.pids["worker"] == worker

    async def test_begins_to_count_anew_when_a_child_has_lived_a_while(self, tmp_path: Path) -> None:
        policy = RestartPolicy(first_delay_s=0.01, settled_after_s=0)
        async with running(tmp_path, python("web", DIES), policy=policy) as run:
            await run.until(lambda: len(run.of(ChildDied)) >= 3)

        assert {death.deaths for death in run.of(ChildDied)} == {1}

    async def test_stops_all_when_asked(self, tmp_path: Path) -> None:
        async with running(tmp_path, python("web", SLEEPS), python("worker", SLEEPS)) as run:
            await run.until(lambda: len(run.lines) == 2)
            pids = list(run.supervisor.pids.values())

        assert sorted((event.name, event.was_killed) for event in run.of(ChildStopped)) == [
            ("web", False),
            ("worker", False),
        ]
        assert not any(is_alive(pid) for pid in pids)
        assert run.supervisor.pids == {}

    async def test_kills_a_child_that_does_not_stop(self, tmp_path: Path) -> None:
        async with running(tmp_path, python("web", STUBBORN, stop_timeout_s=0.1)) as run:
            await run.until(lambda: len(run.lines) == 1)

        assert run.of(ChildStopped) == [ChildStopped("web", was_killed=True)]

    async def test_does_not_wait_when_asked_twice(self, tmp_path: Path) -> None:
        async with running(tmp_path, python("web", STUBBORN, stop_timeout_s=600)) as run:
            await run.until(lambda: len(run.lines) == 1)

            run.supervisor.stop()

        assert run.of(ChildStopped) == [ChildStopped("web", was_killed=True)]

    async def test_ends_what_a_child_has_started(self, tmp_path: Path) -> None:
        async with running(tmp_path, python("web", HAS_A_CHILD)) as run:
            await run.until(lambda: len(run.lines) == 2)
            grandchild = next(int(line) for _, line in run.lines if line.isdecimal())
            assert is_alive(grandchild)

        await until_gone(grandchild)

    async def test_stops_while_it_waits_to_start_a_child_again(self, tmp_path: Path) -> None:
        policy = RestartPolicy(first_delay_s=600, max_delay_s=600)
        async with running(tmp_path, python("web", DIES), policy=policy) as run:
            await run.until(lambda: len(run.of(ChildDied)) == 1)

        assert len(run.of(ChildStarted)) == 1

    async def test_kills_its_children_when_cancelled(self, tmp_path: Path) -> None:
        run = Run([python("web", STUBBORN)], tmp_path / "logs", RestartPolicy(), HANGS_SOON)
        task = asyncio.create_task(run.supervisor.run())
        await run.until(lambda: len(run.lines) == 1)
        pid = run.supervisor.pids["web"]

        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        assert not is_alive(pid)

    async def test_keeps_what_a_child_prints(self, tmp_path: Path) -> None:
        code = "import sys; sys.stdout.write('one\\r\\n50%\\r100%\\n你好\\n'); sys.stderr.write('end'); sys.exit(1)"
        async with running(tmp_path, python("web", code), policy=RestartPolicy(first_delay_s=600)) as run:
            await run.until(lambda: len(run.of(ChildDied)) == 1)

        assert sorted(run.of(ChildDied)[0].last_lines) == sorted(["one", "50%", "100%", "你好", "end"])
        assert "你好" in {line["event"] for line in read_log(tmp_path, "web")}

    async def test_logs_what_becomes_of_its_children(self, tmp_path: Path) -> None:
        async with running(tmp_path, python("web", DIES), policy=RestartPolicy(first_delay_s=600)) as run:
            await run.until(lambda: len(run.of(ChildDied)) == 1)

        events = [(line["level"], line["event"], line["name"]) for line in read_log(tmp_path, "supervisor")]
        assert events == [("info", "child started", "web"), ("error", "child died", "web")]
        (died,) = read_log(tmp_path, "error")
        assert (died["code"], died["deaths"], died["last_lines"]) == (3, 1, ["last words"])

    async def test_lets_no_child_leave_a_core_dump(self, tmp_path: Path) -> None:
        tells = "import resource; print(resource.getrlimit(resource.RLIMIT_CORE), flush=True); " + SLEEPS
        async with running(tmp_path, python("web", tells)) as run:
            await run.until(lambda: ("web", "awake") in run.lines)

            assert ("web", "(0, 0)") in run.lines

    async def test_leaves_no_orphan_when_it_is_killed(self, tmp_path: Path) -> None:
        program = (
            "import asyncio, os, pathlib, sys\n"
            "from avatar_site.operations.supervisor import ChildSpec, Supervisor\n"
            f"spec = ChildSpec('web', (sys.executable, '-c', {STUBBORN!r}))\n"
            f"supervisor = Supervisor([spec], log_dir=pathlib.Path({str(tmp_path)!r}), environment=os.environ,\n"
            "    on_event=lambda event: None,\n"
            "    on_line=lambda name, line: print(supervisor.pids['web'], flush=True))\n"
            "asyncio.run(supervisor.run())\n"
        )
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:  # noqa: ASYNC220 — nothing else runs in this loop
            assert process.stdout is not None
            child = int(await asyncio.to_thread(process.stdout.readline))
            assert is_alive(child)

            process.kill()

        await until_gone(child)


class TestFullDisk:
    async def test_keeps_the_child_and_reports_once_that_its_log_cannot_be_written(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "logs").mkdir()
        (tmp_path / "logs" / "talker.log").symlink_to("/dev/full")
        talks = "import time\nfor n in range(100): print(n, flush=True)\ntime.sleep(600)"

        async with running(tmp_path, python("talker", talks)) as run:
            await run.until(lambda: ("talker", "99") in run.lines)

            assert run.of(LogFailed) == [LogFailed("talker", "No space left on device")]
            assert run.of(ChildDied) == []
        assert "Traceback" not in capfd.readouterr().err

    async def test_restarts_a_child_that_dies_meanwhile(self, tmp_path: Path) -> None:
        (tmp_path / "logs").mkdir()
        (tmp_path / "logs" / "dying.log").symlink_to("/dev/full")

        async with running(tmp_path, python("dying", DIES), python("calm", SLEEPS)) as run:
            await run.until(lambda: len(run.of(ChildStarted)) >= 4)

            assert "calm" in run.supervisor.pids

    async def test_goes_on_without_a_log_that_cannot_be_opened(self, tmp_path: Path) -> None:
        (tmp_path / "logs" / "calm.log").mkdir(parents=True)

        async with running(tmp_path, python("calm", SLEEPS)) as run:
            await run.until(lambda: ("calm", "awake") in run.lines)

            assert [failure.name for failure in run.of(LogFailed)] == ["calm"]

    async def test_goes_on_without_a_folder_for_logs(self, tmp_path: Path) -> None:
        (tmp_path / "logs").symlink_to("/dev/full")

        async with running(tmp_path, python("calm", SLEEPS)) as run:
            await run.until(lambda: ("calm", "awake") in run.lines)

            assert sorted(failure.name for failure in run.of(LogFailed)) == ["calm", "supervisor"]

    async def test_tries_again_when_a_process_cannot_be_made(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real, refusals = asyncio.create_subprocess_exec, [OSError(11, "Resource temporarily unavailable")]

        async def refuse_once(*command: str, **options: object) -> asyncio.subprocess.Process:
            if refusals:
                raise refusals.pop()
            return await real(*command, **options)  # type: ignore[arg-type]  # handed on

        monkeypatch.setattr(asyncio, "create_subprocess_exec", refuse_once)

        async with running(tmp_path, python("calm", SLEEPS)) as run:
            await run.until(lambda: ("calm", "awake") in run.lines)

            (death,) = run.of(ChildDied)
            assert death.code == CANNOT_START
            assert "temporarily unavailable" in death.last_lines[-1]


@pytest.mark.skipif(sys.platform != "linux", reason="hangs are noticed on Linux only")
class TestHang:
    def beats(self, block: str) -> ChildSpec:
        return python("web", BEATS.format(block=block))

    async def block(self, run: Run) -> None:
        await run.until(lambda: bool(run.of(ChildReady)))
        os.kill(run.supervisor.pids["web"], signal.SIGUSR1)

    async def test_restarts_a_child_that_is_stopped(self, tmp_path: Path) -> None:
        async with running(tmp_path, self.beats("")) as run:
            await run.until(lambda: len(run.of(ChildReady)) == 1)
            os.kill(run.supervisor.pids["web"], signal.SIGSTOP)

            await run.until(lambda: len(run.of(ChildReady)) == 2)

        assert [type(event) for event in run.events] == [
            *(ChildStarted, ChildReady, ChildHung, ChildDied),
            *(ChildStarted, ChildReady, ChildStopped),
        ]
        assert run.of(ChildHung) == [ChildHung("web", missed=3)]
        assert run.of(ChildDied)[0].code == -signal.SIGKILL

    async def test_restarts_a_child_whose_loop_waits_and_keeps_its_stacks(self, tmp_path: Path) -> None:
        async with running(tmp_path, self.beats("threading.Event().wait()")) as run:
            await self.block(run)
            await run.until(lambda: len(run.of(ChildReady)) == 2)

        assert run.of(ChildHung) == [ChildHung("web", missed=3)]
        assert run.of(ChildDied)[0].code == -signal.SIGABRT
        log = (tmp_path / "logs" / "web.log").read_text()
        assert "Fatal Python error: Aborted" in log
        assert "in block" in log

    async def test_restarts_a_child_that_computes_without_end_later(self, tmp_path: Path) -> None:
        async with running(tmp_path, self.beats("compute()")) as run:
            await self.block(run)
            await run.until(lambda: len(run.of(ChildReady)) == 2)

        assert run.of(ChildHung) == [ChildHung("web", missed=8)]

    async def test_keeps_a_child_that_is_busy_for_longer_than_three_heartbeats(self, tmp_path: Path) -> None:
        patient = HangPolicy(interval_s=0.2, max_missed_while_working=10_000, max_own_lateness_s=0.05)
        async with running(tmp_path, self.beats("compute(time.monotonic() + 1.5)"), hang_policy=patient) as run:
            await self.block(run)
            pid = run.supervisor.pids["web"]
            await run.until(lambda: ("web", "goes on") in run.lines)

            assert run.supervisor.pids["web"] == pid
        assert run.of(ChildHung) == []

    async def test_does_not_judge_a_child_that_sends_no_heartbeats_yet(self, tmp_path: Path) -> None:
        # It stands for a process that starts, and one that computes without end.
        async with running(tmp_path, python("loads", SLEEPS), self.beats("compute()")) as run:
            await self.block(run)
            await run.until(lambda: bool(run.of(ChildHung)))

            assert run.of(ChildHung) == [ChildHung("web", missed=8)]
            heartbeat = run.supervisor.find_heartbeat("loads")
            assert heartbeat is not None
            assert heartbeat.missed >= 8
            assert heartbeat.ready_at is None

    async def test_does_not_take_the_word_of_other_processes(self, tmp_path: Path) -> None:
        notify = "from inference import sd_notify; sd_notify.notify(sd_notify.READY)"
        delegates = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {notify!r}]); {SLEEPS}"
        async with running(tmp_path, python("web", delegates)) as run:
            await run.until(lambda: ("web", "awake") in run.lines)

        assert run.of(ChildReady) == []


class TestStopping:
    async def test_asks_a_child_only_when_those_that_need_it_have_ended(self, tmp_path: Path) -> None:
        says = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit())"
        sleeps = f"{says}; print('awake', flush=True); time.sleep(600)"
        needed = ChildSpec("needed", python("needed", sleeps).command, stops_after=("needy", "not here"))

        async with running(tmp_path, needed, python("needy", sleeps)) as run:
            await run.until(lambda: {("needed", "awake"), ("needy", "awake")} <= set(run.lines))
            run.supervisor.stop()
            await run.until(lambda: len(run.of(ChildStopped)) == 2)

            assert [stopped.name for stopped in run.of(ChildStopped)] == ["needy", "needed"]
