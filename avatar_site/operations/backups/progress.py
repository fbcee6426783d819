"""Shows the progress of copying on a terminal; silent anywhere else."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Protocol, Self

from django.template.defaultfilters import filesizeformat

REDRAW_S = 0.2


class Output(Protocol):
    """What `BaseCommand.stdout` is."""

    def isatty(self) -> bool: ...

    def write(self, msg: str = "", style_func: None = None, ending: str | None = None) -> None: ...

    def flush(self) -> None: ...


class TerminalProgress:
    """Called with files and bytes done and in all; redraws one line, and clears it at the end."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._is_shown = output.isatty()
        self._drawn_at = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._is_shown and self._drawn_at:
            self._draw("")

    def __call__(self, files_done: int, files: int, bytes_done: int) -> None:
        now = time.monotonic()
        if self._is_shown and now - self._drawn_at >= REDRAW_S:
            self._drawn_at = now
            self._draw(f"  {files_done} of {files} files, {filesizeformat(bytes_done)}")

    def _draw(self, line: str) -> None:
        self._output.write(f"\r\x1b[K{line}", ending="")
        self._output.flush()
