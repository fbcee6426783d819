from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest
from celery import Task
from celery.schedules import crontab
from django.conf import settings as django_settings
from django.core.cache import cache
from django.utils import timezone
from pytest_django import Settings

from avatar_site.celery import app
from avatar_site.operations import maintenance, nightly, tasks
from avatar_site.operations.backups.copies import hold_backup_lock
from avatar_site.operations.models import BackupRun, RunKind, RunState
from avatar_site.operations.tombstones import shipping, triggers
from tests import factories


@pytest.fixture
def data_dir(settings: Settings, tmp_path: Path) -> Path:
    settings.AVATAR_DATA_DIR = tmp_path / "data"
    settings.AVATAR_BACKUP_TARGET = str(tmp_path / "target")
    return tmp_path / "data"


@pytest.fixture
def queued(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """What is queued instead of being run at once."""
    queued: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(Task, "apply_async", lambda task, **options: queued.append((task.name, options)))
    return queued


@pytest.mark.django_db
@pytest.mark.usefixtures("data_dir")
class TestTasksThatMakeBackups:
    @pytest.mark.parametrize(
        ("task", "arguments"),
        [
            (tasks.run_night, {}),
            (tasks.back_up, {"requested_by_id": None, "request_id": "5f0c"}),
            (tasks.verify_backup, {"name": "20260101T033000Z-abcd", "requested_by_id": None}),
        ],
    )
    def test_free_their_thread_while_another_has_the_lock(
        self, queued: list[tuple[str, dict[str, Any]]], task: Task, arguments: dict[str, Any]
    ) -> None:
        with hold_backup_lock():
            task(**arguments)

        assert queued == [(task.name, {"kwargs": {**arguments, "attempt": 1}, "countdown": tasks.RETRY_S})]

    def test_give_up_in_the_end(
        self, queued: list[tuple[str, dict[str, Any]]], caplog: pytest.LogCaptureFixture
    ) -> None:
        with hold_backup_lock():
            tasks.run_night(attempt=tasks.MAX_ATTEMPTS)

        assert queued == []
        assert "run_night is given up: backups have been locked for 180 minutes" in caplog.text

    def test_do_not_retry_a_night_while_another_has_the_lock(
        self, queued: list[tuple[str, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(timezone, "now", lambda: dt.datetime(2026, 11, 29, 22, 0, tzinfo=dt.UTC))

        with hold_backup_lock():
            tasks.retry_night()

        assert queued == []
        assert not BackupRun.objects.exists()

    def test_let_operators_ask_again_once_they_have_begun(self, queued: list[tuple[str, dict[str, Any]]]) -> None:
        assert maintenance.note_request(for_s=60)

        with hold_backup_lock():
            tasks.back_up()

        assert not maintenance.is_requested()


@pytest.mark.django_db(transaction=True)
class TestShipTombstones:
    def test_takes_what_was_deleted_to_the_target_once_it_is_there(
        self, settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        settings.AVATAR_TOMBSTONES_DIR = tmp_path / "tombstones"
        settings.AVATAR_BACKUP_TARGET = str(tmp_path / "disk" / "target")
        factories.create_conversation(factories.create_user()).delete()

        tasks.ship_tombstones.delay()

        assert "deletions are not at the target of backups yet" in caplog.text

        (tmp_path / "disk").mkdir()
        tasks.ship_tombstones.delay()

        entries = shipping.read_all(maintenance.open_target(), [])
        assert "conversations_conversation" in {entry.table for entry in entries}

    def test_installs_triggers_that_a_migration_left_out(
        self, settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It was killed before its end, and the product was started without `--prepare`."""
        settings.AVATAR_BACKUP_TARGET = str(tmp_path / "target")
        triggers.remove()

        tasks.ship_tombstones.delay()

        assert triggers.install() == []
        assert "deletions were not logged since a migration" in caplog.text


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("data_dir")
class TestBackUp:
    @pytest.fixture(autouse=True)
    def tombstones_dir(self, settings: Settings, data_dir: Path) -> None:
        settings.AVATAR_TOMBSTONES_DIR = data_dir / "tombstones"
        cache.clear()

    def test_makes_one_backup_of_a_message_that_is_delivered_twice(
        self, queued: list[tuple[str, dict[str, Any]]]
    ) -> None:
        """Redis delivers it again while the backup is made; the second delivery finds the lock held, and waits."""
        with hold_backup_lock():
            tasks.back_up.apply(task_id="5f0c")
        tasks.back_up.apply(task_id="5f0c")
        ((_, waiting),) = queued

        tasks.back_up.apply(kwargs=waiting["kwargs"], task_id="replaces-it")

        assert BackupRun.objects.filter(kind=RunKind.BACKUP).count() == 1

    def test_makes_another_backup_of_another_request(self) -> None:
        tasks.back_up.apply(task_id="5f0c")
        tasks.back_up.apply(task_id="5f0d")

        assert BackupRun.objects.filter(kind=RunKind.BACKUP, state=RunState.DONE).count() == 2


class TestSchedule:
    def test_names_tasks_that_exist(self) -> None:
        app.loader.import_default_modules()

        assert {entry["task"] for entry in django_settings.CELERY_BEAT_SCHEDULE.values()} <= set(app.tasks)

    def test_has_one_task_for_the_night(self) -> None:
        by_the_clock = {
            name: entry["schedule"]
            for name, entry in app.conf.beat_schedule.items()
            if isinstance(entry["schedule"], crontab)
        }

        begins_at = nightly.BEGINS_AT
        assert by_the_clock == {
            "run-night": crontab(hour=begins_at.hour, minute=begins_at.minute),
            "retry-night": crontab(minute=0),
            "roll-up-samples": crontab(minute=20),
        }
        # Where people are, not in London.
        assert str(app.timezone) == django_settings.TIME_ZONE
