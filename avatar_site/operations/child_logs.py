"""
The supervisor's log files: one per child, its own, and one of all errors. Imports no Django.

Every line of a file is a JSON object (see `inference.telemetry.logs`): what a child writes in another form is wrapped.
"""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

#: The supervisor's own events, and every child's errors.
SUPERVISOR = "supervisor"
ERRORS = "error"
ERROR_LEVELS = frozenset({"error", "critical"})
SECONDS_PER_DAY = 86_400


@dataclass(frozen=True, slots=True)
class LogLimits:
    """When a file is full, how long full ones are kept, and how large the folder may become."""

    file_bytes: int = 20_000_000
    kept_days: int = 7
    total_bytes: int = 1_000_000_000


class ChildLogs:
    """
    The folder of logs. A file is begun each day (UTC) and when one is full; the oldest are removed.

    On a full disk lines are lost and the children continue: `on_failure(name, reason)` is called once until that file
    can be written again.
    """

    def __init__(
        self,
        folder: Path,
        *,
        on_failure: Callable[[str, str], None],
        limits: LogLimits | None = None,
        read_time: Callable[[], float] = time.time,
    ) -> None:
        self._folder = folder
        self._on_failure = on_failure
        self._limits = limits or LogLimits()
        self._read_time = read_time
        self._day = ""
        self._files: dict[str, _LogFile] = {}
        self._failing: set[str] = set()

    @contextmanager
    def opened(self, name: str) -> Iterator[Callable[[str], None]]:
        """Yield a function that writes a line of this child's output."""
        try:
            yield lambda line: self.write_line(name, line)
        finally:
            self._close(name)

    def write_line(self, name: str, line: str) -> None:
        """Write a line of output: as it is if it is a line of our logs, else wrapped. Blank ones are left out."""
        if not line.strip():
            return
        level = read_level(line)
        if level is None:
            level, line = "info", self._wrap(name, "info", line, {})
        self._write(name, level, line)

    def write_event(self, level: str, event: str, figures: Mapping[str, object]) -> None:
        """Write an event of the supervisor itself."""
        self._write(SUPERVISOR, level, self._wrap(SUPERVISOR, level, event, figures))

    def close(self) -> None:
        for name in tuple(self._files):
            self._close(name)

    def _wrap(self, name: str, level: str, event: str, figures: Mapping[str, object]) -> str:
        at = datetime.fromtimestamp(self._read_time(), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = {"timestamp": at, "level": level, "event": event, "logger": name, **figures}
        return json.dumps(line, ensure_ascii=False, default=str)

    def _write(self, name: str, level: str, line: str) -> None:
        self._append(name, line)
        if level in ERROR_LEVELS:
            self._append(ERRORS, line)

    def _append(self, name: str, line: str) -> None:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._begin_day_if_due()
            file = self._files.get(name) or self._open(name)
            data = line.encode(errors="replace") + b"\n"
            if file.size and file.size + len(data) > self._limits.file_bytes:
                self._close(name)
                self._set_aside(name)
                self._prune()
                file = self._open(name)
            file.append(data)
        except OSError as error:
            if name not in self._failing:
                self._failing.add(name)
                self._on_failure(name, error.strerror or str(error))
        else:
            self._failing.discard(name)

    def _open(self, name: str) -> _LogFile:
        self._files[name] = file = _LogFile(self._folder / f"{name}.log")
        return file

    def _close(self, name: str) -> None:
        if (file := self._files.pop(name, None)) is not None:
            file.close()

    # --- rotation ---

    def _begin_day_if_due(self) -> None:
        """Set all files of an earlier day aside, also those that nothing writes to, and remove old ones."""
        day = _describe_day(self._read_time())
        if day == self._day:
            return
        self._day = day
        self.close()
        for path in _list_files(self._folder):
            if path.suffix == ".log" and _describe_day(path.stat().st_mtime) != day:
                self._set_aside(path.stem)
        self._prune()

    def _set_aside(self, name: str) -> None:
        """Rename a full file by the day of its last line: web.log to web.log.2026-11-27.1."""
        path = self._folder / f"{name}.log"
        try:
            information = path.lstat()
        except FileNotFoundError:
            return
        if not stat.S_ISREG(information.st_mode):
            return
        stem = f"{path.name}.{_describe_day(information.st_mtime)}."
        numbers = [
            int(number)
            for each in _list_files(self._folder)
            if each.name.startswith(stem) and (number := each.name.removeprefix(stem)).isdecimal()
        ]
        path.rename(path.with_name(f"{stem}{max(numbers, default=0) + 1}"))

    def _prune(self) -> None:
        """Remove files that are too old, then the oldest until the folder is small enough. Present ones stay."""
        oldest_at = self._read_time() - self._limits.kept_days * SECONDS_PER_DAY
        files = sorted(((path.stat(), path) for path in _list_files(self._folder)), key=lambda each: each[0].st_mtime)
        total_bytes = sum(information.st_size for information, _ in files)
        for information, path in files:
            is_too_much = total_bytes > self._limits.total_bytes
            if path.suffix != ".log" and (information.st_mtime < oldest_at or is_too_much):
                path.unlink(missing_ok=True)
                total_bytes -= information.st_size


class _LogFile:
    """A file of mode 0600 that is appended to. Each line is one system call: a crash loses none."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        information = os.fstat(self._fd)
        if stat.S_ISREG(information.st_mode):
            os.fchmod(self._fd, 0o600)  # of an earlier version
        self.size = information.st_size
        self._is_cut = False

    def append(self, data: bytes) -> None:
        """Write a line. Raises OSError; what was written of it on a full disk is then a line of its own."""
        if self._is_cut:
            data = b"\n" + data
        written = os.write(self._fd, data)
        self.size += written
        self._is_cut = written < len(data)
        if self._is_cut:
            raise OSError("the line was written in part")

    def close(self) -> None:
        with suppress(OSError):
            os.close(self._fd)


def read_level(line: str) -> str | None:
    """Return the level of a line of our logs, in lower case; None of anything else."""
    if not line.startswith("{"):
        return None
    try:
        values = json.loads(line)
    except ValueError:
        return None
    level = values.get("level")
    return level.lower() if "event" in values and isinstance(level, str) else None


def make_plain(line: str) -> str:
    """Return a line of our logs as an operator reads it on a terminal; any other as it is."""
    if read_level(line) is None:
        return line
    values = json.loads(line)
    plain = (
        f"{str(values.get('timestamp', ''))[11:19]} {values['level']:<7} {values.get('logger', '')}: {values['event']}"
    )
    return "\n".join([plain.strip(), *str(values.get("exception", "")).splitlines()])


def _list_files(folder: Path) -> list[Path]:
    """Return our files: `<name>.log` and those set aside."""
    with os.scandir(folder) as entries:
        return [Path(entry) for entry in entries if ".log" in entry.name and entry.is_file(follow_symlinks=False)]


def _describe_day(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d}"
