"""Where backups lie: a folder, or a bucket that speaks S3."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol


class TargetError(OSError):
    """The target cannot be reached, is full, or refuses. The message is for the operator, and names the target."""


class BadTarget(ValueError):
    """What was given as a target is none. The message says why."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file in a target."""

    key: str
    size_bytes: int
    modified_at: dt.datetime


class Target(Protocol):
    """
    Files by key, `/` between folders. Safe to use from several threads.

    Everything but reading a missing key raises TargetError when it fails.
    """

    #: For operators: the folder, or s3://bucket/prefix.
    address: str

    def write(self, key: str, source: Path) -> None:
        """Store a file, whole and synced or not at all. Replaces what has this key."""

    def read(self, key: str, destination: BinaryIO) -> None:
        """Copy a file to an open one. Raises FileNotFoundError."""

    def list(self, prefix: str) -> Iterator[Entry]:
        """Yield the files whose keys begin with `prefix` (a folder, ending in `/`); none if there is none."""

    def delete(self, key: str) -> None:
        """Delete a file, if there is one of this key."""

    def describe_risk(self) -> str:
        """Say, in the operator's language, why what is kept here may be lost together with the data; empty if not."""


def open_target(address: str) -> Target:
    """Return the target of a path or of s3://bucket/prefix. Raises BadTarget."""
    raise NotImplementedError
