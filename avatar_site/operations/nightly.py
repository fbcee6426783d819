"""
The night: which steps it has, in which order, and what one that fails means for those after it.

Decides and reports; the actions of the steps are passed in. See `maintenance.py`.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

logger = logging.getLogger(__name__)

#: Local time at which the night begins. Beat sends `run_night` then.
BEGINS_AT = dt.time(3, 30)
#: How often a night without a verified backup is run again. A cause that stays fails each time, with all its steps.
MAX_RETRIES = 3
#: The oldest backup is verified on Sundays, as `date.weekday()` counts.
WEEKLY_ON = 6


class StepSkipped(Exception):
    """The step must not run tonight, which is no failure. The message is a sentence that says why."""


class Step(StrEnum):
    CLEAR_LOGINS = "clear expired logins"
    PURGE = "purge"
    ERASE = "erase"
    BACK_UP = "back up and verify"
    PRUNE = "prune backups"
    REMOVE_ORPHANS = "remove orphans"
    VERIFY_OLDEST = "verify the oldest backup"


@dataclass(frozen=True, slots=True, kw_only=True)
class Actions:
    """What each step does. A step that fails raises; one that must not run tonight raises StepSkipped."""

    clear_logins: Callable[[], object]
    purge: Callable[[], object]
    erase: Callable[[], object]
    #: Makes a backup and restores it into a scratch folder: returning means that it is verified.
    back_up: Callable[[], object]
    prune: Callable[[], object]
    remove_orphans: Callable[[], object]
    verify_oldest: Callable[[], object]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a step ended. `took_s` is None if it was skipped; `problem` is empty if it succeeded."""

    step: Step
    took_s: float | None
    problem: str = ""

    def __str__(self) -> str:
        took = "skipped" if self.took_s is None else f"{self.took_s:.1f} s"
        return f"{self.step}: {took}{f', {self.problem}' if self.problem else ''}"


def find_start(now: dt.datetime) -> dt.datetime | None:
    """Return when the night of this day began; None before it begins. `now` is in local time."""
    start = dt.datetime.combine(now.date(), BEGINS_AT, tzinfo=now.tzinfo)
    return start if now >= start else None


def is_retry_due(*, now: dt.datetime, backed_up_at: dt.datetime | None, retries: int) -> bool:
    """
    Return whether to run the night again: it has begun, has no verified backup, and retries are left.

    `now` is in local time. `backed_up_at` is when the newest nightly backup that was verified ended; None if there is
    none. `retries` are those that this night has had. The caller holds the lock of backups, so none is being made.
    """
    start = find_start(now)
    return start is not None and (backed_up_at is None or backed_up_at < start) and retries < MAX_RETRIES


def run(actions: Actions, *, today: dt.date, clock: Callable[[], float]) -> list[Outcome]:
    """
    Run the night's steps and return how each ended. A step that fails is logged, and the next one runs.

    Expired data is removed and erased before the backup, so that it is not in it. Orphans are removed only after a
    backup of this night was verified: the sweep is the one step that deletes on suspicion. `clock` is monotonic, in
    seconds.
    """
    outcomes: list[Outcome] = []

    def skip(step: Step, reason: str) -> None:
        outcomes.append(Outcome(step, None, reason))
        logger.warning("night: %s", outcomes[-1])

    def take(step: Step, action: Callable[[], object]) -> bool:
        began_s = clock()
        problem = ""
        try:
            action()
        except StepSkipped as reason:
            skip(step, str(reason))
            return False
        except Exception as error:
            # Whatever it is: the steps after it do not depend on this one, but where it says so below.
            logger.exception("night: %s failed", step)
            problem = str(error) or type(error).__name__
        outcomes.append(Outcome(step, clock() - began_s, problem))
        logger.info("night: %s", outcomes[-1])
        return not problem

    take(Step.CLEAR_LOGINS, actions.clear_logins)
    take(Step.PURGE, actions.purge)
    take(Step.ERASE, actions.erase)
    is_backed_up = take(Step.BACK_UP, actions.back_up)
    take(Step.PRUNE, actions.prune)
    if is_backed_up:
        take(Step.REMOVE_ORPHANS, actions.remove_orphans)
    else:
        skip(Step.REMOVE_ORPHANS, "there is no verified backup of this night")
    if today.weekday() == WEEKLY_ON:
        take(Step.VERIFY_OLDEST, actions.verify_oldest)
    return outcomes
