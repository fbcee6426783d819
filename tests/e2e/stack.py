"""A running AVATAR for a browser: web, inference and worker, as real as in use, on ports and data of their own."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from inference.address import make_default_address
from tests import migrated
from tests.ports import find_free_port as _find_free_port

# A line for each look at /health says nothing, and there are hundreds in a report of a failure.
logging.getLogger("httpx").setLevel(logging.WARNING)

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "correct horse battery staple"
STRANGERS = ("bob", "carol")
STOP_TIMEOUT_S = 20


class StackFailed(Exception):
    """A process ended, or the whole was not ready in time. The message holds the end of its log."""


class Stack:
    """Starts on entering, ends on leaving. Alice is staff, Bob and Carol are not."""

    def __init__(self, *, profile: str, ready_timeout_s: float, **environment: str) -> None:
        self.profile = profile
        self.ready_timeout_s = ready_timeout_s
        self.data_dir = Path(tempfile.mkdtemp(prefix=f"avatar-e2e-{profile}-"))
        self.port = _find_free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.inference_address = make_default_address(self.data_dir)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        kept = {
            name: value
            for name, value in os.environ.items()
            if name == "AVATAR_MODELS_DIR" or not name.startswith(("AVATAR_", "DATABASE_URL", "REDIS_URL", "DJANGO_"))
        }
        self._environment = {
            **kept,
            "AVATAR_ENV_FILE": "",
            "AVATAR_PROFILE": profile,
            "AVATAR_DATA_DIR": str(self.data_dir),
            "AVATAR_HOST": "127.0.0.1",
            "AVATAR_PORT": str(self.port),
            # Beside other tests, the loop may be late without end.
            "AVATAR_MAX_EVENT_LOOP_LAG_MS": "10000",
            "DJANGO_SETTINGS_MODULE": "tests.e2e.settings",
            "PYTHONPATH": str(ROOT),
            **environment,
        }

    def __enter__(self) -> Self:
        try:
            self._compile_messages()
            migrated.write_database(self.data_dir / "avatar.sqlite3")
            self.manage("createsuperuser", "--noinput", "--username", "alice", "--email", "alice@example.org")
            self.manage(
                "shell",
                "--no-imports",
                "--command",
                "from django.contrib.auth.models import User\n"
                f"for name in {STRANGERS}: User.objects.create_user(name, password={PASSWORD!r})",
            )
            self.start("inference")
            self.start("web")
            self.start("worker")
            self.wait_until_ready()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for name in ("worker", "web", "inference"):
            self.stop(name)
        shutil.rmtree(self.data_dir, ignore_errors=True)

    def start(self, name: str, **environment: str) -> None:
        """Start a process; `environment` is for it alone."""
        command = {
            "inference": ["inference"],
            "web": [
                *("avatar_site.web", "--bind", "127.0.0.1", "--port", str(self.port)),
                "avatar_site.asgi:application",
            ],
            "worker": [
                *("celery", "--app", "avatar_site.celery", "worker", "--pool", "threads", "--concurrency", "2"),
                *("--without-gossip", "--without-mingle", "--without-heartbeat"),
            ],
        }[name]
        with self._log(name).open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=ROOT,
                env=self._environment | environment,
                stdout=log,
                stderr=log,
                start_new_session=True,  # as the supervisor does it: niceness then counts within a process only
            )

    def stop(self, name: str) -> None:
        process = self._processes.pop(name, None)
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def find_pid(self, name: str) -> int:
        return self._processes[name].pid

    def restart_inference(self, **environment: str) -> None:
        """Have the engines follow another script, by `AVATAR_FAKE_*`. Raises StackFailed."""
        self.stop("inference")
        self._wait_until(is_ready=False)  # what the web process knows of engines may be some seconds old
        self.start("inference", **environment)
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """Wait until a conversation is possible. Raises StackFailed."""
        self._wait_until(is_ready=True)

    def _wait_until(self, *, is_ready: bool) -> None:
        deadline = time.monotonic() + self.ready_timeout_s
        while time.monotonic() < deadline:
            for name, process in self._processes.items():
                if process.poll() is not None:
                    raise StackFailed(f"{name} ended with {process.returncode}:\n{self.read_log(name)}")
            if self._is_ready() == is_ready:
                return
            time.sleep(0.2)
        raise StackFailed(
            f"not {'ready' if is_ready else 'away'} in {self.ready_timeout_s} s:\n"
            f"{self.read_log('web')}\n{self.read_log('inference')}"
        )

    def _is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", timeout=5).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def manage(self, *arguments: str) -> str:
        environment = self._environment | {"DJANGO_SUPERUSER_PASSWORD": PASSWORD}
        done = subprocess.run(
            [sys.executable, "manage.py", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
        )
        if done.returncode:
            raise StackFailed(f"manage.py {' '.join(arguments)}:\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def read_log(self, name: str) -> str:
        """The end of what a process has said."""
        log = self._log(name)
        return log.read_text(errors="replace")[-4000:] if log.exists() else ""

    def _log(self, name: str) -> Path:
        return self.data_dir / f"{name}.log"

    def _compile_messages(self) -> None:
        for source in (ROOT / "locale").glob("*/LC_MESSAGES/django.po"):
            compiled = source.with_suffix(".mo")
            if not compiled.exists() or compiled.stat().st_mtime < source.stat().st_mtime:
                subprocess.run(["msgfmt", "--output-file", str(compiled), str(source)], check=True)
