"""
What the supervisor writes for others to read: `serve.json` in the data folder. Imports no Django.

Written at each change and every few seconds, atomically.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

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
    #: Heartbeats missed in a row.
    missed: int = 0
    #: When it was restarted within the last hour, oldest first.
    restarts: tuple[float, ...] = ()
    #: Why it was last restarted: "killed by SIGKILL", "no answer to three heartbeats"; empty: never.
    last_problem: str = ""


@dataclass(frozen=True, slots=True)
class ServeState:
    """What the supervisor knows of its children."""

    address: str
    supervisor_pid: int
    written_at: float
    children: tuple[ChildState, ...] = field(default=())

    @classmethod
    def from_json(cls, text: str) -> Self:
        values = json.loads(text)
        values["children"] = tuple(
            ChildState(**{**child, "restarts": tuple(child["restarts"])}) for child in values["children"]
        )
        return cls(**values)

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def read_state(data_dir: Path) -> ServeState | None:
    """Return the state; None if nothing serves from this folder, or what is there cannot be read."""
    try:
        return ServeState.from_json((data_dir / FILE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError):
        return None
