"""
How quickly `/health` is answered while strangers misbehave, and by how much the web process grows.

Runs the product with scripted engines, the web process with 1024 open files as most shells give, and asks for
`/health` while nothing else happens, with 1,100 silent connections, with a WebSocket of a person who is logged in
that sends as fast as it can, and with one that asks for replies and never reads. Client and server share the machine.
"""

from __future__ import annotations

import resource
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import httpx
import psutil

from tests.bench.conversation import machine
from tests.e2e.stack import PASSWORD, Stack

SILENT = 1100
SECONDS = 6.0
MIB = 1024 * 1024
#: `{"type": "ping", "nonce": "1"}` masked with zeroes, a hundred times.
PING = b'{"type": "ping", "nonce": "1"}'
PINGS = (bytes([0x81, 0x80 | len(PING)]) + bytes(4) + PING) * 100


def main() -> None:
    print(machine())
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    with Stack(profile="fake", ready_timeout_s=60) as stack:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        for name, misbehaving in (
            ("quiet", nothing),
            (f"{SILENT} silent connections", stay_silent),
            ("a WebSocket that floods", flood),
            ("a WebSocket that does not read", read_nothing),
        ):
            with misbehaving(stack):
                report(name, stack)
    print(f"load average {psutil.getloadavg()}")


def report(name: str, stack: Stack) -> None:
    process = psutil.Process(stack.find_pid("web"))
    before = process.memory_info().rss
    answered: list[float] = []
    failed = 0
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        begun = time.monotonic()
        try:
            httpx.get(f"{stack.url}/health", timeout=5).raise_for_status()
            answered.append((time.monotonic() - begun) * 1000)
        except httpx.HTTPError:
            failed += 1
        time.sleep(0.1)
    growth = (process.memory_info().rss - before) / MIB
    times = f"p50 {statistics.median(answered):.0f} ms, max {max(answered):.0f} ms" if answered else "no answer"
    print(f"{name}: {times}, {len(answered)} answered, {failed} failed, {growth:+.1f} MiB", flush=True)


@contextmanager
def nothing(stack: Stack) -> Iterator[None]:
    yield


@contextmanager
def stay_silent(stack: Stack) -> Iterator[None]:
    connections = []
    with suppress(OSError):
        for _ in range(SILENT):
            connections.append(socket.create_connection(("127.0.0.1", stack.port), timeout=2))
    try:
        yield
    finally:
        for connection in connections:
            connection.close()


@contextmanager
def flood(stack: Stack) -> Iterator[None]:
    with in_background(stack, lambda connection: connection.sendall(PINGS), reads=True):
        yield


@contextmanager
def read_nothing(stack: Stack) -> Iterator[None]:
    with in_background(stack, lambda connection: connection.sendall(PINGS), reads=False):
        yield


@contextmanager
def in_background(stack: Stack, send: Callable[[socket.socket], None], *, reads: bool) -> Iterator[None]:
    connection = open_call(stack)
    connection.settimeout(0.5)
    stopped = threading.Event()

    def repeat(step: Callable[[], object]) -> None:
        while not stopped.is_set():
            try:
                step()
            except TimeoutError:
                continue
            except OSError:
                return

    threads = [threading.Thread(target=repeat, args=(lambda: send(connection),))]
    if reads:
        threads.append(threading.Thread(target=repeat, args=(lambda: connection.recv(MIB),)))
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stopped.set()
        for thread in threads:
            thread.join()
        connection.close()


def open_call(stack: Stack) -> socket.socket:
    with httpx.Client(base_url=stack.url) as browser:
        browser.get("/accounts/login/")
        form = {"username": "alice", "password": PASSWORD, "csrfmiddlewaretoken": browser.cookies["csrftoken"]}
        browser.post("/accounts/login/", data=form)
        session = browser.cookies["sessionid"]
    connection = socket.create_connection(("127.0.0.1", stack.port), timeout=5)
    connection.sendall(
        (
            f"GET /ws/chat HTTP/1.1\r\nHost: 127.0.0.1:{stack.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Cookie: sessionid={session}\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n"
        ).encode()
    )
    assert connection.recv(65536).startswith(b"HTTP/1.1 101 ")
    return connection


if __name__ == "__main__":
    main()
