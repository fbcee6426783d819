"""Alerts from the real site: the machine, the disk, processes, rows; opened and resolved."""

from __future__ import annotations

import datetime as dt
import logging
from collections import Counter
from pathlib import Path

import pytest
from django.db import OperationalError, connection
from django.utils import timezone
from pytest_django import Settings

from avatar_site.lib.metrics import find_bucket
from avatar_site.monitoring import watching
from avatar_site.monitoring.models import Alert, Sample
from avatar_site.monitoring.samples import SampleValues
from avatar_site.operations.locks import hold_lock
from avatar_site.operations.models import BackupRun, Restore, RunKind, RunState
from conversations.models import RetentionRun, StorageCheck

pytestmark = pytest.mark.django_db


@pytest.fixture
def now() -> dt.datetime:
    return timezone.now().replace(second=12, microsecond=0)


def watch(now: dt.datetime, *, minutes: int = 1) -> dt.datetime:
    """Watch for so many minutes; return the next one."""
    for _ in range(minutes):
        watching.watch(now=now)
        now += dt.timedelta(minutes=1)
    return now


def read_open(*conditions: str) -> set[tuple[str, str]]:
    """Return condition and subject of open alerts: of these conditions, or all."""
    alerts = Alert.objects.unresolved()
    if conditions:
        alerts = alerts.filter(condition__in=conditions)
    return set(alerts.values_list("condition", "subject"))


def refuse() -> None:
    raise OperationalError("no route to host")


@pytest.mark.usefixtures("data_dir")
class TestWatch:
    def test_opens_nothing_on_a_new_site_but_that_engines_are_away(self, now: dt.datetime) -> None:
        watch(now, minutes=4)

        assert read_open() == {("process_down", "inference")}
        assert Sample.objects.count() == 4

    def test_leaves_a_minute_that_another_process_has(self, data_dir: Path, now: dt.datetime) -> None:
        with hold_lock(data_dir, watching.LOCK):
            watch(now)

        assert not Sample.objects.exists()

    def test_delivered_twice_changes_nothing(self, settings: Settings, now: dt.datetime) -> None:
        settings.AVATAR_ALERT_DISK_GB = 1_000_000

        watch(now)
        watch(now)

        assert (Sample.objects.count(), Alert.objects.count()) == (1, 1)

    def test_says_once_that_the_database_is_away_and_once_that_it_is_back(
        self, now: dt.datetime, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        with monkeypatch.context() as patched:
            patched.setattr(connection, "cursor", refuse)
            watch(now, minutes=3)
        away = [(record.levelname, record.message, record.exc_info) for record in caplog.records]
        caplog.clear()

        watch(now, minutes=2)

        assert away == [("ERROR", "nothing is examined until the database is back: no route to host", None)]
        assert [record.message for record in caplog.records].count("the database is back") == 1
        assert Sample.objects.exists()

    def test_goes_on_after_the_clock_was_set_back(self, now: dt.datetime) -> None:
        watch(now + dt.timedelta(hours=5), minutes=3)

        watch(now, minutes=2)

        newest = Sample.objects.order_by("-began_at").values_list("began_at", flat=True)
        assert list(newest) == [now.replace(second=0) + dt.timedelta(minutes=1), now.replace(second=0)]


@pytest.mark.usefixtures("data_dir")
class TestAlertsOfRows:
    def test_of_a_backup_that_is_too_old(self, now: dt.datetime) -> None:
        write_backup("old", now - dt.timedelta(hours=27), is_verified=True)
        later = watch(now)
        opened = read_open("backup_stale")

        write_backup("new", now - dt.timedelta(hours=1), is_verified=True)
        watch(later, minutes=3)

        assert (opened, read_open("backup_stale")) == ({("backup_stale", "")}, set())

    def test_of_a_backup_that_is_not_verified(self, now: dt.datetime) -> None:
        write_backup("new", now - dt.timedelta(hours=4), is_verified=False)
        later = watch(now)
        opened = read_open("backup_unverified")

        write_backup("new", now, is_verified=True)
        watch(later, minutes=3)

        assert (opened, read_open("backup_unverified")) == ({("backup_unverified", "")}, set())

    def test_of_a_retention_that_did_not_finish(self, now: dt.datetime) -> None:
        run = RetentionRun.objects.create(started_at=now - dt.timedelta(hours=3))
        later = watch(now)
        opened = read_open("retention_unfinished")

        RetentionRun.objects.create(started_at=now, finished_at=now)
        watch(later, minutes=3)

        assert run.finished_at is None
        assert (opened, read_open("retention_unfinished")) == ({("retention_unfinished", "")}, set())

    def test_of_sweeps_that_are_refused(self, now: dt.datetime) -> None:
        restore = Restore.objects.create(name="old", restored_at=now)
        StorageCheck.objects.create(checked_at=now, was_refused=True, turns=3, turns_without_file=3)
        later = watch(now)
        opened = read_open("sweep_refused")

        Restore.objects.filter(pk=restore.pk).update(confirmed_at=now)
        StorageCheck.objects.create(checked_at=later)
        watch(later, minutes=3)

        assert opened == {("sweep_refused", "restore"), ("sweep_refused", "storage")}
        assert read_open("sweep_refused") == set()

    def test_of_errors_lost_turns_and_latency(self, now: dt.datetime) -> None:
        values = SampleValues(
            latencies={"ttfa": Counter({find_bucket(5.0): 8})},
            counts=Counter({"turns": 8, "errors.PROCESSING_ERROR": 4, "lost_turns": 1}),
        )
        Sample.objects.create(source="web host:1", began_at=now.replace(second=0), values=values.to_json())
        later = watch(now)
        opened = read_open("error_rate", "latency", "lost_turns")
        # The window of ten minutes has passed.
        watch(later + dt.timedelta(minutes=10), minutes=3)

        assert opened == {("error_rate", ""), ("latency", ""), ("lost_turns", "")}
        assert read_open("error_rate", "latency", "lost_turns") == set()


def write_backup(name: str, at: dt.datetime, *, is_verified: bool) -> None:
    done = {"state": RunState.DONE, "name": name, "started_at": at, "finished_at": at, "reason": "nightly"}
    BackupRun.objects.get_or_create(kind=RunKind.BACKUP, name=name, defaults=done)
    if is_verified:
        BackupRun.objects.create(kind=RunKind.VERIFICATION, **done)


@pytest.mark.usefixtures("data_dir")
class TestAlertsOfTheMachine:
    def test_of_logs_that_are_too_large(self, settings: Settings, data_dir: Path, now: dt.datetime) -> None:
        settings.AVATAR_ALERT_LOGS_MB = 1
        log = data_dir / "logs" / "web.log"
        log.parent.mkdir()
        log.write_bytes(b"x" * 2**21)
        later = watch(now)
        opened = read_open("log_folder")

        log.unlink()
        watch(later, minutes=3)

        assert (opened, read_open("log_folder")) == ({("log_folder", "")}, set())
