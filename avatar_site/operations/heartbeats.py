"""
Heartbeats of the supervisor's children: receives them, and finds the children that hang. Imports no Django.

Children send them as they would to systemd (`inference/sd_notify.py`), each from the loop that does its work.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil

MESSAGE_BYTES = 4096
#: `struct ucred` of Linux: pid, uid, gid.
CREDENTIALS = struct.Struct("iII")
READY = b"READY=1"


@dataclass(frozen=True, slots=True)
class HangPolicy:
    """
    How many heartbeats a child may miss in a row before it counts as hung.

    A hung process rarely uses the processor; a busy one on a starved machine always does, be it little. So one that
    computes, or waits for the processor or the disk, is given longer. Reasons: docs/decisions/0026.
    """

    interval_s: float = 5.0
    max_missed: int = 3
    #: Of one that computes, or waits for the processor or the disk: a minute.
    max_missed_while_working: int = 12
    #: Of one that is not ready yet and does neither, nor do its children: a quarter of an hour.
    max_missed_while_starting: int = 180
    #: The machine stood still, or is starved, if the supervisor's own timer is later than this. Then nothing is missed.
    max_own_lateness_s: float = 1.0

    @property
    def watchdog_usec(self) -> int:
        return round(self.interval_s * self.max_missed * 1e6)


@dataclass(frozen=True, slots=True)
class Activity:
    """What a process does at one moment."""

    #: Used since it began, with its children.
    cpu_s: float
    #: For the processor or the disk.
    is_waiting: bool


class Heartbeat:
    """The heartbeats of one run of a child, from its start to its end. Pure: time and activity are passed in."""

    def __init__(self, policy: HangPolicy) -> None:
        self._policy = policy
        self.ready_at: float | None = None
        self.last_answer_at: float | None = None
        #: In a row.
        self.missed = 0
        self._has_answered = True  # it has just been started
        self._activity: Activity | None = None

    def note_answer(self, now: float, *, is_ready: bool) -> None:
        self.last_answer_at = now
        self._has_answered = True
        self.missed = 0
        self._activity = None
        if is_ready and self.ready_at is None:
            self.ready_at = now

    def check(self, read_activity: Callable[[], Activity | None]) -> bool:
        """Count a miss unless there was an answer since the last check. Return whether the child hangs."""
        if self._has_answered:
            self._has_answered = False
            return False
        self.missed += 1
        before, self._activity = self._activity, read_activity()
        return self.missed >= self._find_limit(before, self._activity)

    def _find_limit(self, before: Activity | None, now: Activity | None) -> float:
        if before is None or now is None:
            return float("inf")  # the first miss in a row, or it is ending
        is_working = now.cpu_s != before.cpu_s or now.is_waiting
        if self.ready_at is None:
            # Models load for minutes.
            return float("inf") if is_working else self._policy.max_missed_while_starting
        return self._policy.max_missed_while_working if is_working else self._policy.max_missed


class HangWatch:
    """Receives the heartbeats of all children, and reports those that hang."""

    def __init__(
        self,
        policy: HangPolicy,
        *,
        on_ready: Callable[[str], None],
        read_activity: Callable[[int], Activity | None] | None = None,
    ) -> None:
        self._policy = policy
        self._on_ready = on_ready
        self._read_activity = read_activity or read_activity_of
        self._socket: NotifySocket | None = None
        self._children: dict[str, _Watched] = {}

    @property
    def environment(self) -> dict[str, str]:
        """What children need to send heartbeats; empty unless `listening`, and where that is impossible."""
        if self._socket is None:
            return {}
        return {"NOTIFY_SOCKET": self._socket.address, "WATCHDOG_USEC": str(self._policy.watchdog_usec)}

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Receive heartbeats while the context lasts, on Linux."""
        self._socket = NotifySocket.open()
        try:
            yield
        finally:
            if self._socket is not None:
                self._socket.close()
                self._socket = None

    def find(self, name: str) -> Heartbeat | None:
        watched = self._children.get(name)
        return None if watched is None else watched.heartbeat

    def begin(self, name: str, pid: int) -> asyncio.Event:
        """Watch a child that was started. Return the event that is set when it hangs."""
        watched = self._children[name] = _Watched(pid, Heartbeat(self._policy), asyncio.Event())
        return watched.hangs

    def end(self, name: str) -> None:
        self._children.pop(name, None)

    async def run(self) -> None:
        """Watch until cancelled. Call it while `listening`."""
        receiver = self._socket
        if receiver is None:
            return
        loop = asyncio.get_running_loop()
        loop.add_reader(receiver.fileno(), self._receive, receiver)
        try:
            while True:
                due_at = loop.time() + self._policy.interval_s
                await asyncio.sleep(self._policy.interval_s)
                # What arrived while this process was starved was read already: the loop does so before it runs timers.
                if loop.time() - due_at <= self._policy.max_own_lateness_s:
                    self._check()
        finally:
            loop.remove_reader(receiver.fileno())

    def _receive(self, receiver: NotifySocket) -> None:
        for pid, message in receiver.receive():
            for name, watched in self._children.items():
                if watched.pid == pid:
                    was_ready = watched.heartbeat.ready_at is not None
                    watched.heartbeat.note_answer(time.time(), is_ready=READY in message.split(b"\n"))
                    if watched.heartbeat.ready_at is not None and not was_ready:
                        self._on_ready(name)

    def _check(self) -> None:
        for watched in self._children.values():
            pid = watched.pid
            if watched.heartbeat.check(lambda pid=pid: self._read_activity(pid)):  # type: ignore[misc]  # pid is bound
                watched.hangs.set()


@dataclass(frozen=True, slots=True)
class _Watched:
    pid: int
    heartbeat: Heartbeat
    hangs: asyncio.Event


class NotifySocket:
    """
    A datagram socket whose messages come with the sender's pid, by the kernel's word.

    In Linux's abstract namespace: no file is left behind, and no path is too long.
    """

    def __init__(self, receiver: socket.socket, address: str) -> None:
        self._receiver = receiver
        self.address = address

    @classmethod
    def open(cls) -> Self | None:
        """Return None where there is no such namespace (other systems than Linux)."""
        if sys.platform != "linux":
            return None
        name = f"avatar-{secrets.token_hex(8)}"
        receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        receiver.bind(f"\0{name}")
        return cls(receiver, f"@{name}")

    def fileno(self) -> int:
        return self._receiver.fileno()

    def receive(self) -> Iterator[tuple[int, bytes]]:
        """Yield the messages that have arrived, with the pid of each sender."""
        while True:
            try:
                message, ancillary, _, _ = self._receiver.recvmsg(MESSAGE_BYTES, socket.CMSG_SPACE(CREDENTIALS.size))
            except BlockingIOError:
                return
            for level, kind, value in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
                    yield CREDENTIALS.unpack(value)[0], message

    def close(self) -> None:
        self._receiver.close()


def read_activity_of(pid: int) -> Activity | None:
    """Return what a process and its children do; None if it is gone, or this cannot be read."""
    try:
        process = psutil.Process(pid)
        family = (process, *process.children(recursive=True))
        times = [each.cpu_times() for each in family]
        is_waiting = bool(read_thread_states(pid) & {"R", "D"})
    except (psutil.Error, OSError):
        return None
    return Activity(sum(each.user + each.system for each in times), is_waiting)


def read_thread_states(pid: int) -> set[str]:
    """
    Return the states of a process's threads as Linux names them. Raises OSError.

    "R" computes, or waits for the processor; "D" waits for the disk. Of all threads: one that loads a library may hold
    the interpreter that the others wait for.
    """
    states = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            # The name before it is in parentheses, and may hold some.
            states.add((task / "stat").read_text().rpartition(")")[2].split()[0])
    return states
