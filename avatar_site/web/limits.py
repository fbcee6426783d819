"""Limits of the transport: connections, slow clients, queued messages. Pure: imports no Twisted and no Django."""

from __future__ import annotations

import ipaddress
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Limits:
    """Documented in docs/limits.md."""

    max_connections: int = 1000
    #: None behind a proxy, where all connections come from one address.
    max_connections_per_address: int | None = 100
    #: From the connection, or from the first byte of a further request, to the last header.
    head_timeout_s: float = 20.0
    keep_alive_s: float = 75.0
    #: A body must deliver `body_window_s * min_body_bytes_per_s` in each window.
    body_window_s: float = 20.0
    min_body_bytes_per_s: int = 500
    #: A client that reads nothing of a response for so long is disconnected, which frees its file and thread.
    stall_timeout_s: float = 300.0
    #: Messages of one WebSocket that wait for the application. Reading pauses at this, and resumes at half of it.
    max_waiting_messages: int = 64
    max_waiting_bytes: int = 1024 * 1024
    #: Frames of one WebSocket that are parsed before other connections have their turn.
    frames_per_turn: int = 64


@dataclass(frozen=True, slots=True)
class Admission(Generic[Key]):
    """Whether a connection is admitted; `replaced` is the idle one to close for it, `reason` the limit it met."""

    is_admitted: bool
    replaced: Key | None = None
    reason: str = ""


class Connections(Generic[Key]):
    """
    Counts connections, in all and per address.

    At a limit a new connection replaces the longest idle one, so that silent connections cannot keep clients out; it is
    refused only if none is idle. A connection without a complete request is idle.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._groups: dict[Key, str] = {}
        self._sizes: dict[str, int] = {}
        #: Ordered by when they became idle.
        self._idle: dict[Key, None] = {}

    def __len__(self) -> int:
        return len(self._groups)

    def enter(self, key: Key, host: str) -> Admission[Key]:
        """Count a connection, idle at first. `host` is empty for a Unix socket, which has no limit per address."""
        group = group_address(host)
        replaced = None
        reason = self._describe_full_limit(group)
        if reason:
            replaced = next((idle for idle in self._idle if self._frees(idle, group)), None)
            if replaced is None:
                return Admission(False, None, reason)
            self.leave(replaced)
        self._groups[key] = group
        self._sizes[group] = self._sizes.get(group, 0) + 1
        self._idle[key] = None
        return Admission(True, replaced, reason)

    def mark_busy(self, key: Key) -> None:
        self._idle.pop(key, None)

    def mark_idle(self, key: Key) -> None:
        if key in self._groups:
            self._idle.pop(key, None)
            self._idle[key] = None

    def leave(self, key: Key) -> None:
        """Forget a connection. Does nothing if it was never admitted, or was replaced."""
        group = self._groups.pop(key, None)
        self._idle.pop(key, None)
        if group is not None:
            self._sizes[group] -= 1
            if not self._sizes[group]:
                del self._sizes[group]

    def _describe_full_limit(self, group: str) -> str:
        if self._is_group_full(group):
            return f"{self._sizes[group]} connections of {group}"
        if len(self._groups) >= self._limits.max_connections:
            return f"{len(self._groups)} connections in all"
        return ""

    def _is_group_full(self, group: str) -> bool:
        maximum = self._limits.max_connections_per_address
        return maximum is not None and group != "" and self._sizes.get(group, 0) >= maximum

    def _frees(self, idle: Key, group: str) -> bool:
        return self._groups[idle] == group or not self._is_group_full(group)


def group_address(host: str) -> str:
    """Return what to count by: an IPv4 address, or the /64 of an IPv6 address, which belongs to one subscriber."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            return str(ipaddress.ip_network((address, 64), strict=False))
        address = address.ipv4_mapped
    return str(address)


def is_body_too_slow(limits: Limits, received_bytes: int) -> bool:
    """Whether `received_bytes` are too few for one window."""
    return received_bytes < limits.body_window_s * limits.min_body_bytes_per_s


class Backlog:
    """Counts the messages of one WebSocket that wait for the application, and their bytes."""

    def __init__(self, limits: Limits) -> None:
        self._max_messages = limits.max_waiting_messages
        self._max_bytes = limits.max_waiting_bytes
        self._sizes: deque[int] = deque()
        self._bytes = 0

    def add(self, size: int) -> None:
        self._sizes.append(size)
        self._bytes += size

    def take(self) -> None:
        self._bytes -= self._sizes.popleft()

    @property
    def is_long(self) -> bool:
        """Whether reading has to pause."""
        return len(self._sizes) >= self._max_messages or self._bytes >= self._max_bytes

    @property
    def is_short(self) -> bool:
        """Whether reading can resume."""
        return len(self._sizes) <= self._max_messages // 2 and self._bytes <= self._max_bytes // 2


class Tally:
    """Limits log lines to one per kind and interval, with the number of events that it stands for."""

    def __init__(self, interval_s: float = 10.0) -> None:
        self._interval_s = interval_s
        self._counts: dict[str, int] = {}
        self._due_at: dict[str, float] = {}

    def add(self, kind: str, now: float) -> int:
        """Count an event. Return how many to report now; 0 before the interval is over."""
        count = self._counts.get(kind, 0) + 1
        if now < self._due_at.get(kind, now):
            self._counts[kind] = count
            return 0
        self._counts[kind] = 0
        self._due_at[kind] = now + self._interval_s
        return count
