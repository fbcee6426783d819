"""What is done each minute: the system sample, then alerts, then telling of them."""

from __future__ import annotations

import datetime as dt
import logging
from pathlib import Path

from django.conf import settings
from django.db import InterfaceError, OperationalError, connection

from avatar_site.monitoring import alerts, notifications, reading, sampling
from avatar_site.operations.locks import LockHeld, hold_lock

logger = logging.getLogger(__name__)

#: Of one machine: a message that is delivered twice must not send its e-mail twice.
LOCK = "monitoring.lock"


class DatabaseLog:
    """Logs that the database is away, once, and that it is back. A web process tells of it: see `outages`."""

    def __init__(self) -> None:
        self._is_away = False

    def note_away(self, error: Exception) -> None:
        if not self._is_away:
            logger.error("nothing is examined until the database is back: %s", error)
        self._is_away = True

    def note_back(self) -> None:
        if self._is_away:
            logger.info("the database is back")
        self._is_away = False


_database = DatabaseLog()


def watch(*, now: dt.datetime) -> None:
    """
    Write the system sample of this minute, open and resolve alerts, and tell of them.

    Does nothing while another process of this machine does, or the database is away. Takes some 50 ms, and half a
    minute at most where engines, Redis or a mail server do not answer.
    """
    try:
        with connection.cursor() as cursor:
            # Before each part of the sample finds out by itself, and logs it.
            cursor.execute("SELECT 1")
        _watch(now=now)
    except (OperationalError, InterfaceError) as error:
        _database.note_away(error)
    else:
        _database.note_back()


def _watch(*, now: dt.datetime) -> None:
    try:
        with hold_lock(Path(settings.AVATAR_DATA_DIR), LOCK):
            observed = sampling.observe(now=now)
            sampling.write_system_sample(observed, now=now)
            findings = alerts.evaluate(reading.read(observed, now=now), reading.read_thresholds())
            alerts.apply(alerts.decide(alerts.read_standing(), findings, now=now), now=now)
            notifications.send_pending(now=now)
    except LockHeld:
        logger.info("the conditions are being examined by another process")
