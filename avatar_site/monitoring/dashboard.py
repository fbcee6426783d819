"""The operators' first page: what is read for it, and who may see which part."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.contrib.auth.models import User
from django.core.cache import cache
from django.urls import NoReverseMatch, reverse
from django.utils import timezone
from django.utils.translation import gettext

from avatar_site.lib.metrics import Stage
from avatar_site.monitoring import outlook, panels, queries, tiles, wording
from avatar_site.monitoring.health_words import describe_reason
from avatar_site.monitoring.models import Alert, AlertState, Severity
from avatar_site.monitoring.outlook import Day, DiskTrend, Shortage, Verdict
from avatar_site.monitoring.panels import Axis
from avatar_site.monitoring.queries import Slot, Span, Usage
from avatar_site.monitoring.reading import read_thresholds
from avatar_site.monitoring.samples import SampleValues, estimate_quantile
from avatar_site.monitoring.tiles import Limits
from avatar_site.operations.status import UNPROBED, find_backed_up_at, find_created_at, get_prober
from realtime.models import CallState, LiveCall

if TYPE_CHECKING:
    from django.http import HttpRequest

#: What a scan of all turns has found is kept for so long.
KEPT_S = 300
#: Days that are over, in the cache. A restore of a backup is seen after this time.
_DAYS = "monitoring.days"
DAYS_KEPT_S = 24 * 60 * 60
#: The last samples of a day may be written a little after it.
SETTLED = dt.timedelta(hours=1)
#: The page refreshes itself at this pace: samples come each minute.
REFRESH_S = {"hour": 60, "day": 60, "month": 600}
PEOPLE = 8
ALERTS = 6


@dataclass(frozen=True, slots=True)
class Outlook:
    """What the last 30 days say."""

    #: Of the disk: when, free bytes.
    free: list[tuple[dt.datetime, float | None]]
    total_bytes: float | None
    trend: DiskTrend | None
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True, slots=True)
class Advice:
    """A condition under which the site should be expanded, and whether it is met."""

    condition: str
    finding: str
    #: "good", "warning", or "none": not known yet.
    level: str
    remedy: str


@dataclass(frozen=True, slots=True)
class AlertRow:
    sentence: str
    since: str
    level: str
    is_acknowledged: bool
    url: str


@dataclass(frozen=True, slots=True)
class Connected:
    username: str
    since: str
    state: str
    is_waiting: bool


def add_to_context(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Add `dashboard` for those who may see samples. Unfold calls this for its index."""
    context["title"] = gettext("Overview")
    if request.user.has_perm("monitoring.view_sample"):
        context["dashboard"] = describe(request, now=timezone.now())
    return context


def describe(request: HttpRequest, *, now: dt.datetime) -> dict[str, Any]:
    """Return all that templates/admin/index.html shows. Costs a read of the span, and of today."""
    span = queries.SPANS.get(request.GET.get("span", ""), queries.HOUR)
    month = read_month(now)
    slots = month if span is queries.MONTH else queries.read_slots(span, now=now)
    axis = Axis(span, slots)
    pooled = axis.pool(queries.POOLED_MINUTES) if span is queries.HOUR else axis
    latest = queries.read_latest(now=now)
    ahead = compute_outlook(month, now=now)
    user = request.user
    whole = queries.merge_slots(slots)
    calls = _read_calls(now)
    alerts = queries.read_unresolved_alerts()
    may_see_alerts = user.has_perm("monitoring.view_alert")
    limits = read_limits()
    return {
        "span": span.name,
        "spans": _list_spans(span),
        "refresh_s": REFRESH_S[span.name],
        "as_of": wording.say_clock(now),
        "time_zone": settings.TIME_ZONE,
        "has_samples": queries.has_samples(),
        "tiles": _make_tiles(span, whole, latest, ahead, calls, alerts, limits, may_see_alerts=may_see_alerts, now=now),
        "alerts": _describe_alerts(alerts[:ALERTS], now) if may_see_alerts else [],
        "alerts_url": _find_url("monitoring_alert_changelist"),
        "more_alerts": max(0, len(alerts) - ALERTS),
        "panels": (
            panels.make_first_sound(pooled, target_s=limits.first_sound_s),
            panels.make_sessions(axis, places=settings.AVATAR_MAX_SESSIONS),
            panels.make_errors(pooled),
            panels.make_memory(axis, latest=latest.values if latest else None, limit=limits.memory_share),
            panels.make_disk(
                ahead.free,
                width=queries.MONTH.slot,
                total=ahead.total_bytes,
                trend=ahead.trend,
                limit_bytes=limits.disk_bytes,
            ),
        ),
        "stages": panels.make_stages(whole, target_s=limits.first_sound_s),
        "may_see_calls": user.has_perm("realtime.view_livecall"),
        "connected": _describe_calls(calls, now) if user.has_perm("realtime.view_livecall") else [],
        "calls_url": _find_url("realtime_livecall_changelist"),
        "may_see_people": user.has_perm("auth.view_user"),
        "usage": _describe_usage(span, now) if user.has_perm("auth.view_user") else {},
        "advice": _advise(ahead),
        "audit_url": _find_url("admin_logentry_changelist") if user.has_perm("admin.view_logentry") else "",
    }


def read_limits() -> Limits:
    """Return the lines that charts draw: the thresholds of the alerts."""
    thresholds = read_thresholds()
    return Limits(
        first_sound_s=thresholds.latency_s,
        error_share=thresholds.error_percent / 100,
        min_errors=thresholds.min_errors,
        memory_share=thresholds.memory_percent / 100,
        disk_bytes=thresholds.disk_gb * wording.GB,
        backup_age=dt.timedelta(hours=thresholds.backup_hours),
    )


def _list_spans(chosen: Span) -> list[dict[str, Any]]:
    return [
        {"name": name, "label": label, "is_chosen": name == chosen.name} for name, (label, _) in _name_spans().items()
    ]


def _name_spans() -> dict[str, tuple[str, str]]:
    """Return what each span is called on its button, and in a tile."""
    return {
        "hour": (gettext("Last hour"), gettext("1 h")),
        "day": (gettext("Last 24 hours"), gettext("24 h")),
        "month": (gettext("Last 30 days"), gettext("30 days")),
    }


def _find_url(name: str) -> str:
    """Return the address of a page of the admin; empty if it has none."""
    try:
        return reverse(f"admin:{name}")
    except NoReverseMatch:
        return ""


def _make_tiles(
    span: Span,
    whole: SampleValues | None,
    latest: Slot | None,
    ahead: Outlook,
    calls: Sequence[LiveCall],
    alerts: Sequence[Alert],
    limits: Limits,
    *,
    may_see_alerts: bool,
    now: dt.datetime,
) -> tuple[tiles.Tile, ...]:
    in_span = _name_spans()[span.name][1]
    newest = latest.values if latest else None
    states = [call.state for call in calls]
    snapshot = get_prober().snapshot
    # Of a process that does not serve, such as the tests'.
    is_unprobed = snapshot is UNPROBED
    return (
        tiles.make_state(
            health=None if is_unprobed else snapshot.health,
            reasons=[] if is_unprobed else [describe_reason(code) for code in snapshot.reasons],
            errors=[str(alert) for alert in alerts if alert.severity == Severity.ERROR],
            warnings=[str(alert) for alert in alerts if alert.severity != Severity.ERROR],
            may_see_alerts=may_see_alerts,
            is_measured=latest is not None,
            url=_find_url("monitoring_alert_changelist") if may_see_alerts else "",
        ),
        tiles.make_sessions(
            active=states.count(CallState.ACTIVE),
            waiting=states.count(CallState.WAITING),
            places=settings.AVATAR_MAX_SESSIONS,
            peak=panels.read_max(whole, "sessions") if whole else None,
            span=in_span,
            url=_find_url("realtime_livecall_changelist"),
        ),
        tiles.make_first_sound(
            estimate_quantile(whole.latencies[Stage.TTFA], 0.95) if whole and Stage.TTFA in whole.latencies else None,
            span=in_span,
            limits=limits,
        ),
        tiles.make_errors(whole, span=in_span, limits=limits),
        tiles.make_memory(newest, limits=limits),
        tiles.make_disk(newest, trend=ahead.trend, limits=limits, now=now),
        tiles.make_backup(
            find_backed_up_at(),
            created_at=find_created_at(),
            limits=limits,
            now=now,
            url=_find_url("operations_backuprun_changelist"),
        ),
    )


def read_month(now: dt.datetime) -> list[Slot]:
    """Return the days of the last month. Those that are over are kept in the cache: only the others are read."""
    # As JSON: what an earlier version of the program has kept must not break the page.
    kept: dict[str, Any] = cache.get(_DAYS) or {}
    known = {
        dt.datetime.fromisoformat(began_at): SampleValues.from_json(values) if values is not None else None
        for began_at, values in kept.items()
    }
    slots = queries.read_slots(queries.MONTH, now=now, known=known)
    over = [slot for slot in slots if slot.began_at + queries.MONTH.slot + SETTLED <= now]
    if any(slot.began_at not in known for slot in over):
        days = {slot.began_at.isoformat(): slot.values.to_json() if slot.values else None for slot in over}
        cache.set(_DAYS, days, DAYS_KEPT_S)
    return slots


def compute_outlook(slots: Sequence[Slot], *, now: dt.datetime) -> Outlook:
    """Return what these slots of a month say."""
    free = [
        (slot.began_at, panels.read_mean(slot.values, "disk_free_bytes") if slot.values else None) for slot in slots
    ]
    sizes = [panels.read_mean(slot.values, "disk_total_bytes") for slot in slots if slot.values]
    trend = outlook.find_disk_trend([(at, value) for at, value in free if value is not None])
    # Without today, whose afternoon may still come.
    days = [_describe_day(slot.values) for slot in slots[-1 - outlook.WINDOW_DAYS : -1]]
    return Outlook(
        free=free,
        total_bytes=next((size for size in reversed(sizes) if size is not None), None),
        trend=trend,
        verdicts=outlook.judge(
            days,
            places=settings.AVATAR_MAX_SESSIONS,
            target_s=read_limits().first_sound_s,
            disk=trend,
            now=now,
        ),
    )


def _describe_day(values: SampleValues | None) -> Day:
    if values is None:
        return Day()
    answers = values.latencies.get(Stage.TTFA)
    return Day(
        peak_sessions=panels.read_max(values, "sessions"),
        refused=panels.sum_counts(values, "refused."),
        answers=answers.total() if answers else 0,
        first_sound_p95_s=estimate_quantile(answers, 0.95) if answers else None,
        peak_memory_share=panels.divide(
            panels.read_max(values, "ram_used_bytes"), panels.read_max(values, "ram_total_bytes")
        ),
    )


def _advise(ahead: Outlook) -> tuple[Advice, ...]:
    conditions = {
        Shortage.PLACES: (
            gettext("Every place was taken on 3 of 7 days"),
            gettext("Raise AVATAR_MAX_SESSIONS if memory and latency allow it, or add a GPU."),
        ),
        Shortage.SPEED: (
            gettext("The first sound came late on 3 of 7 days"),
            gettext("Add a GPU or a faster one, or lower AVATAR_MAX_SESSIONS."),
        ),
        Shortage.MEMORY: (
            gettext("Memory was over 85% on 3 of 7 days"),
            gettext("Add memory, or move the engines to a machine of their own."),
        ),
        Shortage.DISK: (
            gettext("The disk is full within 60 days"),
            gettext("Add a disk, move the audio into a bucket, or keep it for fewer days."),
        ),
    }
    return tuple(
        Advice(
            condition=conditions[verdict.shortage][0],
            finding=_say_finding(verdict, ahead),
            level="none" if verdict.is_met is None else "warning" if verdict.is_met else "good",
            remedy=conditions[verdict.shortage][1] if verdict.is_met else "",
        )
        for verdict in ahead.verdicts
    )


def _say_finding(verdict: Verdict, ahead: Outlook) -> str:
    is_of_disk = verdict.shortage == Shortage.DISK
    if verdict.is_met is None:
        not_yet = gettext("not known before {count} days of use").format(count=outlook.MIN_DAYS)
        return panels.describe_disk(ahead.trend) if is_of_disk else not_yet
    short = gettext("{short} of {measured} days").format(short=verdict.short_days, measured=verdict.measured_days)
    finding = panels.describe_disk(ahead.trend) if is_of_disk else short
    return (gettext("yes: {finding}") if verdict.is_met else gettext("no: {finding}")).format(finding=finding)


def _describe_alerts(alerts: Sequence[Alert], now: dt.datetime) -> list[AlertRow]:
    return [
        AlertRow(
            sentence=str(alert),
            since=wording.say_age(alert.opened_at, now),
            level="bad" if alert.severity == Severity.ERROR else "warning",
            is_acknowledged=alert.state == AlertState.ACKNOWLEDGED,
            url=reverse("admin:monitoring_alert_change", args=[alert.pk])
            if _find_url("monitoring_alert_changelist")
            else "",
        )
        for alert in alerts
    ]


def _read_calls(now: dt.datetime) -> list[LiveCall]:
    return list(LiveCall.objects.fresh(now).select_related("user").oldest_first())


def _describe_calls(calls: Sequence[LiveCall], now: dt.datetime) -> list[Connected]:
    return [
        Connected(
            username=call.user.get_username(),
            since=wording.say_clock(call.began_at),
            state=call.get_state_display(),
            is_waiting=call.state == CallState.WAITING,
        )
        for call in calls
    ]


def _describe_usage(span: Span, now: dt.datetime) -> dict[str, Any]:
    """Return who used how much. The cache has no names: those of deleted people would stay in it."""
    key = f"monitoring.usage.{span.name}"
    kept: list[tuple[int, int, int, int]] | None = cache.get(key)
    if kept is None:
        kept = [astuple(usage) for usage in queries.read_usage(since=now - span.length)]
        cache.set(key, kept, KEPT_S)
    usages = [Usage(*each) for each in kept]
    names = dict(User.objects.filter(pk__in=[usage.user_id for usage in usages]).values_list("pk", "username"))
    known = [usage for usage in usages if usage.user_id in names]
    longest = max((usage.spoken_ms for usage in known), default=0) or 1
    return {
        "rows": [
            {
                "username": names[usage.user_id],
                "minutes": wording.say_minutes(usage.spoken_ms),
                "percent": round(100 * usage.spoken_ms / longest, 1),
                "stored": wording.say_bytes(usage.stored_bytes),
            }
            for usage in known[:PEOPLE]
        ],
        "others": max(0, len(known) - PEOPLE),
    }
