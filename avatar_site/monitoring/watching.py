"""What is done each minute: the system sample, then alerts, then telling of them."""

from __future__ import annotations

import datetime as dt
import logging
from pathlib import Path

from django.conf import settings

from avatar_site.monitoring import alerts, notifications, reading, sampling
from avatar_site.operations.locks import LockHeld, hold_lock

logger = logging.getLogger(__name__)

#: Of one machine: a message that is delivered twice must not send its e-mail twice.
LOCK = "monitoring.lock"


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
