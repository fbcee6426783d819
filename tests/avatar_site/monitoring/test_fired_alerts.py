"""Alerts fired by what they are of: a full disk, a memory limit, killed processes, engines that fail, a stuck queue."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import redis
from celery import Celery
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from django.conf import settings as django_settings
from django.contrib.auth.models import User
from django.core.cache import cache
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db import connections
from django.utils import timezone
from pytest_django import Settings

from avatar_site.celery_broker import install_transport
from avatar_site.lib import metrics, stored_files
from avatar_site.lib.metrics import Stage
from avatar_site.lib.ram import read_ram
from avatar_site.monitoring import certificates, reporting, sampling
from avatar_site.monitoring.models import Alert
from avatar_site.monitoring.samples import SampleValues
from avatar_site.operations.heartbeat_files import HeartbeatFile
from avatar_site.operations.serve_state import read_state
from conversations import orphans, retention
from conversations.models import Turn
from inference.client import InferenceClient
from tests import factories
from tests.avatar_site.monitoring.test_watching import read_open, watch
from tests.ports import find_free_port
from tests.processes import OutputProcess, tie_to_tests
from voices.services import delete_orphans

MIB = 2**20


@pytest.fixture
def now() -> dt.datetime:
    return timezone.now().replace(second=12, microsecond=0)


# --- the machine ---


@pytest.fixture
def small_disk(data_dir: Path) -> Iterator[Path]:
    """The data folder on a disk of 64 MiB."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(data_dir)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount")
    (data_dir / "queue" / "messages").mkdir(parents=True)
    yield data_dir
    subprocess.run(["umount", str(data_dir)], check=True)


@pytest.mark.django_db
class TestDiskSpace:
    def test_is_fired_by_a_disk_that_fills_up(self, settings: Settings, small_disk: Path, now: dt.datetime) -> None:
        settings.AVATAR_ALERT_DISK_GB = 40 / 1024
        later = watch(now)
        empty = read_open("disk_space")

        (small_disk / "large").write_bytes(bytes(30 * MIB))
        later = watch(later)
        fuller = set(Alert.objects.values_list("condition", "severity"))
        (small_disk / "larger").write_bytes(bytes(30 * MIB))
        later = watch(later)
        full = set(Alert.objects.values_list("condition", "severity"))
        # Between the thresholds.
        (small_disk / "large").write_bytes(bytes(22 * MIB))
        (small_disk / "larger").unlink()
        later = watch(later, minutes=5)
        near = read_open("disk_space")
        (small_disk / "large").unlink()
        watch(later, minutes=2)

        assert empty == set()
        assert ("disk_space", "warning") in fuller
        assert ("disk_space", "error") in full
        assert near == {("disk_space", "data")}
        assert read_open("disk_space") == set()

    def test_is_survived_by_the_watch(self, small_disk: Path, now: dt.datetime) -> None:
        """The database is on another disk here; the lock, and what is remembered of secrets, are not."""
        with suppress(OSError):
            (small_disk / "large").write_bytes(bytes(65 * MIB))

        watch(now)

        assert read_open("disk_space") == {("disk_space", "data")}


#: Allocates what it is told to, and tells when it has.
_ALLOCATE = """
import sys
held = b""
for line in sys.stdin:
    held = b""
    held = bytearray(b"x") * (int(line) * 2**20)
    print("done", flush=True)
"""


class Hog:
    """A process in a cgroup of 128 MiB."""

    def __init__(self, folder: Path, limit_file: str) -> None:
        self._folder = folder
        (folder / limit_file).write_text(str(128 * MIB))
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-c", _ALLOCATE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        (folder / "cgroup.procs").write_text(str(self._process.pid))
        self.proc_cgroup = Path(f"/proc/{self._process.pid}/cgroup")

    def allocate(self, mib: int) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{mib}\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "done\n"

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def make_cgroup() -> tuple[Path, str]:
    """Make a cgroup that can limit memory, of either version. Return its folder, and the file of the limit."""
    for root, limit_file in (("/sys/fs/cgroup", "memory.max"), ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")):
        folder = Path(root) / f"avatar-test-{os.getpid()}"
        with suppress(OSError):
            folder.mkdir()
            if (folder / limit_file).exists():
                return folder, limit_file
            folder.rmdir()
    pytest.skip("no right to limit memory")


@pytest.fixture
def hog() -> Iterator[Hog]:
    folder, limit_file = make_cgroup()
    try:
        hog = Hog(folder, limit_file)
        yield hog
        hog.close()
    finally:
        folder.rmdir()


@pytest.mark.django_db
class TestMemory:
    def test_is_fired_by_the_limit_of_a_cgroup(
        self, data_dir: Path, now: dt.datetime, hog: Hog, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sampling, "read_ram", partial(read_ram, proc_cgroup=hog.proc_cgroup))
        hog.allocate(20)
        later = watch(now)
        before = read_open("memory")

        hog.allocate(116)
        later = watch(later, minutes=2)
        soon = read_open("memory")
        later = watch(later)
        full = read_open("memory")
        hog.allocate(20)
        watch(later, minutes=2)

        assert (before, soon) == (set(), set())
        assert full == {("memory", "ram")}
        assert read_open("memory") == set()


# --- processes and engines ---


def make_environment(data_dir: Path, **environment: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AVATAR_", "DJANGO_"))}
    return {**kept, "AVATAR_ENV_FILE": "", "AVATAR_DATA_DIR": str(data_dir), "AVATAR_PROFILE": "fake", **environment}


@pytest.fixture
def ask_real_engines(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The client of the inference process in the test's own data folder."""
    client = InferenceClient(f"unix:{data_dir}/inference.sock")
    monkeypatch.setattr(sampling, "get_inference", lambda: client)
    yield
    sampling.ask(client.close(), timeout_s=5)


def wait_until(is_true: Callable[[], bool], *, timeout_s: float = 30) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < deadline_s, "it never happened"
        threading.Event().wait(0.05)


@pytest.mark.django_db
@pytest.mark.usefixtures("ask_real_engines")
class TestEngines:
    def test_fire_alerts_when_they_fail_to_load(self, data_dir: Path, now: dt.datetime) -> None:
        broken = {"AVATAR_TTS_ENGINES": "no_such_engine,fake", "AVATAR_ENCODER_ENGINES": "no_such_engine"}
        later = self.watch_engines(data_dir, now, minutes=2, **broken)
        opened = read_open()

        self.watch_engines(data_dir, later, minutes=3)

        assert opened == {("role_on_fallback", "tts"), ("model_down", "encoder")}
        alert = Alert.objects.get(condition="role_on_fallback")
        assert alert.figures["engine"] == "fake"
        assert "no_such_engine" in alert.figures["problem"]
        assert read_open() == set()

    def watch_engines(self, data_dir: Path, now: dt.datetime, *, minutes: int, **environment: str) -> dt.datetime:
        process = OutputProcess(
            tie_to_tests([sys.executable, "-m", "inference"]), environment=make_environment(data_dir, **environment)
        )
        try:
            process.wait_for(r"encoder is (ready|unavailable)")
            return watch(now, minutes=minutes)
        finally:
            process.process.terminate()
            process.process.wait(20)
            process.close()


@pytest.mark.django_db
@pytest.mark.usefixtures("data_dir")
class TestWeb:
    def test_fires_an_alert_when_it_is_silent_though_nothing_supervises_it(self, now: dt.datetime) -> None:
        reporting.write_sample("host:1", now.replace(second=0), SampleValues())
        later = watch(now, minutes=5)
        early = read_open("process_down")

        later = watch(later, minutes=2)
        silent = read_open("process_down")
        reporting.write_sample("host:2", later.replace(second=0), SampleValues())
        watch(later, minutes=3)

        assert ("process_down", "web") not in early
        assert ("process_down", "web") in silent
        assert ("process_down", "web") not in read_open("process_down")


@pytest.mark.django_db
class TestWorkersWithoutASupervisor:
    def test_fire_an_alert_when_they_send_no_heartbeats(self, data_dir: Path, now: dt.datetime) -> None:
        files = {name: HeartbeatFile(data_dir, name) for name in ("worker", "beat")}
        for file in files.values():
            file.renew()
        later = watch(now, minutes=1)
        alive = read_open("process_down")

        # Only beat goes on.
        for _ in range(3):
            set_age(data_dir, "beat", later)
            later = watch(later)
        dead = read_open("process_down")
        set_age(data_dir, "worker", later + dt.timedelta(minutes=3))
        set_age(data_dir, "beat", later + dt.timedelta(minutes=3))
        watch(later, minutes=3)

        assert {subject for _, subject in alive} & files.keys() == set()
        assert {subject for _, subject in dead} & files.keys() == {"worker"}
        assert {subject for _, subject in read_open("process_down")} & files.keys() == set()

    def test_are_forgotten_when_they_left_for_good(self, data_dir: Path, now: dt.datetime) -> None:
        HeartbeatFile(data_dir, "worker").renew()

        watch(now + dt.timedelta(days=2), minutes=3)

        assert ("process_down", "worker") not in read_open()


def set_age(data_dir: Path, name: str, at: dt.datetime) -> None:
    """As if the process had sent its last heartbeat then."""
    os.utime(data_dir / "heartbeats" / name, (at.timestamp(), at.timestamp()))


@pytest.mark.django_db
@pytest.mark.usefixtures("ask_real_engines")
class TestProcesses:
    @pytest.mark.timeout(120)
    def test_fire_alerts_when_they_are_killed(self, data_dir: Path, now: dt.datetime) -> None:
        serve = OutputProcess(
            [*(sys.executable, "manage.py", "serve", "--prepare", "--only", "inference")],
            environment=make_environment(data_dir),
            patience_s=60,
        )
        try:
            serve.wait_for(r"^AVATAR is ready: ")
            later = watch(now)
            healthy = self.read_open()
            for deaths in (1, 2, 3, 4):
                pid = self.find_pid(data_dir)
                os.kill(pid, signal.SIGKILL)
                serve.wait_for(rf"(?s)(was killed by SIGKILL.*){{{deaths}}}")
                if deaths < 4:
                    wait_until(lambda killed=pid: self.find_pid(data_dir) not in (0, killed))
            # It is started again in 4 s: two minutes pass in between.
            later = watch(later, minutes=2)
            down = self.read_open()
            wait_until(lambda: self.find_pid(data_dir) != 0)
            wait_until(lambda: not sampling.ask_inference()[1])
            later = watch(later, minutes=3)
            up = self.read_open()
            watch(later + dt.timedelta(minutes=15), minutes=2)

            assert healthy == set()
            assert down == {("process_down", "inference"), ("restart_loop", "inference")}
            assert up == {("restart_loop", "inference")}
            assert self.read_open() == set()
            assert "SIGKILL" in Alert.objects.get(condition="restart_loop").figures["problem"]
        finally:
            serve.process.terminate()
            serve.process.wait(30)
            serve.close()

    def read_open(self) -> set[tuple[str, str]]:
        """Without the supervisor: by the test's clock, minutes ahead, it has not written for long."""
        return {(condition, subject) for condition, subject in read_open() if subject != "supervisor"}

    def find_pid(self, data_dir: Path) -> int:
        state = read_state(data_dir)
        return next((child.pid or 0 for child in state.children), 0) if state else 0


# --- tasks ---


@pytest.mark.django_db
class TestQueues:
    def test_fire_an_alert_when_nobody_takes_a_task(self, data_dir: Path, now: dt.datetime) -> None:
        install_transport()
        messages = str(data_dir / "queue" / "messages")
        app = Celery("test", broker="filesystem://", set_as_current=False)
        app.conf.broker_transport_options = {
            "data_folder_in": messages,
            "data_folder_out": messages,
            "control_folder": str(data_dir / "queue"),
        }
        app.send_task("voices.tasks.renew", queue="celery")
        app.close()
        watch(now)
        early = read_open("queue_stuck")

        later = watch(now + dt.timedelta(minutes=16))
        stuck = read_open("queue_stuck")
        for message in (data_dir / "queue" / "messages").glob("*.msg"):
            message.unlink()
        watch(later, minutes=3)

        assert (early, stuck, read_open("queue_stuck")) == (set(), {("queue_stuck", "celery")}, set())

    def test_fire_an_alert_in_redis_too(
        self, settings: Settings, data_dir: Path, tmp_path: Path, now: dt.datetime
    ) -> None:
        port = find_free_port()
        command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
        server = OutputProcess(tie_to_tests(command))
        try:
            server.wait_for("Ready to accept connections")
            settings.REDIS_URL = f"redis://127.0.0.1:{port}/0"
            with (
                redis.Redis.from_url(settings.REDIS_URL) as client,
                Celery("test", broker=settings.REDIS_URL, set_as_current=False) as app,
            ):
                for _ in range(2):
                    app.send_task("voices.tasks.renew", queue="celery")
                watch(now)
                # One task is taken, and the next one waits: the queue moves.
                client.rpop("celery")
                watch(now + dt.timedelta(minutes=10))
                watch(now + dt.timedelta(minutes=20))
                moving = read_open("queue_stuck")
                later = watch(now + dt.timedelta(minutes=26))
                stuck = read_open("queue_stuck")
                client.rpop("celery")
                watch(later, minutes=3)
        finally:
            server.close()

        assert (moving, stuck, read_open("queue_stuck")) == (set(), {("queue_stuck", "celery")}, set())


@pytest.mark.django_db
@pytest.mark.usefixtures("data_dir", "media_root")
class TestSweeps:
    def test_fire_alerts_when_they_are_refused(self, now: dt.datetime, monkeypatch: pytest.MonkeyPatch) -> None:
        cache.clear()
        monkeypatch.setattr(stored_files, "MIN_ORPHAN_AGE", dt.timedelta(0))
        for number in range(11):
            for folder in (f"voices/77/{uuid.uuid4()}", "conversations/77"):
                default_storage.save(f"{folder}/{number}.flac", ContentFile(b"x"))
        # Files are as old as the clock of the machine says.
        moment = timezone.now() + dt.timedelta(seconds=1)
        with pytest.raises(orphans.DoubtfulOrphans):
            orphans.remove_orphans(now=moment)
        delete_orphans(now=moment)
        later = watch(now)
        refused = read_open("sweep_refused")

        orphans.remove_orphans(now=moment, is_forced=True)
        delete_orphans(now=moment, is_forced=True)
        watch(later, minutes=3)

        assert refused == {("sweep_refused", "storage"), ("sweep_refused", "voices")}
        assert read_open("sweep_refused") == set()

    def test_fire_an_alert_of_a_retention_that_the_storage_stops(
        self, settings: Settings, now: dt.datetime, alice: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings.AVATAR_RETENTION_AUDIO_DAYS = 1
        for _ in range(stored_files.MAX_FAILURES):
            turn = factories.create_turn(factories.create_conversation(alice), audio=factories.make_flac())
            Turn.objects.filter(pk=turn.pk).update(created_at=now - dt.timedelta(days=9))
        started_at = now - dt.timedelta(hours=3)
        with monkeypatch.context() as patched:
            patched.setattr(type(default_storage._wrapped), "delete", refuse)  # type: ignore[attr-defined]
            with suppress(Exception):
                retention.purge_expired(now=started_at)
        later = watch(now)
        unfinished = read_open("retention_unfinished")

        retention.purge_expired(now=later)
        watch(later, minutes=3)

        assert unfinished == {("retention_unfinished", "")}
        assert read_open("retention_unfinished") == set()


def refuse(*arguments: object) -> None:
    raise OSError("the storage is away")


# --- calls ---


@pytest.mark.django_db(transaction=True)
class TestTraffic:
    async def test_fires_alerts_of_what_a_web_process_counts(self, data_dir: Path, now: dt.datetime) -> None:
        metrics.take_minute()
        reporter = reporting.Reporter(process="host:1", now=now)
        for _ in range(5):
            metrics.count_turn()
            metrics.observe_stage(Stage.TTFA, 4.0)
            metrics.count_error("PROCESSING_ERROR")
        metrics.count_lost_turn()
        await reporter.report(now + dt.timedelta(minutes=1))

        later = await asyncio.to_thread(self.watch_in_thread, now + dt.timedelta(minutes=1))
        opened = await asyncio.to_thread(read_open)
        await asyncio.to_thread(self.watch_in_thread, later + dt.timedelta(minutes=12))

        assert opened == {("error_rate", ""), ("latency", ""), ("lost_turns", "")}
        # Nothing answers where tests look for engines.
        assert await asyncio.to_thread(read_open, "error_rate", "latency", "lost_turns") == set()

    def watch_in_thread(self, now: dt.datetime) -> dt.datetime:
        try:
            return watch(now)
        finally:
            connections.close_all()

    async def test_is_reported_by_a_process_that_sees_that_nothing_is_examined(
        self, data_dir: Path, now: dt.datetime, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(reporting, "READING_S", 0.001)
        moments = (now + dt.timedelta(seconds=20 * step) for step in range(100_000))
        running = asyncio.create_task(reporting.run(now=lambda: next(moments)))
        async with asyncio.timeout(20):
            while not await asyncio.to_thread(read_open, "monitoring_stalled"):  # noqa: ASYNC110 — another thread's row
                await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.wait([running])

        def resolve() -> None:
            self.watch_in_thread(next(moments) + dt.timedelta(minutes=3))

        await asyncio.to_thread(resolve)

        assert await asyncio.to_thread(read_open, "monitoring_stalled") == set()


# --- certificate and secrets ---


def write_certificate(path: Path, expires_at: dt.datetime) -> None:
    """Write a self-signed certificate and its key into one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "avatar.example.tw")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(expires_at - dt.timedelta(days=90))
        .not_valid_after(expires_at)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + secret)


@pytest.fixture
def fresh_watcher(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A watcher that has read nothing yet, and its clock."""
    clock = [0.0]
    monkeypatch.setattr(certificates, "watcher", certificates.CertificateWatcher(clock=lambda: clock[0]))
    return clock


@pytest.mark.django_db
@pytest.mark.usefixtures("data_dir")
class TestCertificate:
    def test_fires_an_alert_before_it_expires(
        self, settings: Settings, tmp_path: Path, now: dt.datetime, fresh_watcher: list[float]
    ) -> None:
        path = tmp_path / "fullchain.pem"
        settings.AVATAR_ALERT_CERTIFICATE = str(path)
        write_certificate(path, now + dt.timedelta(days=20))
        later = watch(now)
        opened = read_open("certificate")

        write_certificate(path, now + dt.timedelta(days=90))
        fresh_watcher[0] += certificates.READ_EVERY_S
        watch(later, minutes=3)

        assert (opened, read_open("certificate")) == ({("certificate", "")}, set())

    def test_is_read_from_a_server_even_when_it_has_expired(
        self, tmp_path: Path, now: dt.datetime, fresh_watcher: list[float]
    ) -> None:
        expired_at = now.replace(second=0) - dt.timedelta(days=1)
        write_certificate(tmp_path / "server.pem", expired_at)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "server.pem")
        port = find_free_port()

        async def serve_while_it_is_read() -> certificates.Certificate:
            server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", port, ssl=context)
            async with server:
                return await asyncio.to_thread(certificates.read_certificate, f"127.0.0.1:{port}")

        certificate = asyncio.run(serve_while_it_is_read())

        assert certificate == certificates.Certificate(f"127.0.0.1:{port}", expired_at)

    def test_fires_an_alert_when_it_cannot_be_read(
        self, settings: Settings, tmp_path: Path, now: dt.datetime, fresh_watcher: list[float]
    ) -> None:
        settings.AVATAR_ALERT_CERTIFICATE = str(tmp_path / "none.pem")

        watch(now)

        assert Alert.objects.get(condition="certificate").figures["problem"] == "No such file or directory"


@pytest.mark.django_db
class TestSecrets:
    def test_fire_an_alert_after_a_year_and_until_they_are_replaced(
        self, settings: Settings, data_dir: Path, now: dt.datetime
    ) -> None:
        settings.AVATAR_ALERT_WEBHOOK_SECRET = "the first"
        watch(now)
        later = watch(now + dt.timedelta(days=366))
        opened = read_open("secret_age")

        settings.AVATAR_ALERT_WEBHOOK_SECRET = "the second"
        watch(later, minutes=3)

        assert opened == {("secret_age", "AVATAR_SECRET_KEY"), ("secret_age", "AVATAR_ALERT_WEBHOOK_SECRET")}
        assert read_open("secret_age") == {("secret_age", "AVATAR_SECRET_KEY")}
        remembered = data_dir / "secrets-seen.json"
        assert "the second" not in remembered.read_text()
        assert remembered.stat().st_mode & 0o777 == 0o600

    def test_keep_their_age_when_the_sites_key_is_replaced(
        self, settings: Settings, data_dir: Path, now: dt.datetime
    ) -> None:
        settings.AVATAR_ALERT_WEBHOOK_SECRET = "the first"
        watch(now)
        settings.SECRET_KEY = "another key of the site" * 4

        watch(now + dt.timedelta(days=366))

        assert read_open("secret_age") == {("secret_age", "AVATAR_ALERT_WEBHOOK_SECRET")}

    def test_are_as_old_as_the_file_of_a_generated_one(
        self, settings: Settings, data_dir: Path, now: dt.datetime
    ) -> None:
        (data_dir / "secret_key").write_text(settings.SECRET_KEY)
        old_s = (now - dt.timedelta(days=400)).timestamp()
        os.utime(data_dir / "secret_key", (old_s, old_s))

        watch(now)

        assert read_open("secret_age") == {("secret_age", "AVATAR_SECRET_KEY")}

    def test_are_remembered_anew_when_the_file_is_damaged(self, data_dir: Path, now: dt.datetime) -> None:
        (data_dir / "secrets-seen.json").write_text('{"AVATAR_SECRET_KEY": 7')

        watch(now)

        assert read_open("secret_age") == set()
        assert django_settings.SECRET_KEY not in (data_dir / "secrets-seen.json").read_text()


class TestImports:
    def test_load_nothing_that_most_processes_do_not_need(self) -> None:
        code = """
import django, sys
from avatar_site.celery import app
django.setup()
import avatar_site.monitoring.tasks
print(*sorted({"cryptography", "httpx", "redis"} & set(sys.modules)))
"""
        environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "avatar_site.settings.test"}

        said = subprocess.run(
            [sys.executable, "-c", code], cwd=django_settings.BASE_DIR, env=environment, capture_output=True, text=True
        )

        assert (said.stdout, said.returncode) == ("\n", 0), said.stderr
