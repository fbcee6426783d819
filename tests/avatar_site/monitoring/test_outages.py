from __future__ import annotations

import asyncio
import datetime as dt
import itertools
import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from django.core import mail
from django.db import OperationalError, connection, connections
from django.utils import timezone
from pytest_django import Settings

from avatar_site.monitoring import outages, reporting
from avatar_site.monitoring.models import Alert, AlertState
from avatar_site.monitoring.outages import AwayNotice, OutageWatch
from tests.avatar_site.monitoring.test_watching import read_open, watch

NOON = dt.datetime(2026, 11, 27, 4, 0, tzinfo=dt.UTC)


@pytest.fixture
def now() -> dt.datetime:
    return timezone.now().replace(second=12, microsecond=0)


def after(minutes: float) -> dt.datetime:
    return NOON + dt.timedelta(minutes=minutes)


class TestOutageWatch:
    def test_is_told_of_after_a_while(self) -> None:
        watch = OutageWatch(NOON)

        assert [watch.note_failure(after(minute)) for minute in (1, 2, 3, 4)] == [None, None, after(1), after(1)]

    def test_counts_from_the_last_success(self) -> None:
        watch = OutageWatch(NOON)
        watch.note_failure(after(1))
        watch.note_success(after(2))

        assert [watch.note_failure(after(minute)) for minute in (3, 4, 5)] == [None, None, after(3)]

    @pytest.mark.parametrize("pause", [False, True])
    def test_begins_again_after_an_outage_and_after_a_sleep(self, pause: bool) -> None:
        watch = OutageWatch(NOON)
        watch.note_success(after(1))
        before = watch.watched_since
        if not pause:
            watch.note_failure(after(2))

        watch.note_success(after(60 if pause else 3))

        assert (before, watch.watched_since) == (NOON, after(60 if pause else 3))


@pytest.mark.django_db
@pytest.mark.usefixtures("data_dir")
class TestWatchTheWatch:
    def test_opens_an_alert_when_nothing_is_examined(self, now: dt.datetime) -> None:
        began_at = now - dt.timedelta(days=1)
        watch(now)

        early = outages.watch_the_watch(watched_since=began_at, now=now + dt.timedelta(minutes=4))
        late = outages.watch_the_watch(watched_since=began_at, now=now + dt.timedelta(minutes=6))
        opened = read_open("monitoring_stalled")
        watch(now + dt.timedelta(minutes=8), minutes=2)

        assert (early, late) == (False, True)
        assert (opened, read_open("monitoring_stalled")) == ({("monitoring_stalled", "")}, set())

    def test_does_not_believe_samples_of_a_time_that_has_not_come(self, now: dt.datetime) -> None:
        watch(now + dt.timedelta(hours=5))

        assert outages.watch_the_watch(watched_since=now - dt.timedelta(days=1), now=now)

    def test_gives_processes_that_begin_their_time(self, now: dt.datetime) -> None:
        watch(now - dt.timedelta(days=2))

        assert not outages.watch_the_watch(watched_since=now, now=now + dt.timedelta(minutes=4))


def execute(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


@pytest.fixture
def read_mail(settings: Settings) -> Callable[[], list[str]]:
    """Return the subjects of what was sent."""
    settings.AVATAR_ALERT_EMAILS = ["operator@example.tw"]
    settings.LANGUAGE_CODE = "en"
    return lambda: [message.subject for message in mail.outbox]


@pytest.mark.django_db
class TestAwayNotice:
    AWAY, BACK = "AVATAR: The database is away", "AVATAR: resolved: The database is away"

    def tell(self, notice: AwayNotice, minute: float, since: float = 1) -> None:
        notice.tell_away(since=after(since), problem="gone", now=after(minute))

    def test_is_told_once_by_all_processes(self, data_dir: Path, read_mail: Callable[[], list[str]]) -> None:
        notices = [AwayNotice(data_dir) for _ in range(3)]
        for minute in (3, 4, 5):
            for number, notice in enumerate(notices):
                self.tell(notice, minute, since=1 + number / 10)
        told = read_mail()

        for minute in (6, 7):
            for notice in notices:
                notice.tell_back(now=after(minute))

        assert told == [self.AWAY]
        assert read_mail() == [self.AWAY, self.BACK]
        alert = Alert.objects.get()
        assert (alert.opened_at, alert.resolved_at) == (after(1), after(6))

    def test_survives_the_processes_that_told_it(self, data_dir: Path, read_mail: Callable[[], list[str]]) -> None:
        self.tell(AwayNotice(data_dir), 3)

        self.tell(AwayNotice(data_dir), 6, since=4)
        AwayNotice(data_dir).tell_back(now=after(7))
        AwayNotice(data_dir).tell_back(now=after(8))

        assert read_mail() == [self.AWAY, self.BACK]

    def test_is_told_again_after_all_processes_were_stopped_for_long(
        self, data_dir: Path, read_mail: Callable[[], list[str]]
    ) -> None:
        self.tell(AwayNotice(data_dir), 3)

        self.tell(AwayNotice(data_dir), 60, since=58)

        assert read_mail() == [self.AWAY, self.AWAY]

    def test_is_no_second_outage_where_one_process_lags_behind(
        self, data_dir: Path, read_mail: Callable[[], list[str]]
    ) -> None:
        slow, quick = AwayNotice(data_dir), AwayNotice(data_dir)
        self.tell(slow, 3)
        quick.tell_back(now=after(4))

        self.tell(slow, 4)
        slow.tell_back(now=after(5))
        self.tell(slow, 9, since=7)

        assert read_mail() == [self.AWAY, self.BACK, self.AWAY]

    def test_is_told_where_the_folder_takes_no_file(
        self, data_dir: Path, read_mail: Callable[[], list[str]], caplog: pytest.LogCaptureFixture
    ) -> None:
        (data_dir / "database-away").mkdir()
        notice = AwayNotice(data_dir)
        os.utime(data_dir / "database-away", (0, 0))

        for minute in (3, 4):
            self.tell(notice, minute)
        (data_dir / "database-away").rmdir()
        for minute in (5, 6):
            notice.tell_back(now=after(minute))

        assert read_mail() == [self.AWAY, self.BACK]
        assert "other web processes may tell as well" in caplog.text

    def test_is_over_though_the_disk_was_too_full_for_its_time(
        self, data_dir: Path, read_mail: Callable[[], list[str]]
    ) -> None:
        (data_dir / "database-away").touch()

        AwayNotice(data_dir).tell_back(now=after(5))

        assert read_mail() == [self.BACK]

    def test_stays_until_the_alert_is_kept(
        self, data_dir: Path, read_mail: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        notice = AwayNotice(data_dir)
        self.tell(notice, 3)
        with monkeypatch.context() as patched:
            patched.setattr(Alert.objects, "create", fail)
            with pytest.raises(OperationalError):
                notice.tell_back(now=after(4))

        notice.tell_back(now=after(5))

        assert read_mail() == [self.AWAY, self.BACK]


def fail(**fields: object) -> None:
    raise OperationalError("gone again")


@pytest.mark.django_db(transaction=True)
class TestDatabaseAway:
    async def test_is_told_without_the_database_and_kept_afterwards(
        self, settings: Settings, data_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        settings.AVATAR_ALERT_EMAILS = ["operator@example.tw"]
        settings.LANGUAGE_CODE = "en"
        monkeypatch.setattr(reporting, "READING_S", 0.001)
        steps = itertools.count()
        await asyncio.to_thread(
            execute,
            "CREATE TRIGGER full BEFORE INSERT ON monitoring_sample BEGIN SELECT RAISE(ABORT, 'the disk is full'); END",
        )

        running = asyncio.create_task(reporting.run(now=lambda: NOON + dt.timedelta(seconds=20 * next(steps))))
        await self.wait_until(lambda: len(mail.outbox) == 1)
        await asyncio.to_thread(execute, "DROP TRIGGER full")
        await self.wait_until(lambda: len(mail.outbox) >= 2)
        running.cancel()
        await asyncio.wait([running])

        away, back = mail.outbox[:2]
        assert away.subject == "AVATAR: The database is away"
        assert "The database has not taken anything since 2026-11-27 12:0" in away.body
        assert "the disk is full" in away.body
        assert back.subject == "AVATAR: resolved: The database is away"
        alert = await Alert.objects.aget(condition="database_away")
        assert alert.state == AlertState.RESOLVED
        said = [(record.levelname, record.message) for record in caplog.records if "database_away" in record.message]
        assert [level for level, _ in said] == ["ERROR", "INFO"]
        await asyncio.to_thread(connections.close_all)

    async def wait_until(self, is_true: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not is_true():  # noqa: ASYNC110 — another thread's mail
                await asyncio.sleep(0.005)
