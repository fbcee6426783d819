import asyncio
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from django.conf import settings

from avatar_site.operations.serve_state import FILE_NAME, read_state
from avatar_site.operations.serving import ServePlan, Serving
from tests.backup_site import BackupSite
from tests.ports import find_free_port
from tests.processes import OutputProcess


def make_environment() -> dict[str, str]:
    """Without the settings of the tests, and of whoever runs them."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AVATAR_", "DJANGO_"))}
    return environment | {"AVATAR_ENV_FILE": ""}


class Serve(OutputProcess):
    """`manage.py serve` as an operator runs it, with scripted engines and a data folder of its own."""

    def __init__(self, data_dir: Path, *flags: str, port: int | None = None) -> None:
        self.port = port or find_free_port()
        self.data_dir = data_dir
        super().__init__(
            [
                *(sys.executable, "manage.py", "serve"),
                *("--profile", "fake", "--data-dir", str(data_dir), "--port", str(self.port)),
                *flags,
            ],
            environment=make_environment(),
            patience_s=60,
        )

    def pids(self) -> dict[str, int]:
        state = read_state(self.data_dir)
        return {} if state is None else state.pids

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        super().close()


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def first_serve(data_dir: Path) -> Iterator[Serve]:
    """On nothing: it makes the database."""
    serve = Serve(data_dir, "--prepare")
    yield serve
    serve.close()


@pytest.fixture
def serve(data_dir: Path, prepared_data: Path) -> Iterator[Serve]:
    shutil.copytree(prepared_data, data_dir)
    serve = Serve(data_dir, "--prepare")
    yield serve
    serve.close()


def wait_until_gone(pids: list[int], timeout_s: float = 20) -> None:
    _, alive = psutil.wait_procs([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], timeout=timeout_s)
    # Nobody may have waited for an orphan yet; it runs no more.
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []


def wait_until_healthy(address: str) -> str:
    """The status, once `/health` answers 200: the web process asks the engines every two seconds."""
    deadline = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=10) as response:  # noqa: S310 — http
                return str(json.load(response)["status"])
        except urllib.error.HTTPError:
            assert time.monotonic() < deadline


class TestServe:
    def test_prepares_starts_everything_says_where_and_stops(self, first_serve: Serve) -> None:
        serve = first_serve
        address = serve.wait_for(r"AVATAR is ready: (\S+)").group(1)

        assert address == f"http://127.0.0.1:{serve.port}"
        assert wait_until_healthy(address) in ("healthy", "degraded")
        # A new database has nothing that could be lost.
        assert "Backing up" not in serve.output
        for said in (
            "Fetching the models",
            "models are here, after",
            "voices.0001_initial took",
            "Sign in as admin / ",
            "stt    ready",
            "llm    ready",
            "tts    ready",
            "Resident memory:",
        ):
            assert said in serve.output
        pids = serve.pids()
        assert set(pids) == {"supervisor", "web", "worker", "maintenance", "beat", "inference"}

        serve.process.send_signal(signal.SIGTERM)

        assert serve.wait_for_end() == 0
        assert serve.output.endswith("Stopped.\n")
        assert "was killed" not in serve.output
        wait_until_gone(list(pids.values()))
        assert not (serve.data_dir / "serve.json").exists()

    def test_starts_a_process_that_died_again(self, serve: Serve) -> None:
        serve.wait_for("AVATAR is ready")
        before = serve.pids()

        os.kill(before["web"], signal.SIGKILL)
        serve.wait_for("web was killed by SIGKILL; starting it again")

        deadline = time.monotonic() + 30
        while not self._answers(serve.port):
            assert time.monotonic() < deadline
        assert serve.pids()["inference"] == before["inference"]

    def test_serves_on_when_a_process_dies_on_a_full_disk(self, serve: Serve) -> None:
        serve.wait_for("AVATAR is ready")
        pids = serve.pids()
        # Written to, each of these says that no space is left.
        (serve.data_dir / "serve.new").symlink_to("/dev/full")

        os.kill(pids["beat"], signal.SIGKILL)

        serve.wait_for(r"beat was killed by SIGKILL; starting it again")
        serve.wait_for(r"serve.json cannot be written: No space left on device")
        assert wait_until_healthy(f"http://127.0.0.1:{serve.port}") in ("healthy", "degraded")
        assert psutil.pid_exists(pids["web"])

    def test_refuses_to_start_on_a_database_that_is_damaged(self, data_dir: Path) -> None:
        data_dir.mkdir()
        (data_dir / "avatar.sqlite3").write_bytes(b"not a database at all" * 1000)
        serve = Serve(data_dir, "--prepare")

        assert serve.wait_for_end() == 1
        assert "is damaged" in serve.output
        assert "restore the last backup" in serve.output
        serve.close()

    def test_closes_what_other_users_could_read(self, data_dir: Path, prepared_data: Path) -> None:
        shutil.copytree(prepared_data, data_dir)
        data_dir.chmod(0o755)
        serve = Serve(data_dir, "--prepare")
        serve.wait_for("AVATAR is ready")

        assert f"{data_dir} could be read by other users" in serve.output
        open_to_others = [
            path for path in data_dir.rglob("*") if path.lstat().st_mode & 0o077 and not path.is_symlink()
        ]
        assert open_to_others == []
        serve.close()

    def test_leaves_no_orphan_when_it_is_killed(self, serve: Serve) -> None:
        serve.wait_for("AVATAR is ready")
        pids = serve.pids()

        serve.process.kill()

        wait_until_gone(list(pids.values()))

    def test_refuses_a_second_one_on_the_same_data_and_shows_the_first(self, serve: Serve) -> None:
        serve.wait_for("AVATAR is ready")

        second = Serve(serve.data_dir)
        status = Serve(serve.data_dir, "--status", port=serve.port)
        try:
            assert second.wait_for_end() == 1
            assert "already runs with the data folder" in second.output
            assert status.wait_for_end() == 0
            assert f"http://127.0.0.1:{serve.port}" in status.output
            assert re.search(r"inference +pid \d+ +\d+ MiB", status.output)
            for line in (
                r"Health: (healthy|degraded)",
                r"Version \S+, build \S+, profile fake",
                r"  stt    ready  fake",
                r"Sessions: 0 of 5, 0 waiting",
                r"Newest verified backup: none",
                r"RAM: [\d.]+ of [\d.]+ GiB",
                r"Disk: [\d.]+ of [\d.]+ GiB",
            ):
                assert re.search(line, status.output), line
        finally:
            second.close()
            status.close()

    @pytest.mark.parametrize(
        "command",
        [
            ("manage.py", "serve", "--only", "web,worker"),
            ("-m", "avatar_site.web", "--port", "0", "avatar_site.asgi:application"),
            ("-m", "celery", "--app", "avatar_site.celery", "worker", "--pool", "threads"),
        ],
        ids=["serve", "web", "worker"],
    )
    def test_refuses_the_database_of_a_newer_version(self, data_dir: Path, command: tuple[str, ...]) -> None:
        data_dir.mkdir()
        with closing(sqlite3.connect(data_dir / "avatar.sqlite3")) as database, database:
            database.execute("CREATE TABLE django_migrations (id INTEGER, app TEXT, name TEXT, applied TEXT)")
            database.execute("INSERT INTO django_migrations VALUES (1, 'voices', '9999_from_the_future', '2030-01-01')")

        done = subprocess.run(
            [sys.executable, *command],
            cwd=settings.BASE_DIR,
            env=make_environment() | {"AVATAR_DATA_DIR": str(data_dir), "AVATAR_PROFILE": "fake"},
            capture_output=True,
            text=True,
            timeout=60,
        )

        assert done.returncode == 1
        assert "was made by a newer AVATAR: it knows voices.9999_from_the_future" in done.stderr
        assert "Traceback" not in done.stderr

    def test_says_which_port_is_taken(self, data_dir: Path) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            serve = Serve(data_dir, port=port)
            try:
                assert serve.wait_for_end() == 1
                assert f"Port {port} on 127.0.0.1 is taken: choose another one with --port" in serve.output
            finally:
                serve.close()

    def test_says_what_to_do_when_the_database_is_not_up_to_date(self, data_dir: Path) -> None:
        serve = Serve(data_dir)
        try:
            assert serve.wait_for_end() == 1
            assert "run `manage.py migrate`, or `serve --prepare`" in serve.output
        finally:
            serve.close()

    @pytest.mark.parametrize(
        ("flags", "said"),
        [
            (("--port", "http"), "AVATAR_PORT=http: expected a whole number"),
            (("--profile", "tpu"), "AVATAR_PROFILE=tpu: expected one of cpu, gpu, fake"),
            (("--inference-address", "here"), "AVATAR_INFERENCE_ADDRESS=here: expected host:port"),
            (("--inference-address", "127.0.0.1:50051"), "AVATAR_INFERENCE_SECRET is not set"),
            (("--only", "web,database"), "--only web,database: expected some of"),
            (("--status",), "Nothing runs with the data folder"),
        ],
    )
    def test_refuses_what_it_does_not_understand(self, data_dir: Path, flags: tuple[str, ...], said: str) -> None:
        serve = Serve(data_dir, *flags)
        try:
            assert serve.wait_for_end() == 1
            assert said in serve.output
            assert "Traceback" not in serve.output
        finally:
            serve.close()

    def _answers(self, port: int) -> bool:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
        except (urllib.error.URLError, ConnectionError):
            return False
        return True


def make_plan(data_dir: Path, **changes: Any) -> ServePlan:
    plan = ServePlan(
        names=(),
        data_dir=str(data_dir),
        profile="fake",
        host="127.0.0.1",
        port=1,
        is_behind_proxy=False,
        inference_address=f"unix:{data_dir}/none.sock",
        inference_secret="",
        opening=(),
        admin_username="",
        new_password="",
        is_verbose=False,
        began_s=0.0,
    )
    return replace(plan, **changes)


@pytest.fixture(scope="module")
def older_data(tmp_path_factory: pytest.TempPathFactory, prepared_data: Path) -> Path:
    """The data folder of a site whose database lacks the newest tables, as one of the version before it does."""
    site = BackupSite(tmp_path_factory.mktemp("older"))
    shutil.copytree(prepared_data, site.data_dir)
    site.manage("ensure_operator")
    site.manage("migrate", "operations", "zero", "--verbosity", "0")
    return site.data_dir


class TestPrepare:
    @pytest.fixture
    def site(self, older_data: Path, data_dir: Path) -> BackupSite:
        shutil.copytree(older_data, data_dir)
        return BackupSite(data_dir.parent)

    def count_pending(self, site: BackupSite) -> int:
        return site.manage("showmigrations", "operations").count("[ ]")

    def test_backs_up_before_it_migrates_and_says_each_step(self, site: BackupSite, data_dir: Path) -> None:
        serve = Serve(data_dir, "--prepare", "--only", "web")
        try:
            serve.wait_for(r"web    answers")
        finally:
            serve.close()

        assert serve.output.index("Backing up") < serve.output.index("Migrating the database, in ")
        assert re.search(r"^  operations\.0001_\w+ took \d+\.\d s$", serve.output, re.MULTILINE)
        (manifest,) = (data_dir / "backups" / "manifests").glob("*-????.json")
        assert json.loads(manifest.read_text())["reason"] == "before-migration"
        assert "operations" not in json.loads(manifest.read_text())["schema"]
        assert self.count_pending(site) == 0

    def test_does_not_migrate_without_a_backup_unless_told_to(self, site: BackupSite, data_dir: Path) -> None:
        (data_dir / "backups").write_text("no folder")

        refused = Serve(data_dir, "--prepare", "--only", "web")
        assert refused.wait_for_end() == 1
        refused.close()
        pending = self.count_pending(site)
        told = Serve(data_dir, "--prepare", "--only", "web", "--without-backup")
        try:
            told.wait_for(r"web    answers")
        finally:
            told.close()

        assert "Nothing was migrated." in refused.output
        assert "--without-backup" in refused.output
        assert pending > 0
        assert self.count_pending(site) == 0


class CountingServing(Serving):
    """Counts how often the opening was prefilled."""

    prefills = 0

    async def read_opening(self, client: Any) -> None:
        await super().read_opening(client)
        self.prefills += 1


class TestServing:
    async def test_prefills_the_opening_again_when_inference_was_started_again(
        self, data_dir: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        address = f"unix:{data_dir}/inference.sock"
        environment = {"PROFILE": "fake", "DATA_DIR": str(data_dir), "INFERENCE_ADDRESS": address}
        for name, value in environment.items():
            monkeypatch.setenv(f"AVATAR_{name}", value)
        os.makedirs(data_dir, exist_ok=True)  # noqa: PTH103 — nothing waits
        serving = CountingServing(
            make_plan(data_dir, names=("inference",), inference_address=address, opening=(("system", "你好"),))
        )
        running = asyncio.create_task(serving.run())

        async with asyncio.timeout(90):
            while serving.prefills < 1:  # noqa: ASYNC110 — processes of their own
                await asyncio.sleep(0.1)
            os.kill(serving._pids["inference"], signal.SIGKILL)
            while serving.prefills < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.1)

        serving._stop()
        assert await running

    async def test_ends_although_its_note_cannot_be_removed(
        self, data_dir: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        plan = make_plan(data_dir)
        (data_dir / FILE_NAME).mkdir(parents=True)

        assert await Serving(plan).run()
        assert "Stopped." in capsys.readouterr().out
