"""The strip of tiles on the operators' first page: how the site is, in words and one figure each. Plain values in."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from django.utils.translation import gettext, ngettext

from avatar_site.monitoring import outlook, panels, wording
from avatar_site.monitoring.outlook import DiskTrend
from avatar_site.monitoring.samples import SampleValues
from avatar_site.operations.status import Health

#: Of main memory, before the limit.
MEMORY_NOTICE = 0.8


class Level(StrEnum):
    """How a tile looks, from good to bad; NONE says nothing of it."""

    GOOD = "good"
    NONE = "none"
    WARNING = "warning"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Tile:
    key: str
    title: str
    value: str
    detail: str
    level: Level = Level.NONE
    url: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """The lines against which figures are held."""

    first_sound_s: float
    error_share: float
    #: Fewer are no share of anything.
    min_errors: int
    memory_share: float
    disk_bytes: float
    backup_age: dt.timedelta


def make_state(
    *,
    health: Health | None,
    reasons: Sequence[str],
    errors: Sequence[str],
    warnings: Sequence[str],
    may_see_alerts: bool,
    is_measured: bool,
    url: str,
) -> Tile:
    """
    Say how the site is, in the words of `/health`, with the first reason.

    `health` is None where this process does not probe. `reasons`, `errors` and `warnings` are sentences of
    alerts: who may not see these is told that there are some.
    """
    value, level = _judge(health, has_errors=bool(errors), has_warnings=bool(warnings), is_measured=is_measured)
    alerts = [*errors, *warnings]
    if alerts and not may_see_alerts:
        alerts = [gettext("Alerts are open.")]
    sentences = [*reasons, *alerts]
    if not is_measured:
        sentences.append(gettext("No figures of the last five minutes. Do worker and maintenance run?"))
    detail = _say_first(sentences) if sentences else gettext("No alert is open.")
    return Tile("state", gettext("State now"), value, detail, level, url)


def _judge(health: Health | None, *, has_errors: bool, has_warnings: bool, is_measured: bool) -> tuple[str, Level]:
    if health is Health.UNHEALTHY:
        return gettext("Unhealthy"), Level.BAD
    if health is Health.DEGRADED:
        return gettext("Degraded"), Level.BAD if has_errors else Level.WARNING
    if has_errors or has_warnings:
        return gettext("Needs a look"), Level.BAD if has_errors else Level.WARNING
    if not is_measured:
        return gettext("Unknown"), Level.WARNING
    return gettext("Healthy"), Level.GOOD


def _say_first(sentences: Sequence[str]) -> str:
    """Return the first sentence, and how many there are besides."""
    if len(sentences) == 1:
        return sentences[0]
    others = len(sentences) - 1
    more = ngettext("and {count} more", "and {count} more", others).format(count=others)
    return f"{sentences[0]} · {more}"


def make_sessions(*, active: int, waiting: int, places: int, peak: float | None, span: str, url: str) -> Tile:
    details = []
    if peak is not None:
        details = [gettext("{span}: at most {count}").format(span=span, count=wording.say_count(peak))]
    if waiting:
        details.insert(0, gettext("{count} waiting").format(count=waiting))
    is_full = active >= places
    if is_full:
        details.insert(0, gettext("every place is taken"))
    return Tile(
        "sessions",
        gettext("Talking now"),
        gettext("{active} of {places}").format(active=active, places=places),
        " · ".join(details),
        Level.WARNING if is_full else Level.GOOD,
        url,
    )


def make_first_sound(p95: float | None, *, span: str, limits: Limits) -> Tile:
    target = gettext("{span}: P95, target {seconds}").format(
        span=span, seconds=wording.say_seconds(limits.first_sound_s)
    )
    if p95 is None:
        return Tile(
            "first-sound", gettext("First sound"), "—", gettext("{span}: nobody was answered").format(span=span)
        )
    return Tile(
        "first-sound",
        gettext("First sound"),
        wording.say_seconds(p95),
        target,
        Level.BAD if p95 > limits.first_sound_s else Level.GOOD,
    )


def make_errors(values: SampleValues | None, *, span: str, limits: Limits) -> Tile:
    title = gettext("Errors")
    if values is None:
        return Tile("errors", title, "—", gettext("Nothing was measured."))
    errors, turns = panels.count_errors(values), values.counts["turns"]
    share = panels.divide(errors, errors + turns)
    detail = ngettext("{span}: in {count} turn", "{span}: in {count} turns", turns).format(
        span=span, count=wording.say_count(turns)
    )
    if share:
        detail = f"{detail} · {wording.say_percent(share, decimals=1)}"
    is_bad = share is not None and errors >= limits.min_errors and share > limits.error_share
    return Tile("errors", title, wording.say_count(errors), detail, Level.BAD if is_bad else Level.GOOD)


def make_memory(values: SampleValues | None, *, limits: Limits) -> Tile:
    title = gettext("Memory")
    used = panels.read_mean(values, "ram_used_bytes") if values else None
    total = panels.read_mean(values, "ram_total_bytes") if values else None
    share = panels.divide(used, total)
    if values is None or share is None:
        return Tile("memory", title, "—", gettext("Not measured just now."))
    details = [_say_part(used, total)]
    vram = panels.read_mean(values, "vram_used_bytes")
    if vram is not None:
        details = [gettext("GPU {part}").format(part=_say_part(vram, panels.read_mean(values, "vram_total_bytes")))]
    level = Level.BAD if share > limits.memory_share else Level.WARNING if share > MEMORY_NOTICE else Level.GOOD
    return Tile("memory", title, wording.say_percent(share), details[0], level)


def _say_part(used: float | None, total: float | None) -> str:
    return gettext("{used} of {total}").format(used=wording.say_bytes(used), total=wording.say_bytes(total))


def make_disk(values: SampleValues | None, *, trend: DiskTrend | None, limits: Limits, now: dt.datetime) -> Tile:
    title = gettext("Free disk")
    free = panels.read_mean(values, "disk_free_bytes") if values else None
    if free is None:
        return Tile("disk", title, "—", gettext("Not measured just now."))
    is_soon = trend is not None and trend.full_at is not None and trend.full_at - now <= outlook.DISK_NOTICE
    level = Level.BAD if free < limits.disk_bytes else Level.WARNING if is_soon else Level.GOOD
    return Tile("disk", title, wording.say_gigabytes(free), panels.describe_disk(trend), level)


def make_backup(
    taken_at: dt.datetime | None, *, created_at: dt.datetime | None, limits: Limits, now: dt.datetime, url: str
) -> Tile:
    """`created_at` is of the site: a new one has until its first night."""
    title = gettext("Backup")
    if taken_at is None:
        is_due = created_at is None or now - created_at > limits.backup_age
        detail = gettext("One is made and verified every night.")
        return Tile("backup", title, gettext("none yet"), detail, Level.WARNING if is_due else Level.NONE, url)
    is_old = now - taken_at > limits.backup_age
    detail = gettext("the last verified one; older than {hours} hours").format(
        hours=round(limits.backup_age / dt.timedelta(hours=1))
    )
    return Tile(
        "backup",
        title,
        wording.say_age(taken_at, now),
        detail
        if is_old
        else gettext("taken {day} {time}, verified").format(
            day=wording.say_day(taken_at), time=wording.say_clock(taken_at)
        ),
        Level.WARNING if is_old else Level.GOOD,
        url,
    )
