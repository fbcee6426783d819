"""Keeps child processes running, with back-off, logs and process groups. Imports no Django."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from avatar_site.operations import die_with_parent
from avatar_site.operations.child_logs import ChildLogs, LogLimits, make_plain
from avatar_site.operations.heartbeats import HangPolicy, HangWatch, Heartbeat

LAST_LINES = 20
#: How long the output of a process that has ended is still read.
OUTPUT_TIMEOUT_S = 2.0
#: How long a hung child may take to write where its threads stand (`faulthandler`, at SIGABRT).
ABORT_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """
    A process to keep running, and how long it may take to stop after SIGTERM.

    SIGTERM is sent once the processes in `stops_after`, which may need it, have ended.
    """

    name: str
    command: tuple[str, ...]
    stop_timeout_s: float = 10.0
    stops_after: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """Back-off before a child is restarted: doubled per death in a row, reset once it has lived for a while."""

    first_delay_s: float = 0.5
    max_delay_s: float = 30.0
    settled_after_s: float = 30.0

    def delay_s(self, deaths: int) -> float:
        """Return the pause after the `deaths`-th death in a row, counted from 1."""
        return min(self.first_delay_s * 2 ** min(deaths - 1, 16), self.max_delay_s)


@dataclass(frozen=True, slots=True)
class ChildStarted:
    name: str
    pid: int


@dataclass(frozen=True, slots=True)
class ChildReady:
    """A child says that it serves."""

    name: str


@dataclass(frozen=True, slots=True)
class ChildHung:
    """A child missed too many heartbeats. It is killed; ChildDied follows."""

    name: str
    missed: int


@dataclass(frozen=True, slots=True)
class ChildDied:
    """A child ended unasked. `code` is negative for a signal; `deaths` counts those in a row, this one included."""

    name: str
    code: int
    deaths: int
    restart_in_s: float
    last_lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ChildStopped:
    """A child ended because the supervisor stops; `was_killed` if SIGTERM was not enough."""

    name: str
    was_killed: bool


@dataclass(frozen=True, slots=True)
class LogFailed:
    """A line could not be written to a child's log. Reported once until a line can be written again."""

    name: str
    reason: str


ChildEvent = ChildStarted | ChildReady | ChildHung | ChildDied | ChildStopped | LogFailed
#: Of the supervisor's own log. Other events are information.
EVENT_LEVELS: dict[type, str] = {ChildHung: "error", ChildDied: "error", LogFailed: "warning"}
#: A shell's exit code for a command that cannot be executed.
CANNOT_START = 126


class Supervisor:
    """
    Runs children until it is told to stop, and restarts those that end or hang.

    Each child has its own process group (Ctrl-C in a terminal reaches only the supervisor) and its log (`child_logs`).
    Run it in the main thread: the kernel ties a child to the thread that started it.
    """

    def __init__(
        self,
        specs: Sequence[ChildSpec],
        *,
        log_dir: Path,
        environment: Mapping[str, str],
        on_event: Callable[[ChildEvent], None],
        on_line: Callable[[str, str], None] | None = None,
        policy: RestartPolicy | None = None,
        hang_policy: HangPolicy | None = None,
        log_limits: LogLimits | None = None,
    ) -> None:
        self._specs = specs
        self._logs = ChildLogs(
            log_dir, on_failure=lambda name, reason: self._on_event(LogFailed(name, reason)), limits=log_limits
        )
        self._environment = environment
        self._report = on_event
        self._on_line = on_line
        self._policy = policy or RestartPolicy()
        self._stop = asyncio.Event()
        self._stop_now = asyncio.Event()
        self._ended = {spec.name: asyncio.Event() for spec in specs}
        self._hangs = HangWatch(hang_policy or HangPolicy(), on_ready=lambda name: self._on_event(ChildReady(name)))
        self.pids: dict[str, int] = {}

    def find_heartbeat(self, name: str) -> Heartbeat | None:
        """Return the heartbeats of a child; None while it does not run."""
        return self._hangs.find(name)

    def stop(self) -> None:
        """Send SIGTERM to the children; called again, kill them."""
        if self._stop.is_set():
            self._stop_now.set()
        self._stop.set()

    async def run(self) -> None:
        """Return when `stop()` was called and every child has ended. Kills them when cancelled."""
        with closing(self._logs), self._hangs.listening():
            async with asyncio.TaskGroup() as tasks:
                watching = tasks.create_task(self._hangs.run())
                async with asyncio.TaskGroup() as children:
                    for spec in self._specs:
                        children.create_task(self._keep(spec))
                watching.cancel()

    def _on_event(self, event: ChildEvent) -> None:
        """Log an event, and report it."""
        level = EVENT_LEVELS.get(type(event), "info")
        self._logs.write_event(level, describe_event(event), asdict(event))
        self._report(event)

    async def _keep(self, spec: ChildSpec) -> None:
        try:
            await self._restart_until_stopped(spec)
        finally:
            self._ended[spec.name].set()

    async def _restart_until_stopped(self, spec: ChildSpec) -> None:
        deaths = 0
        with self._logs.opened(spec.name) as log:
            while not self._stop.is_set():
                started = time.monotonic()
                last_lines: deque[str] = deque(maxlen=LAST_LINES)
                try:
                    code = await self._run_once(spec, log, last_lines)
                except OSError as error:
                    # No process, memory or descriptor available: the other children must survive this one.
                    last_lines.append(f"cannot be started: {error}")
                    code = CANNOT_START
                if code is None:
                    return
                deaths = 1 if time.monotonic() - started >= self._policy.settled_after_s else deaths + 1
                delay_s = self._policy.delay_s(deaths)
                self._on_event(ChildDied(spec.name, code, deaths, delay_s, tuple(map(make_plain, last_lines))))
                with suppress(TimeoutError):
                    async with asyncio.timeout(delay_s):
                        await self._stop.wait()

    async def _run_once(self, spec: ChildSpec, log: Callable[[str], None], last_lines: deque[str]) -> int | None:
        """Run a child to its end. Return its exit code, or None if it was stopped."""
        # Our own pipe: `Process.wait()` would wait for asyncio's to close, which grandchildren may hold open.
        output, child_output = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                # Isolated and without site-packages: starts in a few milliseconds before it executes the command.
                *(sys.executable, "-I", "-S", die_with_parent.__file__, str(os.getpid()), *spec.command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=child_output,
                stderr=child_output,
                env={**self._environment, **self._hangs.environment},
                start_new_session=True,
            )
        except BaseException:
            os.close(output)
            raise
        finally:
            os.close(child_output)
        copying = asyncio.create_task(self._copy_output(spec.name, output, log, last_lines))
        try:
            self.pids[spec.name] = process.pid
            hangs = self._hangs.begin(spec.name, process.pid)
            self._on_event(ChildStarted(spec.name, process.pid))
            match await _first(process.wait(), self._wait_for_turn_to_stop(spec), hangs.wait()):
                case 0:
                    return process.returncode
                case 2:
                    await self._end_hung_child(spec, process)
                    return process.returncode
            was_killed = await self._stop_child(spec, process)
            self._on_event(ChildStopped(spec.name, was_killed))
            return None
        finally:
            # Kills the child's own children, and the child itself when we are cancelled.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            self._hangs.end(spec.name)
            await asyncio.wait([copying], timeout=OUTPUT_TIMEOUT_S)
            copying.cancel()
            del self.pids[spec.name]

    async def _wait_for_turn_to_stop(self, spec: ChildSpec) -> None:
        await self._stop.wait()
        for name in spec.stops_after:
            if name in self._ended:
                await _first(self._ended[name].wait(), self._stop_now.wait())

    async def _end_hung_child(self, spec: ChildSpec, process: asyncio.subprocess.Process) -> None:
        heartbeat = self._hangs.find(spec.name)
        self._on_event(ChildHung(spec.name, heartbeat.missed if heartbeat is not None else 0))
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGABRT)
        with suppress(TimeoutError):
            async with asyncio.timeout(ABORT_TIMEOUT_S):
                await process.wait()
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()

    async def _stop_child(self, spec: ChildSpec, process: asyncio.subprocess.Process) -> bool:
        """Send SIGTERM and wait. Return whether the child must be killed."""
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(spec.stop_timeout_s):
                return await _first(process.wait(), self._stop_now.wait()) == 1
        except TimeoutError:
            return True

    async def _copy_output(self, name: str, output: int, log: Callable[[str], None], last_lines: deque[str]) -> None:
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(output, "rb", buffering=0)
        )
        try:
            await self._copy_lines(name, reader, log, last_lines)
        finally:
            transport.close()

    async def _copy_lines(
        self, name: str, reader: asyncio.StreamReader, log: Callable[[str], None], last_lines: deque[str]
    ) -> None:
        rest = b""
        while block := await reader.read(65536):
            # A progress bar ends its lines with a carriage return; an endless line is cut.
            *lines, rest = (rest + block).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
            if len(rest) > 65536:
                lines, rest = [*lines, rest], b""
            for line in lines:
                self._keep_line(name, line, log, last_lines)
        if rest:
            self._keep_line(name, rest, log, last_lines)

    def _keep_line(self, name: str, line: bytes, log: Callable[[str], None], last_lines: deque[str]) -> None:
        text = line.decode(errors="replace")
        last_lines.append(text)
        log(text)
        if self._on_line is not None:
            self._on_line(name, make_plain(text))


def describe_event(event: ChildEvent) -> str:
    """Return an event's name in words: ChildDied is "child died"."""
    return re.sub(r"(?<!^)(?=[A-Z])", " ", type(event).__name__).lower()


async def _first(*waits: Coroutine[Any, Any, object]) -> int:
    """Wait for the first to end and return its index; the lowest, if several have ended."""
    tasks = [asyncio.create_task(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return next(place for place, task in enumerate(tasks) if task.done())
    finally:
        for task in tasks:
            task.cancel()
