"""
A write-ahead spool for times when the database is away: one file per conversation in the data folder, replayed later.

A line is a change as JSON, its audio in base64, synced to the disk before `append` returns; or the number of changes
that have been replayed. A process that dies between a change and its number replays that change twice, which every
change allows. Knows no rows: `apply` is an argument.
"""

from __future__ import annotations

import base64
import datetime as dt
import fcntl
import json
import logging
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from django.conf import settings

logger = logging.getLogger(__name__)

SUFFIX = ".jsonl"
LOCK_SUFFIX = ".taking"

Verb = Literal["append_turn", "begin_turn", "drop_turn", "correct_turn"]


@dataclass(frozen=True, slots=True)
class Change:
    """A verb of `services`, with its arguments except the conversation's id."""

    verb: Verb
    fields: dict[str, Any]

    @property
    def turn_id(self) -> uuid.UUID:
        turn_id: uuid.UUID = self.fields["turn_id"]
        return turn_id

    @property
    def has_audio(self) -> bool:
        return bool(self.fields.get("audio"))

    def without_audio(self) -> Change:
        return Change(self.verb, self.fields | {"audio": None})


def append(conversation_id: uuid.UUID, changes: Sequence[Change]) -> None:
    """Write changes to the disk, all of them or none. Raises OSError."""
    lines = "".join(f"{_write_line(change)}\n" for change in changes).encode()
    path = _path_of(conversation_id)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _open_locked(path, os.O_RDWR | os.O_CREAT) as file:
        _append(file, lines)
    # The name of a new file is the folder's.
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def replay(conversation_id: uuid.UUID, apply: Callable[[Change], None]) -> int:
    """
    Apply the changes of a spool in order, and remove its file. Return how many there were.

    An exception of `apply` ends the replay; the next one begins with the change that failed. `append` is not blocked by
    an `apply` that hangs with its database: what is appended during a replay is part of it.
    """
    path = _path_of(conversation_id)
    if not path.exists():
        return 0
    lock_path = path.with_suffix(LOCK_SUFFIX)
    taken = 0
    # Two replays exclude each other, by a file of their own.
    with _open_locked(lock_path, os.O_RDWR | os.O_CREAT):
        try:
            with suppress(FileNotFoundError):
                while True:
                    # Kept open, so that a successor of this file cannot get its number.
                    held = os.open(path, os.O_RDONLY)
                    try:
                        taken += _replay_file(held, path, conversation_id, apply)
                    finally:
                        os.close(held)
        finally:
            lock_path.unlink(missing_ok=True)
    return taken


def _replay_file(held: int, path: Path, conversation_id: uuid.UUID, apply: Callable[[Change], None]) -> int:
    """Replay one file until it is done and removed, or another has its name. Raises FileNotFoundError."""
    done = taken = 0
    while True:
        with _open_locked(path, os.O_RDWR) as file:
            if not os.path.sameopenfile(file, held):
                return taken
            changes, noted = _read(file, conversation_id)
            # The number in the file may be too small: on a full disk it was not written.
            done = max(noted, done)
            if done == len(changes):
                remove([conversation_id])
                return taken
        for change in changes[done:]:
            apply(change)
            taken, done = taken + 1, done + 1
            with suppress(OSError), _open_locked(path, os.O_RDWR) as file:
                if os.path.sameopenfile(file, held):
                    _append(file, f"{json.dumps({'taken': done})}\n".encode())


def list_conversations() -> list[uuid.UUID]:
    """Return the conversations that have a spool."""
    found = []
    for path in sorted(_read_folder().glob(f"*{SUFFIX}")):
        with suppress(ValueError):
            found.append(uuid.UUID(path.stem))
    return found


def remove(conversation_ids: Iterable[uuid.UUID]) -> None:
    """Remove spools. A file that cannot be removed is logged: `replay` finds no conversation for it."""
    for conversation_id in conversation_ids:
        try:
            _path_of(conversation_id).unlink(missing_ok=True)
        except OSError:
            logger.exception("could not remove the spool of conversation %s", conversation_id)


def _read_folder() -> Path:
    return Path(settings.AVATAR_SPOOL_DIR)


def _path_of(conversation_id: uuid.UUID) -> Path:
    return _read_folder() / f"{conversation_id}{SUFFIX}"


@contextmanager
def _open_locked(path: Path, flags: int) -> Iterator[int]:
    """Open a file and lock it, once no one else has it. Raises FileNotFoundError, unless `flags` create it."""
    while True:
        file = os.open(path, flags, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            # The previous holder of the lock may have removed it.
            with suppress(FileNotFoundError):
                if path.stat().st_ino == os.fstat(file).st_ino:
                    yield file
                    return
        finally:
            os.close(file)


def _append(file: int, data: bytes) -> None:
    """Append whole lines or nothing. A partial line, of a process that died, is terminated first."""
    size = os.fstat(file).st_size
    if size and os.pread(file, 1, size - 1) != b"\n":
        data = b"\n" + data
    try:
        os.lseek(file, size, os.SEEK_SET)
        left = memoryview(data)
        while left:
            left = left[os.write(file, left) :]
        os.fsync(file)
    except OSError:
        os.ftruncate(file, size)
        raise


def _read(file: int, conversation_id: uuid.UUID) -> tuple[list[Change], int]:
    """Return all changes, and how many of them have been replayed."""
    changes: list[Change] = []
    taken = 0
    with os.fdopen(os.dup(file), "rb") as lines:
        lines.seek(0)
        for line in lines:
            try:
                content = json.loads(line)
                if "taken" in content:
                    taken = int(content["taken"])
                else:
                    changes.append(_read_change(content))
            except (ValueError, KeyError, TypeError):
                # Never acknowledged: its process died while it wrote.
                logger.exception("a line in the spool of conversation %s cannot be read", conversation_id)
    return changes, taken


def _write_line(change: Change) -> str:
    fields = dict(change.fields)
    for name, value in fields.items():
        if isinstance(value, uuid.UUID):
            fields[name] = str(value)
        elif isinstance(value, dt.datetime):
            fields[name] = value.isoformat()
        elif isinstance(value, bytes):
            fields[name] = base64.b64encode(value).decode()
    return json.dumps({"verb": change.verb, "fields": fields}, ensure_ascii=False)


def _read_change(content: dict[str, Any]) -> Change:
    fields = dict(content["fields"])
    readers: dict[str, Callable[[str], object]] = {
        "turn_id": uuid.UUID,
        "voice_profile_id": uuid.UUID,
        "said_at": dt.datetime.fromisoformat,
        "audio": base64.b64decode,
    }
    for name, read in readers.items():
        if fields.get(name) is not None:
            fields[name] = read(fields[name])
    return Change(content["verb"], fields)
