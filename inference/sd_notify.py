"""
Tells what supervises this process that it is ready and does not hang, in systemd's words (sd_notify).

Both `manage.py serve` and systemd pass NOTIFY_SOCKET and WATCHDOG_USEC. Without them, nothing is sent.
Imports neither gRPC nor Django.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

#: Heartbeats are at most this far apart, and at least three fit into the time after which a process counts as hung.
INTERVAL_S = 5.0
#: Until it is ready, they are closer: a start is awaited.
STARTING_INTERVAL_S = 0.5
READY = "READY=1"
ALIVE = "WATCHDOG=1"
STOPPING = "STOPPING=1"


def notify(*states: str) -> bool:
    """
    Send states such as "READY=1". Return whether they were sent; never blocks, never raises.

    A receiver that does not read loses them. Send again what must arrive.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    try:
        # "@" is the zero byte of an address in Linux's abstract namespace.
        _open_sender().sendto("\n".join(states).encode(), address.replace("@", "\0", 1))
    except OSError:
        return False
    return True


@cache
def _open_sender() -> socket.socket:
    # Kept open: a process that has used up its file descriptors is busy, and must not seem to hang.
    sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    sender.setblocking(False)
    atexit.register(sender.close)
    return sender


def read_interval_s() -> float | None:
    """Return the seconds between heartbeats; None if none are wanted from this process."""
    try:
        limit_s = int(os.environ.get("WATCHDOG_USEC", "")) / 1e6
        is_ours = int(os.environ.get("WATCHDOG_PID", os.getpid())) == os.getpid()
    except ValueError:
        return None
    return min(INTERVAL_S, limit_s / 3) if is_ours and limit_s > 0 else None


async def send_heartbeats(*, is_ready: Callable[[], bool] = lambda: True) -> None:
    """Send heartbeats from the running event loop until cancelled: they stop when the loop does."""
    interval_s = read_interval_s()
    was_ready = False
    while not was_ready or interval_s is not None:
        was_ready = is_ready()
        _beat(was_ready)
        await asyncio.sleep(interval_s if was_ready and interval_s is not None else STARTING_INTERVAL_S)


class LoopWatch:
    """
    Sends heartbeats from a thread as long as a loop turns, for the loop of a library.

    The thread alone would prove only that the interpreter runs; the loop alone may wait long for another process.
    """

    def __init__(self, *, on_beat: Callable[[], None] | None = None) -> None:
        """`on_beat` is called with each heartbeat, also where nothing wants one. It must not raise."""
        self.interval_s = read_interval_s() or INTERVAL_S
        self._on_beat = on_beat
        self._has_turned = threading.Event()
        self._is_ready = False
        self._waits = 0

    def start(self) -> None:
        """Send heartbeats from now on, if any are wanted from this process."""
        if read_interval_s() is None and self._on_beat is None:
            return
        threading.Thread(target=self._run, name="heartbeats", daemon=True).start()

    def note_turn(self) -> None:
        """Call it in the loop, at least every `interval_s`. The process is ready from the first call on."""
        self._has_turned.set()
        if not self._is_ready:
            self._is_ready = True
            self.beat()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Expect no turns while the context lasts: the loop waits for another process, with a deadline of its own."""
        self._waits += 1
        try:
            yield
        finally:
            self._waits -= 1

    def beat(self) -> None:
        """Send a heartbeat if the loop has turned since the last one, or waits."""
        if self._has_turned.is_set() or (self._is_ready and self._waits):
            self._has_turned.clear()
            _beat(is_ready=True)
            if self._on_beat is not None:
                self._on_beat()

    def _run(self) -> None:
        pause = threading.Event()
        while not pause.wait(self.interval_s):
            self.beat()


def _beat(is_ready: bool) -> None:
    # READY every time: a message may be lost, and systemd ignores the repetition.
    notify(*((READY, ALIVE) if is_ready else (ALIVE,)))
