"""Processes that a test starts, and waits for by what they write."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from django.conf import settings

from avatar_site.operations import die_with_parent


def tie_to_tests(command: Sequence[str]) -> list[str]:
    """
    Return the command of a process that is killed with the tests' process, even if that is killed itself.

    Start it in the main thread: the kernel kills it at the end of the thread that did.
    """
    return [sys.executable, "-I", "-S", die_with_parent.__file__, str(os.getpid()), *command]


class OutputProcess:
    """A process of its own, by default in the project's folder. Its output can be waited for, even after its end."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        patience_s: float = 20,
        folder: Path | None = None,
    ) -> None:
        self.output = ""
        self._patience_s = patience_s
        self._has_more = threading.Condition()
        self.process = subprocess.Popen(
            list(command),
            cwd=folder or settings.BASE_DIR,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._has_more:
                self.output += line
                self._has_more.notify_all()

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Return the first match in the output. `^` and `$` match at lines."""

        def find() -> re.Match[str] | None:
            return re.search(pattern, self.output, re.MULTILINE)

        with self._has_more:
            if not self._has_more.wait_for(find, self._patience_s):
                pytest.fail(f"never said {pattern!r}:\n{self.output}")
            match = find()
        assert match is not None
        return match

    def wait_for_end(self) -> int:
        code = self.process.wait(self._patience_s)
        self._reader.join(10)
        return code

    def close(self) -> None:
        """Terminate it, if it still runs, and wait for its end."""
        if self.process.poll() is None:
            self.process.terminate()
        self.wait_for_end()
        assert self.process.stdout is not None
        self.process.stdout.close()
