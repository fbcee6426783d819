"""The charts of the operators' first page, from slots of samples: what each shows, and why it may be empty."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from django.utils import timezone
from django.utils.translation import gettext

from avatar_site.lib.metrics import Stage
from avatar_site.monitoring import charts, wording
from avatar_site.monitoring.charts import Chart, Rule, Series, Tick
from avatar_site.monitoring.conditions import FAILURES
from avatar_site.monitoring.outlook import DiskTrend
from avatar_site.monitoring.queries import Slot, Span, merge_slots
from avatar_site.monitoring.samples import SampleValues, estimate_quantile

#: How far the free space of the disk is drawn into the future: as far as it is drawn back.
_FORECAST_SLOTS = 30
#: An axis ends at so many times the target at most: one answer of a minute must not flatten all others.
_MAX_TARGETS = 4
_NONE: Counter[int] = Counter()


@dataclass(frozen=True, slots=True)
class Panel:
    """A chart with its words."""

    key: str
    title: str
    chart: Chart
    #: One sentence for those who do not see it.
    summary: str
    #: Why there is nothing to see; empty if there is.
    empty: str = ""
    #: "none": nothing was measured. "good": there was nothing bad.
    empty_kind: str = "none"
    #: Below the chart: name, value.
    notes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class StageRow:
    """How long one stage of an answer takes. Widths are in per cent of the longest."""

    name: str
    median: str
    p95: str
    median_percent: float
    p95_percent: float
    is_late: bool


class Axis:
    """The slots of a span as an axis of time."""

    def __init__(self, span: Span, slots: Sequence[Slot]) -> None:
        self.span = span
        self.slots = slots
        self.times = [wording.say_slot(slot.began_at, span.slot) for slot in slots]
        self.ticks = tuple(_find_ticks([slot.began_at for slot in slots], span.slot))

    def read(self, read: Callable[[SampleValues], float | None]) -> list[float | None]:
        return [None if slot.values is None else read(slot.values) for slot in self.slots]

    @property
    def is_measured(self) -> bool:
        return any(slot.values is not None for slot in self.slots)

    @property
    def not_measured(self) -> str:
        return gettext("Nothing was measured in this time. A figure is written each minute while AVATAR runs.")

    def pool(self, slots: int) -> Axis:
        """Return this axis with so many slots in one: of few turns in each, a percentile says nothing."""
        if len(self.slots) % slots:
            return self
        pooled = [
            Slot(self.slots[number].began_at, merge_slots(self.slots[number : number + slots]))
            for number in range(0, len(self.slots), slots)
        ]
        return Axis(Span(self.span.name, self.span.length, self.span.slot * slots, self.span.aligned), pooled)


def _find_ticks(moments: Sequence[dt.datetime], width: dt.timedelta) -> list[Tick]:
    local = [timezone.localtime(moment) for moment in moments]
    ticks = []
    for number, moment in enumerate(local):
        # A day is labelled in its middle, a moment where it is.
        percent = round(100 * (number + (width >= dt.timedelta(days=1)) / 2) / len(local), 3)
        if not 2 <= percent <= 97:
            continue
        if width < dt.timedelta(minutes=15):
            is_due, is_minor = moment.minute % 10 == 0, moment.minute % 20 != 0
        elif width < dt.timedelta(hours=1):
            is_due, is_minor = moment.hour % 3 == 0 and moment.minute == 0, moment.hour % 6 != 0
        else:
            days = (local[-1].date() - moment.date()).days
            is_due, is_minor = days % 5 == 0, days % 10 != 0
        if is_due:
            label = wording.say_day(moment) if width >= dt.timedelta(hours=1) else wording.say_clock(moment)
            ticks.append(Tick(percent, label, is_minor=is_minor))
    return ticks


def make_first_sound(axis: Axis, *, target_s: float) -> Panel:
    """Seconds from the end of speech to the first sound of the answer, against the target."""
    p95 = axis.read(lambda values: estimate_quantile(values.latencies.get(Stage.TTFA, _NONE), 0.95))
    p50 = axis.read(lambda values: estimate_quantile(values.latencies.get(Stage.TTFA, _NONE), 0.5))
    answers = axis.read(lambda values: values.latencies.get(Stage.TTFA, _NONE).total())
    ticks = charts.choose_ticks(min(max(_find_largest(p95), 1.2 * target_s), _MAX_TARGETS * target_s))
    chart = charts.draw_lines(
        [
            Series(gettext("P95"), p95, [wording.say_seconds(value) for value in p95]),
            Series(gettext("median"), p50, [wording.say_seconds(value) for value in p50], "quiet"),
            Series(gettext("answers"), [None] * len(answers), [wording.say_count(each) for each in answers], "unseen"),
        ],
        times=axis.times,
        x_ticks=axis.ticks,
        top=ticks[-1],
        ticks=[(value, wording.say_count(value)) for value in ticks],
        rule=Rule(target_s, gettext("target {seconds}").format(seconds=wording.say_seconds(target_s))),
    )
    worst = max((value for value in p95 if value is not None), default=None)
    late = sum(value > target_s for value in p95 if value is not None)
    return Panel(
        key="first-sound",
        title=gettext("Until the first sound (seconds)"),
        chart=chart,
        summary=gettext("P95 at worst {worst}; over the target in {late} of {count} intervals.").format(
            worst=wording.say_seconds(worst), late=late, count=sum(value is not None for value in p95)
        ),
        empty=""
        if worst is not None
        else (gettext("Nobody has been answered in this time.") if axis.is_measured else axis.not_measured),
    )


def make_sessions(axis: Axis, *, places: int) -> Panel:
    """How many talk at once, against the number of places."""
    peak = axis.read(lambda values: read_max(values, "sessions"))
    mean = axis.read(lambda values: read_mean(values, "sessions"))
    waiting = axis.read(lambda values: read_max(values, "waiting"))
    ticks = charts.choose_ticks(max(_find_largest(peak), _find_largest(waiting), places), is_whole=True)
    series = [
        Series(gettext("at most"), peak, [wording.say_count(value) for value in peak]),
        Series(gettext("on average"), [None] * len(mean), [_say_mean(value) for value in mean], "unseen"),
    ]
    if _find_largest(waiting):
        series.insert(1, Series(gettext("waiting"), waiting, [wording.say_count(each) for each in waiting], "second"))
    chart = charts.draw_lines(
        series,
        times=axis.times,
        x_ticks=axis.ticks,
        top=ticks[-1] * 1.08,
        ticks=[(value, wording.say_count(value)) for value in ticks],
        rule=Rule(places, gettext("places: {count}").format(count=places), bad_side=""),
        is_filled=True,
    )
    return Panel(
        key="sessions",
        title=gettext("Conversations at once"),
        chart=chart,
        summary=gettext("At most {peak} of {places} places taken.").format(
            peak=wording.say_count(_find_largest(peak)), places=places
        ),
        empty="" if any(value is not None for value in peak) else axis.not_measured,
    )


def make_errors(axis: Axis) -> Panel:
    """Errors that are ours, by when people were told of them."""
    errors = axis.read(count_errors)
    turns = axis.read(lambda values: values.counts["turns"])
    refused = axis.read(lambda values: sum_counts(values, "refused."))
    ticks = charts.choose_ticks(max(_find_largest(errors), 4), is_whole=True)
    chart = charts.draw_bars(
        Series(gettext("errors"), errors, [wording.say_count(value) for value in errors], "danger"),
        others=[
            Series(gettext("turns"), [], [wording.say_count(value) for value in turns], "unseen"),
            Series(gettext("refused calls"), [], [wording.say_count(value) for value in refused], "unseen"),
        ],
        times=axis.times,
        x_ticks=axis.ticks,
        top=ticks[-1],
        ticks=[(value, wording.say_count(value)) for value in ticks],
    )
    total = sum(int(value) for value in errors if value)
    empty = "" if total else gettext("No errors in this time.")
    by_code = [(code, count) for code, count in merge_counts(axis.slots, "errors.") if code in FAILURES]
    return Panel(
        key="errors",
        title=gettext("Errors"),
        chart=chart,
        summary=gettext("{count} errors in all.").format(count=total),
        empty=empty if axis.is_measured else axis.not_measured,
        empty_kind="good" if axis.is_measured else "none",
        notes=tuple((code, wording.say_count(count)) for code, count in by_code[:4]),
    )


def make_memory(axis: Axis, *, latest: SampleValues | None, limit: float) -> Panel:
    """Memory in use, in per cent, and by process. The limit is not of a GPU's memory, which is full by design."""
    ram = axis.read(lambda values: divide(read_max(values, "ram_used_bytes"), read_max(values, "ram_total_bytes")))
    vram = axis.read(lambda values: divide(read_max(values, "vram_used_bytes"), read_max(values, "vram_total_bytes")))
    series = [Series(gettext("main memory"), _scale(ram), [wording.say_percent(share) for share in ram])]
    if any(share is not None for share in vram):
        series.append(
            Series(gettext("GPU memory"), _scale(vram), [wording.say_percent(share) for share in vram], "second")
        )
    chart = charts.draw_lines(
        series,
        times=axis.times,
        x_ticks=axis.ticks,
        top=100,
        ticks=[(value, f"{value}%") for value in (0, 25, 50, 75, 100)],
        rule=Rule(100 * limit, gettext("main memory: limit {percent}").format(percent=wording.say_percent(limit))),
        is_filled=True,
    )
    processes = _list_processes(latest) if latest else []
    return Panel(
        key="memory",
        title=gettext("Memory in use"),
        chart=chart,
        summary=gettext("Main memory at most {percent} full.").format(
            percent=wording.say_percent(max((share for share in ram if share is not None), default=None))
        ),
        empty="" if any(share is not None for share in (*ram, *vram)) else axis.not_measured,
        notes=tuple((name, wording.say_bytes(size)) for name, size in processes),
    )


def make_disk(
    readings: Sequence[tuple[dt.datetime, float | None]],
    *,
    width: dt.timedelta,
    total: float | None,
    trend: DiskTrend | None,
    limit_bytes: float,
) -> Panel:
    """Free space of the last weeks, and as far ahead if it goes on like this."""
    ahead = _FORECAST_SLOTS if trend is not None and trend.bytes_a_day < 0 else 0
    begin = readings[0][0] if readings else timezone.now()
    moments = [begin + number * width for number in range(len(readings) + ahead)]
    free = [None if value is None else value / wording.GB for _, value in readings]
    measured: list[float | None] = [*free, *[None] * ahead]
    forecast = _forecast(free, ahead=ahead, trend=trend, width=width)
    largest = max((value for value in (*measured, *forecast) if value is not None), default=1.0)
    ticks = charts.choose_ticks(max(largest, 1.3 * limit_bytes / wording.GB))
    series = [Series(gettext("free"), measured, [_say_gb(value) for value in measured])]
    if ahead:
        name = gettext("if it goes on like this")
        series.append(Series(name, forecast, [_say_gb(value) for value in forecast], "forecast"))
    chart = charts.draw_lines(
        series,
        times=[wording.say_slot(moment, width) for moment in moments],
        x_ticks=_find_ticks(moments, width),
        top=ticks[-1],
        ticks=[(value, wording.say_count(value)) for value in ticks],
        rule=Rule(
            limit_bytes / wording.GB,
            gettext("least: {size}").format(size=wording.say_gigabytes(limit_bytes)),
            bad_side="below",
        ),
        is_filled=True,
    )
    newest = next((value for value in reversed(free) if value is not None), None)
    words = describe_disk(trend)
    return Panel(
        key="disk",
        title=gettext("Free space on the disk (GB, 30 days)"),
        chart=chart,
        summary=f"{_say_gb(newest)}. {words}",
        empty=""
        if newest is not None
        else gettext("Nothing was measured in the last 30 days. A figure is written each minute while AVATAR runs."),
        notes=((gettext("outlook"), words), (gettext("size"), wording.say_gigabytes(total))),
    )


def describe_disk(trend: DiskTrend | None) -> str:
    """Say when the disk runs full."""
    if trend is None:
        return gettext("a date after two days of measuring")
    if trend.full_at is None:
        return gettext("not full within two years")
    return gettext("full on {date}").format(date=wording.say_date(trend.full_at))


def _forecast(
    free: Sequence[float | None], *, ahead: int, trend: DiskTrend | None, width: dt.timedelta
) -> list[float | None]:
    """Return the free space of the slots to come, from the last reading on."""
    newest = next((number for number in range(len(free) - 1, -1, -1) if free[number] is not None), None)
    if newest is None or trend is None:
        return [None] * (len(free) + ahead)
    a_slot = trend.bytes_a_day / wording.GB * (width / dt.timedelta(days=1))
    start = free[newest] or 0.0
    return [
        *[None] * newest,
        *[_end_at_zero(start + a_slot * number, a_slot) for number in range(len(free) + ahead - newest)],
    ]


def _end_at_zero(value: float, a_slot: float) -> float | None:
    """Return a value of the forecast; None once the disk has been full for a slot."""
    return None if value <= a_slot else max(0.0, value)


def make_stages(values: SampleValues | None, *, target_s: float) -> tuple[StageRow, ...]:
    """How long each stage took, over the whole span."""
    names = {
        Stage.ENDPOINT: gettext("the end of speech is noticed"),
        Stage.STT: gettext("what was said is understood"),
        Stage.TTFT: gettext("the first word of the answer"),
        Stage.TTFA: gettext("the first sound"),
        Stage.TOTAL: gettext("the last sound"),
    }
    found = {stage: values.latencies.get(stage.value) for stage in Stage} if values else {}
    measured = {
        stage: (estimate_quantile(counts, 0.5) or 0.0, estimate_quantile(counts, 0.95) or 0.0)
        for stage, counts in found.items()
        if counts
    }
    longest = max((p95 for _, p95 in measured.values()), default=1.0)
    return tuple(
        StageRow(
            name=names[stage],
            median=wording.say_seconds(median),
            p95=wording.say_seconds(p95),
            median_percent=round(100 * median / longest, 1),
            p95_percent=round(100 * p95 / longest, 1),
            is_late=stage == Stage.TTFA and p95 > target_s,
        )
        for stage, (median, p95) in measured.items()
    )


def sum_counts(values: SampleValues, prefix: str) -> int:
    return sum(count for name, count in values.counts.items() if name.startswith(prefix))


def count_errors(values: SampleValues) -> int:
    """Return the errors that are ours, as the alert counts them."""
    return sum(values.counts[f"errors.{code}"] for code in FAILURES)


def merge_counts(slots: Sequence[Slot], prefix: str) -> list[tuple[str, int]]:
    """Return what was counted under a prefix, by the rest of its name, the most frequent first."""
    merged: dict[str, int] = {}
    for slot in slots:
        for name, count in (slot.values.counts if slot.values else {}).items():
            if name.startswith(prefix):
                merged[name.removeprefix(prefix)] = merged.get(name.removeprefix(prefix), 0) + count
    return sorted(merged.items(), key=lambda each: (-each[1], each[0]))


def divide(part: float | None, whole: float | None) -> float | None:
    return part / whole if part is not None and whole else None


def read_max(values: SampleValues, name: str) -> float | None:
    """Return the largest value of a gauge; None if it was not measured."""
    gauge = values.gauges.get(name)
    return gauge.max if gauge else None


def read_mean(values: SampleValues, name: str) -> float | None:
    gauge = values.gauges.get(name)
    return gauge.mean if gauge else None


def _list_processes(values: SampleValues) -> list[tuple[str, float]]:
    prefix = "rss_bytes."
    found = [
        (name.removeprefix(prefix), gauge.mean) for name, gauge in values.gauges.items() if name.startswith(prefix)
    ]
    return sorted(found, key=lambda each: -each[1])


def _find_largest(values: Sequence[float | None]) -> float:
    return max((value for value in values if value is not None), default=0.0)


def _scale(shares: Sequence[float | None]) -> list[float | None]:
    return [None if share is None else 100 * share for share in shares]


def _say_mean(value: float | None) -> str:
    return "—" if value is None else wording.say_count(round(value, 1))


def _say_gb(value: float | None) -> str:
    return wording.say_gigabytes(None if value is None else value * wording.GB)
