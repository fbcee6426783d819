"""Turns samples of minutes into samples of hours after a week, and removes what is too old."""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.db import IntegrityError, transaction

from avatar_site.monitoring.models import Alert, AlertState, Resolution, Sample
from avatar_site.monitoring.samples import SampleValues

MINUTES_KEPT = dt.timedelta(days=7)
#: A year, and the month before it to compare with.
HOURS_KEPT = dt.timedelta(days=400)
ALERTS_KEPT = HOURS_KEPT


def roll_up(*, now: dt.datetime) -> int:
    """
    Make the hours that are older than a week, and return how many. Safe to run twice, and to kill in between.

    Each hour of a source is one transaction: a restart after a month off is 1500 small ones, not one of minutes.
    """
    before = (now - MINUTES_KEPT).replace(minute=0, second=0, microsecond=0)
    old = Sample.objects.filter(resolution=Resolution.MINUTE, began_at__lt=before)
    hours = {
        (source, began_at.replace(minute=0)) for source, began_at in old.values_list("source", "began_at").iterator()
    }
    made = sum(_make_hour(source, hour) for source, hour in sorted(hours, key=lambda key: (key[1], key[0])))
    Sample.objects.filter(resolution=Resolution.HOUR, began_at__lt=now - HOURS_KEPT).delete()
    Alert.objects.filter(state=AlertState.RESOLVED, resolved_at__lt=now - ALERTS_KEPT).delete()
    return made


def _make_hour(source: str, hour: dt.datetime) -> bool:
    """Replace the minutes of an hour. Return False if another process has."""
    minutes = Sample.objects.filter(
        source=source,
        resolution=Resolution.MINUTE,
        began_at__gte=hour,
        began_at__lt=hour + dt.timedelta(hours=1),
    )
    try:
        with transaction.atomic():
            # Locked: on PostgreSQL another process may read the same rows.
            rows = list(minutes.select_for_update().order_by("began_at", "pk"))
            if not rows:
                return False
            parts = [SampleValues.from_json(row.values) for row in rows]
            key: dict[str, Any] = {"source": source, "resolution": Resolution.HOUR, "began_at": hour}
            # Minutes that came after their hour was made: the clock was wrong, or a backup was restored.
            if earlier := Sample.objects.filter(**key).first():
                parts.append(SampleValues.from_json(earlier.values))
            Sample.objects.update_or_create(**key, defaults={"values": SampleValues.merge_times(parts).to_json()})
            Sample.objects.filter(pk__in=[row.pk for row in rows]).delete()
    except IntegrityError:
        return False
    return True
