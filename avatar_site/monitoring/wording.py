"""Quantities and moments as the operators' first page says them, in the reader's language and the site's time zone."""

from __future__ import annotations

import datetime as dt

from django.template.defaultfilters import filesizeformat
from django.utils import timezone
from django.utils.formats import date_format, number_format
from django.utils.timesince import timesince
from django.utils.translation import gettext, ngettext

GB = 10**9


def say_seconds(seconds: float | None) -> str:
    """Two digits below ten seconds, as many as are measured; whole ones above."""
    if seconds is None:
        return "—"
    return gettext("{seconds} s").format(seconds=number_format(seconds, 1 if seconds < 10 else 0))


def say_percent(share: float | None, *, decimals: int = 0) -> str:
    return "—" if share is None else f"{number_format(100 * share, decimals)}%"


def say_bytes(size: float | None) -> str:
    return "—" if size is None else filesizeformat(int(size))


def say_gigabytes(size: float | None) -> str:
    """As disks are sold and the alerts count: a thousand million bytes."""
    return "—" if size is None else f"{number_format(size / GB, 1 if size < 100 * GB else 0)}\xa0GB"


def say_count(number: float | None) -> str:
    """Return a count; of a mean, one digit after the point."""
    if number is None:
        return "—"
    return number_format(number, 0 if float(number).is_integer() else 1, use_l10n=True, force_grouping=True)


def say_minutes(ms: int) -> str:
    minutes = round(ms / 60_000)
    if not minutes and ms:
        return gettext("under a minute")
    if minutes < 60:
        return ngettext("{count} min", "{count} min", minutes).format(count=minutes)
    hours, minutes = divmod(minutes, 60)
    return gettext("{hours} h {minutes} min").format(hours=say_count(hours), minutes=minutes)


def say_age(moment: dt.datetime, now: dt.datetime) -> str:
    return gettext("{age} ago").format(age=timesince(moment, now, depth=1))


def say_clock(moment: dt.datetime) -> str:
    return date_format(timezone.localtime(moment), "H:i")


def say_day(moment: dt.datetime) -> str:
    """Return month and day, as axes and tooltips have room for."""
    return date_format(timezone.localtime(moment), "n/j")


def say_date(moment: dt.datetime) -> str:
    return date_format(timezone.localtime(moment), "DATE_FORMAT")


def say_slot(began_at: dt.datetime, width: dt.timedelta) -> str:
    """Return when a slot was, in words as short as its width allows."""
    if width <= dt.timedelta(minutes=1):
        return say_clock(began_at)
    if width >= dt.timedelta(days=1):
        return date_format(timezone.localtime(began_at), "n/j (D)")
    times = f"{say_clock(began_at)}–{say_clock(began_at + width)}"
    return times
