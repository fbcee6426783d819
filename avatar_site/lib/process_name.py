"""The name of this process in the database: of its live calls and its samples."""

from __future__ import annotations

import os
import socket

#: The kernel allows 64 characters, which the columns have not.
MAX_HOST_CHARACTERS = 48


def read_host_name() -> str:
    return socket.gethostname()[:MAX_HOST_CHARACTERS]


def make_process_name() -> str:
    """Return "<host>:<pid>"."""
    return f"{read_host_name()}:{os.getpid()}"
