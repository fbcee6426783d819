"""
Heartbeats of the workers and beat as files in the data folder, for who has no supervisor to ask.

Imports no Django. On several machines without a common folder, each machine knows its own processes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from avatar_site.operations import queues

logger = logging.getLogger(__name__)

FOLDER = "heartbeats"
#: By the queue that a worker takes tasks from.
WORKERS = {queues.DEFAULT: "worker", queues.MAINTENANCE: "maintenance"}
BEAT = "beat"


class HeartbeatFile:
    """The file of a process. A disk that does not take it costs the heartbeat, not the process."""

    def __init__(self, data_dir: Path, name: str) -> None:
        self._path = data_dir / FOLDER / name
        self._is_failing = False

    def renew(self) -> None:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._path.touch()
        except OSError as error:
            if not self._is_failing:
                logger.warning("the heartbeat of %s cannot be written: %s", self._path.name, error)
            self._is_failing = True
        else:
            self._is_failing = False


def find_worker_name(hostname: str) -> str | None:
    """Return which process a worker of Celery is, by its name there, "<queue>@<host>"; None if it is none of ours."""
    return WORKERS.get(hostname.partition("@")[0])


def read_ages(data_dir: Path, *, now_s: float) -> Iterator[tuple[str, float]]:
    """Yield each process that has ever sent a heartbeat, and how many seconds ago the last one was. Raises OSError."""
    for name in (*WORKERS.values(), BEAT):
        path = data_dir / FOLDER / name
        if path.exists():
            yield name, now_s - path.stat().st_mtime
