"""
Ends vLLM's process after the inference process, even one ended by `kill -9`: vLLM leaves it behind, with its memory.

vLLM imports it as its worker extension, in the workers' processes or, where there are none, in the engine's. A worker
that ends ends the engine.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import sys
import threading
from typing import NoReturn

logger = logging.getLogger(__name__)

#: The environment variable with the process id of the inference process; without it, nothing is watched.
OWNER_PID = "INFERENCE_PID"


class DiesWithOwner:
    """Adds nothing to vLLM's worker. That it is imported is what counts: it happens before the weights are loaded."""


def _watch_owner(pid: int) -> None:
    try:
        owner = os.pidfd_open(pid)
    except ProcessLookupError:
        _die()
    except OSError as error:
        logger.warning("vLLM is left behind should the inference process be killed: %s", error)
    else:
        threading.Thread(target=_die_after, args=(owner,), name="dies with its owner", daemon=True).start()


def _die_after(owner: int) -> None:
    # A pidfd is readable once its process has ended.
    ended = select.poll()
    ended.register(owner, select.POLLIN)
    ended.poll()
    _die()


def _die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("killed")


if sys.platform == "linux" and OWNER_PID in os.environ:
    _watch_owner(int(os.environ[OWNER_PID]))
