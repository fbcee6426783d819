"""
The start of `manage.py serve`, under Django: flags, lock, checks, database, models; then the supervisor takes over.

Ends by becoming `operations/serving.py`, which loads no Django.
"""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import connections

from avatar_site import env
from avatar_site.operations import database_checks, processes, services, status_report
from avatar_site.operations.backups.copies import remove_leftovers
from avatar_site.operations.locks import SERVE_LOCK, LockHeld, hold_lock
from avatar_site.operations.serve_state import describe_child, read_state
from avatar_site.operations.serving import ServePlan, become_supervisor, make_memory_table
from avatar_site.private_files import close_to_others, restrict_new_files
from inference.address import AddressTaken, hold_socket, parse_socket_path
from realtime.call.prompt import EXAMPLES, Scene, compose_shared

#: Settings that a flag of the command overrides, for this process and its children.
FLAGS = ("host", "port", "profile", "data_dir", "inference_address")

Say = Callable[[str], None]


class StartRefused(Exception):
    """Raised when AVATAR must not or cannot start. The message says what to do."""


class AlreadyServing(StartRefused):
    """Raised when another supervisor runs with this data folder."""


def apply_flags(flags: Mapping[str, Any]) -> None:
    """
    Put flags into the environment, for the children, and into our own settings. Raises StartRefused.

    Another data folder replaces this process: the database, the queue and the secret key follow from it.
    """
    for flag in FLAGS:
        if flags[flag] is not None:
            os.environ[f"AVATAR_{flag.upper()}"] = str(flags[flag])
    try:
        data_dir = env.folder("AVATAR_DATA_DIR", settings.AVATAR_DATA_DIR)
        if data_dir != settings.AVATAR_DATA_DIR:
            os.environ["AVATAR_DATA_DIR"] = str(data_dir)
            sys.stdout.flush()
            os.execv(sys.executable, [sys.executable, *sys.argv])  # noqa: S606 — ourselves
        settings.AVATAR_HOST = env.text("AVATAR_HOST", settings.AVATAR_HOST)
        settings.AVATAR_PORT = env.whole_number("AVATAR_PORT", settings.AVATAR_PORT, minimum=1, maximum=65535)
        settings.AVATAR_PROFILE = env.choice("AVATAR_PROFILE", settings.AVATAR_PROFILE, ("cpu", "gpu", "fake"))
        settings.AVATAR_INFERENCE_ADDRESS = env.inference_address(
            "AVATAR_INFERENCE_ADDRESS", settings.AVATAR_INFERENCE_ADDRESS
        )
        settings.AVATAR_INFERENCE_SECRET = env.inference_secret(
            "AVATAR_INFERENCE_SECRET", address=settings.AVATAR_INFERENCE_ADDRESS
        )
    except ImproperlyConfigured as error:
        raise StartRefused(str(error)) from None


def serve(*, only: str, prepare: bool, is_backed_up: bool, is_verbose: bool, say: Say) -> NoReturn:
    """
    Check everything that can be checked before a process is started, and become the supervisor. Raises StartRefused.

    `only` names the processes, separated by commas. With `prepare`, models are fetched, the database is migrated,
    with `is_backed_up` after a backup of it, and the first operator account is created.
    """
    began_s = time.monotonic()
    names = tuple(name.strip() for name in only.split(",") if name.strip())
    if not names or not set(names) <= set(processes.NAMES):
        raise StartRefused(f"--only {only}: expected some of {', '.join(processes.NAMES)}")
    if problem := find_interrupted_switch():
        raise StartRefused(problem)
    with _lock(settings.AVATAR_DATA_DIR) as lock:
        restrict_new_files()
        remove_leftovers()
        for path in close_to_others(settings.AVATAR_DATA_DIR):
            say(f"{path} could be read by other users of this machine; it is closed to them now.")
        _check_ports(names)
        if finding := database_checks.check_before_start():
            raise StartRefused(f"{finding.problem}\n{finding.remedy}")
        new_password = ""
        if prepare:
            new_password = _prepare(names, say, is_backed_up=is_backed_up)
        else:
            _check_migrations()
        # The supervisor needs no database, and children must not share a connection.
        connections.close_all()
        plan = _make_plan(names, new_password=new_password, is_verbose=is_verbose, began_s=began_s)
        become_supervisor(plan, _child_environment(), kept=(lock,))


def describe_running() -> Iterator[str]:
    """Yield what `serve --status` prints. Raises StartRefused when nothing runs with the data folder."""
    try:
        # A running supervisor holds the lock; the state file of one that was killed means nothing.
        with _lock(settings.AVATAR_DATA_DIR):
            raise StartRefused(f"Nothing runs with the data folder {settings.AVATAR_DATA_DIR}.")
    except AlreadyServing:
        state = read_state(settings.AVATAR_DATA_DIR)
        if state is None:
            raise StartRefused("It is being prepared; no process is started yet.") from None
    yield state.address
    yield make_memory_table(state.pids)
    yield from filter(None, (describe_child(child, time.time()) for child in state.children))
    yield from status_report.describe(status_report.probe())


def make_opening() -> tuple[tuple[str, str], ...]:
    """Return the messages that every conversation begins with: role and content."""
    scene = Scene(settings.AVATAR_SYSTEM_PROMPT, EXAMPLES if settings.AVATAR_EXAMPLES else ())
    return tuple((message.role, message.content) for message in compose_shared(scene))


def _prepare(names: tuple[str, ...], say: Say, *, is_backed_up: bool) -> str:
    """Fetch models, migrate, create the first operator account. Return its password if it was made up."""
    if "inference" in names:
        say(f"Fetching the models of profile {settings.AVATAR_PROFILE} that are missing …")
        fetching_s = time.monotonic()
        _fetch_models()
        say(f"  models are here, after {time.monotonic() - fetching_s:.1f} s")
    if pending := services.list_pending_migrations():
        if is_backed_up and services.has_users():
            _back_up(say)
        say(f"Migrating the database, in {len(pending)} steps …")
    services.prepare_database(say=say)
    created = services.ensure_operator(username=settings.AVATAR_ADMIN_USERNAME, password=settings.AVATAR_ADMIN_PASSWORD)
    if not created or settings.AVATAR_ADMIN_PASSWORD:
        return ""
    # At once, in case the start is interrupted; the supervisor prints it again with the address.
    say(f"Operator account made: {created[0].username}  password: {created[1]}")
    return created[1]


def _back_up(say: Say) -> None:
    """Back up the database before it is migrated. Raises StartRefused."""
    # Imported here: the library of buckets is loaded only when there is something to migrate.
    from avatar_site.operations import releases

    say(f"Backing up the database into {settings.AVATAR_BACKUP_TARGET} before it is migrated …")
    try:
        created = releases.back_up_database(say=lambda line: say(f"  {line}"))
    except releases.BackupFailed as error:
        raise StartRefused(
            f"The database was not backed up: {error}\nNothing was migrated. Once that is mended, the same command "
            "goes on; with --without-backup, it migrates without a backup, and there is no way back."
        ) from error
    say(f"  backup {created.manifest.name} took {created.took_s:.1f} s")


def _check_migrations() -> None:
    if services.list_pending_migrations():
        raise StartRefused("The database is not up to date: run `manage.py migrate`, or `serve --prepare`.")


def _make_plan(names: tuple[str, ...], *, new_password: str, is_verbose: bool, began_s: float) -> ServePlan:
    return ServePlan(
        names=names,
        data_dir=str(settings.AVATAR_DATA_DIR),
        profile=settings.AVATAR_PROFILE,
        host=settings.AVATAR_HOST,
        port=settings.AVATAR_PORT,
        is_behind_proxy=settings.AVATAR_HTTPS,
        inference_address=settings.AVATAR_INFERENCE_ADDRESS,
        inference_secret=settings.AVATAR_INFERENCE_SECRET,
        opening=make_opening(),
        admin_username=settings.AVATAR_ADMIN_USERNAME,
        new_password=new_password,
        is_verbose=is_verbose,
        began_s=began_s,
    )


def _fetch_models() -> None:
    """Fetch the models of the profile that are missing. A separate process, which shows its own progress."""
    command = [sys.executable, "-m", "inference.models", "fetch", "--profile", settings.AVATAR_PROFILE]
    if subprocess.run(command, env=_child_environment(), check=False).returncode != 0:  # noqa: S603 — our own module
        raise StartRefused(
            "Not all models could be fetched. The same command goes on where it stopped; "
            "without --prepare, AVATAR starts with the models that are there."
        )


def _child_environment() -> dict[str, str]:
    return os.environ | {
        "AVATAR_DATA_DIR": str(settings.AVATAR_DATA_DIR),
        "AVATAR_MODELS_DIR": str(settings.AVATAR_MODELS_DIR),
        "AVATAR_PROFILE": settings.AVATAR_PROFILE,
        "AVATAR_INFERENCE_ADDRESS": settings.AVATAR_INFERENCE_ADDRESS,
        "AVATAR_INFERENCE_SECRET": settings.AVATAR_INFERENCE_SECRET,
        "DJANGO_SETTINGS_MODULE": os.environ["DJANGO_SETTINGS_MODULE"],
        "PYTHONPATH": os.pathsep.join(filter(None, [str(settings.BASE_DIR), os.environ.get("PYTHONPATH")])),
        "PYTHONUNBUFFERED": "1",
    }


def find_interrupted_switch() -> str:
    """Return what to do about a switch of releases that was interrupted; empty if none was, or one is under way."""
    folder = settings.BASE_DIR / ".releases"
    if not (folder / "journal.json").exists():
        return ""
    try:
        with hold_lock(folder, "lock"):
            return (
                "An upgrade or a rollback was interrupted: `make upgrade` with the same TO goes on where it stopped, "
                "`make rollback` goes back."
            )
    except LockHeld:
        # The health check of an upgrade starts us.
        return ""


@contextmanager
def _lock(data_dir: Path) -> Iterator[int]:
    """Hold the supervisor's lock on the data folder, by a descriptor. Raises AlreadyServing."""
    try:
        with hold_lock(data_dir, SERVE_LOCK) as lock:
            yield lock
    except LockHeld:
        raise AlreadyServing(f"AVATAR already runs with the data folder {data_dir}.") from None


def _check_ports(names: tuple[str, ...]) -> None:
    """Raise StartRefused if a port is taken, instead of starting a child that dies again and again."""
    wanted = []
    if "web" in names:
        wanted.append((settings.AVATAR_HOST, settings.AVATAR_PORT, "--port or AVATAR_PORT"))
    socket_path = parse_socket_path(settings.AVATAR_INFERENCE_ADDRESS)
    if "inference" in names and socket_path is not None:
        _check_socket(socket_path)
    elif "inference" in names:
        inference_host, _, inference_port = settings.AVATAR_INFERENCE_ADDRESS.rpartition(":")
        wanted.append(
            (inference_host.strip("[]"), int(inference_port), "--inference-address or AVATAR_INFERENCE_ADDRESS")
        )
    for host, port, setting in wanted:
        try:
            family, kind, protocol, _, endpoint = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(endpoint)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise StartRefused(f"Port {port} on {host} is taken: choose another one with {setting}.") from None
            raise StartRefused(f"Cannot serve at {host}:{port}: {error.strerror}. Choose with {setting}.") from None


def _check_socket(path: Path) -> None:
    """Raise StartRefused if an inference process listens there, or none can."""
    setting = "--inference-address or AVATAR_INFERENCE_ADDRESS"
    try:
        with hold_socket(path):
            pass
    except AddressTaken:
        raise StartRefused(f"{path} is taken by another inference process: choose another with {setting}.") from None
    except OSError as error:
        raise StartRefused(f"Cannot listen on {path}: {error.strerror or error}. Choose with {setting}.") from None
