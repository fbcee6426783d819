from __future__ import annotations

import asyncio
import datetime as dt
import itertools
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from django.core import mail
from django.db import connection, connections
from django.utils import timezone
from pytest_django import Settings

from avatar_site.monitoring import outages, reporting
from avatar_site.monitoring.models import Alert, AlertState
from avatar_site.monitoring.outages import OutageWatch
from tests.avatar_site.monitoring.test_watching import read_open, watch

NOON = dt.datetime(2026, 11, 27, 4, 0, tzinfo=dt.UTC)


@pytest.fixture
def now() -> dt.datetime:
    return timezone.now().replace(second=12, microsecond=0)


def after(minutes: float) -> dt.datetime:
    return NOON + dt.timedelta(minutes=minutes)


class TestOutageWatch:
    def test_tells_once_after_a_while(self) -> None:
        watch = OutageWatch(NOON)

        assert [watch.note_failure(after(minute)) for minute in (1, 2, 3, 4)] == [None, None, after(1), None]
        assert watch.note_success(after(5)) == after(1)
        assert watch.note_success(after(6)) is None

    def test_says_nothing_of_a_moment(self) -> None:
        watch = OutageWatch(NOON)

        assert [watch.note_failure(after(1)), watch.note_success(after(2)), watch.note_failure(after(3))] == [None] * 3

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
