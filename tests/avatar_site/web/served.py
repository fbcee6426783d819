"""A server in a process of its own, and clients that are not polite."""

import os
import socket
import stat
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from tests.processes import OutputProcess

HANDSHAKE = (
    "GET {path} HTTP/1.1\nHost: localhost\nUpgrade: websocket\nConnection: Upgrade\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\nSec-WebSocket-Version: 13\n\n"
)


class Served(OutputProcess):
    """A server in a process of its own."""

    def __init__(self, *settings_of_server: str, command: tuple[str, ...] = (), open_files: int | None = None) -> None:
        python = [sys.executable, "-u", "-m", *(command or ("tests.avatar_site.web.serving", *settings_of_server))]
        super().__init__(["sh", "-c", f'ulimit -Sn {open_files}; exec "$@"', "sh", *python] if open_files else python)
        self.port = int(self.wait_for(r"Listening on TCP address 127.0.0.1:(\d+)").group(1))
        self.url = f"http://127.0.0.1:{self.port}"

    def connect(self, request: str) -> socket.socket:
        """A connection on which a request, or the beginning of one, was sent."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        connection.sendall(request.replace("\n", "\r\n").encode())
        return connection

    def measure(self, during: Callable[[], Any]) -> tuple[Any, int, int]:
        """What `during` returns; by how much the process grew during it, at most; the most bytes it had in files."""
        process = psutil.Process(self.process.pid)
        before = largest = process.memory_info().rss
        on_disk = 0
        result: list[Any] = []
        doing = threading.Thread(target=lambda: result.append(during()))
        doing.start()
        while doing.is_alive():
            largest = max(largest, process.memory_info().rss)
            on_disk = max(on_disk, measure_open_files(self.process.pid))
            doing.join(0.02)
        return result[0], largest - before, on_disk


def measure_open_files(pid: int) -> int:
    """How many bytes lie in the regular files that a process has open, those without a name included."""
    total = 0
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        # It may be closed before it is looked at.
        with suppress(FileNotFoundError):
            status = descriptor.stat()
            total += status.st_size if stat.S_ISREG(status.st_mode) else 0
    return total


def open_websocket(served: Served, path: str) -> socket.socket:
    """A WebSocket, accepted; from here on the test says what is sent and read."""
    connection = served.connect(HANDSHAKE.format(path=path))
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        assert byte, f"not accepted: {head!r}"
        head += byte
    assert head.startswith(b"HTTP/1.1 101 ")
    return connection


def make_frame(payload: bytes, opcode: int = 1) -> bytes:
    """A masked frame, at most 64 KiB."""
    length = (
        bytes([0x80 | len(payload)]) if len(payload) < 126 else bytes([0x80 | 126]) + len(payload).to_bytes(2, "big")
    )
    mask = os.urandom(4)
    masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
    return bytes([0x80 | opcode]) + length + mask + masked


def send_until_blocked(connection: socket.socket, data: bytes, most_bytes: int) -> int:
    """Send `data` again and again until the server reads no more; returns how many bytes it took."""
    connection.settimeout(1)
    sent = 0
    with suppress(TimeoutError):
        while sent < most_bytes:
            sent += connection.send(data[sent % len(data) :])
    return sent
