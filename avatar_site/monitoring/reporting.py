"""Writes the sample of this web process each minute, and sees that the conditions of alerts are examined."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from django.conf import settings
from django.db import DatabaseError, transaction
from django.utils import timezone

from avatar_site.lib import metrics
from avatar_site.lib.own_thread import OwnThread
from avatar_site.lib.process_name import make_process_name
from avatar_site.monitoring import outages
from avatar_site.monitoring.models import Resolution, Sample
from avatar_site.monitoring.samples import Gauge, SampleValues
from realtime.admission import admission
from realtime.models import CallState, LiveCall

logger = logging.getLogger(__name__)

#: Between two readings of the gauges.
READING_S = 5.0
#: What stopping waits for the database.
LAST_WRITE_S = 3.0
#: SQLite waits 20 s for a lock.
WRITE_TIMEOUT_S = 25.0
#: The same, and a mail server and a webhook that do not answer.
ALERTING_TIMEOUT_S = 50.0


async def run(*, now: Callable[[], dt.datetime] = timezone.now) -> None:
    """
    Write a sample each minute until cancelled; then a last one of the rest of the minute.

    Sees each minute that conditions are examined, and that the database takes what is written. Both have threads of
    their own: a database or a mail server that hangs delays no page.
    """
    began_at = now()
    reporter = Reporter(process=make_process_name(), now=began_at)
    watch = outages.OutageWatch(began_at)
    notice = outages.AwayNotice(Path(settings.AVATAR_DATA_DIR))
    alerting = OwnThread("alerts")
    try:
        while True:
            await asyncio.sleep(READING_S)
            reporter.read_gauges()
            if reporter.is_due(now()):
                problem = await reporter.report(now())
                await _look_for_outages(watch, notice, problem, alerting, now())
    finally:
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WRITE_S):
                await reporter.report(now())
                await asyncio.to_thread(reporter.close)
                await asyncio.to_thread(alerting.close)


async def _look_for_outages(
    watch: outages.OutageWatch, notice: outages.AwayNotice, problem: str, thread: OwnThread, now: dt.datetime
) -> None:
    try:
        if problem:
            if since := watch.note_failure(now):
                await thread.run(notice.tell_away, ALERTING_TIMEOUT_S, since=since, problem=problem, now=now)
            return
        watch.note_success(now)
        await thread.run(notice.tell_back, ALERTING_TIMEOUT_S, now=now)
        await thread.run(outages.watch_the_watch, ALERTING_TIMEOUT_S, watched_since=watch.watched_since, now=now)
    except (DatabaseError, OSError) as error:
        # Of which TimeoutError is one.
        logger.warning("whether conditions are examined could not be seen: %s", error)


def floor_to_minute(moment: dt.datetime) -> dt.datetime:
    return moment.replace(second=0, microsecond=0)


class Reporter:
    """Collects a minute of this process, and writes it."""

    def __init__(self, *, process: str, now: dt.datetime) -> None:
        self._process = process
        self._began_at = floor_to_minute(now)
        self._sessions: list[float] = []
        self._lags_s: list[float] = []
        self._is_failing = False
        self._thread = OwnThread("samples")

    def close(self) -> None:
        self._thread.close()

    def is_due(self, now: dt.datetime) -> bool:
        """Whether the minute is over."""
        return floor_to_minute(now) != self._began_at

    def read_gauges(self) -> None:
        self._sessions.append(admission.active)
        self._lags_s.append(metrics.REGISTRY.get_sample_value("avatar_event_loop_lag_seconds") or 0.0)

    async def report(self, now: dt.datetime) -> str:
        """
        Write what was measured since the last report. What cannot be written is part of the next one.

        Return why it could not be written; empty if it was.
        """
        began_at, self._began_at = self._began_at, floor_to_minute(now)
        minute = metrics.take_minute()
        values = SampleValues(
            latencies=dict(minute.latencies),
            counts=minute.counts,
            gauges={
                name: Gauge(sum(readings) / len(readings), max(readings))
                for name, readings in (("sessions", self._sessions), ("loop_lag_s", self._lags_s))
                if readings
            },
        )
        self._sessions, self._lags_s = [], []
        try:
            await self._thread.run(write_sample, WRITE_TIMEOUT_S, self._process, began_at, values)
        except (DatabaseError, TimeoutError) as error:
            metrics.give_back(minute)
            if not self._is_failing:
                logger.warning("the sample of this minute is kept until the database is back: %s", error)
            self._is_failing = True
            return str(error) or type(error).__name__
        except Exception:
            # Not when cancelled: the thread goes on writing.
            metrics.give_back(minute)
            raise
        self._is_failing = False
        return ""


def write_sample(process: str, began_at: dt.datetime, values: SampleValues) -> None:
    """Write the sample of a web process, with its waiting calls. Raises DatabaseError."""
    waiting = LiveCall.objects.filter(process=process, state=CallState.WAITING).count()
    values.gauges["waiting"] = Gauge(waiting, waiting)
    with transaction.atomic():
        key = {"source": f"web {process}", "resolution": Resolution.MINUTE, "began_at": began_at}
        sample, is_new = Sample.objects.get_or_create(**key, defaults={"values": values.to_json()})
        if not is_new:
            # The clock was set back, or a process that has this number now began in the same minute.
            merged = SampleValues.merge_times([SampleValues.from_json(sample.values), values])
            Sample.objects.filter(pk=sample.pk).update(values=merged.to_json())
