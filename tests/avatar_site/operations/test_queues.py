"""The queue of each task; and with real worker processes, that neither queue waits for the other."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from django.conf import settings

from avatar_site.celery import app
from avatar_site.operations import processes, queues
from tests import migrated
from tests.ports import find_free_port
from tests.processes import OutputProcess, tie_to_tests

#: Tasks with a waiting user, or that must not wait for a backup.
_FOR_THE_WORKER = {
    "avatar_site.operations.tasks.replay_spooled_turns",
    "conversations.tasks.render_in_high_quality",
    "voices.tasks.extract_embedding",
    "voices.tasks.finish_deletions",
    "voices.tasks.fit_style",
    "voices.tasks.renew",
    "voices.tasks.requeue_lost_work",
}


class TestQueues:
    def test_each_have_their_tasks(self) -> None:
        app.loader.import_default_modules()

        ours = {name for name in app.tasks if not name.startswith("celery.")}
        assert ours == _FOR_THE_WORKER | set(queues.MAINTENANCE_TASKS)
        assert not _FOR_THE_WORKER & set(queues.MAINTENANCE_TASKS)

    def test_each_have_a_process(self) -> None:
        specs = processes.build_specs(
            names=("worker", "maintenance"), host="127.0.0.1", port=8000, is_behind_proxy=False
        )

        served = {spec.name: spec.command[spec.command.index("--queues") + 1] for spec in specs}
        assert served == {"worker": queues.DEFAULT, "maintenance": queues.MAINTENANCE}


class SilentBucket:
    """Accepts connections and never answers: what asks it hangs until its own time-out."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", find_free_port()))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.was_asked = threading.Event()
        self._connections: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                self._connections.append(connection)
                self.was_asked.set()

    def close(self) -> None:
        # Wakes the thread, which closing alone does not.
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for connection in self._connections:
            connection.close()


class Site:
    """Both workers as the supervisor starts them, a broker, engines that take minutes to hear, and a silent bucket."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.bucket = SilentBucket()
        self.data_dir = folder
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AVATAR_", "DJANGO_"))}
        self._environment = {
            **kept,
            "AVATAR_ENV_FILE": "",
            "AVATAR_PROFILE": "fake",
            "AVATAR_LOG_LEVEL": "DEBUG",
            "AVATAR_DATA_DIR": str(folder),
            "AVATAR_FAKE_RECOGNITION_S": "600",
            "AVATAR_BACKUP_TARGET": "s3://backups",
            "AVATAR_BACKUP_S3_ENDPOINT_URL": self.bucket.url,
            "AVATAR_BACKUP_S3_ACCESS_KEY_ID": "test",
            "AVATAR_BACKUP_S3_SECRET_ACCESS_KEY": "test",
            "DJANGO_SETTINGS_MODULE": "avatar_site.settings.prod",
            "PYTHONPATH": str(settings.BASE_DIR),
            **environment,
        }
        migrated.write_database(folder / "avatar.sqlite3")
        specs = processes.build_specs(
            names=("inference", "worker", "maintenance"), host="127.0.0.1", port=8000, is_behind_proxy=False
        )
        self.processes = {
            spec.name: OutputProcess(tie_to_tests(spec.command), environment=self._environment, patience_s=120)
            for spec in specs
        }
        self.processes["inference"].wait_for("encoder is ready")
        for name in ("worker", "maintenance"):
            self.processes[name].wait_for(r" ready\.")

    def run(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=settings.BASE_DIR,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def ask(self, *lines: str) -> str:
        return self.run("manage.py", "shell", "--no-imports", "--command", "\n".join(lines))

    def close(self) -> None:
        for process in self.processes.values():
            # What hangs would be waited for.
            process.process.kill()
            process.close()
        self.bucket.close()


@pytest.fixture(params=["filesystem", "redis"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    environment: dict[str, str] = {}
    redis: OutputProcess | None = None
    if request.param == "redis":
        port = find_free_port()
        command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
        redis = OutputProcess(tie_to_tests(command))
        redis.wait_for("Ready to accept connections")
        environment["REDIS_URL"] = f"redis://127.0.0.1:{port}/0"
    site = Site(tmp_path / "data", **environment)
    yield site
    site.close()
    if redis is not None:
        redis.close()


class TestWorkers:
    @pytest.mark.timeout(300)
    def test_do_not_wait_for_each_other(self, site: Site) -> None:
        site.ask(
            "from django.contrib.auth.models import User",
            "from tests import factories",
            "for name in ('alice', 'bob'):",
            "    factories.upload_voice(User.objects.create_user(name))",
        )
        worker, maintenance = site.processes["worker"], site.processes["maintenance"]
        worker.wait_for("(?s)extract_embedding: begun.*extract_embedding: begun")

        site.ask(
            "from avatar_site.lib.sqlite_erasure import erase",
            "from avatar_site.monitoring.tasks import watch",
            "erase.delay()",
            "watch.delay()",
        )

        maintenance.wait_for("erase_deleted_words: success")
        maintenance.wait_for("monitoring.tasks.watch: success")
        # Both of its threads hang.
        assert "extract_embedding: success" not in worker.output
        assert {path.name for path in (site.data_dir / "heartbeats").iterdir()} == {"worker", "maintenance"}
        states = site.ask("from voices.models import VoiceJob", "print([job.state for job in VoiceJob.objects.all()])")
        assert re.findall(r"\w+", states) == ["running", "running"]

    @pytest.mark.timeout(300)
    def test_work_while_a_backup_hangs(self, site: Site) -> None:
        # Deleted before, so that there is something to be taken to the target.
        site.ask(
            "from django.contrib.auth.models import User",
            "from tests import factories",
            "factories.create_conversation(User.objects.create_user('alice')).delete()",
            "from avatar_site.operations import tasks",
            "tasks.back_up.delay()",
        )
        worker, maintenance = site.processes["worker"], site.processes["maintenance"]
        assert site.bucket.was_asked.wait(60), maintenance.output

        site.ask(
            "from avatar_site.lib.sqlite_erasure import erase",
            "from avatar_site.monitoring.tasks import watch",
            "from avatar_site.operations import tasks",
            "erase.delay()",
            "watch.delay()",
            "tasks.run_night.delay()",
            "tasks.replay_spooled_turns.delay()",
        )

        maintenance.wait_for("erase_deleted_words: success")
        maintenance.wait_for("monitoring.tasks.watch: success")
        # It has found the lock held, and is queued again instead of waiting.
        maintenance.wait_for("run_night: success")
        worker.wait_for("replay_spooled_turns: success")
        assert not re.search(r"back_up: (success|failure)", maintenance.output)
