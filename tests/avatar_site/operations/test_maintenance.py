"""The night's steps, run on a real database, storage and target, with the child process that verifies."""

from __future__ import annotations

import datetime as dt
import os
import shutil
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.core.cache import cache
from django.utils import timezone
from pytest_django import Settings as SettingsFixture

from avatar_site.operations import maintenance, nightly
from avatar_site.operations.backups import catalogue
from avatar_site.operations.backups.copies import hold_backup_lock
from avatar_site.operations.backups.targets import FolderTarget, TargetError
from avatar_site.operations.locks import LockHeld
from avatar_site.operations.models import BackupRun, Restore, RunKind, RunState
from avatar_site.operations.nightly import Step
from avatar_site.operations.tombstones import log
from conversations.models import Turn
from tests import factories
from tests.listed_backups import write_backup

FLAC = factories.make_flac()
#: A Monday and a Sunday, at night in Taipei.
MONDAY = dt.datetime(2026, 11, 29, 19, 30, tzinfo=dt.UTC)
SUNDAY = dt.datetime(2026, 11, 28, 19, 30, tzinfo=dt.UTC)

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def target(settings: SettingsFixture, tmp_path: Path) -> Path:
    settings.AVATAR_DATA_DIR = tmp_path / "data"
    settings.AVATAR_TOMBSTONES_DIR = tmp_path / "data" / "tombstones"
    settings.AVATAR_BACKUP_TARGET = str(tmp_path / "target")
    # Retries of a night are counted in it.
    cache.clear()
    return tmp_path / "target"


@pytest.fixture
def alice() -> User:
    return factories.create_user("alice")


@pytest.fixture
def orphan(media_root: Path, alice: User) -> Path:
    """A file without a row, old enough to be swept, among files that have theirs."""
    factories.create_turn(factories.create_conversation(alice), audio=FLAC)
    orphan = media_root / "conversations" / "1" / "orphan.ogg"
    orphan.parent.mkdir(parents=True, exist_ok=True)
    orphan.write_bytes(b"OggS")
    old = time.time() - 2 * 60 * 60
    os.utime(orphan, (old, old))
    return orphan


def find_problems(outcomes: list[nightly.Outcome]) -> dict[Step, str]:
    return {outcome.step: outcome.problem for outcome in outcomes if outcome.problem}


class TestRunNight:
    def test_removes_what_is_old_and_leaves_a_verified_backup(
        self, settings: SettingsFixture, alice: User, orphan: Path
    ) -> None:
        settings.AVATAR_RETENTION_TEXT_DAYS = 30
        old = factories.create_turn(factories.create_conversation(alice), text="from last year")
        Turn.objects.filter(pk=old.pk).update(created_at=timezone.now() - dt.timedelta(days=365))
        Session.objects.create(session_key="old", session_data="", expire_date=timezone.now() - dt.timedelta(days=1))

        outcomes = maintenance.run_night(now=MONDAY)

        assert find_problems(outcomes) == {}
        assert [outcome.step for outcome in outcomes] == [step for step in Step if step != Step.VERIFY_OLDEST]
        (backup,) = catalogue.list_backups(maintenance.open_target())
        assert backup.is_verified
        assert backup.manifest is not None
        # Purged before it was backed up; the other turn is in it.
        assert backup.manifest.row_counts["conversations_turn"] == 1
        assert not orphan.exists()
        assert not Session.objects.exists()
        (run,) = BackupRun.objects.filter(kind=RunKind.BACKUP)
        assert (run.state, run.reason, run.name) == (RunState.DONE, "nightly", backup.name)

    def test_is_left_alone_when_its_message_comes_twice(self) -> None:
        maintenance.run_night(now=timezone.now())

        assert maintenance.run_night(now=timezone.now()) == []
        assert len(catalogue.list_backups(maintenance.open_target())) == 1

    def test_keeps_orphans_when_the_target_is_away(self, target: Path, orphan: Path) -> None:
        target.write_text("a file in its place")

        outcomes = maintenance.run_night(now=MONDAY)

        problems = find_problems(outcomes)
        assert set(problems) == {Step.BACK_UP, Step.PRUNE, Step.REMOVE_ORPHANS}
        assert str(target) in problems[Step.BACK_UP]
        assert orphan.exists()

    def test_keeps_orphans_until_a_restore_is_confirmed(self, orphan: Path, caplog: pytest.LogCaptureFixture) -> None:
        Restore.objects.create(name="20260101T033000Z-abcd", restored_at=timezone.now())

        outcomes = maintenance.run_night(now=MONDAY)

        assert set(find_problems(outcomes)) == {Step.REMOVE_ORPHANS}
        assert orphan.exists()
        # An operator has to act: a warning that says how, and no traceback.
        (record,) = [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]
        assert (record.levelname, record.exc_info) == ("WARNING", None)
        assert "remove orphans: skipped, Backup 20260101T033000Z-abcd was restored" in record.getMessage()
        assert "confirm_restore" in record.getMessage()

    def test_verifies_the_oldest_backup_on_sundays(self, target: Path) -> None:
        maintenance.run_night(now=timezone.now() - dt.timedelta(days=1))
        BackupRun.objects.update(finished_at=timezone.now() - dt.timedelta(days=1))
        (oldest,) = catalogue.list_backups(maintenance.open_target())
        (target / f"manifests/{oldest.name}.verified.json").unlink()

        outcomes = maintenance.run_night(now=SUNDAY)

        assert outcomes[-1].step == Step.VERIFY_OLDEST
        assert find_problems(outcomes) == {}
        assert [backup.is_verified for backup in catalogue.list_backups(maintenance.open_target())] == [True, True]

    def test_prunes_so_that_nothing_is_older_before_the_next_night(self) -> None:
        # As nights are: a moment later than exactly so many days ago, or earlier.
        write_backup(hours_ago=31 * 24)
        write_backup(hours_ago=30 * 24 - 0.1)
        kept = write_backup(hours_ago=29 * 24 + 0.1)

        outcomes = maintenance.run_night(now=MONDAY)

        assert find_problems(outcomes) == {}
        newest, oldest = catalogue.list_backups(maintenance.open_target())
        # Its database went after seven days.
        assert (oldest.name, oldest.has_database, oldest.has_audio) == (kept, False, True)
        assert newest.is_verified

    def test_removes_what_a_restore_has_replaced(self) -> None:
        """What people have deleted is in it: it must not outlive the backups."""
        names = [f"replaced-{timezone.now() - dt.timedelta(days=days):%Y%m%dT%H%M%SZ}" for days in (31, 29)]
        older, younger = (Path(settings.AVATAR_DATA_DIR) / name for name in names)
        for folder in (older, younger):
            folder.mkdir(parents=True)
            (folder / "avatar.sqlite3").write_bytes(b"what was deleted")

        maintenance.run_night(now=MONDAY)

        assert (older.exists(), younger.exists()) == (False, True)
        shutil.rmtree(younger)

    def test_forgets_deletions_that_are_older_than_every_backup(self) -> None:
        deleted: dict[str, Any] = {"installation": "ab" * 8, "table": "voices_voiceprofile", "is_deletion": True}
        now = timezone.now()
        write_backup(hours_ago=20 * 24)
        log.find_log().write_bytes(
            b"".join(
                msgspec.json.encode(log.Entry(sequence=number, at=now - dt.timedelta(days=days), key=key, **deleted))
                + b"\n"
                for number, (days, key) in enumerate([(30, "older"), (19, "younger")], 1)
            )
        )

        maintenance.run_night(now=MONDAY)

        assert [entry.key for entry in log.read_log()] == ["younger"]

    @pytest.mark.parametrize("is_mounted", [True, False])
    def test_forgets_texts_that_were_deleted_though_the_target_is_away(
        self, settings: SettingsFixture, target: Path, is_mounted: bool
    ) -> None:
        if is_mounted:
            target.write_text("a file in its place")
        else:
            settings.AVATAR_BACKUP_TARGET = str(target / "not mounted" / "backups")
        of_a_turn: dict[str, Any] = {"installation": "ab" * 8, "table": "conversations_turn", "key": "1"}
        at = timezone.now() - dt.timedelta(days=90)
        entries = [
            log.Entry(sequence=1, at=at, values={"text": "a secret"}, **of_a_turn),
            log.Entry(sequence=2, at=at + dt.timedelta(hours=1), is_deletion=True, **of_a_turn),
        ]
        log.find_log().write_bytes(b"".join(map(log.encode_line, entries)))

        outcomes = maintenance.run_night(now=MONDAY)

        assert Step.PRUNE in find_problems(outcomes)
        assert list(log.read_log()) == entries[1:]

    def test_forgets_deletions_though_a_backup_cannot_be_removed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*args: object, **kwargs: object) -> None:
            raise TargetError("access is denied")

        at = timezone.now() - dt.timedelta(days=90)
        entry = log.Entry(sequence=1, installation="ab" * 8, at=at, table="auth_user", key="1", is_deletion=True)
        log.find_log().write_bytes(log.encode_line(entry))
        monkeypatch.setattr(FolderTarget, "delete", fail)
        write_backup(hours_ago=20 * 24)
        write_backup(hours_ago=31 * 24)

        outcomes = maintenance.run_night(now=MONDAY)

        assert "access is denied" in find_problems(outcomes)[Step.PRUNE]
        assert list(log.read_log()) == []

    def test_keeps_the_last_verified_backup_where_new_ones_fail(self, monkeypatch: pytest.MonkeyPatch) -> None:
        name = write_backup(hours_ago=90 * 24)
        monkeypatch.setattr(settings, "AVATAR_BACKUP_RECIPIENTS", ["age1nothing"])

        outcomes = maintenance.run_night(now=MONDAY)

        assert set(find_problems(outcomes)) == {Step.BACK_UP, Step.REMOVE_ORPHANS}
        assert [backup.name for backup in catalogue.list_backups(maintenance.open_target())] == [name]

    def test_waits_for_another_backup(self) -> None:
        with hold_backup_lock(), pytest.raises(LockHeld):
            maintenance.run_night(now=MONDAY)


class TestRetryNight:
    @pytest.fixture
    def now(self) -> dt.datetime:
        today = timezone.localtime(timezone.now() + dt.timedelta(days=1))
        return today.replace(hour=6, minute=0)

    def test_makes_up_for_a_night_that_was_killed(self, now: dt.datetime) -> None:
        started_at = now.replace(hour=3, minute=30)
        BackupRun.objects.create(kind=RunKind.BACKUP, reason="nightly", started_at=started_at)

        outcomes = maintenance.retry_night(now=now)

        assert find_problems(outcomes) == {}
        assert [backup.is_verified for backup in catalogue.list_backups(maintenance.open_target())] == [True]
        killed, made = BackupRun.objects.filter(kind=RunKind.BACKUP).order_by("pk")
        assert (killed.state, made.state) == (RunState.FAILED, RunState.DONE)

    def test_tries_again_until_the_target_is_back(self, target: Path, now: dt.datetime) -> None:
        target.write_text("a file in its place")
        assert Step.BACK_UP in find_problems(maintenance.retry_night(now=now))

        target.unlink()
        assert find_problems(maintenance.retry_night(now=now + dt.timedelta(hours=1))) == {}

    def test_tries_three_times_a_night(self, target: Path, now: dt.datetime) -> None:
        target.write_text("a file in its place")

        runs = [bool(maintenance.retry_night(now=now + dt.timedelta(hours=hour))) for hour in range(5)]

        assert runs == [True, True, True, False, False]
        assert maintenance.retry_night(now=now + dt.timedelta(days=1))

    @pytest.mark.parametrize("state", [RunState.FAILED, RunState.RUNNING])
    def test_repeats_a_night_whose_backup_is_not_verified(self, now: dt.datetime, state: RunState) -> None:
        self.record(now.replace(hour=3, minute=40), verification=state)

        assert maintenance.retry_night(now=now)

    def test_leaves_a_verified_night_alone(self, now: dt.datetime) -> None:
        self.record(now.replace(hour=3, minute=40), verification=RunState.DONE)

        with hold_backup_lock():
            # It need not take the lock to know.
            assert maintenance.retry_night(now=now) == []

        assert catalogue.list_backups(maintenance.open_target()) == []

    def test_waits_for_another_backup(self, now: dt.datetime) -> None:
        with hold_backup_lock(), pytest.raises(LockHeld):
            maintenance.retry_night(now=now)

        assert maintenance.retry_night(now=now) != []

    def record(self, at: dt.datetime, *, verification: RunState) -> None:
        ended = {"name": "20260101T033000Z-abcd", "started_at": at, "finished_at": at}
        BackupRun.objects.create(kind=RunKind.BACKUP, state=RunState.DONE, reason="nightly", **ended)
        BackupRun.objects.create(kind=RunKind.VERIFICATION, state=verification, **ended)
