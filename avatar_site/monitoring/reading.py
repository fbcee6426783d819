"""Reads the site for the conditions of alerts: samples, runs, certificate, secrets."""

from __future__ import annotations

import datetime as dt

from django.conf import settings

from avatar_site.monitoring import certificates, secret_ages
from avatar_site.monitoring.conditions import (
    SAMPLES_WINDOW,
    TRAFFIC_WINDOW,
    Minute,
    Reading,
    Retention,
    Thresholds,
    Unverified,
)
from avatar_site.monitoring.models import Resolution, Sample
from avatar_site.monitoring.samples import SampleValues
from avatar_site.monitoring.sampling import SOURCE, Observed
from avatar_site.operations.models import BackupRun, RunKind, RunState
from avatar_site.operations.status import find_backed_up_at
from avatar_site.operations.sweep_guard import find_reason_against_sweeps
from conversations.models import RetentionRun, StorageCheck
from voices.services import read_doubtful_sweep


def read_thresholds() -> Thresholds:
    return Thresholds(
        memory_percent=settings.AVATAR_ALERT_MEMORY_PERCENT,
        error_percent=settings.AVATAR_ALERT_ERROR_PERCENT,
        min_errors=settings.AVATAR_ALERT_MIN_ERRORS,
        disk_gb=settings.AVATAR_ALERT_DISK_GB,
        logs_mb=settings.AVATAR_ALERT_LOGS_MB,
        backup_hours=settings.AVATAR_ALERT_BACKUP_HOURS,
        latency_s=settings.AVATAR_ALERT_LATENCY_S,
        queue_minutes=settings.AVATAR_ALERT_QUEUE_MINUTES,
        certificate_days=settings.AVATAR_ALERT_CERTIFICATE_DAYS,
        secret_days=settings.AVATAR_ALERT_SECRET_DAYS,
    )


def read(observed: Observed, *, now: dt.datetime) -> Reading:
    """Return the site as the conditions see it. `observed` was measured now, and is in the newest sample."""
    check = StorageCheck.objects.order_by("-checked_at", "-pk").first()
    retention = RetentionRun.objects.order_by("-started_at", "-pk").first()
    return Reading(
        now=now,
        minutes=_read_minutes(now),
        traffic=_read_traffic(now),
        children=observed.serve_state.children if observed.serve_state else (),
        roles=observed.inference.roles if observed.inference else None,
        inference_problem=observed.inference_problem,
        watched_since=_find_watched_since(),
        backed_up_at=find_backed_up_at(),
        unverified=_find_unverified(),
        retention=Retention(retention.started_at, retention.finished_at) if retention else None,
        sweep_refusal=find_reason_against_sweeps(),
        doubtful_sweep=(check.files_without_turn, check.turns_without_file) if check and check.was_refused else None,
        doubtful_voices=read_doubtful_sweep(),
        certificate=certificates.watcher.read(settings.AVATAR_ALERT_CERTIFICATE),
        secrets=secret_ages.read(now=now),
    )


def _read_minutes(now: dt.datetime) -> tuple[Minute, ...]:
    rows = Sample.objects.filter(
        source=SOURCE, resolution=Resolution.MINUTE, began_at__gt=now - SAMPLES_WINDOW, began_at__lte=now
    )
    return tuple(
        Minute(row.began_at, {name: gauge.max for name, gauge in SampleValues.from_json(row.values).gauges.items()})
        for row in rows.order_by("began_at", "pk")
    )


def _read_traffic(now: dt.datetime) -> SampleValues:
    rows = Sample.objects.filter(
        resolution=Resolution.MINUTE, began_at__gt=now - TRAFFIC_WINDOW, began_at__lte=now, source__startswith="web "
    )
    return SampleValues.merge_times([SampleValues.from_json(row.values) for row in rows])


def _find_watched_since() -> dt.datetime | None:
    """Return the time of the oldest sample, of which the oldest are hours."""
    for resolution in (Resolution.HOUR, Resolution.MINUTE):
        if sample := Sample.objects.filter(resolution=resolution).order_by("began_at", "pk").first():
            return sample.began_at
    return None


def _find_unverified() -> Unverified | None:
    """Return the newest nightly backup, if it has no verification that succeeded."""
    run = (
        BackupRun.objects.filter(kind=RunKind.BACKUP, state=RunState.DONE, reason="nightly")
        .order_by("-started_at", "-pk")
        .first()
    )
    if run is None or run.finished_at is None:
        return None
    verified = BackupRun.objects.filter(kind=RunKind.VERIFICATION, state=RunState.DONE, name=run.name)
    return None if verified.exists() else Unverified(run.name, run.finished_at)
