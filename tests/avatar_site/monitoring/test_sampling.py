from __future__ import annotations

import datetime as dt
import os
import subprocess
import time
from pathlib import Path

import pytest
from django.utils import timezone
from pytest_django import Settings

from avatar_site.monitoring import sampling
from avatar_site.monitoring.models import Sample
from avatar_site.monitoring.samples import Gauge, SampleValues
from avatar_site.operations import heartbeat_files
from avatar_site.operations.models import BackupRun, Restore, RunKind, RunState
from avatar_site.operations.serve_state import FILE_NAME, ChildState, ServeState
from avatar_site.operations.status import find_backed_up_at
from inference.interfaces import DeviceMemory, InferenceStatus, Role, RoleState, RoleStatus
from tests.ports import find_free_port

MIB = 2**20


def make_role(role: Role, state: RoleState = RoleState.READY, reason: str = "", **figures: float) -> RoleStatus:
    return RoleStatus(role, state, "engine", "model", "cpu", 1.0, 0, reason=reason, figures=figures)


def make_status(*roles: RoleStatus, devices: tuple[DeviceMemory, ...] = ()) -> InferenceStatus:
    return InferenceStatus("fake", roles, 0, 0.0, devices)


@pytest.mark.django_db
class TestObserve:
    def test_measures_this_machine(self, data_dir: Path, noon: dt.datetime) -> None:
        (data_dir / "logs").mkdir()
        (data_dir / "logs" / "web.log").write_bytes(b"x" * 1000)

        observed = sampling.observe(now=noon)

        gauges = observed.gauges
        assert 0 < gauges["disk_free_bytes"] < gauges["disk_total_bytes"]
        assert 0 < gauges["ram_used_bytes"] < gauges["ram_total_bytes"]
        assert gauges["log_bytes"] == 1000
        assert gauges["database_bytes"] > 10_000
        assert gauges["queue.celery"] == gauges["queue.maintenance"] == 0
        # Nothing listens where tests look for engines.
        assert gauges["down.inference"] == 1
        assert observed.inference_problem

    def test_is_written_once_a_minute(self, data_dir: Path, noon: dt.datetime) -> None:
        observed = sampling.Observed(None, None, "", {"queue.celery": 3.0})

        first = sampling.write_system_sample(observed, now=noon)
        second = sampling.write_system_sample(observed, now=noon + dt.timedelta(seconds=20))

        assert (first, second) == (True, False)
        sample = Sample.objects.get()
        assert sample.began_at == noon.replace(second=0)
        assert SampleValues.from_json(sample.values).gauges == {"queue.celery": Gauge(3, 3)}


class TestMeasureQueues:
    def test_tells_how_long_the_oldest_message_waits(self, data_dir: Path) -> None:
        now = timezone.now()
        for queue, age_s in (("celery", 90), ("celery", 30), ("maintenance", 10)):
            sent_ns = time.time_ns() - age_s * 10**9
            (data_dir / "queue" / "messages" / f"{sent_ns:020d}_{age_s}.{queue}.msg").touch()
        (data_dir / "queue" / "messages" / "partial-1").touch()

        gauges = sampling.measure_queues(now)

        assert (gauges["queue.celery"], gauges["queue.maintenance"]) == (2, 1)
        assert gauges["queue_wait_s.celery"] == pytest.approx(90, abs=5)
        assert gauges["queue_wait_s.maintenance"] == pytest.approx(10, abs=5)

    @pytest.mark.django_db
    def test_leaves_the_other_gauges_when_redis_is_away(
        self, settings: Settings, data_dir: Path, noon: dt.datetime, caplog: pytest.LogCaptureFixture
    ) -> None:
        settings.REDIS_URL = f"redis://127.0.0.1:{find_free_port()}/0"

        gauges = sampling.observe(now=noon).gauges

        assert "queue.celery" not in gauges
        assert gauges["ram_total_bytes"] > 0
        assert "the queues cannot be read" in caplog.text


class TestMeasureProcesses:
    def test_measures_those_of_the_supervisor(self, data_dir: Path) -> None:
        now = timezone.now()
        child = subprocess.Popen(["sleep", "60"])
        try:
            write_state(
                data_dir,
                now,
                ChildState("web", child.pid, 1.0),
                ChildState("worker", None, None),
                ChildState("beat", child.pid, 1.0, missed=3),
            )

            gauges = sampling.measure_processes(sampling.read_state(data_dir), now)
        finally:
            child.kill()
            child.wait()

        assert gauges["rss_bytes.web"] > 100_000
        assert gauges["rss_bytes.supervisor"] > 1_000_000
        assert (gauges["down.web"], gauges["down.worker"], gauges["down.beat"]) == (0, 1, 1)
        assert gauges["down.supervisor"] == 0

    def test_takes_a_supervisor_that_does_not_write_for_one_that_hangs(self, data_dir: Path) -> None:
        now = timezone.now()
        write_state(data_dir, now)

        gauges = sampling.measure_processes(sampling.read_state(data_dir), now + dt.timedelta(minutes=3))

        assert gauges["down.supervisor"] == 1

    def test_ignores_what_a_killed_supervisor_has_left(self, data_dir: Path) -> None:
        now = timezone.now()
        ended = subprocess.Popen(["true"])
        ended.wait()
        write_state(data_dir, now, ChildState("web", None, None), pid=ended.pid)

        assert sampling.measure_processes(sampling.read_state(data_dir), now) == {}

    def test_ignores_a_state_whose_pid_is_another_process_now(self, data_dir: Path) -> None:
        now = timezone.now()
        # Before this process began.
        write_state(data_dir, now - dt.timedelta(days=1), ChildState("web", None, None))

        assert sampling.measure_processes(sampling.read_state(data_dir), now) == {}


class TestMeasureHeartbeats:
    @pytest.mark.django_db
    def test_knows_less_than_a_supervisor(self, data_dir: Path) -> None:
        now = timezone.now()
        heartbeat_files.HeartbeatFile(data_dir, "worker").renew()
        heartbeat_files.HeartbeatFile(data_dir, "maintenance").renew()
        write_state(data_dir, now, ChildState("worker", None, None))

        gauges = sampling.measure(sampling.read_state(data_dir), None, now=now)

        assert (gauges["down.worker"], gauges["down.maintenance"]) == (1, 0)

    def test_costs_no_process_its_life_where_the_disk_takes_no_file(
        self, data_dir: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        (data_dir / "heartbeats").write_text("no folder")
        file = heartbeat_files.HeartbeatFile(data_dir, "beat")

        file.renew()
        file.renew()

        assert len([each for each in caplog.records if "cannot be written" in each.message]) == 1


def write_state(data_dir: Path, now: dt.datetime, *children: ChildState, pid: int | None = None) -> None:
    state = ServeState("http://localhost:8000", pid or os.getpid(), now.timestamp(), children)
    (data_dir / FILE_NAME).write_text(state.to_json(), encoding="utf-8")


class TestMeasureRoles:
    def test_tells_what_is_unavailable_and_what_is_on_its_fallback(self) -> None:
        gauges = sampling.measure_roles(
            make_status(
                make_role(Role.STT, RoleState.UNAVAILABLE, "no such file"),
                make_role(Role.LLM, kv_cache_use=0.4),
                make_role(Role.TTS, reason="f5_tts: out of memory"),
            )
        )

        assert {name for name, value in gauges.items() if name.startswith("unavailable") and value} == {
            "unavailable.stt"
        }
        assert {name for name, value in gauges.items() if name.startswith("fallback") and value} == {"fallback.tts"}
        assert gauges["memory_percent.kv_cache"] == pytest.approx(40)


class TestMeasureDevices:
    @pytest.mark.parametrize(
        ("others_mib", "percent"),
        [
            # The shares are full, which is 92 % of the GPU, and nothing else is.
            (0, 0),
            (1038, 50),
            (2000, 96.3),
        ],
    )
    def test_counts_what_the_shares_leave_free(
        self, monkeypatch: pytest.MonkeyPatch, others_mib: int, percent: float
    ) -> None:
        monkeypatch.setenv("AVATAR_PROFILE", "gpu")
        total_mib, shares_mib = 24_576, 2500 + 17_000 + 3000
        free_mib = total_mib - shares_mib - others_mib

        gauges = sampling.measure_devices(make_status(devices=(DeviceMemory("GPU", total_mib * MIB, free_mib * MIB),)))

        assert gauges["memory_percent.gpu0"] == pytest.approx(percent, abs=0.1)
        assert gauges["vram_total_bytes"] == total_mib * MIB

    def test_leaves_out_a_gpu_that_is_not_ours(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AVATAR_PROFILE", "gpu")
        full = DeviceMemory("GPU", 24_576 * MIB, 0)

        gauges = sampling.measure_devices(make_status(devices=(full, full)))

        assert {name for name in gauges if name.startswith("memory_percent.")} == {"memory_percent.gpu0"}

    def test_gives_no_share_to_engines_on_the_processor(self) -> None:
        gauges = sampling.measure_devices(make_status(devices=(DeviceMemory("GPU", 1000, 1),)))

        assert not {name for name in gauges if name.startswith("memory_percent.")}


class TestMediaSize:
    def test_is_measured_once_an_hour(self, settings: Settings, tmp_path: Path) -> None:
        settings.MEDIA_ROOT = tmp_path
        now = [0.0]
        measure = sampling.MediaSize(clock=lambda: now[0])
        (tmp_path / "one.ogg").write_bytes(b"12345")
        first = measure()
        (tmp_path / "two.ogg").write_bytes(b"12345")
        soon = measure()
        now[0] = sampling.MEDIA_EVERY_S
        later = measure()

        assert (first, soon, later) == ({"media_bytes": 5}, {"media_bytes": 5}, {"media_bytes": 10})


@pytest.mark.django_db
class TestFindBackedUpAt:
    def test_counts_backups_that_were_restored_somewhere(self, noon: dt.datetime) -> None:
        for name, days, is_verified in (("old", 2, True), ("new", 1, False)):
            at = noon - dt.timedelta(days=days)
            done = {"state": RunState.DONE, "started_at": at, "finished_at": at, "name": name}
            BackupRun.objects.create(kind=RunKind.BACKUP, **done)
            if is_verified:
                BackupRun.objects.create(kind=RunKind.VERIFICATION, **done)

        assert find_backed_up_at() == noon - dt.timedelta(days=2)

    def test_takes_a_restored_state_for_one_that_is_saved(self, noon: dt.datetime) -> None:
        Restore.objects.create(name="old", restored_at=noon)

        assert find_backed_up_at() == noon
