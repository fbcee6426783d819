"""The name of this process in the database: of its live calls and its samples."""

from __future__ import annotations

import os
import socket
from functools import cache
from pathlib import Path

#: The kernel allows 64 characters, which the columns have not.
MAX_HOST_CHARACTERS = 36


@cache
def read_host_name() -> str:
    """Return the host's name and its namespace of pids: containers of one name have pids of their own."""
    name = socket.gethostname()[:MAX_HOST_CHARACTERS]
    try:
        return f"{name}/{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:  # not Linux
        return name


def make_process_name() -> str:
    """Return "<host>:<pid>"."""
    return f"{read_host_name()}:{os.getpid()}"
