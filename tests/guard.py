"""Keeps the tests from reaching what they did not start: other machines, and what else runs on this one."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

#: Where a product, a broker and a database listen by default. No test has a server there.
DEFAULT_PORTS = frozenset({5432, 6379, 8000, 50051})
_LISTEN = "0A"
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy", "ftp_proxy")
_CHANNELS = ("insecure_channel", "secure_channel")
#: "ipv4:127.0.0.1:80", "dns:///host:80", "dns://resolver/host:80"
_SCHEME = re.compile(r"^(?:dns|ipv4|ipv6):(?://[^/]*/)?")

Listeners = dict[int, int]


class ReachedOut(RuntimeError):
    """A test was about to connect to something that it did not start. No OSError: code under test would handle it."""


class Guard:
    """
    Decides which addresses the tests may connect to.

    `foreign` are the listeners (port to inode) that were there before the tests, `read_listeners` finds those of now: a
    port that has been released since may be taken by a test.
    """

    def __init__(self, foreign: Listeners, read_listeners: Callable[[], Listeners]) -> None:
        self._foreign = foreign
        self._read_listeners = read_listeners

    def find_objection(self, address: object) -> str | None:
        """Return why `address` (as `socket.connect` takes it) is refused, or None."""
        if isinstance(address, str | bytes):
            return self._find_objection_to_path(os.fsdecode(address))
        if not isinstance(address, tuple) or len(address) < 2:
            return None  # netlink and the like, which stay in the kernel
        host, port = str(address[0]), int(address[1])
        if not is_this_machine(host):
            return f"{host} is another machine"
        if port in DEFAULT_PORTS:
            return f"port {port} is where a product of this machine may listen"
        if port in self._foreign and self._read_listeners().get(port) == self._foreign[port]:
            return f"what listens on port {port} was there before the tests"
        return None

    def find_objection_to_target(self, target: str) -> str | None:
        """The same for a target as gRPC takes it."""
        if target.startswith("unix:"):
            return self._find_objection_to_path("/" + target.removeprefix("unix:").lstrip("/"))
        host, _, port = _SCHEME.sub("", target).rpartition(":")
        return self.find_objection((host.strip("[]"), int(port) if port.isdecimal() else 0))

    def find_objection_to_name(self, host: object) -> str | None:
        """Return why a name may not be looked up, or None."""
        name = os.fsdecode(host) if isinstance(host, str | bytes) else ""
        if not name or is_this_machine(name) or _is_address(name):
            return None
        return f"{name} would be asked of a name server"

    def _find_objection_to_path(self, path: str) -> str | None:
        if path.startswith("\0") or Path(path).is_relative_to(tempfile.gettempdir()):
            return None
        return f"{path} is not in the folder for temporary files"


def is_this_machine(host: str) -> bool:
    if host in ("", "localhost", "testserver", socket.gethostname()):
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def read_listeners() -> Listeners:
    """The TCP ports of this machine that something listens on, with the inode of the socket. Empty but on Linux."""
    found: Listeners = {}
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        if table.exists():
            for line in table.read_text().splitlines()[1:]:
                columns = line.split()
                if columns[3] == _LISTEN:
                    found[int(columns[1].rpartition(":")[2], 16)] = int(columns[9])
    return found


class Watch:
    """Has a guard asked about every connection of this process, and remembers what it refused."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self.refused: list[str] = []

    def start(self) -> None:
        """Begin; for the rest of the process, since an audit hook cannot be taken off."""
        for name in list(os.environ):
            if name.lower() in _PROXIES:
                del os.environ[name]
        sys.addaudithook(self._audit)
        # gRPC has sockets of its own, which Python does not see.
        import grpc
        import grpc.aio

        for module in (grpc, grpc.aio):
            for name in _CHANNELS:
                setattr(module, name, self._wrap(getattr(module, name)))

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        match event:
            case "socket.connect" | "socket.sendto" | "socket.sendmsg" if arguments[1] is not None:
                self._object(self._guard.find_objection(arguments[1]))
            case "socket.getaddrinfo" | "socket.gethostbyname" | "socket.gethostbyaddr":
                self._object(self._guard.find_objection_to_name(arguments[0]))

    def _wrap(self, make_channel: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(target: str, *args: Any, **kwargs: Any) -> Any:
            self._object(self._guard.find_objection_to_target(target))
            return make_channel(target, *args, **kwargs)

        return guarded

    def _object(self, objection: str | None) -> None:
        if objection is not None:
            self.refused.append(objection)
            raise ReachedOut(f"Tests reach only what they have started: {objection}.")


def start(foreign: Mapping[int, int] | None = None) -> Watch:
    """Watch this process. `foreign` is what another process of the same test run found at its start."""
    watch = Watch(Guard(dict(read_listeners() if foreign is None else foreign), read_listeners))
    watch.start()
    return watch
