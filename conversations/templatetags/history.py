"""Template filters of the history pages: times, durations, and excerpts with their matches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from django import template
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from conversations import search
from conversations.models import Turn

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
    """Mark in a text, which is escaped, what a query would find in it."""
    pieces: list[tuple[str, bool]] = []
    place = 0
    for start, end in search.find_spans(text, search.parse_query(query)):
        pieces += [(text[place:start], False), (text[start:end], True)]
        place = end
    pieces.append((text[place:], False))
    return format_html_join("", "{}", ((_write(piece, is_match=is_match),) for piece, is_match in pieces))


@register.filter
def excerpt(match: Mapping[str, Any]) -> SafeString:
    """Write the pieces of an excerpt, with the matches marked."""
    return format_html_join("", "{}", ((_write(piece.text, is_match=piece.is_match),) for piece in match["pieces"]))


def _write(text: str, *, is_match: bool) -> SafeString:
    return format_html("<mark>{}</mark>" if is_match else "{}", text)


@register.filter
def voice_of(turn: Turn) -> str:
    """Return the name of the voice that a turn was spoken in, as long as there is that voice."""
    if not turn.voice_name:
        return _("Automatic voice")
    return _("Deleted voice") if turn.voice_was_deleted else turn.voice_name
