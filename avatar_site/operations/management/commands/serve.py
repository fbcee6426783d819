"""Translates `manage.py serve`: all processes of one machine under one supervisor."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
import time
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError
from django.db import connection, connections
from django.db.migrations.executor import MigrationExecutor

from avatar_site import env
from avatar_site.operations import database_checks, processes, services
from avatar_site.operations.serving import ServePlan, become_supervisor, describe_role, make_memory_table
from avatar_site.private_files import close_to_others, restrict_new_files
from inference.address import AddressTaken, hold_socket, parse_socket_path
from inference.client import InferenceClient
from inference.interfaces import InferenceError
from realtime.call.prompt import EXAMPLES, Scene, compose_shared


class Command(BaseCommand):
    help = "Run AVATAR: web, worker, beat and inference, until Ctrl-C."
    # Checks run before anything is started; `migrate` has not run yet when --prepare is given.
    requires_migrations_checks = False

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", help="address to serve at (AVATAR_HOST)")
        parser.add_argument("--port", help="port to serve at (AVATAR_PORT)")
        parser.add_argument("--profile", help="which engines: cpu, gpu or fake (AVATAR_PROFILE)")
        parser.add_argument("--data-dir", help="folder of database, recordings and logs (AVATAR_DATA_DIR)")
        parser.add_argument(
            "--inference-address", help="unix:/path or host:port of the inference process (AVATAR_INFERENCE_ADDRESS)"
        )
        parser.add_argument(
            "--only",
            default=",".join(processes.NAMES),
            help="the processes to run here, separated by commas (default: %(default)s)",
        )
        parser.add_argument(
            "--prepare",
            action="store_true",
            help="fetch models, migrate, create the first operator account; then serve",
        )
        parser.add_argument("--status", action="store_true", help="show the processes that run, and leave")

    def handle(self, *args: Any, **options: Any) -> None:
        self._began = time.monotonic()
        _apply_flags(options)
        if options["status"]:
            self._print_status()
            return
        names = tuple(name.strip() for name in options["only"].split(",") if name.strip())
        if not names or not set(names) <= set(processes.NAMES):
            raise CommandError(f"--only {options['only']}: expected some of {', '.join(processes.NAMES)}")
        try:
            with _lock(settings.AVATAR_DATA_DIR / "serve.lock") as lock:
                self._protect_files()
                _check_ports(names)
                self._prepare(names, wanted=options["prepare"])
                # The supervisor needs no database, and children must not share a connection.
                connections.close_all()
                plan = self._make_plan(names, is_verbose=options["verbosity"] > 1)
                become_supervisor(plan, _child_environment(), kept=(lock,))
        except KeyboardInterrupt:
            self._say("Stopped before it was started.")
            sys.exit(130)

    # --- before ---

    def _prepare(self, names: tuple[str, ...], *, wanted: bool) -> None:
        self._new_password = ""
        self._check_database()
        if wanted:
            if "inference" in names:
                self._fetch_models()
            services.prepare_database()
            created = services.ensure_operator(
                username=settings.AVATAR_ADMIN_USERNAME, password=settings.AVATAR_ADMIN_PASSWORD
            )
            if created and not settings.AVATAR_ADMIN_PASSWORD:
                # Said at once, in case the start is interrupted, and again where the address is said.
                self._new_password = created[1]
                self._say(f"Operator account made: {created[0].username}  password: {created[1]}")
        elif MigrationExecutor(connection).migration_plan(MigrationExecutor(connection).loader.graph.leaf_nodes()):
            raise CommandError("The database is not up to date: run `manage.py migrate`, or `serve --prepare`.")

    def _protect_files(self) -> None:
        """Close the data folder to other users of this machine."""
        restrict_new_files()
        for path in close_to_others(settings.AVATAR_DATA_DIR):
            self._say(f"{path} could be read by other users of this machine; it is closed to them now.")

    def _check_database(self) -> None:
        """Raises CommandError if starting would lose something, or serve nothing."""
        if finding := database_checks.find_problem():
            raise CommandError(f"{finding.problem}\n{finding.remedy}")

    def _make_plan(self, names: tuple[str, ...], *, is_verbose: bool) -> ServePlan:
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
            new_password=self._new_password,
            is_verbose=is_verbose,
            began_s=self._began,
        )

    def _fetch_models(self) -> None:
        """Fetch what the profile needs and is not there yet. A process of its own: it shows its progress itself."""
        command = [sys.executable, "-m", "inference.models", "fetch", "--profile", settings.AVATAR_PROFILE]
        if subprocess.run(command, env=_child_environment(), check=False).returncode != 0:  # noqa: S603 — our own module
            raise CommandError(
                "Not all models could be fetched. The same command goes on where it stopped; "
                "without --prepare, AVATAR starts with the models that are there."
            )

    # --- telling ---

    def _say(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()

    def _print_status(self) -> None:
        try:
            # Held by a supervisor that runs; what one that was killed has left behind says nothing.
            with _lock(settings.AVATAR_DATA_DIR / "serve.lock"):
                raise CommandError(f"Nothing runs with the data folder {settings.AVATAR_DATA_DIR}.")
        except AlreadyServing:
            try:
                state = json.loads((settings.AVATAR_DATA_DIR / "serve.json").read_text(encoding="utf-8"))
            except FileNotFoundError:
                raise CommandError("It is being prepared; no process is started yet.") from None
        self._say(state["address"])
        self._say(make_memory_table(state["pids"]))

        async def describe_roles() -> list[str]:
            client = InferenceClient(settings.AVATAR_INFERENCE_ADDRESS, secret=settings.AVATAR_INFERENCE_SECRET)
            try:
                return [describe_role(role) for role in (await client.status()).roles]
            except InferenceError as error:
                return [f"  inference: {error}"]
            finally:
                await client.close()

        for line in asyncio.run(describe_roles()):
            self._say(line)


class AlreadyServing(CommandError):
    """Another supervisor runs with this data folder."""


def make_opening() -> tuple[tuple[str, str], ...]:
    """Return what every conversation begins with: role and content of each message."""
    scene = Scene(settings.AVATAR_SYSTEM_PROMPT, EXAMPLES if settings.AVATAR_EXAMPLES else ())
    return tuple((message.role, message.content) for message in compose_shared(scene))


def _apply_flags(options: dict[str, Any]) -> None:
    """Put what was said by flag into the environment, for our children, and into our own settings."""
    for flag in ("host", "port", "profile", "data_dir", "inference_address"):
        if options[flag] is not None:
            os.environ[f"AVATAR_{flag.upper()}"] = str(options[flag])
    try:
        data_dir = env.folder("AVATAR_DATA_DIR", settings.AVATAR_DATA_DIR)
        if data_dir != settings.AVATAR_DATA_DIR:
            os.environ["AVATAR_DATA_DIR"] = str(data_dir)
            # The database, the queue and the secret key follow from it: begin again with the right one.
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
        raise CommandError(str(error)) from None


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


@contextmanager
def _lock(path: Path) -> Iterator[int]:
    """Hold a lock on the data folder, by a descriptor; the kernel releases it however we end. Raises AlreadyServing."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    file: IO[str]
    with path.open("a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyServing(f"AVATAR already runs with the data folder {path.parent}.") from None
        yield file.fileno()


def _check_ports(names: tuple[str, ...]) -> None:
    """Raises CommandError if a port that is needed is taken: better than a child that dies again and again."""
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
                raise CommandError(f"Port {port} on {host} is taken: choose another one with {setting}.") from None
            raise CommandError(f"Cannot serve at {host}:{port}: {error.strerror}. Choose with {setting}.") from None


def _check_socket(path: Path) -> None:
    """Raises CommandError if an inference process listens there, or none can."""
    setting = "--inference-address or AVATAR_INFERENCE_ADDRESS"
    try:
        with hold_socket(path):
            pass
    except AddressTaken:
        raise CommandError(f"{path} is taken by another inference process: choose another with {setting}.") from None
    except OSError as error:
        raise CommandError(f"Cannot listen on {path}: {error.strerror or error}. Choose with {setting}.") from None
