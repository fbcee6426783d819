"""
What only a web process sees: that the process that examines conditions is down, and that the database is away.

While the database is away no alert can be kept: it is logged and told at once, and kept once it is over.
"""

from __future__ import annotations

import datetime as dt
import logging
import os
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
#: A notice that no web process has renewed for so long is of an outage before this one.
NOTICE_IS_OLD_S = 10 * 60.0
_NOTICE_LOCK = "database-away.lock"
#: Minutes are counted from anew after such a pause: the machine slept.
PAUSE = dt.timedelta(minutes=3)


class OutageWatch:
    """Since when a web process could see the site, and the database was away. Pure: time is passed in."""

    def __init__(self, now: dt.datetime) -> None:
        self.watched_since = now
        self._noted_at = now
        self._away_since: dt.datetime | None = None

    def note_failure(self, now: dt.datetime) -> dt.datetime | None:
        """Note that the database did not take a sample. Return since when, if that is long enough to be told of."""
        self._note(now)
        if self._away_since is None:
            self._away_since = now
        return self._away_since if now - self._away_since >= AWAY_AFTER else None

    def note_success(self, now: dt.datetime) -> None:
        """Note that it took one."""
        self._note(now)
        if self._away_since is not None:
            # Nothing could be examined in between.
            self.watched_since = now
            self._away_since = None

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


class AwayNotice:
    """
    Tells that the database is away, and that it is back: once for all web processes of a data folder.

    A file in the folder says that it was told: it survives those who told it. Where the folder does not take the file,
    its disk being full for instance, each process tells.
    """

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._path = data_dir / "database-away"
        #: Of the outage that this process has noted.
        self._noted_since: dt.datetime | None = None
        #: Of one that it told, and of which the folder did not take the file.
        self._told_without_file_since: dt.datetime | None = None

    def tell_away(self, *, since: dt.datetime, problem: str, now: dt.datetime) -> None:
        """Log it, and tell each channel, without the database. Call it each minute: it tells the first time."""
        if not self._claim(since, now):
            return
        figures: Figures = {"since": since.isoformat(), "problem": problem}
        alerts.log_opened(Severity.ERROR, DATABASE_AWAY, "", figures)
        _tell(
            Alert(
                condition=DATABASE_AWAY, severity=Severity.ERROR, figures=figures, opened_at=since, last_seen_at=since
            )
        )

    def tell_back(self, *, now: dt.datetime) -> None:
        """
        If it was told, keep the alert that could not be kept, log that it is over, and tell each channel.

        Call it each minute: without an outage it costs a look into the folder. Raises OSError and DatabaseError.
        """
        if self._told_without_file_since is None and not self._path.exists():
            return
        try:
            with hold_lock(self._data_dir, _NOTICE_LOCK):
                since = self._told_without_file_since or self._read_since()
                if since is None:
                    return
                alert = _keep(since=since, now=now)
                self._path.unlink(missing_ok=True)
                self._told_without_file_since = None
        except LockHeld:
            return  # another process tells it
        alerts.log_resolved(DATABASE_AWAY, "")
        _tell(alert)

    def _claim(self, since: dt.datetime, now: dt.datetime) -> bool:
        """Return whether this process is the one to tell."""
        is_noted, self._noted_since = self._noted_since == since, since
        try:
            with hold_lock(self._data_dir, _NOTICE_LOCK):
                told_at = self._path.stat().st_mtime if self._path.exists() else None
                is_told = told_at is not None and now.timestamp() - told_at < NOTICE_IS_OLD_S
                if is_noted and not is_told:
                    # Another process told that it is back: for this one alone it is away, which is no second outage.
                    return False
                if not is_told:
                    self._path.write_text(since.isoformat(), encoding="utf-8")
                # Whoever notices the outage renews it: it may last longer than any web process.
                os.utime(self._path, (now.timestamp(), now.timestamp()))
                return not is_told
        except LockHeld:
            return False
        except OSError as error:
            if not is_noted:
                logger.warning("other web processes may tell as well that the database is away: %s", error)
                self._told_without_file_since = since
            return not is_noted

    def _read_since(self) -> dt.datetime | None:
        """Return None if another process has removed the file."""
        try:
            return dt.datetime.fromisoformat(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError:
            # The disk was full when it was written.
            return dt.datetime.fromtimestamp(self._path.stat().st_mtime, dt.UTC)


def _keep(*, since: dt.datetime, now: dt.datetime) -> Alert:
    return Alert.objects.create(
        condition=DATABASE_AWAY,
        severity=Severity.ERROR,
        figures={"since": since.isoformat(), "problem": ""},
        state=AlertState.RESOLVED,
        opened_at=since,
        last_seen_at=now,
        resolved_at=now,
        notified_at=now,
    )


def _tell(alert: Alert) -> None:
    for channel in notifications.list_channels():
        try:
            with translation.override(settings.LANGUAGE_CODE):
                channel.send([alert])
        except notifications.NotSent as error:
            logger.warning("%s could not be told by %s: %s", alert.condition, channel.name, error)
