from __future__ import annotations

import datetime as dt
from collections import Counter

import pytest

from avatar_site.monitoring import rollups
from avatar_site.monitoring.models import Alert, AlertState, Resolution, Sample, Severity
from avatar_site.monitoring.samples import Gauge, SampleValues

NOW = dt.datetime(2026, 11, 27, 4, 30, tzinfo=dt.UTC)
EIGHT_DAYS_AGO = dt.datetime(2026, 11, 19, 3, 0, tzinfo=dt.UTC)

pytestmark = pytest.mark.django_db


def create_minute(began_at: dt.datetime, *, source: str = "system", turns: int = 0, sessions: float = 0.0) -> None:
    values = SampleValues(
        latencies={"ttfa": Counter({100: turns})},
        counts=Counter(turns=turns),
        gauges={"sessions": Gauge(sessions, sessions)},
    )
    Sample.objects.create(source=source, began_at=began_at, values=values.to_json())


class TestRollUp:
    def test_makes_an_hour_of_its_minutes(self) -> None:
        for minute in range(60):
            create_minute(EIGHT_DAYS_AGO + dt.timedelta(minutes=minute), turns=1, sessions=minute % 4)

        assert rollups.roll_up(now=NOW) == 1

        sample = Sample.objects.get()
        values = SampleValues.from_json(sample.values)
        assert (sample.resolution, sample.began_at) == (Resolution.HOUR, EIGHT_DAYS_AGO)
        assert values.counts["turns"] == 60
        assert values.latencies["ttfa"] == {100: 60}
        assert values.gauges["sessions"] == Gauge(1.5, 3)

    def test_leaves_the_minutes_of_a_week(self) -> None:
        create_minute(NOW - rollups.MINUTES_KEPT)
        create_minute(NOW - rollups.MINUTES_KEPT - dt.timedelta(minutes=31))

        rollups.roll_up(now=NOW)

        assert Counter(Sample.objects.values_list("resolution", flat=True)) == {"minute": 1, "hour": 1}

    def test_keeps_sources_apart(self) -> None:
        for source in ("web a:1", "web b:2"):
            create_minute(EIGHT_DAYS_AGO, source=source)

        assert rollups.roll_up(now=NOW) == 2

    def test_adds_minutes_that_come_after_their_hour_was_made(self) -> None:
        create_minute(EIGHT_DAYS_AGO, turns=2)
        rollups.roll_up(now=NOW)
        create_minute(EIGHT_DAYS_AGO + dt.timedelta(minutes=1), turns=3)

        rollups.roll_up(now=NOW)

        assert SampleValues.from_json(Sample.objects.get().values).counts["turns"] == 5

    def test_done_twice_changes_nothing(self) -> None:
        create_minute(EIGHT_DAYS_AGO, turns=2)
        rollups.roll_up(now=NOW)

        assert rollups.roll_up(now=NOW) == 0
        assert SampleValues.from_json(Sample.objects.get().values).counts["turns"] == 2

    def test_removes_hours_and_resolved_alerts_after_a_year(self) -> None:
        long_ago = NOW - rollups.HOURS_KEPT - dt.timedelta(hours=1)
        Sample.objects.create(source="system", resolution=Resolution.HOUR, began_at=long_ago, values={})
        for state, resolved_at in ((AlertState.RESOLVED, long_ago), (AlertState.OPEN, None)):
            Alert.objects.create(
                condition="disk_space",
                severity=Severity.ERROR,
                state=state,
                opened_at=long_ago,
                last_seen_at=long_ago,
                resolved_at=resolved_at,
            )

        rollups.roll_up(now=NOW)

        assert not Sample.objects.exists()
        assert Alert.objects.get().state == AlertState.OPEN
