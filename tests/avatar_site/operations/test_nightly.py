from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from zoneinfo import ZoneInfo

import pytest

from avatar_site.operations import nightly
from avatar_site.operations.nightly import Actions, Outcome, Step, StepSkipped

SUNDAY = dt.date(2026, 11, 29)
MONDAY = dt.date(2026, 11, 30)


class Night:
    """A night whose steps take a second each and note that they ran; those in `failing` fail."""

    def __init__(self, *failing: str) -> None:
        self.done: list[str] = []
        self._failing = failing
        self.skipping = ""
        self._now_s = 0.0

    def run(self, today: dt.date = MONDAY) -> list[Outcome]:
        names = Actions.__dataclass_fields__
        actions = Actions(**{name: self._make_action(name) for name in names})
        return nightly.run(actions, today=today, clock=lambda: self._now_s)

    def _make_action(self, name: str) -> Callable[[], object]:
        def act() -> None:
            self._now_s += 1.0
            self.done.append(name)
            if name in self._failing:
                raise RuntimeError("the bucket is away")
            if name == self.skipping:
                raise StepSkipped("A restore is not confirmed.")

        return act


class TestRetry:
    TAIPEI = ZoneInfo("Asia/Taipei")
    NOW = dt.datetime(2026, 11, 30, 4, 0, tzinfo=TAIPEI)
    LAST_NIGHT = dt.datetime(2026, 11, 29, 3, 40, tzinfo=TAIPEI)
    #: As the database gives it.
    TONIGHT = dt.datetime(2026, 11, 29, 19, 31, tzinfo=dt.UTC)

    @pytest.mark.parametrize("backed_up_at", [None, LAST_NIGHT])
    def test_is_due_without_a_backup_of_this_night(self, backed_up_at: dt.datetime | None) -> None:
        assert nightly.is_retry_due(now=self.NOW, backed_up_at=backed_up_at, retries=0)

    def test_is_not_due_once_there_is_one(self) -> None:
        assert not nightly.is_retry_due(now=self.NOW, backed_up_at=self.TONIGHT, retries=0)

    def test_is_due_until_midnight(self) -> None:
        now = self.NOW.replace(hour=23)

        assert nightly.is_retry_due(now=now, backed_up_at=self.LAST_NIGHT, retries=0)

    @pytest.mark.parametrize("time", [dt.time(0, 0), dt.time(3, 29, 59)])
    def test_is_not_due_before_the_night_begins(self, time: dt.time) -> None:
        now = dt.datetime.combine(self.NOW.date(), time, tzinfo=self.TAIPEI)

        assert not nightly.is_retry_due(now=now, backed_up_at=None, retries=0)

    def test_is_due_three_times_a_night(self) -> None:
        due = [nightly.is_retry_due(now=self.NOW, backed_up_at=None, retries=retries) for retries in range(5)]

        assert due == [True, True, True, False, False]


class TestRun:
    def test_takes_the_steps_in_order(self) -> None:
        night = Night()

        outcomes = night.run()

        assert night.done == ["clear_logins", "purge", "erase", "back_up", "prune", "remove_orphans"]
        assert [(outcome.took_s, outcome.problem) for outcome in outcomes] == [(1.0, "")] * 6

    @pytest.mark.parametrize("failing", ["clear_logins", "purge", "erase", "prune", "remove_orphans"])
    def test_goes_on_after_a_step_that_fails(self, failing: str) -> None:
        night = Night(failing)

        outcomes = night.run()

        assert night.done == ["clear_logins", "purge", "erase", "back_up", "prune", "remove_orphans"]
        assert [outcome.problem for outcome in outcomes if outcome.problem] == ["the bucket is away"]

    def test_logs_a_step_that_must_not_run_without_a_traceback(self, caplog: pytest.LogCaptureFixture) -> None:
        night = Night()
        night.skipping = "remove_orphans"

        outcomes = night.run()

        assert outcomes[-1] == Outcome(Step.REMOVE_ORPHANS, None, "A restore is not confirmed.")
        (record,) = [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]
        assert (record.levelname, record.exc_info) == ("WARNING", None)
        assert record.getMessage() == "night: remove orphans: skipped, A restore is not confirmed."

    def test_keeps_orphans_without_a_verified_backup(self) -> None:
        night = Night("back_up")

        outcomes = night.run()

        assert night.done == ["clear_logins", "purge", "erase", "back_up", "prune"]
        assert outcomes[-1] == Outcome(Step.REMOVE_ORPHANS, None, "there is no verified backup of this night")

    def test_verifies_the_oldest_backup_on_sundays(self) -> None:
        night = Night("back_up")

        night.run(SUNDAY)

        assert night.done[-1] == "verify_oldest"

    def test_logs_each_step_with_its_time(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level("INFO", logger=nightly.__name__)

        Night("purge").run()

        assert "night: purge: 1.0 s, the bucket is away" in caplog.messages
        assert "night: back up and verify: 1.0 s" in caplog.messages
