from __future__ import annotations

import datetime as dt
from collections import Counter
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from avatar_site.lib.metrics import find_bucket
from avatar_site.monitoring import queries
from avatar_site.monitoring.models import Alert, Resolution, Sample
from avatar_site.monitoring.samples import Gauge, SampleValues, estimate_quantile
from tests import factories

NOW = dt.datetime(2026, 11, 27, 9, 30, 20, tzinfo=ZoneInfo("Asia/Taipei"))


def write_sample(
    at: dt.datetime,
    *,
    source: str = "web main:1",
    resolution: Resolution = Resolution.MINUTE,
    latencies: dict[str, list[float]] | None = None,
    counts: dict[str, int] | None = None,
    **gauges: float,
) -> Sample:
    values = SampleValues(
        latencies={stage: Counter(find_bucket(each) for each in found) for stage, found in (latencies or {}).items()},
        counts=Counter(counts or {}),
        gauges={name: Gauge(value, value) for name, value in gauges.items()},
    )
    return Sample.objects.create(source=source, resolution=resolution, began_at=at, values=values.to_json())


def minutes_ago(minutes: int) -> dt.datetime:
    return NOW.replace(second=0) - dt.timedelta(minutes=minutes)


def read_values(span: queries.Span, *, at: dt.datetime) -> SampleValues:
    (found,) = [slot for slot in queries.read_slots(span, now=NOW) if slot.began_at <= at < slot.began_at + span.slot]
    assert found.values is not None
    return found.values


class TestSpan:
    @pytest.mark.parametrize(
        ("span", "begin", "end"),
        [
            (queries.HOUR, "2026-11-27T08:35", "2026-11-27T09:35"),
            (queries.DAY, "2026-11-26T09:45", "2026-11-27T09:45"),
            (queries.MONTH, "2026-10-29T00:00", "2026-11-28T00:00"),
        ],
        ids=["hour", "day", "month"],
    )
    def test_is_aligned_with_midnight_in_the_sites_time_zone(self, span: queries.Span, begin: str, end: str) -> None:
        assert f"{span.find_begin(NOW):%Y-%m-%dT%H:%M}" == begin
        assert f"{span.find_end(NOW):%Y-%m-%dT%H:%M}" == end

    def test_ends_after_now(self) -> None:
        full = NOW.replace(minute=0, second=0)

        assert [span.find_end(full) > full for span in queries.SPANS.values()] == [True] * 3


@pytest.mark.django_db
class TestReadSlots:
    def test_adds_up_what_web_processes_counted_in_a_minute(self) -> None:
        at = minutes_ago(3)
        write_sample(at, source="web a:1", latencies={"ttfa": [1.0, 2.0]}, counts={"turns": 2}, sessions=2, waiting=1)
        write_sample(at, source="web b:2", latencies={"ttfa": [1.0]}, counts={"turns": 1}, sessions=3, waiting=0)

        values = read_values(queries.HOUR, at=at)

        assert values.counts["turns"] == 3
        assert values.latencies["ttfa"] == Counter({find_bucket(1.0): 2, find_bucket(2.0): 1})
        assert values.gauges["sessions"] == Gauge(5, 5)
        assert values.gauges["waiting"] == Gauge(1, 1)

    def test_takes_the_larger_of_readings_that_are_no_shares(self) -> None:
        at = minutes_ago(3)
        write_sample(at, source="a", ram_used_bytes=9)
        write_sample(at, source="b", ram_used_bytes=1)

        assert read_values(queries.HOUR, at=at).gauges["ram_used_bytes"] == Gauge(9, 9)

    def test_reads_from_the_first_slot_that_is_not_known(self) -> None:
        write_sample(minutes_ago(5), counts={"turns": 5})
        write_sample(minutes_ago(3), counts={"turns": 3})
        slots = queries.read_slots(queries.HOUR, now=NOW)
        known = {slot.began_at: slot.values for slot in slots[:-9]}
        Sample.objects.filter(began_at=minutes_ago(5)).delete()
        write_sample(minutes_ago(1), counts={"turns": 1})

        later = queries.read_slots(queries.HOUR, now=NOW, known=known)

        assert [slot.values.counts["turns"] for slot in later if slot.values] == [5, 3, 1]

    def test_does_not_add_up_processes_that_followed_one_another(self) -> None:
        # A web process that was restarted has another name.
        write_sample(minutes_ago(10), source="web a:1", sessions=3)
        write_sample(minutes_ago(9), source="web a:2", sessions=1)

        sessions = read_values(queries.DAY, at=minutes_ago(10)).gauges["sessions"]

        assert (sessions.mean, sessions.max) == (2, 3)

    def test_estimates_the_same_quantile_as_one_process_would(self) -> None:
        seconds = [0.5 + number / 50 for number in range(100)]
        for number, each in enumerate(seconds):
            write_sample(minutes_ago(1 + number % 8), source=f"web a:{number}", latencies={"ttfa": [each]})

        p95 = estimate_quantile(read_values(queries.MONTH, at=minutes_ago(8)).latencies["ttfa"], 0.95)

        assert p95 == pytest.approx(seconds[95], rel=0.03)

    def test_has_a_slot_without_values_where_nothing_was_measured(self) -> None:
        write_sample(minutes_ago(2), sessions=1)

        slots = queries.read_slots(queries.HOUR, now=NOW)

        assert len(slots) == 60
        assert [number for number, slot in enumerate(slots) if slot.values is not None] == [53]

    def test_leaves_out_what_is_older_or_of_the_future(self) -> None:
        write_sample(minutes_ago(61), sessions=1)
        write_sample(minutes_ago(-5), sessions=1)

        assert all(slot.values is None for slot in queries.read_slots(queries.HOUR, now=NOW))

    def test_reads_an_hour_from_its_rollup_and_its_minutes_no_more(self) -> None:
        hour = minutes_ago(30).replace(minute=0) - dt.timedelta(hours=2)
        write_sample(hour, resolution=Resolution.HOUR, counts={"turns": 60})
        write_sample(hour + dt.timedelta(minutes=5), counts={"turns": 1})
        write_sample(hour + dt.timedelta(minutes=70), counts={"turns": 7})

        assert read_values(queries.MONTH, at=hour).counts["turns"] == 67

    def test_reads_the_last_day_from_minutes_though_rollups_are_there(self) -> None:
        hour = minutes_ago(30).replace(minute=0)
        write_sample(hour, resolution=Resolution.HOUR, counts={"turns": 60})
        write_sample(hour, counts={"turns": 1})

        assert read_values(queries.DAY, at=hour).counts["turns"] == 1

    def test_weighs_an_hour_as_sixty_minutes(self) -> None:
        hour = minutes_ago(30).replace(minute=0)
        write_sample(hour - dt.timedelta(hours=1), resolution=Resolution.HOUR, sessions=1)
        write_sample(hour, sessions=62)

        assert read_values(queries.MONTH, at=hour).gauges["sessions"].mean == 2

    def test_adds_up_hosts_but_not_processes_that_were_restarted_within_a_rollup(self) -> None:
        hour = minutes_ago(30).replace(minute=0)
        for source in ("web a:1", "web a:2", "web b:3"):
            write_sample(hour, source=source, resolution=Resolution.HOUR, sessions=3)

        assert read_values(queries.MONTH, at=hour).gauges["sessions"] == Gauge(6, 6)

    def test_takes_two_queries_however_much_there_is(self) -> None:
        for number in range(5):
            write_sample(minutes_ago(number), sessions=1)

        with CaptureQueriesContext(
            connection,
        ) as captured:
            queries.read_slots(queries.MONTH, now=NOW)

        assert len(captured) == 2
        assert "resolution" in captured[0]["sql"]


@pytest.mark.django_db
class TestReadLatest:
    def test_merges_the_sources_of_the_newest_minute_of_the_system(self) -> None:
        write_sample(minutes_ago(2), source="system", disk_free_bytes=7)
        write_sample(minutes_ago(2), sessions=2)
        write_sample(minutes_ago(1), sessions=3)

        latest = queries.read_latest(now=NOW)

        assert latest is not None
        assert latest.began_at == minutes_ago(2)
        assert latest.values is not None
        assert {name: gauge.mean for name, gauge in latest.values.gauges.items()} == {
            "disk_free_bytes": 7,
            "sessions": 2,
        }

    def test_is_none_when_the_newest_is_old(self) -> None:
        write_sample(minutes_ago(6), source="system", disk_free_bytes=7)

        assert queries.read_latest(now=NOW) is None


@pytest.mark.django_db
class TestReadUsage:
    def test_counts_speech_of_the_span_and_all_that_is_kept(self) -> None:
        alice, bob = factories.create_user("alice"), factories.create_user("bob")
        conversation = factories.create_conversation(alice)
        for speaker, days in (("user", 0), ("avatar", 0), ("user", 9)):
            turn = factories.create_turn(conversation, speaker=speaker, audio_duration_ms=60_000)
            type(turn).objects.filter(pk=turn.pk).update(
                audio_bytes=1000, created_at=NOW - dt.timedelta(days=days, minutes=1)
            )
        factories.upload_voice(bob)

        first, second = queries.read_usage(since=NOW - dt.timedelta(days=1))

        assert first == queries.Usage(alice.pk, spoken_ms=120_000, turns=2, stored_bytes=3000)
        assert (second.user_id, second.spoken_ms) == (bob.pk, 0)
        assert second.stored_bytes > 0


@pytest.mark.django_db
class TestReadUnresolvedAlerts:
    def test_has_errors_first_and_no_resolved_ones(self) -> None:
        def create(condition: str, **fields: Any) -> None:
            Alert.objects.create(condition=condition, opened_at=NOW, last_seen_at=NOW, **fields)

        create("slow", severity="warning")
        create("disk", severity="error", state="acknowledged")
        create("gone", severity="error", state="resolved")

        assert [alert.condition for alert in queries.read_unresolved_alerts()] == ["disk", "slow"]
