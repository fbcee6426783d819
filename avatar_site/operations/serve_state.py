"""
What the supervisor writes for others to read: `serve.json` in the data folder. Imports no Django.

Written at each change and every few seconds, atomically.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from avatar_site.operations.heartbeats import Heartbeat

FILE_NAME = "serve.json"
#: Restarts older than this are forgotten.
RESTARTS_KEPT_S = 3600.0


@dataclass(frozen=True, slots=True)
class ChildState:
    """One process. Times are seconds since the epoch."""

    name: str
    #: None: it is not running now.
    pid: int | None
    started_at: float | None
    #: The last answer to a heartbeat; None before the first.
    last_answer_at: float | None = None
    #: Heartbeats missed in a row; 0 while it starts.
    missed: int = 0
    #: When it was restarted within the last hour, oldest first.
    restarts: tuple[float, ...] = ()
    #: Why it was last restarted: "killed by SIGKILL", "missed 3 heartbeats"; empty: never.
    last_problem: str = ""
    #: When it said that it serves; None while it starts.
    ready_at: float | None = None


@dataclass(frozen=True, slots=True)
class ServeState:
    """What the supervisor knows of its children."""

    address: str
    supervisor_pid: int
    written_at: float
    children: tuple[ChildState, ...] = field(default=())

    @property
    def pids(self) -> dict[str, int]:
        """Of the processes that run, the supervisor's first."""
        running = {child.name: child.pid for child in self.children if child.pid is not None}
        return {"supervisor": self.supervisor_pid, **running}

    @classmethod
    def from_json(cls, text: str) -> Self:
        values = json.loads(text)
        values["children"] = tuple(
            ChildState(**{**child, "restarts": tuple(child["restarts"])}) for child in values["children"]
        )
        return cls(**values)

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def describe_child(child: ChildState, now: float) -> str:
    """Return what an operator should know of a process that is not simply serving; empty of one that is."""
    said = []
    if child.pid is None:
        said.append("does not run")
    elif child.ready_at is None and child.started_at is not None:
        said.append(f"starts, for {now - child.started_at:.0f} s")
    if child.missed:
        said.append(f"missed {child.missed} heartbeats")
    if recent := sum(now - at < RESTARTS_KEPT_S for at in child.restarts):
        said.append(f"restarted {recent} times within the hour, last: {child.last_problem}")
    return f"  {child.name}: {'; '.join(said)}" if said else ""


class StateFile:
    """Writes the state. A full disk costs the file, not the service, and is reported once until it can be written."""

    def __init__(self, data_dir: Path, *, on_failure: Callable[[str], None]) -> None:
        self._path = data_dir / FILE_NAME
        self._on_failure = on_failure
        self._has_failed = False

    def write(self, state: ServeState) -> None:
        draft = self._path.with_suffix(".new")
        try:
            draft.write_text(state.to_json(), encoding="utf-8")
            draft.replace(self._path)
        except OSError as error:
            if not self._has_failed:
                self._on_failure(f"{self._path} cannot be written: {error.strerror}")
            self._has_failed = True
        else:
            self._has_failed = False

    def remove(self) -> None:
        """Remove it at the end: without it, nothing serves."""
        with suppress(OSError):  # a damaged disk must not prevent the end
            self._path.unlink(missing_ok=True)


class Histories:
    """Remembers why and when each child was restarted. Pure: time is passed in."""

    def __init__(self) -> None:
        self._restarts: dict[str, list[float]] = {}
        self._problems: dict[str, str] = {}
        self._started: dict[str, float] = {}

    def note_start(self, name: str, now: float) -> None:
        if name in self._started:
            self._restarts.setdefault(name, []).append(now)
        self._started[name] = now

    def has_restarted(self, name: str) -> bool:
        return bool(self._restarts.get(name))

    def note_problem(self, name: str, problem: str) -> None:
        self._problems[name] = problem

    def describe(self, name: str, now: float, *, pid: int | None, heartbeat: Heartbeat | None) -> ChildState:
        recent = [at for at in self._restarts.get(name, ()) if now - at < RESTARTS_KEPT_S]
        self._restarts[name] = recent
        return ChildState(
            name=name,
            pid=pid,
            started_at=self._started.get(name) if pid is not None else None,
            last_answer_at=heartbeat.last_answer_at if heartbeat is not None else None,
            missed=heartbeat.missed if heartbeat is not None and heartbeat.ready_at is not None else 0,
            restarts=tuple(recent),
            last_problem=self._problems.get(name, ""),
            ready_at=heartbeat.ready_at if heartbeat is not None else None,
        )


def read_state(data_dir: Path) -> ServeState | None:
    """Return the state; None if nothing serves from this folder, or what is there cannot be read."""
    try:
        return ServeState.from_json((data_dir / FILE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError):
        return None
