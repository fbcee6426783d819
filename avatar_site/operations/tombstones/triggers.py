"""
Triggers that write deletions and revocations to `Tombstone`, in the transaction that makes them.

They see what no Django code sees: fast deletes, cascades, `QuerySet.update`, raw SQL. They do not see TRUNCATE, nor
what REPLACE deletes in SQLite: nothing in AVATAR uses either. A migration runs without them, for it runs again on a
restored copy; so SQLite may remake tables and PostgreSQL may alter the columns that they name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.db import connections, transaction

from conversations.models import LOST_AUDIO

if TYPE_CHECKING:
    from django.db.backends.utils import CursorWrapper

#: Of the names of triggers and functions.
PREFIX = "tombstone_"
OUTBOX = "operations_tombstone"


@dataclass(frozen=True, slots=True)
class Change:
    """Columns that are written together when one of them changes, and `condition` (SQL of both databases) holds."""

    columns: tuple[str, ...]
    condition: str = ""


@dataclass(frozen=True, slots=True)
class Watched:
    """A table of which deletions are written, each with the values of `described_by`, and changes of some columns."""

    table: str
    described_by: tuple[str, ...] = ()
    changes: tuple[Change, ...] = ()
    #: A row that was deleted and added again is no deletion.
    has_insertions: bool = False

    @property
    def events(self) -> tuple[str, ...]:
        return ("DELETE", *(("INSERT",) if self.has_insertions else ()), *(("UPDATE",) if self.changes else ()))


WATCHED = (
    Watched(
        "auth_user",
        # An id is given again after a restore, and a name may be changed; not both.
        ("username", "date_joined"),
        tuple(Change((column,)) for column in ("password", "is_active", "is_staff", "is_superuser")),
    ),
    Watched("auth_group", ("name",)),
    Watched("auth_group_permissions", ("group_id", "permission_id"), has_insertions=True),
    Watched("auth_user_groups", ("user_id", "group_id"), has_insertions=True),
    Watched("auth_user_user_permissions", ("user_id", "permission_id"), has_insertions=True),
    Watched("voices_consent"),
    Watched("voices_voiceprofile", (), (Change(("availability",)), Change(("is_shared",)))),
    Watched("voices_recording"),
    Watched("voices_preview"),
    Watched(
        "conversations_conversation",
        (),
        # The first turn gives a conversation its title.
        (Change(("title",), "OLD.title <> ''"), Change(("is_pinned",))),
    ),
    Watched(
        "conversations_turn",
        ("conversation_id",),
        (
            # A reply in progress grows.
            Change(("text", "heard_text", "corrected_at"), "NOT OLD.is_in_progress"),
            Change(("is_superseded",)),
            Change(("audio",), f"NEW.audio = '' AND OLD.audio <> '{LOST_AUDIO}'"),
        ),
    ),
    Watched("conversations_retentionchoice", ("user_id",), (Change(("audio_days", "text_days")),), has_insertions=True),
)


def install(*, using: str = "default") -> list[str]:
    """
    Create the triggers that are missing or of another version, drop those of old ones. Return the names of both.

    Costs one or two queries where there is nothing to do. Tables that do not exist yet are left out.
    """
    connection = connections[using]
    with transaction.atomic(using=using), connection.cursor() as cursor:
        tables = set(connection.introspection.table_names(cursor))
        watched = [each for each in WATCHED if each.table in tables] if OUTBOX in tables else []
        if connection.vendor == "postgresql":
            return _install_on_postgresql(cursor, watched)
        return _install_on_sqlite(cursor, watched)


def remove(*, using: str = "default") -> None:
    """Drop all triggers. Until `install`, nothing is written."""
    connection = connections[using]
    with transaction.atomic(using=using), connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            _install_on_postgresql(cursor, [])
        else:
            _install_on_sqlite(cursor, [])


# --- SQLite: a trigger for each change, whose text is kept in the schema ---


def write_for_sqlite(watched: Watched) -> dict[str, str]:
    """Return the statements that create the triggers of a table, by the triggers' names."""
    wanted = {}

    def add(suffix: str, event: str, condition: str, insert: str) -> None:
        name = f"{PREFIX}{watched.table}_{suffix}"
        when = f" WHEN {condition}" if condition else ""
        wanted[name] = f"CREATE TRIGGER {name} AFTER {event} ON {watched.table} FOR EACH ROW{when} BEGIN {insert}; END"

    add("deleted", "DELETE", "", _write_insert_on_sqlite(watched, "OLD", ()))
    if watched.has_insertions:
        add("added", "INSERT", "", _write_insert_on_sqlite(watched, "NEW", watched.changes))
    for change in watched.changes:
        differs = " OR ".join(f"OLD.{column} IS NOT NEW.{column}" for column in change.columns)
        add(
            change.columns[0],
            f"UPDATE OF {', '.join(change.columns)}",
            _join(f"({differs})", change.condition),
            _write_insert_on_sqlite(watched, "NEW", (change,)),
        )
    return wanted


def _write_insert_on_sqlite(watched: Watched, row: str, changes: Iterable[Change]) -> str:
    is_deletion = int(row == "OLD")
    return (
        f'INSERT INTO {OUTBOX} ("at", "table", "key", "is_deletion", "values") VALUES '  # noqa: S608 — constants
        f"(strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), '{watched.table}', CAST({row}.id AS TEXT), {is_deletion}, "
        f"json_object({_write_pairs(watched, row, changes)}))"
    )


def _install_on_sqlite(cursor: CursorWrapper, watched: list[Watched]) -> list[str]:
    wanted = {name: sql for each in watched for name, sql in write_for_sqlite(each).items()}
    cursor.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND name GLOB %s", [f"{PREFIX}*"])
    found = dict(cursor.fetchall())
    outdated = sorted(name for name, sql in found.items() if wanted.get(name) != sql)
    for name in outdated:
        cursor.execute(f"DROP TRIGGER {name}")
    missing = sorted(name for name, sql in wanted.items() if found.get(name) != sql)
    for name in missing:
        cursor.execute(wanted[name])
    return sorted({*outdated, *missing})


# --- PostgreSQL: a function for each table, whose text keeps what it depends on out of the catalogue ---


def write_for_postgresql(watched: Watched) -> str:
    """Return the body of the function that the trigger of a table calls. Its text tells versions apart."""
    lines = [f"-- {' OR '.join(watched.events)}", "BEGIN", "IF TG_OP = 'DELETE' THEN"]
    lines.append(_write_insert_on_postgresql(watched, "OLD", ()))
    if watched.has_insertions:
        lines += ["ELSIF TG_OP = 'INSERT' THEN", _write_insert_on_postgresql(watched, "NEW", watched.changes)]
    if watched.changes:
        lines.append("ELSE")
    for change in watched.changes:
        differs = " OR ".join(f"OLD.{column} IS DISTINCT FROM NEW.{column}" for column in change.columns)
        lines.append(f"IF {_join(f'({differs})', change.condition)} THEN")
        lines += [_write_insert_on_postgresql(watched, "NEW", (change,)), "END IF;"]
    lines += ["END IF;", "RETURN NULL;", "END"]
    return "\n".join(lines)


def _write_insert_on_postgresql(watched: Watched, row: str, changes: Iterable[Change]) -> str:
    is_deletion = "true" if row == "OLD" else "false"
    return (
        f'INSERT INTO {OUTBOX} ("at", "table", "key", "is_deletion", "values") VALUES '  # noqa: S608 — constants
        "(to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), "
        f"'{watched.table}', {row}.id::text, {is_deletion}, "
        f"json_build_object({_write_pairs(watched, row, changes)})::text);"
    )


def _install_on_postgresql(cursor: CursorWrapper, watched: list[Watched]) -> list[str]:
    wanted = {f"{PREFIX}{each.table}": each for each in watched}
    # A trigger and its function have one name; a trigger that was disabled counts as missing.
    cursor.execute(
        "SELECT p.proname, p.prosrc, t.tgrelid::regclass::text FROM pg_proc p"
        " LEFT JOIN pg_trigger t ON t.tgfoid = p.oid AND NOT t.tgisinternal AND t.tgenabled <> 'D'"
        " WHERE p.pronamespace = current_schema()::regnamespace AND starts_with(p.proname, %s)",
        [PREFIX],
    )
    found = {name: (body, table) for name, body, table in cursor.fetchall()}
    bodies = {name: (write_for_postgresql(each), each.table) for name, each in wanted.items()}
    outdated = sorted(name for name, state in found.items() if bodies.get(name) != state)
    for name in outdated:
        cursor.execute(f"DROP FUNCTION {name}() CASCADE")
    missing = sorted(name for name, state in bodies.items() if found.get(name) != state)
    for name in missing:
        body, table = bodies[name]
        events = " OR ".join(wanted[name].events)
        cursor.execute(f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $tombstone${body}$tombstone$")
        cursor.execute(f"CREATE TRIGGER {name} AFTER {events} ON {table} FOR EACH ROW EXECUTE FUNCTION {name}()")
    return sorted({*outdated, *missing})


def _write_pairs(watched: Watched, row: str, changes: Iterable[Change]) -> str:
    columns = [*watched.described_by, *(column for change in changes for column in change.columns)]
    return ", ".join(f"'{column}', {row}.{column}" for column in columns)


def _join(*conditions: str) -> str:
    return " AND ".join(each for each in conditions if each)


def list_columns() -> Iterator[tuple[str, str]]:
    """Yield every table and column that the triggers name."""
    for watched in WATCHED:
        for column in ("id", *watched.described_by):
            yield watched.table, column
        for change in watched.changes:
            for column in change.columns:
                yield watched.table, column
