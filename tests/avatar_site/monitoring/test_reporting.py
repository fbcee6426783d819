from __future__ import annotations

import asyncio
import datetime as dt
import uuid
from collections.abc import Iterator

import pytest
from django.contrib.auth.models import User
from django.db import connection

from avatar_site.lib import metrics
from avatar_site.lib.metrics import Stage
from avatar_site.monitoring import reporting
from avatar_site.monitoring.models import Sample
from avatar_site.monitoring.samples import Gauge, SampleValues, estimate_quantile
from realtime.models import CallState, LiveCall

BEGAN_AT = dt.datetime(2026, 11, 27, 4, 0, 12, tzinfo=dt.UTC)


@pytest.fixture(autouse=True)
def _measured_nothing_before() -> Iterator[None]:
    metrics.take_minute()
    yield
    metrics.take_minute()


def execute(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


def read_samples() -> list[tuple[str, SampleValues]]:
    return [
        (f"{sample.began_at:%H:%M}", SampleValues.from_json(sample.values))
        for sample in Sample.objects.order_by("began_at", "pk")
    ]


@pytest.mark.django_db(transaction=True)
class TestReporter:
    async def test_writes_what_was_measured_in_a_minute(self) -> None:
        reporter = reporting.Reporter(process="host:1", now=BEGAN_AT)
        metrics.count_turn()
        metrics.observe_stage(Stage.TTFA, 2.0)
        for lag_s in (0.1, 0.3):
            metrics.LOOP_LAG_SECONDS.set(lag_s)
            reporter.read_gauges()
        is_due = [reporter.is_due(BEGAN_AT + dt.timedelta(seconds=seconds)) for seconds in (47, 48)]
        await reporter.report(BEGAN_AT + dt.timedelta(seconds=48))
        metrics.count_error("FELL_BEHIND")
        await reporter.report(BEGAN_AT + dt.timedelta(seconds=108))

        first, second = await asyncio.to_thread(read_samples)

        assert is_due == [False, True]
        assert (first[0], second[0]) == ("04:00", "04:01")
        assert (first[1].counts, second[1].counts) == ({"turns": 1}, {"errors.FELL_BEHIND": 1})
        assert estimate_quantile(first[1].latencies["ttfa"], 0.95) == pytest.approx(2.0, rel=0.025)
        assert first[1].gauges["loop_lag_s"] == Gauge(pytest.approx(0.2), 0.3)
        assert first[1].gauges["sessions"] == Gauge(0, 0)

    async def test_keeps_a_minute_that_the_database_did_not_take(self, caplog: pytest.LogCaptureFixture) -> None:
        reporter = reporting.Reporter(process="host:1", now=BEGAN_AT)
        await asyncio.to_thread(
            execute,
            "CREATE TRIGGER full BEFORE INSERT ON monitoring_sample BEGIN SELECT RAISE(ABORT, 'the disk is full'); END",
        )
        for minute in (1, 2):
            metrics.count_turn()
            await reporter.report(BEGAN_AT + dt.timedelta(minutes=minute))
        await asyncio.to_thread(execute, "DROP TRIGGER full")
        metrics.count_turn()
        await reporter.report(BEGAN_AT + dt.timedelta(minutes=3))

        samples = await asyncio.to_thread(read_samples)

        assert [(at, values.counts["turns"]) for at, values in samples] == [("04:02", 3)]
        assert len([record for record in caplog.records if "until the database is back" in record.message]) == 1


@pytest.mark.django_db(transaction=True)
class TestRun:
    async def test_writes_what_is_left_when_it_is_cancelled(self) -> None:
        running = asyncio.create_task(reporting.run(now=lambda: BEGAN_AT))
        await asyncio.sleep(0)
        metrics.count_lost_turn()

        running.cancel()
        await asyncio.wait([running])

        assert running.cancelled()
        samples = await asyncio.to_thread(read_samples)
        assert [(at, values.counts) for at, values in samples] == [("04:00", {"lost_turns": 1})]


@pytest.mark.django_db
class TestWriteSample:
    def test_adds_to_a_sample_of_the_same_minute(self) -> None:
        for turns in (1, 2):
            values = SampleValues(counts=metrics.Minute().counts)
            values.counts["turns"] = turns
            reporting.write_sample("host:1", BEGAN_AT.replace(second=0), values)

        assert [values.counts["turns"] for _, values in read_samples()] == [3]

    def test_counts_the_waiting_calls_of_its_own_process(self, alice: User) -> None:
        for process, state in (
            ("host:1", CallState.WAITING),
            ("host:1", CallState.ACTIVE),
            ("host:2", CallState.WAITING),
        ):
            LiveCall.objects.create(
                session_id=uuid.uuid4(),
                user=alice,
                process=process,
                state=state,
                began_at=BEGAN_AT,
                last_seen_at=BEGAN_AT,
            )

        reporting.write_sample("host:1", BEGAN_AT, SampleValues())

        assert read_samples()[0][1].gauges["waiting"] == Gauge(1, 1)
