"""What is done each minute: the system sample, then alerts, then telling of them."""

from __future__ import annotations

import datetime as dt
import logging
from pathlib import Path

from django.conf import settings

from avatar_site.monitoring import alerts, notifications, reading, sampling
from avatar_site.monitoring.conditions import STALLED, Finding
from avatar_site.monitoring.models import Resolution, Sample, Severity
from avatar_site.operations.locks import LockHeld, hold_lock

logger = logging.getLogger(__name__)

#: Of one machine: a message that is delivered twice must not send its e-mail twice.
LOCK = "monitoring.lock"
#: Without a system sample for so long, nobody examines the conditions.
STALLED_AFTER = dt.timedelta(minutes=5)


def watch(*, now: dt.datetime) -> None:
    """
    Write the system sample of this minute, open and resolve alerts, and tell of them.

    Does nothing while another process of this machine does. Takes some 50 ms, and half a minute at most where engines,
    Redis or a mail server do not answer.
    """
    try:
        with hold_lock(Path(settings.AVATAR_DATA_DIR), LOCK):
            observed = sampling.observe(now=now)
            sampling.write_system_sample(observed, now=now)
            findings = alerts.evaluate(reading.read(observed, now=now), reading.read_thresholds())
            alerts.apply(alerts.decide(alerts.read_standing(), findings, now=now), now=now)
            notifications.send_pending(now=now)
    except LockHeld:
        logger.info("the conditions are being examined by another process")


def watch_the_watch(*, watched_since: dt.datetime, now: dt.datetime) -> bool:
    """
    Open an alert if conditions have not been examined for a while. Return whether they have not.

    Web processes call it each minute: the process that examines conditions cannot tell that it is down itself.
    `watched_since` is when this process began. The alert is resolved when conditions are examined again.
    """
    newest = Sample.objects.filter(source=sampling.SOURCE, resolution=Resolution.MINUTE).order_by("-began_at").first()
    since = max(watched_since, newest.began_at) if newest else watched_since
    if now - since <= STALLED_AFTER:
        return False
    figures: dict[str, float | str] = {"since": since.isoformat()}
    findings = {STALLED: [Finding(severity=Severity.ERROR, figures=figures)]}
    alerts.apply(alerts.decide(alerts.read_standing(), findings, now=now), now=now)
    try:
        with hold_lock(Path(settings.AVATAR_DATA_DIR), LOCK):
            notifications.send_pending(now=now)
    except LockHeld:
        # One of several web processes, or a task that hangs.
        logger.info("alerts are being told of by another process")
    return True
