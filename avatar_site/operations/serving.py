"""
The supervisor's program: keeps the children running and reports the progress of the start. Loads no Django.

`manage.py serve` prepares under Django (`startup.py`) and then executes this program in its place: it runs for months,
and Django would cost it 90 MiB.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self

from avatar_site.operations import processes
from avatar_site.operations.heartbeats import HangPolicy
from avatar_site.operations.serve_state import Histories, ServeState, StateFile
from avatar_site.operations.supervisor import (
    ChildDied,
    ChildEvent,
    ChildHung,
    ChildReady,
    ChildStarted,
    ChildStopped,
    LogFailed,
    Supervisor,
)
from inference import sd_notify

if TYPE_CHECKING:
    from inference.interfaces import Inference, RoleStatus

POLL_S = 0.25
#: About 550 tokens, at thirty a second on two cores that have nothing else to do.
READ_TIMEOUT_S = 60.0
STATE_EVERY_S = 5.0
#: A process that has died so often in a row before it was ready will not recover by restarting.
HOPELESS_DEATHS = 3
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class ServePlan:
    """What to serve, decided under Django. Passed to the supervisor's program as JSON."""

    names: tuple[str, ...]
    data_dir: str
    profile: str
    host: str
    port: int
    is_behind_proxy: bool
    inference_address: str
    inference_secret: str
    #: The messages that every conversation begins with: role and content.
    opening: tuple[tuple[str, str], ...]
    admin_username: str
    #: Of an operator account that was just created with a random password; otherwise empty.
    new_password: str
    is_verbose: bool
    #: `time.monotonic()` when `manage.py serve` began.
    began_s: float
    #: Between two heartbeats of a process.
    heartbeat_s: float = 5.0

    @classmethod
    def from_json(cls, text: str) -> Self:
        values = json.loads(text)
        values["names"] = tuple(values["names"])
        values["opening"] = tuple((role, content) for role, content in values["opening"])
        return cls(**values)

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def become_supervisor(plan: ServePlan, environment: dict[str, str], *, kept: tuple[int, ...]) -> NoReturn:
    """
    Replace this process by the supervisor's program, which keeps the descriptors `kept` open.

    The plan is passed in memory: it may hold a password, and other users can read command lines and environments.
    """
    fd = os.memfd_create("avatar-plan", 0)
    os.write(fd, plan.to_json().encode())
    os.lseek(fd, 0, os.SEEK_SET)
    for each in (fd, *kept):
        os.set_inheritable(each, True)
    sys.stdout.flush()
    sys.stderr.flush()
    kept_fds = ",".join(map(str, kept))
    os.execve(  # noqa: S606 — ourselves
        sys.executable, [sys.executable, "-m", "avatar_site.operations.serving", str(fd), kept_fds], environment
    )


class Serving:
    """Serves until a signal stops it."""

    def __init__(self, plan: ServePlan) -> None:
        self._plan = plan
        self._deaths: dict[str, int] = {}
        #: Killed because they hang.
        self._hung: set[str] = set()
        self._is_web_up = "web" not in plan.names
        self._is_sound = True
        self._is_stopping = False
        self._histories = Histories()
        self._state_file = StateFile(Path(plan.data_dir), on_failure=self._report_state_failure)
        #: Waits for the engines of an inference process that was started again.
        self._preparing: asyncio.Task[bool] | None = None
        self._supervisor = Supervisor(
            processes.build_specs(
                names=plan.names, host=plan.host, port=plan.port, is_behind_proxy=plan.is_behind_proxy
            ),
            log_dir=Path(plan.data_dir) / "logs",
            environment=make_child_environment(os.environ),
            on_event=self._handle_event,
            on_line=(lambda name, line: say(f"{name:<11} | {line}")) if plan.is_verbose else None,
            hang_policy=HangPolicy(interval_s=plan.heartbeat_s),
        )

    async def run(self) -> bool:
        """Return whether it served; False if a process could not be started."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._stop)
        say(f"Starting {', '.join(self._plan.names)} with profile {self._plan.profile} …")
        announcing = asyncio.create_task(self._announce())
        writing = asyncio.create_task(self._write_state_often())
        # To systemd, when it runs us.
        beating = asyncio.create_task(sd_notify.send_heartbeats(is_ready=announcing.done))
        try:
            await self._supervisor.run()
        finally:
            if self._preparing is not None:
                self._preparing.cancel()
            for task in (announcing, writing, beating):
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            self._state_file.remove()
        say("Stopped.")
        return self._is_sound

    def _stop(self) -> None:
        say("Stopping at once …" if self._is_stopping else "Stopping …")
        self._is_stopping = True
        sd_notify.notify(sd_notify.STOPPING)
        self._supervisor.stop()

    def _handle_event(self, event: ChildEvent) -> None:
        match event:
            case ChildStarted(name):
                self._histories.note_start(name, time.time())
                if name == "inference" and self._deaths.get(name):
                    self._prepare_again()
            case ChildReady(name) if self._histories.has_restarted(name):
                say(f"{name} is ready again")
            case ChildHung(name, missed):
                self._hung.add(name)
                self._histories.note_problem(name, f"missed {missed} heartbeats")
                say(f"{name} hangs: it missed {missed} heartbeats in a row and is killed")
            case ChildDied(name, code, deaths, restart_in_s, last_lines):
                self._deaths[name] = deaths
                how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
                if name not in self._hung:
                    self._histories.note_problem(name, how.removeprefix("was "))
                self._hung.discard(name)
                for line in last_lines:
                    say(f"  {name} | {line}")
                if name == "web" and not self._is_web_up and deaths >= HOPELESS_DEATHS:
                    say(f"{name} {how}, {deaths} times in a row: giving up.")
                    self._is_sound = False
                    self._stop()
                else:
                    say(f"{name} {how}; starting it again in {restart_in_s:g} s")
            case ChildStopped(name, was_killed) if was_killed:
                say(f"  {name} did not stop by itself and was killed")
            case LogFailed(name, reason):
                say(f"  the log of {name} cannot be written: {reason}; it goes on without")
        self._write_state()

    async def _write_state_often(self) -> None:
        while True:
            self._write_state()
            await asyncio.sleep(STATE_EVERY_S)

    def _write_state(self) -> None:
        now = time.time()
        children = (
            self._histories.describe(
                name, now, pid=self._supervisor.pids.get(name), heartbeat=self._supervisor.find_heartbeat(name)
            )
            for name in self._plan.names
        )
        self._state_file.write(
            ServeState(
                address=make_url(self._plan.host, self._plan.port),
                supervisor_pid=os.getpid(),
                written_at=now,
                children=tuple(children),
            )
        )

    def _report_state_failure(self, problem: str) -> None:
        say(f"  {problem}; `serve --status` and the alerts may be out of date")

    @property
    def _pids(self) -> dict[str, int]:
        return {"supervisor": os.getpid(), **self._supervisor.pids}

    def _prepare_again(self) -> None:
        """Have the new engines prefill what every conversation begins with: the first to speak would wait for it."""
        if self._preparing is not None:
            self._preparing.cancel()
        self._preparing = asyncio.create_task(self._wait_for_roles())

    # --- the start ---

    async def _announce(self) -> None:
        """Report the progress of the start, and the address when it is done."""
        plan = self._plan
        try:
            if "web" in plan.names:
                await self._wait_for_web()
            is_ready = await self._wait_for_roles()
            say(make_memory_table(self._pids))
            say(f"Logs are in {Path(plan.data_dir) / 'logs'}")
            if plan.new_password:
                say(f"Sign in as {plan.admin_username} / {plan.new_password}  (shown only now)")
            is_web_here = "web" in plan.names
            address = make_url(plan.host, plan.port) if is_web_here else f"inference at {plan.inference_address}"
            if is_ready:
                sd_notify.notify(f"STATUS=Serves {address}")
                say(f"AVATAR is ready: {address}  ({time.monotonic() - plan.began_s:.0f} s, Ctrl-C stops it)")
            else:
                say(f"AVATAR serves, but cannot hold a spoken conversation yet (see above): {address}")
        except Exception:
            # This task is awaited only at the end: its failure must end the service now.
            self._is_sound = False
            self._supervisor.stop()
            raise

    async def _wait_for_web(self) -> None:
        while not await _answers_http(self._plan.host, self._plan.port):  # noqa: ASYNC110 — another process
            await asyncio.sleep(POLL_S)
        self._is_web_up = True
        say("  web    answers")

    async def _wait_for_roles(self) -> bool:
        """Report the engines until each is ready or unavailable. Return whether all are ready."""
        # Imported here: gRPC is needed for the start only.
        from inference.client import InferenceClient
        from inference.interfaces import InferenceError

        client = InferenceClient(self._plan.inference_address, secret=self._plan.inference_secret)
        told: dict[str, str] = {}
        try:
            while True:
                try:
                    status = await client.status()
                except InferenceError:
                    if self._deaths.get("inference", 0) >= HOPELESS_DEATHS:
                        say("  inference does not start; it is tried again and again")
                        return False
                else:
                    for role in status.roles:
                        if told.get(role.role) != (line := describe_role(role)):
                            told[role.role] = line
                            say(line)
                    if status.is_settled:
                        if status.is_ready:
                            await self.read_opening(client)
                        return status.is_ready
                await asyncio.sleep(POLL_S)
        finally:
            await client.close()

    async def read_opening(self, client: Inference) -> None:
        """Prefill the messages that every conversation begins with, before the first call."""
        from inference.interfaces import InferenceError, Message

        opening: Any = self._plan.opening  # roles are strings in JSON
        messages = [Message(role, content, is_shared=True) for role, content in opening]
        with suppress(InferenceError, TimeoutError):
            async with asyncio.timeout(READ_TIMEOUT_S):
                await client.llm.prefill(messages)


def make_child_environment(own: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of the children: without what systemd told us alone, and with stacks of a hung process."""
    private = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
    return {name: value for name, value in own.items() if name not in private} | {"PYTHONFAULTHANDLER": "1"}


def say(line: str) -> None:
    """Print a line for the operator. A closed terminal or a full disk does not end the service."""
    with suppress(OSError):
        print(line, flush=True)


async def _answers_http(host: str, port: int) -> bool:
    """Return whether an HTTP server answers there, with any status."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 — compared with, not bound to
    writer = None
    try:
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection(reachable, port)
            writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return (await reader.readline()).startswith(b"HTTP/")
    except (OSError, TimeoutError):
        return False
    finally:
        if writer is not None:
            writer.close()


def make_url(host: str, port: int) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)  # noqa: S104 — compared with, not bound to
    if ":" in host and not host.startswith("["):
        host = f"[{host}]"
    return f"http://{host}:{port}"


def describe_role(role: RoleStatus) -> str:
    name = f"  {role.role.value:<6} {role.state.value}"
    match role.state.value:
        case "ready":
            memory = f", {role.memory_bytes / MIB:.0f} MiB" if role.memory_bytes else ""
            fallback = f"  ({role.reason})" if role.reason else ""
            return f"{name}  {role.engine} {role.model} on {role.device}, {role.load_s:.1f} s{memory}{fallback}"
        case "unavailable":
            return f"{name}: {role.reason}"
        case _:
            return f"{name} … {role.engine} {role.model}".rstrip()


def make_memory_table(pids: dict[str, int]) -> str:
    lines, total = [], 0
    for name, pid in pids.items():
        size = processes.measure_memory_bytes(pid, with_children=name != "supervisor")
        total += size or 0
        lines.append(f"  {name:<11} pid {pid:<8} {f'{size / MIB:>6.0f} MiB' if size is not None else 'gone':>10}")
    return "\n".join(["Resident memory:", *lines, f"  {'together':<24} {total / MIB:>6.0f} MiB"])


def main(plan_fd: int, kept_fds: list[int]) -> int:
    # The children must not hold the data folder's lock after this process has ended.
    for fd in kept_fds:
        os.set_inheritable(fd, False)
    with open(plan_fd, encoding="utf-8") as file:
        plan = ServePlan.from_json(file.read())
    return 0 if asyncio.run(Serving(plan).run()) else 1


if __name__ == "__main__":
    arguments: Any = sys.argv
    sys.exit(main(int(arguments[1]), [int(fd) for fd in arguments[2].split(",") if fd]))
