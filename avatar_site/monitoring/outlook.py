"""What the last weeks say about the next: when the disk is full, and whether the site is too small. No I/O."""

from __future__ import annotations

import datetime as dt
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations

#: A trend needs readings over at least this long.
MIN_TREND = dt.timedelta(days=2)
#: A disk that lasts longer than this is not said to run full.
HORIZON = dt.timedelta(days=730)
#: Days before today that are looked at to tell whether the site is too small, and how many of them must be measured.
WINDOW_DAYS = 7
MIN_DAYS = 3
#: On so many of the days something has to be short before it counts.
SHORT_DAYS = 3
#: Of a day's largest reading.
FULL_MEMORY = 0.85
#: A day with fewer answers says nothing about latency.
MIN_ANSWERS = 20
DISK_NOTICE = dt.timedelta(days=60)


@dataclass(frozen=True, slots=True)
class DiskTrend:
    """How fast the free space falls, and when there is none left."""

    bytes_a_day: float
    #: None: not within `HORIZON`.
    full_at: dt.datetime | None


@dataclass(frozen=True, slots=True)
class Day:
    """What is known of one day; None where nothing was measured."""

    peak_sessions: float | None = None
    refused: int = 0
    answers: int = 0
    first_sound_p95_s: float | None = None
    peak_memory_share: float | None = None


class Shortage(StrEnum):
    """What a site can be too small in."""

    PLACES = "places"
    SPEED = "speed"
    MEMORY = "memory"
    DISK = "disk"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a site should be expanded because of one shortage."""

    shortage: Shortage
    #: None: not measured long enough to tell.
    is_met: bool | None
    #: On how many of the last days it was short.
    short_days: int = 0
    measured_days: int = 0


def find_disk_trend(readings: Sequence[tuple[dt.datetime, float]]) -> DiskTrend | None:
    """
    Return the trend of free bytes, oldest reading first; None if they do not reach over `MIN_TREND`.

    The median of the slopes between all pairs (Theil and Sen): a night that erases much, or a copy that lay there for a
    day, does not bend it. Quadratic in the readings; 120 take 2 ms.
    """
    if len(readings) < 2 or readings[-1][0] - readings[0][0] < MIN_TREND:
        return None
    day = dt.timedelta(days=1)
    slope = statistics.median(
        (later - earlier) / ((after - before) / day) for (before, earlier), (after, later) in combinations(readings, 2)
    )
    newest_at, newest = readings[-1]
    lasts_days = newest / -slope if slope < 0 else float("inf")
    full_at = newest_at + lasts_days * day if lasts_days <= HORIZON / day else None
    return DiskTrend(bytes_a_day=slope, full_at=full_at)


def judge(
    days: Sequence[Day], *, places: int, target_s: float, disk: DiskTrend | None, now: dt.datetime
) -> tuple[Verdict, ...]:
    """Return a verdict of each shortage, from the last days."""
    full = [day.peak_sessions >= places for day in days if day.peak_sessions is not None]
    slow = [
        day.first_sound_p95_s > target_s
        for day in days
        if day.first_sound_p95_s is not None and day.answers >= MIN_ANSWERS
    ]
    tight = [day.peak_memory_share >= FULL_MEMORY for day in days if day.peak_memory_share is not None]
    return (
        _judge_days(Shortage.PLACES, full),
        _judge_days(Shortage.SPEED, slow),
        _judge_days(Shortage.MEMORY, tight),
        Verdict(
            Shortage.DISK,
            None if disk is None else disk.full_at is not None and disk.full_at - now <= DISK_NOTICE,
        ),
    )


def _judge_days(shortage: Shortage, short: Sequence[bool]) -> Verdict:
    is_met = sum(short) >= SHORT_DAYS if len(short) >= MIN_DAYS else None
    return Verdict(shortage, is_met, short_days=sum(short), measured_days=len(short))
