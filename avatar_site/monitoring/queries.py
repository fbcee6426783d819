"""Reads samples for charts, all sources merged, in slots of equal width; and what each person uses."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from django.db.models import Count, F, Sum
from django.utils import timezone

from avatar_site.monitoring.models import Alert, Resolution, Sample, Severity
from avatar_site.monitoring.samples import Gauge, SampleValues
from conversations.models import Turn
from voices.models import Recording, VoiceProfile

#: Of these gauges every web process has its share; of all others the largest reading counts.
SUMMED_GAUGES = frozenset({"sessions", "waiting"})
#: The gauges that charts show: a fifth of those in a sample of the system, and reading them is most of the work.
CHARTED_GAUGES = SUMMED_GAUGES | {
    f"{what}_{which}_bytes"
    for what, which in (
        ("ram", "used"),
        ("ram", "total"),
        ("vram", "used"),
        ("vram", "total"),
        ("disk", "free"),
        ("disk", "total"),
    )
}
_COLUMNS = ("began_at", "source", "values")


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time up to now, and the slots in which it is shown."""

    name: str
    length: dt.timedelta
    slot: dt.timedelta
    #: Its end is a multiple of this from midnight in the current time zone.
    aligned: dt.timedelta

    def find_begin(self, now: dt.datetime) -> dt.datetime:
        """Return when its first slot begins."""
        return self.find_end(now) - self.length

    def find_end(self, now: dt.datetime) -> dt.datetime:
        """Return when its last slot ends, after `now`."""
        local = timezone.localtime(now)
        midnight = local.replace(hour=0, minute=0, second=0, microsecond=0)
        return midnight + self.aligned * ((local - midnight) // self.aligned + 1)


#: By the minutes in which the page pools what is counted by turns.
POOLED_MINUTES = 5
HOUR = Span("hour", dt.timedelta(hours=1), dt.timedelta(minutes=1), dt.timedelta(minutes=POOLED_MINUTES))
DAY = Span("day", dt.timedelta(days=1), dt.timedelta(minutes=15), dt.timedelta(minutes=15))
MONTH = Span("month", dt.timedelta(days=30), dt.timedelta(days=1), dt.timedelta(days=1))
SPANS = {span.name: span for span in (HOUR, DAY, MONTH)}


@dataclass(frozen=True, slots=True)
class Slot:
    """What all sources measured from `began_at` on, for as long as a slot of its span is."""

    began_at: dt.datetime
    #: None: nothing was measured.
    values: SampleValues | None


class _Row(NamedTuple):
    """A sample as it is read."""

    began_at: dt.datetime
    source: str
    values: dict[str, Any]
    minutes: int


@dataclass(frozen=True, slots=True)
class Usage:
    """What one person has used."""

    user_id: int
    #: Of kept turns in the span: speech of both sides.
    spoken_ms: int
    turns: int
    #: Audio of turns and recordings that is kept now, whenever it was made.
    stored_bytes: int


@dataclass(slots=True)
class _Accumulator:
    """Merges the rows of one slot. Counts and latencies add up; gauges are merged by time, then over the slot."""

    latencies: dict[str, Counter[int]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    #: Of each gauge and time: what each source has of it, as mean and largest value, and how many minutes it was.
    gauges: dict[str, dict[tuple[dt.datetime, int], dict[str, tuple[float, float]]]] = field(default_factory=dict)

    def add(self, row: _Row, wanted: Set[str] | None = None) -> None:
        """Add a row; of its gauges only the wanted ones, None: all."""
        values = row.values
        # Processes of one host that are in one hour have mostly followed one another: a restart is not twice the calls.
        source = row.source if row.minutes == 1 else row.source.partition(":")[0]
        for stage, counts in values.get("latencies", {}).items():
            merged = self.latencies.setdefault(stage, Counter())
            for bucket, count in counts.items():
                merged[int(bucket)] += count
        for name, count in values.get("counts", {}).items():
            self.counts[name] += count
        for name, (mean, most) in values.get("gauges", {}).items():
            if wanted is not None and name not in wanted:
                continue
            sources = self.gauges.setdefault(name, {}).setdefault((row.began_at, row.minutes), {})
            other_mean, other_most = sources.get(source, (mean, most))
            sources[source] = (max(mean, other_mean), max(most, other_most))

    def to_values(self) -> SampleValues:
        return SampleValues(
            latencies=self.latencies,
            counts=self.counts,
            gauges={name: _merge_gauge(name, times) for name, times in self.gauges.items()},
        )


def _merge_gauge(name: str, times: dict[tuple[dt.datetime, int], dict[str, tuple[float, float]]]) -> Gauge:
    combine = sum if name in SUMMED_GAUGES else max
    total, weight, most = 0.0, 0, float("-inf")
    for (_, minutes), sources in times.items():
        total += combine(mean for mean, _ in sources.values()) * minutes
        weight += minutes
        most = max(most, combine(most for _, most in sources.values()))
    return Gauge(total / weight, most)


def read_slots(
    span: Span, *, now: dt.datetime, known: Mapping[dt.datetime, SampleValues | None] | None = None
) -> list[Slot]:
    """
    Return the slots of a span up to `now`, oldest first, with CHARTED_GAUGES.

    `known` are values of slots that need not be read again, by their begin. Costs a read of every row from the first
    slot that is not known: 30 ms of processor for each thousand.
    """
    begins = [span.find_begin(now) + number * span.slot for number in range(span.length // span.slot)]
    found = dict(known or {})
    first = next((begin for begin in begins if begin not in found), None)
    if first is not None:
        accumulators: dict[int, _Accumulator] = {}
        for row in _read_rows(span, first, span.find_end(now)):
            accumulators.setdefault((row.began_at - first) // span.slot, _Accumulator()).add(row, CHARTED_GAUGES)
        found |= {first + number * span.slot: each.to_values() for number, each in accumulators.items()}
    return [Slot(begin, found.get(begin)) for begin in begins]


def _read_rows(span: Span, begin: dt.datetime, end: dt.datetime) -> Iterator[_Row]:
    found = Sample.objects.filter(began_at__gte=begin, began_at__lt=end).order_by()
    minutes = found.filter(resolution=Resolution.MINUTE)
    if span.slot >= dt.timedelta(hours=1):
        # Rollups are made oldest hour first: up to the last of them no minutes are read, though they may be kept.
        last = begin - dt.timedelta(hours=1)
        for began_at, source, values in found.filter(resolution=Resolution.HOUR).values_list(*_COLUMNS):
            last = max(last, began_at)
            yield _Row(began_at, source, values, 60)
        minutes = minutes.filter(began_at__gte=last + dt.timedelta(hours=1))
    for began_at, source, values in minutes.values_list(*_COLUMNS).iterator(chunk_size=2000):
        yield _Row(began_at, source, values, 1)


def read_latest(*, now: dt.datetime, since: dt.timedelta = dt.timedelta(minutes=5)) -> Slot | None:
    """Return the newest minute that is complete, all sources merged; None if there is none as recent as `since`."""
    rows = Sample.objects.filter(resolution=Resolution.MINUTE, began_at__gte=now - since, began_at__lte=now)
    newest = rows.filter(source="system").order_by("-began_at", "-pk").values_list("began_at", flat=True).first()
    newest = newest or rows.order_by("-began_at", "-pk").values_list("began_at", flat=True).first()
    if newest is None:
        return None
    accumulator = _Accumulator()
    for source, values in rows.filter(began_at=newest).values_list("source", "values"):
        accumulator.add(_Row(newest, source, values, 1))
    return Slot(newest, accumulator.to_values())


def has_samples() -> bool:
    """Return whether anything was ever measured."""
    return Sample.objects.exists()


def merge_slots(slots: Iterable[Slot]) -> SampleValues | None:
    """Return the values of several slots of equal width; None if nothing was measured in any."""
    measured = [slot.values for slot in slots if slot.values is not None]
    return SampleValues.merge_times(measured) if measured else None


def read_usage(*, since: dt.datetime) -> list[Usage]:
    """
    Return what each person has used since then, most minutes first, then most storage.

    Calls of which nothing is kept do not count. Costs a scan of all turns: cache it.
    """
    spoken = (
        Turn.objects.filter(created_at__gte=since)
        .order_by()
        .values(user_id=F("conversation__owner"))
        .annotate(ms=Sum("audio_duration_ms"), turns=Count("pk"))
    )
    said = {row["user_id"]: (row["ms"] or 0, row["turns"]) for row in spoken}
    stored: Counter[int] = Counter()
    for rows in _read_stored_bytes():
        stored.update({row["user_id"]: row["size"] or 0 for row in rows})
    usages = [Usage(user_id, *said.get(user_id, (0, 0)), stored[user_id]) for user_id in {*said, *stored}]
    return sorted(usages, key=lambda usage: (-usage.spoken_ms, -usage.stored_bytes, usage.user_id))


def _read_stored_bytes() -> Iterator[Iterable[dict[str, Any]]]:
    for queryset, owner, size in (
        (Turn.objects.filter(audio_bytes__gt=0), "conversation__owner", "audio_bytes"),
        (Recording.objects.filter(profile__owner__isnull=False), "profile__owner", "size_bytes"),
        (VoiceProfile.objects.filter(owner__isnull=False, clip_bytes__gt=0), "owner", "clip_bytes"),
    ):
        rows: Any = queryset.order_by().values(user_id=F(owner)).annotate(size=Sum(size))
        yield rows


def read_unresolved_alerts() -> list[Alert]:
    """Return alerts that are open or acknowledged: errors first, then the newest."""
    alerts = list(Alert.objects.unresolved().order_by("-opened_at", "-pk"))
    return sorted(alerts, key=lambda alert: alert.severity != Severity.ERROR)
