"""
Where the inference process listens: a Unix socket by default, or host:port. Knows no gRPC.

A Unix socket of mode 0600 admits processes of the same user only. A client of a TCP port may be any user of the
machine, or any machine: there, callers need a shared secret.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

UNIX = "unix:"
SOCKET_NAME = "inference.sock"
#: `sun_path` of Linux is 108 bytes, the zero at its end included.
MAX_SOCKET_PATH_BYTES = 107
MIN_SECRET_CHARACTERS = 16


class AddressError(ValueError):
    """An address cannot be used. The message says what is wrong with it, without repeating it."""


class AddressTaken(Exception):
    """Another process listens there."""


def make_default_address(data_dir: Path) -> str:
    return f"{UNIX}{data_dir / SOCKET_NAME}"


def check_address(address: str) -> None:
    """Raise AddressError unless it is `unix:/path` or `host:port`."""
    path = parse_socket_path(address)
    if path is not None:
        size = len(os.fsencode(path))
        if not path.is_absolute():
            raise AddressError("expected host:port, or unix: and an absolute path")
        if size > MAX_SOCKET_PATH_BYTES:
            raise AddressError(
                f"the path of a socket has at most {MAX_SOCKET_PATH_BYTES} bytes and this one has {size}: choose a "
                "shorter one, such as AVATAR_INFERENCE_ADDRESS=unix:/run/avatar/inference.sock"
            )
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise AddressError("expected host:port, or unix: and an absolute path")


def check_secret(address: str, secret: str) -> None:
    """Raise AddressError when the address is open to strangers: TCP without a secret, or with one easily guessed."""
    if parse_socket_path(address) is not None and not secret:
        return
    if not secret:
        raise AddressError(
            "AVATAR_INFERENCE_SECRET is not set, and any user of this machine could command the models over TCP. "
            "Set the same one for every process, or leave AVATAR_INFERENCE_ADDRESS unset for a Unix socket"
        )
    if len(secret) < MIN_SECRET_CHARACTERS:
        raise AddressError(f"AVATAR_INFERENCE_SECRET: expected at least {MIN_SECRET_CHARACTERS} characters")


def parse_socket_path(address: str) -> Path | None:
    """Return the path of a Unix socket; None for TCP."""
    return Path(address.removeprefix(UNIX)) if address.startswith(UNIX) else None


def make_target(address: str) -> str:
    """Return an address in gRPC's form, which is a URI: "#", "?" and "%" in the path are escaped."""
    path = parse_socket_path(address)
    return address if path is None else f"{UNIX}{quote(os.fsencode(path))}"


@contextmanager
def hold_socket(path: Path) -> Iterator[None]:
    """
    Lock the socket at `path` for this process, and remove the stale socket of a killed one.

    The lock is a file next to the socket, because gRPC itself would take a socket over from the process that listens on
    it. The kernel releases it however this process ends. Raises AddressTaken, OSError.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AddressTaken(str(path)) from None
        if path.is_socket():
            path.unlink()
        elif path.exists():
            raise FileExistsError(f"{path} is there and is not a socket")
        yield
    finally:
        os.close(lock)


@contextmanager
def private_files() -> Iterator[None]:
    """Create files, sockets too, with mode 0600. Affects the whole process."""
    before = os.umask(0o177)
    try:
        yield
    finally:
        os.umask(before)
