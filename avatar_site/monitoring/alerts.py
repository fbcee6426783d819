"""Opens and resolves alerts: decides from findings alone, then changes rows and logs."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from django.db import IntegrityError, transaction
from django.utils import translation

from avatar_site.monitoring import sentences
from avatar_site.monitoring.conditions import ANY, CONDITIONS, Condition, Figures, Finding, Reading, Thresholds, Verdict
from avatar_site.monitoring.models import Alert, AlertState, Severity

logger = logging.getLogger(__name__)

_LEVELS = {Severity.WARNING.value: logging.WARNING, Severity.ERROR.value: logging.ERROR}


@dataclass(frozen=True, slots=True)
class Standing:
    """An unresolved alert."""

    pk: int
    condition: str
    subject: str
    severity: str
    last_seen_at: dt.datetime


@dataclass(frozen=True, slots=True)
class Open:
    condition: str
    finding: Finding


@dataclass(frozen=True, slots=True)
class Keep:
    """It still holds. `is_worse`: it was a warning, and is an error now."""

    alert: Standing
    finding: Finding
    is_worse: bool


@dataclass(frozen=True, slots=True)
class Resolve:
    alert: Standing


Change = Open | Keep | Resolve


def evaluate(reading: Reading, thresholds: Thresholds) -> dict[str, list[Finding]]:
    """Return the findings of every condition. One that fails is logged, and its alerts stay as they are."""
    return {key: _find(condition, reading, thresholds) for key, condition in CONDITIONS.items()}


def _find(condition: Condition, reading: Reading, thresholds: Thresholds) -> list[Finding]:
    try:
        return list(condition.find(reading, thresholds))
    except Exception:
        # Whatever it is: the other conditions must be examined.
        logger.exception("condition %s could not be examined", condition.key)
        return [Finding(ANY, Verdict.STAYS)]


def decide(
    standing: Iterable[Standing], findings: Mapping[str, Sequence[Finding]], *, now: dt.datetime
) -> Iterator[Change]:
    """
    Yield what to change: at most one unresolved alert for a condition and subject.

    Alerts of conditions that were not examined stay as they are; those of conditions that do not exist are resolved.
    """
    alerts = {(alert.condition, alert.subject): alert for alert in standing}
    for key, found in findings.items():
        for finding in found:
            if finding.verdict is not Verdict.HOLDS:
                continue
            alert = alerts.pop((key, finding.subject), None)
            if alert is None:
                yield Open(key, finding)
            else:
                is_worse = finding.severity == Severity.ERROR and alert.severity != Severity.ERROR
                yield Keep(alert, finding, is_worse)
    for alert in alerts.values():
        condition = CONDITIONS.get(alert.condition)
        if condition is None:
            yield Resolve(alert)
        elif alert.condition in findings:
            stays = {each.subject for each in findings[alert.condition] if each.verdict is Verdict.STAYS}
            # Seen later than now: the clock was set back.
            is_past = not dt.timedelta(0) <= now - alert.last_seen_at < condition.resolves_after
            if not stays & {ANY, alert.subject} and is_past:
                yield Resolve(alert)


def read_standing() -> list[Standing]:
    rows = Alert.objects.unresolved().order_by("pk")
    return [Standing(row.pk, row.condition, row.subject, row.severity, row.last_seen_at) for row in rows]


def apply(changes: Iterable[Change], *, now: dt.datetime) -> None:
    """Change the rows, and log what opens and resolves. What another process has changed already is not logged."""
    for change in changes:
        match change:
            case Open(condition, finding):
                _open(condition, finding, now)
            case Keep(alert, finding, is_worse):
                _keep(alert, finding, is_worse=is_worse, now=now)
            case Resolve(alert):
                _resolve(alert, now)


def _open(condition: str, finding: Finding, now: dt.datetime) -> None:
    try:
        with transaction.atomic():
            Alert.objects.create(
                condition=condition,
                subject=finding.subject,
                severity=finding.severity,
                figures=finding.figures,
                opened_at=now,
                last_seen_at=now,
            )
    except IntegrityError:
        return
    log_opened(finding.severity, condition, finding.subject, finding.figures)


def _keep(alert: Standing, finding: Finding, *, is_worse: bool, now: dt.datetime) -> None:
    row = Alert.objects.unresolved().filter(pk=alert.pk)
    if not is_worse:
        row.update(last_seen_at=now, figures=finding.figures)
    elif row.exclude(severity=Severity.ERROR).update(
        last_seen_at=now,
        figures=finding.figures,
        severity=Severity.ERROR,
        # What was acknowledged was a warning.
        state=AlertState.OPEN,
        acknowledged_at=None,
        acknowledged_by=None,
    ):
        _log(Severity.ERROR, "is worse", alert.condition, alert.subject, finding.figures)


def _resolve(alert: Standing, now: dt.datetime) -> None:
    if Alert.objects.unresolved().filter(pk=alert.pk).update(state=AlertState.RESOLVED, resolved_at=now):
        log_resolved(alert.condition, alert.subject)


def log_opened(severity: str, condition: str, subject: str, figures: Figures) -> None:
    _log(severity, "opened", condition, subject, figures)


def log_resolved(condition: str, subject: str) -> None:
    logger.info("alert resolved: %s", _name(condition, subject))


def _log(severity: str, what: str, condition: str, subject: str, figures: Figures) -> None:
    with translation.override("en"):
        # Sizes have a space that does not break, which few find by grep.
        sentence = sentences.describe(condition, subject, figures).replace("\xa0", " ")
    logger.log(_LEVELS[severity], "alert %s: %s: %s", what, _name(condition, subject), sentence)


def _name(condition: str, subject: str) -> str:
    return f"{condition} {subject}".strip()
