from __future__ import annotations

import datetime as dt
from collections.abc import Callable

import pytest

from avatar_site.monitoring import outlook
from avatar_site.monitoring.outlook import Day, DiskTrend, Shortage, Verdict

NOW = dt.datetime(2026, 11, 27, tzinfo=dt.UTC)
GIB = 2**30


def read_disk(free: Callable[[float], float], *, days: int = 30) -> list[tuple[dt.datetime, float]]:
    """Readings every six hours; `free` of the days that are left until now."""
    return [(NOW - dt.timedelta(days=ago), free(ago)) for ago in [step / 4 for step in range(days * 4, -1, -1)]]


class TestFindDiskTrend:
    def test_is_the_day_on_which_nothing_is_left(self) -> None:
        trend = outlook.find_disk_trend(read_disk(lambda ago: 40 * GIB + ago * 2 * GIB))

        assert trend is not None
        assert trend.bytes_a_day == pytest.approx(-2 * GIB)
        assert trend.full_at == NOW + dt.timedelta(days=20)

    def test_is_not_bent_by_a_night_that_erased_much(self) -> None:
        trend = outlook.find_disk_trend(read_disk(lambda ago: (40 + 2 * ago - (15 if ago > 28 else 0)) * GIB))

        assert trend is not None
        assert trend.bytes_a_day == pytest.approx(-2 * GIB, rel=0.01)

    @pytest.mark.parametrize("a_day", [0, 1 * GIB, -0.01 * GIB], ids=["level", "emptier", "slow"])
    def test_names_no_day_where_there_is_none_in_sight(self, a_day: float) -> None:
        trend = outlook.find_disk_trend(read_disk(lambda ago: 40 * GIB - ago * a_day))

        assert trend is not None
        assert trend.full_at is None

    def test_needs_two_days(self) -> None:
        assert outlook.find_disk_trend(read_disk(lambda ago: ago, days=1)) is None
        assert outlook.find_disk_trend([]) is None


def judge(*days: Day, disk: DiskTrend | None = None) -> dict[Shortage, Verdict]:
    return {each.shortage: each for each in outlook.judge(days, places=5, target_s=3.5, disk=disk, now=NOW)}


class TestJudge:
    def test_finds_a_site_too_small_that_was_full_on_three_days(self) -> None:
        full, free = Day(peak_sessions=5), Day(peak_sessions=4)

        assert judge(full, free, full, full)[Shortage.PLACES] == Verdict(Shortage.PLACES, True, 3, 4)
        assert judge(full, free, full, free)[Shortage.PLACES].is_met is False

    def test_counts_no_day_with_few_answers_as_slow(self) -> None:
        slow = Day(first_sound_p95_s=4, answers=20)
        few = Day(first_sound_p95_s=9, answers=19)

        assert judge(slow, slow, slow)[Shortage.SPEED].is_met is True
        assert judge(slow, slow, few)[Shortage.SPEED].is_met is None

    def test_finds_memory_short(self) -> None:
        assert judge(*[Day(peak_memory_share=0.9)] * 3)[Shortage.MEMORY].is_met is True
        assert judge(*[Day(peak_memory_share=0.8)] * 3)[Shortage.MEMORY].is_met is False

    def test_does_not_know_before_three_days_were_measured(self) -> None:
        assert {each.is_met for each in judge(Day(peak_sessions=5), Day(peak_sessions=5)).values()} == {None}

    @pytest.mark.parametrize(("days", "is_met"), [(59, True), (61, False), (None, False)])
    def test_finds_the_disk_short_two_months_before_it_is_full(self, days: int | None, is_met: bool) -> None:
        disk = DiskTrend(-1.0, None if days is None else NOW + dt.timedelta(days=days))

        assert judge(disk=disk)[Shortage.DISK].is_met is is_met
