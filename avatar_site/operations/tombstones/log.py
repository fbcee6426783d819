"""
The log: a file beside the database, to which tombstones are moved from the table that the triggers write.

One JSON object a line, appended and synced before the rows are deleted: a crash in between writes a tombstone twice,
which is harmless, and never loses one. A line that a crash cut off is removed by the next writer.
"""

from __future__ import annotations

import datetime as dt
import errno
import fcntl
import logging
import os
import re
import secrets
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
from django.conf import settings
from django.contrib.auth.models import Group, Permission, User
from django.db import DatabaseError, connection

from avatar_site.operations.models import Tombstone

logger = logging.getLogger(__name__)

#: Rows that are moved at once.
BATCH = 500
#: What a person who deletes waits for at most, in rows: 20 ms. The rest is left to the next drain.
MAX_ROWS_OF_A_REQUEST = 2_000
#: For how long another process that has the log is waited for.
TIMEOUT_OF_A_REQUEST_S = 0.5
TIMEOUT_S = 60.0
_POLL_S = 0.01
INSTALLATION = re.compile(r"[0-9a-f]{16}")
_TAIL_BYTES = 64 * 1024
_UUID_TABLES = ("conversations_", "voices_")


class LogBusy(OSError):
    """Another process has held the log for too long."""


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    A row that was deleted, or what its columns have been since it was changed.

    Of a membership that is not a deletion: that it was added. `values` of a deletion say what the row was, where its
    key does not: the id of a user may be given again after a restore.
    """

    #: Counts up within an installation.
    sequence: int
    installation: str
    at: dt.datetime
    table: str
    key: str
    is_deletion: bool = False
    values: dict[str, Any] = {}


_decoder = msgspec.json.Decoder(Entry)
#: Of this process: whether the rows stay in the table, and whether an operator knows that they do.
_is_suspended = False
_is_failing = False


def find_log() -> Path:
    return _find_folder() / "log.jsonl"


def read_installation() -> str:
    """Return what tells this installation's tombstones from another's. Raises OSError."""
    path = _find_folder() / "installation"
    name = _read_name(path)
    if not name:
        with _locked(TIMEOUT_S):
            name = _read_name(path)
            if not name:
                name = secrets.token_hex(8)
                write_atomically(path, name.encode())
    return name


def drain(*, max_rows: int | None = None, timeout_s: float = TIMEOUT_S) -> int:
    """
    Move the rows of the table to the log. Return how many: none within a transaction, which may roll back, and
    while `suspended`.

    Costs one small query if there is none. Raises OSError, LogBusy among them, and DatabaseError: then what was not
    moved is still in the table.
    """
    if _is_suspended or connection.in_atomic_block:
        return 0
    try:
        if not _has_rows():
            return 0
    except DatabaseError:
        if _has_table():
            raise
        # Before the migration that makes it: a backup is made of such a database, too.
        return 0
    installation = read_installation()
    moved = 0
    with _locked(timeout_s):
        while max_rows is None or moved < max_rows:
            count = _move_batch(installation)
            moved += count
            if count < BATCH:
                break
    return moved


def drain_or_leave() -> None:
    """
    Drain after a commit. A failure is logged once, and left to the next drain: no request fails for it.

    Does nothing where the database is not SQLite: see `watching.watch_connection`.
    """
    global _is_failing
    if connection.vendor != "sqlite":
        return
    try:
        drain(max_rows=MAX_ROWS_OF_A_REQUEST, timeout_s=TIMEOUT_OF_A_REQUEST_S)
    except LogBusy:
        # The process that has it drains, or the next task does.
        return
    except (OSError, DatabaseError) as error:
        if not _is_failing:
            logger.error("tombstones stay in the database, the log of deletions cannot be written: %s", error)
        _is_failing = True
    else:
        if _is_failing:
            logger.info("the log of deletions can be written again")
        _is_failing = False


@contextmanager
def suspended() -> Iterator[None]:
    """Leave the rows in the table, for the whole process: a copy of the database is no place to drain them from."""
    global _is_suspended
    before, _is_suspended = _is_suspended, True
    try:
        yield
    finally:
        _is_suspended = before


def read_log() -> Iterator[Entry]:
    """Yield what the log has, oldest first. A line that cannot be read is left out, with a warning."""
    with suppress(FileNotFoundError), find_log().open("rb") as file:
        yield from decode_lines(file, address=str(find_log()))


def make_entries(rows: Sequence[Tombstone], *, installation: str, after: int) -> list[Entry]:
    """Return rows as entries, with what their ids stand for. Sequences follow `after`. Up to four queries."""
    values = _describe(rows)
    return [
        Entry(
            sequence=after + number,
            installation=installation,
            at=dt.datetime.fromisoformat(row.at),
            table=row.table,
            key=_read_key(row.table, row.key),
            is_deletion=row.is_deletion,
            values=values[row.pk],
        )
        for number, row in enumerate((row for row in rows if row.pk in values), 1)
    ]


def encode_line(entry: Entry) -> bytes:
    return msgspec.json.encode(entry) + b"\n"


def decode_lines(lines: Iterable[bytes], *, address: str) -> Iterator[Entry]:
    """Yield the entries of lines. One that cannot be read is left out, with a warning, but for the cut off last one."""
    for number, line in enumerate(lines, 1):
        try:
            entry = _decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            if line.endswith(b"\n"):
                logger.warning("line %d of %s cannot be read, and is left out", number, address)
        else:
            if entry.table:
                yield entry


def read_last_sequence() -> int:
    """Return the sequence of the newest entry, 0 if there never was one. Reads the end of the file only."""
    try:
        with find_log().open("rb") as file:
            return _read_last_sequence(file.fileno())
    except FileNotFoundError:
        return _read_last_shipped()


def read_shipped() -> dict[str, int]:
    """Return up to which sequence each target has the log. If that cannot be read, no target has any of it."""
    try:
        return msgspec.json.decode((_find_folder() / "shipped.json").read_bytes(), type=dict[str, int])
    except (FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError):
        return {}


def write_shipped(shipped: dict[str, int]) -> None:
    """Save what `read_shipped` returns. Raises OSError."""
    write_atomically(_find_folder() / "shipped.json", msgspec.json.encode(shipped))


def prune(*, before: dt.datetime) -> int:
    """
    Remove what no restore needs any more; return how many entries. Raises OSError.

    That is: what happened before a moment, values that were changed again since, and values of rows that were deleted
    since, such as the corrected text of a turn.
    """
    with _locked(TIMEOUT_S):
        entries = list(read_log())
        kept = [entry for entry in compact(entries) if entry.at >= before]
        if len(kept) == len(entries):
            return 0
        last = max(entry.sequence for entry in entries)
        lines = [encode_line(entry) for entry in kept]
        if not kept or kept[-1].sequence != last:
            # So that the next entry has a sequence of its own.
            lines.append(encode_line(_make_mark(entries[-1], last)))
        write_atomically(find_log(), b"".join(lines))
    return len(entries) - len(kept)


def compact(entries: Iterable[Entry]) -> list[Entry]:
    """Return entries, by time, without the values that a later change or deletion of the same row replaces."""
    kept: list[Entry] = []
    replaced: set[tuple[str, ...]] = set()
    gone: set[tuple[str, ...]] = set()
    gone_conversations: set[str] = set()
    for entry in sorted(entries, key=order)[::-1]:
        row = identify(entry)
        if row in gone:
            # Earlier values; a second deletion of the same row says nothing either.
            continue
        if entry.table == "conversations_turn" and entry.values.get("conversation_id") in gone_conversations:
            continue
        if entry.is_deletion or entry.table in MEMBERSHIPS:
            gone.add(row)
            if entry.table == "conversations_conversation":
                gone_conversations.add(entry.key)
        else:
            columns = {name for name in entry.values if name not in DESCRIPTIONS and (*row, name) not in replaced}
            if not columns:
                continue
            replaced.update((*row, name) for name in columns)
            values = {name: value for name, value in entry.values.items() if name in columns or name in DESCRIPTIONS}
            entry = msgspec.structs.replace(entry, values=values)
        kept.append(entry)
    return kept[::-1]


#: Tables whose rows are there or not, by what they connect.
MEMBERSHIPS = ("auth_group_permissions", "auth_user_groups", "auth_user_user_permissions")
#: Values that say which row it is; all others are columns that were changed.
DESCRIPTIONS = frozenset(
    {
        "username",
        "date_joined",
        "user_id",
        "group_id",
        "permission_id",
        "group",
        "permission",
        "name",
        "conversation_id",
    }
)


def order(entry: Entry) -> tuple[dt.datetime, str, int]:
    """Sort by time. Clocks of installations that share a database are the database's."""
    return entry.at, entry.installation, entry.sequence


def identify(entry: Entry) -> tuple[str, ...]:
    """Return what entries about the same row have in common."""
    parts: tuple[str, ...] = ()
    if entry.table in MEMBERSHIPS:
        parts = ("user_id", "date_joined", "group_id", "permission_id", "permission")
    elif entry.table == "conversations_retentionchoice":
        parts = ("user_id", "date_joined")
    elif entry.table == "auth_user":
        parts = ("date_joined",)
    # The key of what connects users to something is that of the connection, and not the same when it is made again.
    key = entry.key if "user_id" not in parts else ""
    return entry.table, key, *(str(entry.values.get(part, "")) for part in parts)


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file, synced, with mode 0600. A crash leaves the one before."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise
    _sync_folder(path.parent)


def _find_folder() -> Path:
    folder = Path(settings.AVATAR_TOMBSTONES_DIR)
    if not folder.is_dir():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _sync_folder(folder.parent)
    return folder


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked_file(name: str, timeout_s: float) -> Iterator[None]:
    """Hold a lock among processes and threads, by a file in the folder of the log. Raises LogBusy."""
    descriptor = os.open(_find_folder() / name, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        give_up_at = time.monotonic() + timeout_s
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= give_up_at:
                    raise LogBusy(errno.EAGAIN, "another process holds the lock", name) from None
                time.sleep(_POLL_S)
        yield
    finally:
        # Closing releases it.
        os.close(descriptor)


@contextmanager
def _locked(timeout_s: float) -> Iterator[None]:
    with locked_file("lock", timeout_s):
        yield


def _read_name(path: Path) -> str:
    """Return the name in a file; empty if there is none, or what is there is none."""
    try:
        name = path.read_text(errors="replace").strip()
    except FileNotFoundError:
        return ""
    return name if INSTALLATION.fullmatch(name) else ""


def _has_rows() -> bool:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT 1 FROM {Tombstone._meta.db_table} LIMIT 1")  # noqa: S608 — a constant
        return cursor.fetchone() is not None


def _has_table() -> bool:
    try:
        return Tombstone._meta.db_table in connection.introspection.table_names()
    except DatabaseError:
        return True


def _move_batch(installation: str) -> int:
    rows = list(Tombstone.objects.order_by("pk")[:BATCH])
    if rows:
        _append(rows, installation)
        Tombstone.objects.filter(pk__in=[row.pk for row in rows]).delete()
    return len(rows)


def _append(rows: list[Tombstone], installation: str) -> None:
    path = find_log()
    is_new = not path.exists()
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        size = _cut_torn_line(descriptor)
        entries = make_entries(rows, installation=installation, after=_read_last_sequence(descriptor))
        try:
            _write_all(descriptor, b"".join(map(encode_line, entries)))
            os.fsync(descriptor)
        except OSError:
            # A full disk takes a part: what follows must not be glued to it.
            with suppress(OSError):
                os.ftruncate(descriptor, size)
            raise
    finally:
        os.close(descriptor)
    if is_new:
        _sync_folder(path.parent)


def _make_mark(entry: Entry, sequence: int) -> Entry:
    """Return an entry about nothing, which keeps the count."""
    return Entry(sequence=sequence, installation=entry.installation, at=entry.at, table="", key="")


def _read_key(table: str, key: str) -> str:
    # SQLite keeps UUIDs without hyphens.
    return str(uuid.UUID(key)) if table.startswith(_UUID_TABLES) and len(key) == 32 else key


def _describe(rows: Sequence[Tombstone]) -> dict[int, dict[str, Any]]:
    """
    Return the values of rows, and what ids among them stand for: their meaning may change in a restored database.

    Memberships of what is gone are left out: its own deletion says it.
    """
    values = {row.pk: msgspec.json.decode(row.values) if row.values else {} for row in rows}
    for each in values.values():
        if joined_at := each.get("date_joined"):
            each["date_joined"] = _write_second(dt.datetime.fromisoformat(joined_at))
        if conversation := each.get("conversation_id"):
            each["conversation_id"] = str(uuid.UUID(conversation))
    to_name = {row.pk: values[row.pk] for row in rows if row.table != "auth_user" and row.table.startswith("auth_")}
    to_name |= {row.pk: values[row.pk] for row in rows if row.table == "conversations_retentionchoice"}
    if not to_name:
        return values
    users = {user.pk: user for user in User.objects.filter(pk__in=_collect(to_name, "user_id"))}
    groups = {group.pk: group.name for group in Group.objects.filter(pk__in=_collect(to_name, "group_id"))}
    permissions = {
        permission.pk: f"{permission.content_type.app_label}.{permission.codename}"
        for permission in Permission.objects.select_related("content_type").filter(
            pk__in=_collect(to_name, "permission_id")
        )
    }
    for pk, each in to_name.items():
        user_id, group_id, permission_id = (each.get(name) for name in ("user_id", "group_id", "permission_id"))
        is_gone = (
            (user_id is not None and user_id not in users)
            or (group_id is not None and group_id not in groups)
            or (permission_id is not None and permission_id not in permissions)
        )
        if is_gone:
            del values[pk]
            continue
        if user_id is not None:
            each |= {"username": users[user_id].username, "date_joined": _write_second(users[user_id].date_joined)}
        if group_id is not None:
            each["group"] = groups[group_id]
        if permission_id is not None:
            each["permission"] = permissions[permission_id]
    return values


def _write_second(at: dt.datetime) -> str:
    """SQLite keeps UTC without saying so. The admin's form rounds a time down to the second when a user is saved."""
    return (at if at.tzinfo else at.replace(tzinfo=dt.UTC)).astimezone(dt.UTC).replace(microsecond=0).isoformat()


def _collect(values: dict[int, dict[str, Any]], name: str) -> set[int]:
    return {each[name] for each in values.values() if each.get(name) is not None}


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _cut_torn_line(descriptor: int) -> int:
    """Remove what follows the last line's end, and return the size then. Its rows are still in the table."""
    size = os.lseek(descriptor, 0, os.SEEK_END)
    if size == 0 or os.pread(descriptor, 1, size - 1) == b"\n":
        return size
    end = _find_line_end(descriptor, size)
    os.ftruncate(descriptor, end)
    return end


def _read_last_sequence(descriptor: int) -> int:
    end = _find_line_end(descriptor, os.lseek(descriptor, 0, os.SEEK_END))
    while end > 0:
        start = _find_line_end(descriptor, end - 1)
        line = os.pread(descriptor, end - start, start)
        with suppress(msgspec.DecodeError, UnicodeDecodeError):
            return _decoder.decode(line).sequence
        end = start
    return _read_last_shipped()


def _read_last_shipped() -> int:
    """A log that was lost does not count from the beginning: a target takes what is beyond what it has."""
    return max(read_shipped().values(), default=0)


def _find_line_end(descriptor: int, end: int) -> int:
    """Return the place after the last newline before `end`; 0 if there is none."""
    while end > 0:
        start = max(0, end - _TAIL_BYTES)
        if (found := os.pread(descriptor, end - start, start).rfind(b"\n")) >= 0:
            return start + found + 1
        end = start
    return 0
