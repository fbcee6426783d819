"""Ports for servers that a test starts in a process of their own."""

from __future__ import annotations

import itertools
import os
import socket

#: Below the ports that the system gives to connections: those could be taken between the choice and the use.
_PORTS = range(15_000, 32_000)
#: Each process begins elsewhere, so that two that run at once do not choose the same port.
_numbers = itertools.count(os.getpid() * 97)


def find_free_port() -> int:
    """Return a port of 127.0.0.1 without a listener, another one at each call."""
    for number in _numbers:
        port = _PORTS[number % len(_PORTS)]
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise AssertionError("count() does not end")
