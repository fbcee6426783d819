"""Translates `manage.py serve`: all processes of one machine under one supervisor."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError
from django.db import connection, connections
from django.db.migrations.executor import MigrationExecutor

from avatar_site import env
from avatar_site.operations import processes, services
from avatar_site.operations.status import is_settled
from avatar_site.operations.supervisor import ChildDied, ChildEvent, ChildStarted, ChildStopped, Supervisor
from inference.client import InferenceClient
from inference.interfaces import InferenceError, RoleState, RoleStatus
from realtime.prompt import EXAMPLES, Scene, compose_shared

POLL_S = 0.25
#: About 550 tokens, at thirty a second on two cores that have nothing else to do.
READ_TIMEOUT_S = 60.0
#: A process that has died so often in a row before it was ready will not get ready by itself.
HOPELESS_DEATHS = 3
MIB = 1024 * 1024


class Command(BaseCommand):
    help = "Run AVATAR: web, worker, beat and inference, until Ctrl-C."
    # Checks run before anything is started; `migrate` has not run yet when --prepare is given.
    requires_migrations_checks = False

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", help="address to serve at (AVATAR_HOST)")
        parser.add_argument("--port", help="port to serve at (AVATAR_PORT)")
        parser.add_argument("--profile", help="which engines: cpu, gpu or fake (AVATAR_PROFILE)")
        parser.add_argument("--data-dir", help="folder of database, recordings and logs (AVATAR_DATA_DIR)")
        parser.add_argument("--inference-address", help="host:port of the inference process (AVATAR_INFERENCE_ADDRESS)")
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
            with _lock(settings.AVATAR_DATA_DIR / "serve.lock"):
                _check_ports(names)
                self._prepare(names, wanted=options["prepare"])
                # The supervisor needs no database, and children must not share a connection.
                connections.close_all()
                is_sound = asyncio.run(self._serve(names, is_verbose=options["verbosity"] > 1))
        except KeyboardInterrupt:
            self._say("Stopped before it was started.")
            sys.exit(130)
        if not is_sound:
            sys.exit(1)

    # --- before ---

    def _prepare(self, names: tuple[str, ...], *, wanted: bool) -> None:
        self._new_password = ""
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

    def _fetch_models(self) -> None:
        """Fetch what the profile needs and is not there yet. A process of its own: it shows its progress itself."""
        command = [sys.executable, "-m", "inference.models", "fetch", "--profile", settings.AVATAR_PROFILE]
        if subprocess.run(command, env=_child_environment(), check=False).returncode != 0:  # noqa: S603 — our own module
            raise CommandError(
                "Not all models could be fetched. The same command goes on where it stopped; "
                "without --prepare, AVATAR starts with the models that are there."
            )

    # --- serving ---

    async def _serve(self, names: tuple[str, ...], *, is_verbose: bool) -> bool:
        """Serve until a signal says stop. Return False if it could not be done."""
        self._deaths: dict[str, int] = {}
        self._is_web_up = "web" not in names
        self._is_sound = True
        self._is_stopping = False
        self._state_file = settings.AVATAR_DATA_DIR / "serve.json"
        self._supervisor = Supervisor(
            processes.build_specs(
                names=names,
                host=settings.AVATAR_HOST,
                port=settings.AVATAR_PORT,
                is_behind_proxy=settings.AVATAR_HTTPS,
            ),
            log_dir=settings.AVATAR_DATA_DIR / "logs",
            environment=_child_environment(),
            on_event=self._on_event,
            on_line=(lambda name, line: self._say(f"{name:<9} | {line}")) if is_verbose else None,
        )
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._stop)
        self._say(f"Starting {', '.join(names)} with profile {settings.AVATAR_PROFILE} …")
        announcing = asyncio.create_task(self._announce(names))
        try:
            await self._supervisor.run()
        finally:
            announcing.cancel()
            with suppress(asyncio.CancelledError):
                await announcing
            self._state_file.unlink(missing_ok=True)
        self._say("Stopped.")
        return self._is_sound

    def _stop(self) -> None:
        self._say("Stopping at once …" if self._is_stopping else "Stopping …")
        self._is_stopping = True
        self._supervisor.stop()

    def _on_event(self, event: ChildEvent) -> None:
        match event:
            case ChildStarted():
                self._write_state()
            case ChildDied(name, code, deaths, restart_in_s, last_lines):
                self._deaths[name] = deaths
                how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
                for line in last_lines:
                    self._say(f"  {name} | {line}")
                if name == "web" and not self._is_web_up and deaths >= HOPELESS_DEATHS:
                    self._say(f"{name} {how}, {deaths} times in a row: giving up.")
                    self._is_sound = False
                    self._stop()
                else:
                    self._say(f"{name} {how}; starting it again in {restart_in_s:g} s")
            case ChildStopped(name, was_killed) if was_killed:
                self._say(f"  {name} did not stop by itself and was killed")

    # --- getting ready ---

    async def _announce(self, names: tuple[str, ...]) -> None:
        """Say how the start goes, and the address when it is done."""
        try:
            if "web" in names:
                await self._wait_for_web()
            is_ready = await self._wait_for_roles()
            self._say(self._memory_table())
            self._say(f"Logs are in {settings.AVATAR_DATA_DIR / 'logs'}")
            if self._new_password:
                self._say(f"Sign in as {settings.AVATAR_ADMIN_USERNAME} / {self._new_password}  (shown only now)")
            address = _url() if "web" in names else f"inference at {settings.AVATAR_INFERENCE_ADDRESS}"
            if is_ready:
                self._say(f"AVATAR is ready: {address}  ({time.monotonic() - self._began:.0f} s, Ctrl-C stops it)")
            else:
                self._say(f"AVATAR serves, but cannot hold a spoken conversation yet (see above): {address}")
        except Exception:
            # Nobody awaits this task while all goes well: what went wrong here must not go unseen, nor serve on.
            self._is_sound = False
            self._supervisor.stop()
            raise

    async def _wait_for_web(self) -> None:
        while not await _answers_http(settings.AVATAR_HOST, settings.AVATAR_PORT):  # noqa: ASYNC110 — another process
            await asyncio.sleep(POLL_S)
        self._is_web_up = True
        self._say("  web    answers")

    async def _wait_for_roles(self) -> bool:
        """Follow the engines until each is ready or has said why not. Return whether all are ready."""
        client = InferenceClient(settings.AVATAR_INFERENCE_ADDRESS)
        told: dict[str, str] = {}
        try:
            while True:
                try:
                    status = await client.status()
                except InferenceError:
                    if self._deaths.get("inference", 0) >= HOPELESS_DEATHS:
                        self._say("  inference does not start; it is tried again and again")
                        return False
                else:
                    for role in status.roles:
                        if told.get(role.role) != (line := _describe(role)):
                            told[role.role] = line
                            self._say(line)
                    if is_settled(status):
                        if status.is_ready:
                            await _read_system_prompt(client)
                        return status.is_ready
                await asyncio.sleep(POLL_S)
        finally:
            await client.close()

    # --- telling ---

    def _say(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()

    def _memory_table(self) -> str:
        return _memory_table({"supervisor": os.getpid(), **self._supervisor.pids})

    def _write_state(self) -> None:
        state = {"address": _url(), "pids": {"supervisor": os.getpid(), **self._supervisor.pids}}
        draft = self._state_file.with_suffix(".new")
        draft.write_text(json.dumps(state), encoding="utf-8")
        draft.replace(self._state_file)

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
        self._say(_memory_table(state["pids"]))

        async def describe_roles() -> list[str]:
            client = InferenceClient(settings.AVATAR_INFERENCE_ADDRESS)
            try:
                return [_describe(role) for role in (await client.status()).roles]
            except InferenceError as error:
                return [f"  inference: {error}"]
            finally:
                await client.close()

        for line in asyncio.run(describe_roles()):
            self._say(line)


class AlreadyServing(CommandError):
    """Another supervisor runs with this data folder."""


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
        settings.AVATAR_INFERENCE_ADDRESS = env.address("AVATAR_INFERENCE_ADDRESS", settings.AVATAR_INFERENCE_ADDRESS)
    except ImproperlyConfigured as error:
        raise CommandError(str(error)) from None


def _child_environment() -> dict[str, str]:
    return os.environ | {
        "AVATAR_DATA_DIR": str(settings.AVATAR_DATA_DIR),
        "AVATAR_MODELS_DIR": str(settings.AVATAR_MODELS_DIR),
        "AVATAR_PROFILE": settings.AVATAR_PROFILE,
        "AVATAR_INFERENCE_ADDRESS": settings.AVATAR_INFERENCE_ADDRESS,
        "DJANGO_SETTINGS_MODULE": os.environ["DJANGO_SETTINGS_MODULE"],
        "PYTHONPATH": os.pathsep.join(filter(None, [str(settings.BASE_DIR), os.environ.get("PYTHONPATH")])),
        "PYTHONUNBUFFERED": "1",
    }


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold a lock on the data folder; the kernel lets go of it however we end. Raises AlreadyServing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file: IO[str]
    with path.open("a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyServing(f"AVATAR already runs with the data folder {path.parent}.") from None
        yield


def _check_ports(names: tuple[str, ...]) -> None:
    """Raises CommandError if a port that is needed is taken: better than a child that dies again and again."""
    wanted = []
    if "web" in names:
        wanted.append((settings.AVATAR_HOST, settings.AVATAR_PORT, "--port or AVATAR_PORT"))
    if "inference" in names:
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


async def _read_system_prompt(client: InferenceClient) -> None:
    """Have the language model read what every conversation begins with, before the first person waits for it."""
    with suppress(InferenceError, TimeoutError):
        async with asyncio.timeout(READ_TIMEOUT_S):
            examples = EXAMPLES if settings.AVATAR_EXAMPLES else ()
            await client.llm.prefill(compose_shared(Scene(settings.AVATAR_SYSTEM_PROMPT, examples)))


async def _answers_http(host: str, port: int) -> bool:
    """Whether somebody speaks HTTP there, whatever is said."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 — compared with, not bound to
    writer = None
    try:
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection(reachable, port)
            writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return (await reader.readline()).startswith(b"HTTP/")
    except (OSError, TimeoutError):
        return False
    finally:
        if writer is not None:
            writer.close()


def _url() -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.AVATAR_HOST, settings.AVATAR_HOST)  # noqa: S104 — as above
    if ":" in host and not host.startswith("["):
        host = f"[{host}]"
    return f"http://{host}:{settings.AVATAR_PORT}"


def _describe(role: RoleStatus) -> str:
    name = f"  {role.role.value:<6} {role.state.value}"
    match role.state:
        case RoleState.READY:
            memory = f", {role.memory_bytes / MIB:.0f} MiB" if role.memory_bytes else ""
            fallback = f"  ({role.reason})" if role.reason else ""
            return f"{name}  {role.engine} {role.model} on {role.device}, {role.load_s:.1f} s{memory}{fallback}"
        case RoleState.UNAVAILABLE:
            return f"{name}: {role.reason}"
        case _:
            return f"{name} … {role.engine} {role.model}".rstrip()


def _memory_table(pids: dict[str, int]) -> str:
    lines, total = [], 0
    for name, pid in pids.items():
        size = processes.measure_memory_bytes(pid, with_children=name != "supervisor")
        total += size or 0
        lines.append(f"  {name:<11} pid {pid:<8} {f'{size / MIB:>6.0f} MiB' if size is not None else 'gone':>10}")
    return "\n".join(["Resident memory:", *lines, f"  {'together':<24} {total / MIB:>6.0f} MiB"])
