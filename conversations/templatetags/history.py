"""How the history pages write times, lengths and what was searched for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime

from django import template
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import conditional_escape, format_html
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

register = template.Library()

#: In the order in which they happen.
_STAGES = (
    ("stt", gettext_lazy("understood")),
    ("ttft", gettext_lazy("first word")),
    ("ttfa", gettext_lazy("first sound")),
    ("total", gettext_lazy("all")),
)


@register.filter
def day_and_time(moment: datetime | None) -> str:
    """Return "today 14:03", or the date and the time; with the year when it is another one."""
    if moment is None:
        return ""
    local, now = timezone.localtime(moment), timezone.localtime()
    clock = date_format(local, "H:i")
    if local.date() == now.date():
        return _("today %(time)s") % {"time": clock}
    day = date_format(local, "MONTH_DAY_FORMAT" if local.year == now.year else "DATE_FORMAT")
    return f"{day} {clock}"


@register.filter
def clock(duration_ms: int) -> str:
    """Return 83 000 as "1:23"."""
    minutes, seconds = divmod(round(duration_ms / 1000), 60)
    return f"{minutes}:{seconds:02}"


@register.filter
def stages(latency: Mapping[str, int | None]) -> Iterator[tuple[str, str]]:
    """Give the name and the seconds of each stage that was measured."""
    for key, name in _STAGES:
        if (milliseconds := latency.get(key)) is not None:
            yield str(name), f"{milliseconds / 1000:.2f}"


@register.filter
def marked(text: str, query: str) -> SafeString:
    """Mark in a text, which is escaped, the words of a query."""
    terms = sorted(set(query.split()), key=len, reverse=True)
    if not terms:
        return conditional_escape(text)
    found = re.compile("(" + "|".join(map(re.escape, terms)) + ")", re.IGNORECASE)
    pieces = found.split(text)
    # `split` gives what was found at odd places.
    written = (format_html("<mark>{}</mark>" if place % 2 else "{}", piece) for place, piece in enumerate(pieces))
    return mark_safe("".join(written))  # noqa: S308 — each piece was escaped above
