from __future__ import annotations

import datetime as dt
from collections import Counter
from zoneinfo import ZoneInfo

import pytest
from django.utils import translation

from avatar_site.lib.metrics import find_bucket
from avatar_site.monitoring import panels, queries
from avatar_site.monitoring.outlook import DiskTrend
from avatar_site.monitoring.panels import Axis
from avatar_site.monitoring.queries import Slot
from avatar_site.monitoring.samples import Gauge, SampleValues

BEGIN = dt.datetime(2026, 11, 27, 8, 5, tzinfo=ZoneInfo("Asia/Taipei"))
DAY = dt.timedelta(days=1)


@pytest.fixture(autouse=True)
def _english() -> None:
    translation.activate("en")


def answer(*seconds: float, **counts: int) -> SampleValues:
    buckets = Counter(find_bucket(each) for each in seconds)
    return SampleValues(latencies={"ttfa": buckets} if buckets else {}, counts=Counter(counts))


def make_axis(*values: SampleValues | None, span: queries.Span = queries.HOUR) -> Axis:
    """The slots from 08:05 on; what is not given was not measured."""
    padded = [*values, *[None] * (span.length // span.slot - len(values))]
    return Axis(span, [Slot(BEGIN + number * span.slot, each) for number, each in enumerate(padded)])


class TestAxis:
    def test_of_an_hour_is_labelled_every_ten_minutes(self) -> None:
        labels = [tick.label for tick in make_axis().ticks]

        assert labels == ["08:10", "08:20", "08:30", "08:40", "08:50", "09:00"]

    def test_is_pooled_by_adding_up(self) -> None:
        pooled = make_axis(answer(1, 1), None, answer(9)).pool(5)

        assert len(pooled.slots) == 12
        assert pooled.slots[0].values == answer(1, 1, 9)
        assert pooled.slots[1].values is None
        assert pooled.times[0] == "08:05–08:10"
        assert [tick.label for tick in pooled.ticks] == [tick.label for tick in make_axis().ticks]


class TestFirstSound:
    def test_is_late_above_the_target(self) -> None:
        panel = panels.make_first_sound(make_axis(answer(1), answer(5), answer(2)), target_s=3.5)

        assert panel.summary == "P95 at worst 5.0 s; over the target in 1 of 3 intervals."
        assert panel.chart.points[1][0] == "08:06"
        assert panel.chart.is_bad_above

    def test_is_not_flattened_by_one_answer_of_a_minute(self) -> None:
        panel = panels.make_first_sound(make_axis(answer(1), answer(60)), target_s=3.5)

        assert panel.chart.rule_percent < 80

    def test_says_why_it_is_empty(self) -> None:
        assert "Nobody" in panels.make_first_sound(make_axis(answer()), target_s=3.5).empty
        assert "each minute" in panels.make_first_sound(make_axis(), target_s=3.5).empty


class TestErrors:
    def test_of_none_is_good_news_only_if_measured(self) -> None:
        measured = panels.make_errors(make_axis(answer(turns=3)))
        unmeasured = panels.make_errors(make_axis())

        assert (measured.empty, measured.empty_kind) == ("No errors in this time.", "good")
        assert unmeasured.empty_kind == "none"


class TestMemory:
    def test_shows_the_gpu_only_where_there_is_one(self) -> None:
        ram = {"ram_used_bytes": Gauge(4, 8), "ram_total_bytes": Gauge(16, 16)}
        vram = {"vram_used_bytes": Gauge(9, 9), "vram_total_bytes": Gauge(10, 10)}

        alone = panels.make_memory(make_axis(SampleValues(gauges=ram)), latest=None, limit=0.9)
        both = panels.make_memory(make_axis(SampleValues(gauges=ram | vram)), latest=None, limit=0.9)

        assert [name for name, _ in alone.chart.names] == ["main memory"]
        assert [name for name, _ in both.chart.legend] == ["main memory", "GPU memory"]
        # The peak counts, not the mean.
        assert both.chart.points[0][1:] == ("50%", "90%")

    def test_names_processes_by_size(self) -> None:
        latest = SampleValues(gauges={f"rss_bytes.{name}": Gauge(size, size) for name, size in (("a", 1), ("b", 2))})

        panel = panels.make_memory(make_axis(), latest=latest, limit=0.9)

        assert [name for name, _ in panel.notes] == ["b", "a"]


class TestDisk:
    def draw(self, *free: float | None, a_day: float | None = None) -> panels.Panel:
        readings = [(BEGIN + number * DAY, value) for number, value in enumerate(free)]
        trend = None if a_day is None else DiskTrend(a_day, BEGIN + 9 * DAY if a_day < 0 else None)
        return panels.make_disk(readings, width=DAY, total=200e9, trend=trend, limit_bytes=10e9)

    def test_is_drawn_on_until_it_is_full(self) -> None:
        panel = self.draw(60e9, 50e9, 40e9, a_day=-10e9)

        forecast = [point[2] for point in panel.chart.points]
        assert forecast[:8] == ["—", "—", "40.0\xa0GB", "30.0\xa0GB", "20.0\xa0GB", "10.0\xa0GB", "0.0\xa0GB", "—"]
        assert len(panel.chart.points) == 33
        assert ("outlook", "full on Dec. 6, 2026") in panel.notes

    def test_is_not_drawn_on_where_it_empties(self) -> None:
        panel = self.draw(40e9, 50e9, a_day=10e9)

        assert len(panel.chart.points) == 2
        assert panel.chart.legend == ()
        assert "not full within two years" in panel.summary

    def test_says_when_there_will_be_a_date(self) -> None:
        assert "after two days" in self.draw(40e9).summary

    def test_says_why_it_is_empty(self) -> None:
        assert self.draw(None, None).empty


class TestStages:
    def test_are_held_against_the_longest(self) -> None:
        values = SampleValues(latencies={"ttfa": Counter({find_bucket(5): 9}), "total": Counter({find_bucket(10): 9})})

        first, total = panels.make_stages(values, target_s=3.5)

        assert (first.name, first.is_late) == ("the first sound", True)
        assert (total.p95_percent, total.is_late) == (100, False)
        assert first.p95_percent == pytest.approx(50, abs=3)

    def test_are_none_where_nobody_was_answered(self) -> None:
        assert panels.make_stages(None, target_s=3.5) == ()
