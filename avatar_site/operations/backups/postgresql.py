"""Copies of a PostgreSQL database: dumped while others write, loaded into a scratch database, exchanged by renaming."""

from __future__ import annotations

import datetime as dt
import errno
import logging
import os
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import psycopg
from django.db import connection, connections
from psycopg import sql
from psycopg.conninfo import make_conninfo

from avatar_site.operations import die_with_parent
from avatar_site.operations.backups.snapshot import (
    LoadFailed,
    Query,
    Snapshot,
    SnapshotFailed,
    SwapRefused,
    count_rows,
    list_audio_columns,
    list_tables_left_out,
    read_audio_names,
    read_schema,
)

logger = logging.getLogger(__name__)

NAME = "database.pgdump"
#: Where Debian's and Ubuntu's packages install the client tools, one folder per version.
PACKAGED = Path("/usr/lib/postgresql")
#: For how long a dump waits for a migration that changes a table.
LOCK_TIMEOUT_MS = 60_000
#: Maintenance databases: each server has one of these, without user data.
_MAINTENANCE = ("postgres", "template1")
#: PostgreSQL cuts names at 63 bytes; suffixes for the live database's name take up to 24.
_MAX_NAME_BYTES = 38
_TIME_FORMAT = "%Y%m%dt%H%M%Sz"
#: Lines of a client tool's complaint that are passed on.
_MAX_LINES = 5
#: But for that of the C library, whose locale is LC_COLLATE and LC_CTYPE.
_LOCALE_PROVIDERS = {"i": "ICU", "b": "BUILTIN"}
_SECRETS = ("password", "sslpassword")

#: User tables in the order of their names: ours are where Django finds them, in the search path.
_LIST_TABLES = (
    "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE c.relkind IN ('r', 'p') AND pg_table_is_visible(c.oid)"
    " AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp)'"
    " ORDER BY 1"
)
_LIST_COLUMNS = (
    "SELECT c.relname, a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid"
    " WHERE pg_table_is_visible(c.oid) AND a.attnum > 0 AND NOT a.attisdropped"
)


def take(folder: Path, *, find_now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC)) -> Snapshot:
    """
    Dump the live database into a folder while others write, without logins and the cache. Deleted rows are not in it.

    Rows are counted, and names read, in the transaction whose snapshot the dump uses. Raises SnapshotFailed, and
    OSError when the disk is full.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / NAME
    path.unlink(missing_ok=True)
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        with _connect(_find_live_name(), failure=SnapshotFailed) as live:
            live.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            live.read_only = True
            live.autocommit = False
            taken_at = find_now()
            # The transaction's first statement: it fixes the moment.
            ((snapshot_id,),) = live.execute("SELECT pg_export_snapshot()").fetchall()
            snapshot = _describe(live, path, taken_at)
            options = [f"--exclude-table-data={_quote_pattern(table)}" for table in list_tables_left_out()]
            _run_tool(
                "pg_dump",
                live.info.server_version,
                [
                    "--format=custom",
                    f"--file={path}",
                    f"--snapshot={snapshot_id}",
                    f"--lock-wait-timeout={LOCK_TIMEOUT_MS}",
                    *options,
                ],
                database=live.info.dbname,
                failure=SnapshotFailed,
            )
    except psycopg.Error as error:
        path.unlink(missing_ok=True)
        raise SnapshotFailed(f"The database could not be dumped: {_describe_error(error)}.") from error
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    _sync(path)
    _sync(folder)
    return snapshot


@dataclass(slots=True)
class Scratch:
    """A scratch database of this run. An open connection marks it as in use for other runs."""

    name: str
    #: As DATABASE_URL takes it. It may have the password in it.
    url: str = field(repr=False)
    lease: psycopg.Connection[Any] = field(repr=False)

    def drop(self) -> None:
        """Drop it, and end its connections. A failure is logged: the next run tries again."""
        self.lease.close()
        try:
            with _connect_maintenance() as server:
                # Nothing but our own children can be connected to it.
                server.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(self.name)))
        except (psycopg.Error, LoadFailed):
            logger.exception("the scratch database %s is left to the next run", self.name)


def load(dump: Path) -> Scratch:
    """
    Load a dump into a new database on the server of the live one. The caller drops it, or swaps it in.

    Owners and privileges are those of our own role. A killed run's scratch is dropped first. Raises LoadFailed.
    """
    scratch = _create_scratch()
    try:
        _run_tool(
            "pg_restore",
            scratch.lease.info.server_version,
            ["--exit-on-error", "--no-owner", "--no-privileges", f"--dbname={_make_conninfo(scratch.name)}", str(dump)],
            database=None,
            failure=LoadFailed,
        )
        # What the planner knows is not in a dump, and the first queries are the check's.
        scratch.lease.execute("ANALYZE")
    except psycopg.Error as error:
        scratch.drop()
        raise LoadFailed(f"The dump could not be loaded: {_describe_error(error)}.") from error
    except BaseException:
        scratch.drop()
        raise
    return scratch


def check_replaceable() -> None:
    """Raise SwapRefused if anything is connected to the live database, or our role may not rename it."""
    connections.close_all()
    with _connect_maintenance() as server:
        _check_rights(server, _find_live_name())
        _check_sessions(server, _find_live_name())


def swap(scratch: Scratch, *, now: dt.datetime) -> str | None:
    """
    Give a scratch database the name of the live one, in one transaction. Return the name that the live one has now.

    None if there was none. Terminates no session: raises SwapRefused, and says who is connected. Of earlier databases
    that were replaced only the last is kept.
    """
    connections.close_all()
    live = _find_live_name()
    before = f"{_cut(live)}_before_{now.astimezone(dt.UTC):{_TIME_FORMAT}}"
    with _connect_maintenance() as server, _holding_scratch_lock(server, live):
        exists = _has_database(server, live)
        if exists:
            _check_rights(server, live)
            _check_sessions(server, live)
            _copy_settings(server, live, scratch)
        scratch.lease.close()
        try:
            with server.transaction():
                if exists:
                    _rename(server, live, before)
                _rename(server, scratch.name, live)
        except psycopg.errors.ObjectInUse as error:
            _check_sessions(server, live)
            raise SwapRefused(f"Something is connected to the database: {_describe_error(error)}.") from error
        except psycopg.Error as error:
            raise SwapRefused(f"The databases could not be renamed: {_describe_error(error)}.") from error
        if exists:
            _drop_older(server, _make_before_pattern(live), keep=before)
    return before if exists else None


def remove_replaced(*, before: dt.datetime) -> list[str]:
    """Drop the databases that swaps kept before then. Return their names. Raises LoadFailed."""
    live = _find_live_name()
    newest = f"{_cut(live)}_before_{before.astimezone(dt.UTC):{_TIME_FORMAT}}"
    with connection.cursor() as cursor:
        cursor.execute("SELECT datname FROM pg_database WHERE datname ~ %s", [_make_before_pattern(live)])
        # The time is at the end of the name, the newest last.
        old = sorted(name for (name,) in cursor.fetchall() if name < newest)
    if old:
        with _connect_maintenance() as server:
            for name in old:
                server.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(name)))
    return old


def _create_scratch() -> Scratch:
    live = _find_live_name()
    prefix = f"{_cut(live)}_restore_"
    name = f"{prefix}{secrets.token_hex(4)}"
    with _connect_maintenance() as server, _holding_scratch_lock(server, live):
        # Those that a run is at work with have its session, and are not dropped.
        _drop_older(server, rf"^{re.escape(prefix)}[0-9a-f]{{8}}$", keep=name)
        ((may_create,),) = server.execute(
            "SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user"
        ).fetchall()
        if not may_create:
            ((role,),) = server.execute("SELECT current_user").fetchall()
            raise LoadFailed(
                f'{role} may not create the scratch database that a restore needs: ALTER ROLE "{role}" CREATEDB;'
            )
        try:
            server.execute(_write_create(server, live, name))
        except psycopg.Error as error:
            raise LoadFailed(f"No scratch database could be made: {_describe_error(error)}.") from error
        lease = _connect(name, failure=LoadFailed)
    return Scratch(name, make_url(name), lease)


def _write_create(server: psycopg.Connection[Any], live: str, name: str) -> sql.Composed:
    """Write CREATE DATABASE so that texts sort and compare as they do in the live one."""
    create = sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name))
    # As JSON: versions 15 and 17 added and renamed columns.
    found = server.execute(
        "SELECT to_jsonb(d), pg_encoding_to_char(encoding) FROM pg_database d WHERE datname = %s", [live]
    ).fetchone()
    if not found:
        return create + sql.SQL(" ENCODING 'UTF8'")
    row, encoding = found
    options = {"ENCODING": encoding, "LC_COLLATE": row["datcollate"], "LC_CTYPE": row["datctype"]}
    provider = _LOCALE_PROVIDERS.get(row.get("datlocprovider", "c"))
    if provider:
        options |= {"LOCALE_PROVIDER": provider, f"{provider}_LOCALE": row.get("datlocale") or row.get("daticulocale")}
    for option, value in options.items():
        create += sql.SQL(f" {option} {{}}").format(sql.Literal(value))
    return create


def _describe(live: psycopg.Connection[Any], path: Path, taken_at: dt.datetime) -> Snapshot:
    def query(statement: str) -> list[tuple[Any, ...]]:
        return live.execute(statement).fetchall()

    tables = [table for (table,) in query(_LIST_TABLES)]
    # A database of a version before a column has it not yet.
    columns = set(list_audio_columns()) & set(query(_LIST_COLUMNS))
    return Snapshot(
        path=path,
        vendor="postgresql",
        taken_at=taken_at,
        row_counts=count_rows(query, tables),
        audio_names=read_audio_names(query, columns),
        schema=read_schema(query) if "django_migrations" in tables else {},
    )


def list_tables(query: Query) -> list[str]:
    """Return the tables that we have."""
    return [table for (table,) in query(_LIST_TABLES)]


def _find_live_name() -> str:
    """Return the name of the live database. A service of libpq may have it, instead of the settings."""
    return str(connection.settings_dict["NAME"]) or _find_service_name()


def _find_service_name() -> str:
    with _connect(None, failure=LoadFailed) as live:
        return live.info.dbname


def _read_parameters() -> dict[str, Any]:
    """Return libpq's connection parameters, without Django's own."""
    known = {option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults()}
    return {key: value for key, value in connection.get_connection_params().items() if key in known}


def _connect(database: str | None, *, failure: type[Exception]) -> psycopg.Connection[Any]:
    parameters = _read_parameters() | ({"dbname": database} if database else {})
    try:
        return psycopg.connect(**parameters, autocommit=True)
    except psycopg.OperationalError as error:
        raise failure(f"PostgreSQL does not let us in: {_describe_error(error)}.") from error


def _connect_maintenance() -> psycopg.Connection[Any]:
    """Connect to a database that is not ours: a database cannot be renamed from within."""
    try:
        return _connect(_MAINTENANCE[0], failure=LoadFailed)
    except LoadFailed:
        return _connect(_MAINTENANCE[1], failure=LoadFailed)


@contextmanager
def _holding_scratch_lock(server: psycopg.Connection[Any], live: str) -> Iterator[None]:
    """Keep other runs from dropping a scratch database while it has no session."""
    key = f"avatar scratch databases of {live}"
    server.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", [key])
    try:
        yield
    finally:
        if not server.closed:
            server.execute("SELECT pg_advisory_unlock(hashtextextended(%s, 0))", [key])


def _has_database(server: psycopg.Connection[Any], name: str) -> bool:
    return bool(server.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone())


def _check_rights(server: psycopg.Connection[Any], live: str) -> None:
    found = server.execute(
        "SELECT pg_has_role(datdba, 'USAGE') AND (SELECT rolcreatedb OR rolsuper FROM pg_roles"
        " WHERE rolname = current_user), pg_get_userbyid(datdba), current_user FROM pg_database WHERE datname = %s",
        [live],
    ).fetchone()
    if found and not found[0]:
        _, owner, role = found
        raise SwapRefused(
            f"The database {live} belongs to {owner}; {role} may not rename it. It has to be its owner, and may "
            f'create databases: ALTER DATABASE "{live}" OWNER TO "{role}"; ALTER ROLE "{role}" CREATEDB;'
        )


def _check_sessions(server: psycopg.Connection[Any], live: str) -> None:
    found = server.execute(
        "SELECT coalesce(usename, '?'), coalesce(nullif(application_name, ''), 'a program'),"
        " coalesce(host(client_addr), 'this machine'), count(*) FROM pg_stat_activity"
        # Autovacuum leaves by itself when a database is renamed.
        " WHERE datname = %s AND pid <> pg_backend_pid() AND backend_type IS DISTINCT FROM 'autovacuum worker'"
        " GROUP BY 1, 2, 3 ORDER BY 4 DESC, 1, 2, 3",
        [live],
    ).fetchall()
    if found:
        total = sum(count for *_, count in found)
        who = ", ".join(f"{user} with {program} from {address} ({count})" for user, program, address, count in found)
        sessions = "1 session" if total == 1 else f"{total} sessions"
        raise SwapRefused(f"The database {live} is in use by {sessions}: {who}. Stop what is connected first.")


def _copy_settings(server: psycopg.Connection[Any], live: str, scratch: Scratch) -> None:
    """Give the scratch database what `ALTER DATABASE … SET` gave the live one: a dump does not have it."""
    rows = server.execute(
        "SELECT unnest(setconfig) FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase"
        " WHERE d.datname = %s AND s.setrole = 0",
        [live],
    ).fetchall()
    for (setting,) in rows:
        name, _, value = setting.partition("=")
        try:
            # By way of the session: some settings are lists of names, which are quoted in their own way.
            scratch.lease.execute("SELECT set_config(%s, %s, false)", [name, value])
            scratch.lease.execute(
                sql.SQL("ALTER DATABASE {} SET {} FROM CURRENT").format(
                    sql.Identifier(scratch.name), sql.Identifier(*name.split("."))
                )
            )
        except psycopg.Error as error:
            logger.warning("the setting %s of the database is not taken over: %s", setting, _describe_error(error))


def _rename(server: psycopg.Connection[Any], name: str, new_name: str) -> None:
    server.execute(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(sql.Identifier(name), sql.Identifier(new_name)))


def _drop_older(server: psycopg.Connection[Any], pattern: str, *, keep: str) -> None:
    """Drop the databases of a kind, but for one, and for those that are in use."""
    found = server.execute(
        "SELECT datname FROM pg_database d WHERE datname ~ %s AND datname <> %s AND pg_has_role(datdba, 'USAGE')"
        " AND NOT EXISTS (SELECT 1 FROM pg_stat_activity a WHERE a.datid = d.oid"
        " AND a.backend_type IS DISTINCT FROM 'autovacuum worker') ORDER BY 1",
        [pattern, keep],
    ).fetchall()
    for (name,) in found:
        try:
            server.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(name)))
        except psycopg.Error as error:
            logger.warning("the database %s, which is not needed any more, is not dropped: %s", name, error)


def _make_before_pattern(live: str) -> str:
    return rf"^{re.escape(_cut(live))}_before_[0-9]{{8}}t[0-9]{{6}}z$"


def _cut(name: str) -> str:
    return name.encode()[:_MAX_NAME_BYTES].decode(errors="ignore")


def make_url(database: str) -> str:
    """Return a DATABASE_URL for another database on our server. It may contain the password."""
    parameters = {key: str(value) for key, value in _read_parameters().items()}
    # A service may name another database.
    options = {
        key: value for key, value in parameters.items() if key not in ("dbname", "user", "password", "client_encoding")
    }
    user = quote(parameters.get("user", ""), safe="")
    password = f":{quote(parameters['password'], safe='')}" if "password" in parameters else ""
    query = f"?{urlencode(options, quote_via=quote)}" if options else ""
    return f"postgres://{user}{password}@/{quote(database, safe='')}{query}"


def _make_conninfo(database: str) -> str:
    """Return a client tool's command-line arguments without the password: all users of the machine can read them."""
    parameters = {key: value for key, value in _read_parameters().items() if key not in _SECRETS}
    return make_conninfo(**(parameters | {"dbname": database}))


def _run_tool(
    name: str, server_version: int, arguments: Sequence[str], *, database: str | None, failure: type[Exception]
) -> None:
    parameters = _read_parameters()
    if "sslpassword" in parameters:
        raise failure("DATABASE_URL has an sslpassword, which cannot be given to pg_dump: use a key without one.")
    tool = find_tool(name, server_version // 10_000, failure=failure)
    target = [f"--dbname={_make_conninfo(database)}"] if database else []
    environment = {key: value for key, value in os.environ.items() if key != "DATABASE_URL"}
    if "password" in parameters:
        environment["PGPASSWORD"] = str(parameters["password"])
    command = [str(tool), "--no-password", *target, *arguments]
    # It ends with us: one that went on would hold the scratch database.
    tied = [sys.executable, "-I", "-S", die_with_parent.__file__, str(os.getpid()), *command]
    done = subprocess.run(tied, env=environment, capture_output=True, text=True, errors="replace", check=False)  # noqa: S603 — ours
    if done.returncode != 0:
        said = " ".join(done.stderr.split("\n")[:_MAX_LINES]).strip()
        if "No space left on device" in said:
            raise OSError(errno.ENOSPC, said)
        raise failure(f"{name} failed: {said or f'exit status {done.returncode}'}")


def find_tool(
    name: str,
    major: int,
    *,
    failure: type[Exception],
    packaged: Path = PACKAGED,
    environment: Mapping[str, str] = os.environ,
) -> Path:
    """
    Find a client tool of the server's major version: an older one refuses the server, a newer one writes what the
    server does not understand.
    """
    found: list[str] = []
    on_path = shutil.which(name, path=environment.get("PATH"))
    candidates = [packaged / str(major) / "bin" / name, *([Path(on_path)] if on_path else [])]
    for tool in candidates:
        if not tool.is_file():
            continue
        said = subprocess.run([str(tool), "--version"], capture_output=True, text=True, check=False).stdout  # noqa: S603
        match = re.search(r"\(PostgreSQL\) ([0-9]+)", said)
        if match and int(match[1]) == major:
            return tool
        found.append(f"{tool} is of version {match[1] if match else 'unknown'}")
    raise failure(
        f"The server is PostgreSQL {major}, and {name} of that version is not installed"
        f"{f' ({found[0]})' if found else ''}: install postgresql-client-{major}."
    )


def _quote_pattern(table: str) -> str:
    """Write a name as pg_dump's patterns take it: quoted, nothing in it is a wildcard."""
    return '"{}"'.format(table.replace('"', '""'))


def _describe_error(error: BaseException) -> str:
    return str(error).strip().replace("\n", " ").rstrip(".")


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
