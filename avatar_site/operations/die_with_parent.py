"""
Run a command that dies with its parent: `python bound.py PARENT_PID COMMAND…`.

The kernel kills the command when the parent goes, even by `kill -9` (Linux only; elsewhere the command just runs).
A program of its own, because code between fork and exec is not safe in a process that has threads.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(parent_pid: int, command: list[str]) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # The parent may have gone before the kernel was told.
    if os.getppid() != parent_pid:
        sys.exit(1)
    os.execvp(command[0], command)  # noqa: S606 — the supervisor's own command


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
