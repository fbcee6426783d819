from __future__ import annotations

import datetime as dt
from collections.abc import Callable

import pytest

from avatar_site.operations import nightly
from avatar_site.operations.nightly import Actions, Outcome, Step

SUNDAY = dt.date(2026, 11, 29)
MONDAY = dt.date(2026, 11, 30)


class Night:
    """A night whose steps take a second each and note that they ran; those in `failing` fail."""

    def __init__(self, *failing: str) -> None:
        self.done: list[str] = []
        self._failing = failing
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

        return act


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
