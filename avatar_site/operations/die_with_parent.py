"""
Run a command that dies with its parent: `python die_with_parent.py PARENT_PID COMMAND…`.

The kernel kills the command when the parent ends, even by `kill -9` (Linux only; elsewhere the command just runs).
It leaves no core dump: one would hold what is spoken.
A separate program, because code between fork and exec is not safe in a process with threads.
"""

import ctypes
import os
import resource
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(parent_pid: int, command: list[str]) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # The parent may have ended before prctl.
    if os.getppid() != parent_pid:
        sys.exit(1)
    os.execvp(command[0], command)  # noqa: S606 — the supervisor's own command


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
