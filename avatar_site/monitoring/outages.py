"""
What only a web process sees: that the process that examines conditions is down, and that the database is away.

While the database is away no alert can be kept: it is logged and told at once, and kept once it is over.
"""

from __future__ import annotations

import datetime as dt
import logging
from pathlib import Path

from django.conf import settings
from django.utils import translation

from avatar_site.monitoring import alerts, notifications, sampling
from avatar_site.monitoring.conditions import DATABASE_AWAY, STALLED, Figures, Finding
from avatar_site.monitoring.models import Alert, AlertState, Resolution, Sample, Severity
from avatar_site.monitoring.watching import LOCK
from avatar_site.operations.locks import LockHeld, hold_lock

logger = logging.getLogger(__name__)

#: Without a system sample for so long, nobody examines the conditions.
STALLED_AFTER = dt.timedelta(minutes=5)
#: A restart of the database takes seconds.
AWAY_AFTER = dt.timedelta(minutes=2)
#: Minutes are counted from anew after such a pause: the machine slept.
PAUSE = dt.timedelta(minutes=3)


class OutageWatch:
    """Since when a web process could see the site, and the database was away. Pure: time is passed in."""

    def __init__(self, now: dt.datetime) -> None:
        self.watched_since = now
        self._noted_at = now
        self._away_since: dt.datetime | None = None
        self._is_told = False

    def note_failure(self, now: dt.datetime) -> dt.datetime | None:
        """Note that the database did not take a sample. Return since when, if it is to be told of now."""
        self._note(now)
        if self._away_since is None:
            self._away_since = now
        if self._is_told or now - self._away_since < AWAY_AFTER:
            return None
        self._is_told = True
        return self._away_since

    def note_success(self, now: dt.datetime) -> dt.datetime | None:
        """Note that it took one. Return since when it had been away, if that was told of."""
        self._note(now)
        if self._away_since is None:
            return None
        # Nothing could be examined in between.
        self.watched_since = now
        since, was_told = self._away_since, self._is_told
        self._away_since, self._is_told = None, False
        return since if was_told else None

    def _note(self, now: dt.datetime) -> None:
        if now - self._noted_at > PAUSE:
            self.watched_since = now
        self._noted_at = now


def watch_the_watch(*, watched_since: dt.datetime, now: dt.datetime) -> bool:
    """
    Open an alert if conditions have not been examined for a while. Return whether they have not.

    Web processes call it each minute: the process that examines conditions cannot tell that it is down itself.
    `watched_since` is since when this process could have seen it. The alert is resolved by the next examination.
    """
    samples = Sample.objects.filter(source=sampling.SOURCE, resolution=Resolution.MINUTE, began_at__lte=now)
    newest = samples.order_by("-began_at").first()
    since = max(watched_since, newest.began_at) if newest else watched_since
    if now - since <= STALLED_AFTER:
        return False
    figures: Figures = {"since": since.isoformat()}
    findings = {STALLED: [Finding(severity=Severity.ERROR, figures=figures)]}
    alerts.apply(alerts.decide(alerts.read_standing(), findings, now=now), now=now)
    try:
        with hold_lock(Path(settings.AVATAR_DATA_DIR), LOCK):
            notifications.send_pending(now=now)
    except LockHeld:
        # One of several web processes, or a task that hangs.
        logger.info("alerts are being told of by another process")
    return True


def tell_that_database_is_away(*, since: dt.datetime, problem: str) -> None:
    """Log it, and tell each channel, without the database."""
    figures: Figures = {"since": since.isoformat(), "problem": problem}
    alerts.log_opened(Severity.ERROR, DATABASE_AWAY, "", figures)
    _tell(Alert(condition=DATABASE_AWAY, severity=Severity.ERROR, figures=figures, opened_at=since, last_seen_at=since))


def tell_that_database_is_back(*, since: dt.datetime, now: dt.datetime) -> None:
    """Keep the alert that could not be kept, log that it is over, and tell each channel."""
    alert = Alert.objects.create(
        condition=DATABASE_AWAY,
        severity=Severity.ERROR,
        figures={"since": since.isoformat(), "problem": ""},
        state=AlertState.RESOLVED,
        opened_at=since,
        last_seen_at=now,
        resolved_at=now,
        notified_at=now,
    )
    alerts.log_resolved(DATABASE_AWAY, "")
    _tell(alert)


def _tell(alert: Alert) -> None:
    for channel in notifications.list_channels():
        try:
            with translation.override(settings.LANGUAGE_CODE):
                channel.send([alert])
        except notifications.NotSent as error:
            logger.warning("%s could not be told by %s: %s", alert.condition, channel.name, error)
