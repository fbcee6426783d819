"""
The conditions of alerts: what holds, given a reading of the site. Reads no clock, no database and no disk.

A condition has two thresholds or a window, so that a quantity near its limit opens one alert, not twenty: a finding
HOLDS from the first on, and one between the two STAYS, which opens nothing and resolves nothing.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum

from avatar_site.lib.metrics import find_bucket
from avatar_site.monitoring.models import Severity
from avatar_site.monitoring.samples import SampleValues, estimate_quantile
from avatar_site.operations.serve_state import ChildState
from inference.interfaces import Role, RoleStatus

#: As Django words sizes.
GB = 2**30
MB = 2**20
#: Of error rate, latency and lost turns.
TRAFFIC_WINDOW = dt.timedelta(minutes=10)
#: What the reading has of the "system" samples.
SAMPLES_WINDOW = dt.timedelta(minutes=30)
#: Errors of ours. Others tell a client what it did wrong, or that the site is full.
FAILURES = frozenset({"PROCESSING_ERROR", "INFERENCE_UNAVAILABLE", "FATAL_ERROR", "FELL_BEHIND", "NOT_KEPT"})
#: Without so many turns in the window there is no percentile.
MIN_TURNS = 5
#: A single slow turn is no latency.
MIN_SLOW_TURNS = 2
#: Below the threshold by these factors, an alert may resolve.
MEMORY_BAND = 0.95
DISK_BAND = 1.1
LATENCY_BAND = 0.9
#: Samples in a row in which a process, role or memory must be so.
DOWN_MINUTES = 2
FALLBACK_MINUTES = 2
MEMORY_MINUTES = 3
#: Models load for minutes; those of the production profile for up to ten.
LOADING_MINUTES = 15
RESTARTS_IN_LOOP = 3
RESTARTS_WINDOW = dt.timedelta(minutes=10)
#: Where an operator does something else than at the first threshold, an alert is an error from these on.
VERY_MANY_ERRORS = 5.0
VERY_LONG_QUEUE = 4.0
VERY_OLD_BACKUP = dt.timedelta(days=1)
VERY_LOW_DISK = 0.2
VERY_FULL_MEMORY_PERCENT = 97.0
VERIFIED_WITHIN = dt.timedelta(hours=3)
RETENTION_TAKES = dt.timedelta(hours=2)
RETENTION_EVERY = dt.timedelta(hours=26)
CERTIFICATE_URGENT = dt.timedelta(days=3)

#: The subject of a finding that says something of all subjects: they cannot be examined now.
ANY = "*"

Figures = dict[str, float | str]


class Verdict(Enum):
    HOLDS = "holds"
    #: Neither: an open alert stays open, and none is opened.
    STAYS = "stays"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a condition says of a subject. Of a subject that it does not name, the condition does not hold."""

    subject: str = ""
    verdict: Verdict = Verdict.HOLDS
    severity: Severity = Severity.WARNING
    #: For the sentence: numbers, names, times in ISO 8601. Never what people said.
    figures: Figures = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Minute:
    """The gauges of a "system" sample."""

    began_at: dt.datetime
    gauges: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate that clients see. `expires_at` is None if it cannot be read, with the reason."""

    name: str
    expires_at: dt.datetime | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Retention:
    """The newest run of the retention."""

    started_at: dt.datetime
    finished_at: dt.datetime | None


@dataclass(frozen=True, slots=True)
class Unverified:
    """A nightly backup without a verification that succeeded."""

    name: str
    finished_at: dt.datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The site at one moment."""

    now: dt.datetime
    #: Of the last SAMPLES_WINDOW, oldest first.
    minutes: tuple[Minute, ...] = ()
    #: Of all web processes, in the last TRAFFIC_WINDOW.
    traffic: SampleValues = field(default_factory=SampleValues)
    #: Of the supervisor; empty without one.
    children: tuple[ChildState, ...] = ()
    #: None: the inference process did not answer.
    roles: tuple[RoleStatus, ...] | None = None
    inference_problem: str = ""
    #: When the site began to be watched.
    watched_since: dt.datetime | None = None
    backed_up_at: dt.datetime | None = None
    unverified: Unverified | None = None
    retention: Retention | None = None
    #: Why files without a row are not removed; empty: they are.
    sweep_refusal: str = ""
    #: Of the last sweep, if it was refused: files without a turn, and turns without their file.
    doubtful_sweep: tuple[int, int] | None = None
    #: Of the last sweep of voices, if it was refused: files without a voice, and all files.
    doubtful_voices: tuple[int, int] | None = None
    certificate: Certificate | None = None
    #: By name, since when each secret is used.
    secrets: Mapping[str, dt.datetime] = field(default_factory=dict)

    def read_last(self, gauge: str, count: int) -> list[float]:
        """Return the newest `count` values of a gauge, newest last; fewer if samples are missing or too old."""
        oldest = self.now - dt.timedelta(minutes=count + 2)
        values = [
            minute.gauges[gauge] for minute in self.minutes if minute.began_at > oldest and gauge in minute.gauges
        ]
        return values[-count:]

    def find_gauges(self, prefix: str) -> list[str]:
        """Return what follows the prefix in the names of gauges, sorted."""
        names = {name for minute in self.minutes for name in minute.gauges if name.startswith(prefix)}
        return sorted(name.removeprefix(prefix) for name in names)


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """When conditions hold. Settings of the same names, AVATAR_ALERT_…, have the defaults."""

    memory_percent: float = 90.0
    error_percent: float = 5.0
    min_errors: int = 3
    disk_gb: float = 10.0
    logs_mb: float = 1500.0
    backup_hours: float = 26.0
    latency_s: float = 3.5
    queue_minutes: float = 15.0
    certificate_days: float = 21.0
    secret_days: float = 365.0


@dataclass(frozen=True, slots=True)
class Condition:
    """What an alert is of."""

    key: str
    find: Callable[[Reading, Thresholds], Iterator[Finding]]
    #: Resolved once it has not held for so long: a process that dies every few minutes is one alert.
    resolves_after: dt.timedelta = dt.timedelta(minutes=2)


def find_memory(reading: Reading, thresholds: Thresholds) -> Iterator[Finding]:
    """VRAM of what the engines' shares leave free, vLLM's KV cache, RAM of the machine or the cgroup."""
    for kind in reading.find_gauges("memory_percent."):
        percents = reading.read_last(f"memory_percent.{kind}", MEMORY_MINUTES)
        if not percents:
            continue
        figures: Figures = {"percent": round(percents[-1], 1), "limit_percent": thresholds.memory_percent}
        if len(percents) == MEMORY_MINUTES and min(percents) >= thresholds.memory_percent:
            severity = Severity.ERROR if percents[-1] >= VERY_FULL_MEMORY_PERCENT else Severity.WARNING
            yield Finding(kind, severity=severity, figures=figures)
        elif percents[-1] >= thresholds.memory_percent * MEMORY_BAND:
            yield Finding(kind, Verdict.STAYS)


def find_error_rate(reading: Reading, thresholds: Thresholds) -> Iterator[Finding]:
    counts = reading.traffic.counts
    failures = sum(counts[f"errors.{code}"] for code in FAILURES)
    turns = counts["turns"] + failures
    if not turns or failures < thresholds.min_errors:
        return
    percent = 100 * failures / turns
    if percent > thresholds.error_percent:
        is_severe = percent > thresholds.error_percent * VERY_MANY_ERRORS
        yield Finding(
            severity=Severity.ERROR if is_severe else Severity.WARNING,
            figures={"percent": round(percent, 1), "errors": failures, "limit_percent": thresholds.error_percent},
        )


def find_latency(reading: Reading, thresholds: Thresholds) -> Iterator[Finding]:
    counts = reading.traffic.latencies.get("ttfa")
    if counts is None or counts.total() < MIN_TURNS:
        return
    p95_s = estimate_quantile(counts, 0.95)
    if p95_s is None or p95_s <= thresholds.latency_s * LATENCY_BAND:
        return
    figures: Figures = {"p95_s": round(p95_s, 2), "limit_s": thresholds.latency_s, "turns": counts.total()}
    # Of few turns, the percentile is the slowest one.
    slow = sum(count for bucket, count in counts.items() if bucket > find_bucket(thresholds.latency_s))
    holds = p95_s > thresholds.latency_s and slow >= MIN_SLOW_TURNS
    yield Finding("", Verdict.HOLDS if holds else Verdict.STAYS, figures=figures)


def find_lost_turns(reading: Reading, thresholds: Thresholds) -> Iterator[Finding]:
    if lost := reading.traffic.counts["lost_turns"]:
        yield Finding(severity=Severity.ERROR, figures={"turns": lost})


def find_process_down(reading: Reading, thresholds: Thresholds) -> Iterator[Finding]:
    problems = {child.name: child.last_problem for child in reading.children}
    problems["inference"] = reading.inference_problem or problems.get("inference", "")
    for name in reading.find_gauges("down."):
        downs = reading.read_last(f"down.{name}", DOWN_MINUTES)
        if len(downs) == DOWN_MINUTES and all(downs):
            yield Finding(name, severity=Severity.ERROR, figures={"problem": problems.get(name, "")})
        elif any(downs[-1:]):
            yield Finding(name, Verdict.STAYS)


def find_model_down(reading: Reading, thresholds: Thresholds) -> Iterator[Finding]:
    if reading.roles is None:
        yield Finding(ANY, Verdict.STAYS)
        return
    for role in reading.roles:
        name = role.role.value
        # Without the encoder only new voices wait.
        severity = Severity.WARNING if role.role is Role.ENCODER else Severity.ERROR
        absences = reading.read_last(f"unavailable.{name}", DOWN_MINUTES)
        loadings = reading.read_last(f"loading.{name}", LOADING_MINUTES)
        if len(absences) == DOWN_MINUTES and all(absences):
            yield Finding(name, severity=severity, figures={"problem": role.reason})
        elif len(loadings) == LOADING_MINUTES and all(loadings):
            yield Finding(name, severity=severity, figures={"problem": "", "loading_minutes": LOADING_MINUTES})
        elif any(absences[-1:]) or any(loadings[-1:]):
            yield Finding(name, Verdict.STAYS)


def find_role_on_fallback(reading: Reading, thresholds: Thresholds) -> Iterator[Finding]:
    if reading.roles is None:
        yield Finding(ANY, Verdict.STAYS)
        return
    for role in reading.roles:
        fallbacks = reading.read_last(f"fallback.{role.role.value}", FALLBACK_MINUTES)
        if len(fallbacks) == FALLBACK_MINUTES and all(fallbacks):
            figures: Figures = {"engine": role.engine, "model": role.model, "problem": role.reason}
            yield Finding(role.role.value, figures=figures)
        elif any(fallbacks[-1:]):
            yield Finding(role.role.value, Verdict.STAYS)


def count_restarts(child: ChildState, now: dt.datetime) -> int:
    """Count the restarts of a process within RESTARTS_WINDOW."""
    since_s = (now - RESTARTS_WINDOW).timestamp()
    return sum(restart_s > since_s for restart_s in child.restarts)


def find_restart_loop(reading: Reading, thresholds: Thresholds) -> Iterator[Finding]:
    for child in reading.children:
        recent = count_restarts(child, reading.now)
        figures: Figures = {
            "restarts": recent,
            "minutes": RESTARTS_WINDOW.total_seconds() / 60,
            "problem": child.last_problem,
        }
        if recent >= RESTARTS_IN_LOOP:
            yield Finding(child.name, severity=Severity.ERROR, figures=figures)
        elif recent:
            yield Finding(child.name, Verdict.STAYS)


def find_disk_space(reading: Reading, thresholds: Thresholds) -> Iterator[Finding]:
    for subject, gauge in (("data", "disk_free_bytes"), ("backups", "backup_disk_free_bytes")):
        for free_bytes in reading.read_last(gauge, 1):
            limit_bytes = thresholds.disk_gb * GB
            figures: Figures = {"free_bytes": free_bytes, "limit_bytes": limit_bytes}
            if free_bytes < limit_bytes:
                severity = Severity.ERROR if free_bytes < limit_bytes * VERY_LOW_DISK else Severity.WARNING
                yield Finding(subject, severity=severity, figures=figures)
            elif free_bytes < limit_bytes * DISK_BAND:
                yield Finding(subject, Verdict.STAYS)


def find_log_folder(reading: Reading, thresholds: Thresholds) -> Iterator[Finding]:
    for size_bytes in reading.read_last("log_bytes", 1):
        limit_bytes = thresholds.logs_mb * MB
        if size_bytes > limit_bytes:
            yield Finding(figures={"bytes": size_bytes, "limit_bytes": limit_bytes})
        elif size_bytes * DISK_BAND > limit_bytes:
            yield Finding("", Verdict.STAYS)


def find_backup_stale(reading: Reading, thresholds: Thresholds) -> Iterator[Finding]:
    since = reading.backed_up_at or reading.watched_since
    if since is None:
        return
    age = reading.now - since
    limit = dt.timedelta(hours=thresholds.backup_hours)
    if age > limit:
        backed_up_at = reading.backed_up_at.isoformat() if reading.backed_up_at else ""
        yield Finding(
            # One night failed; then another did.
            severity=Severity.ERROR if age > limit + VERY_OLD_BACKUP else Severity.WARNING,
            figures={
                "backed_up_at": backed_up_at,
                "hours": round(age.total_seconds() / 3600, 1),
                "limit_hours": thresholds.backup_hours,
            },
        )


def find_backup_unverified(reading: Reading, thresholds: Thresholds) -> Iterator[Finding]:
    backup = reading.unverified
    if backup is not None and reading.now - backup.finished_at > VERIFIED_WITHIN:
        yield Finding(figures={"name": backup.name, "finished_at": backup.finished_at.isoformat()})


def find_retention_unfinished(reading: Reading, thresholds: Thresholds) -> Iterator[Finding]:
    run = reading.retention
    if run is None:
        if reading.watched_since is not None and reading.now - reading.watched_since > RETENTION_EVERY:
            yield Finding(severity=Severity.ERROR, figures={"started_at": ""})
        return
    age = reading.now - run.started_at
    if age > RETENTION_EVERY or (run.finished_at is None and age > RETENTION_TAKES):
        figures: Figures = {"started_at": run.started_at.isoformat(), "is_finished": float(run.finished_at is not None)}
        yield Finding(severity=Severity.ERROR, figures=figures)


def find_sweep_refused(reading: Reading, thresholds: Thresholds) -> Iterator[Finding]:
    if reading.sweep_refusal:
        yield Finding("restore", figures={"problem": reading.sweep_refusal})
    if reading.doubtful_sweep is not None:
        files, turns = reading.doubtful_sweep
        yield Finding(
            "storage", severity=Severity.ERROR, figures={"files_without_turn": files, "turns_without_file": turns}
        )
    if reading.doubtful_voices is not None:
        files, count = reading.doubtful_voices
        yield Finding("voices", severity=Severity.ERROR, figures={"files_without_voice": files, "files": count})


def find_queue_stuck(reading: Reading, thresholds: Thresholds) -> Iterator[Finding]:
    for queue in reading.find_gauges("queue_wait_s."):
        for wait_s in reading.read_last(f"queue_wait_s.{queue}", 1):
            limit_s = thresholds.queue_minutes * 60
            if wait_s > limit_s:
                waiting = (reading.read_last(f"queue.{queue}", 1) or [0.0])[-1]
                severity = Severity.ERROR if wait_s > limit_s * VERY_LONG_QUEUE else Severity.WARNING
                yield Finding(queue, severity=severity, figures={"minutes": round(wait_s / 60), "messages": waiting})


def find_certificate(reading: Reading, thresholds: Thresholds) -> Iterator[Finding]:
    certificate = reading.certificate
    if certificate is None:
        return
    if certificate.expires_at is None:
        yield Finding(figures={"name": certificate.name, "problem": certificate.problem})
        return
    left = certificate.expires_at - reading.now
    if left < dt.timedelta(days=thresholds.certificate_days):
        yield Finding(
            severity=Severity.ERROR if left < CERTIFICATE_URGENT else Severity.WARNING,
            figures={"name": certificate.name, "expires_at": certificate.expires_at.isoformat(), "days": left.days},
        )


def find_secret_age(reading: Reading, thresholds: Thresholds) -> Iterator[Finding]:
    for name, since in sorted(reading.secrets.items()):
        age = reading.now - since
        if age > dt.timedelta(days=thresholds.secret_days):
            yield Finding(name, figures={"days": age.days, "since": since.isoformat()})


def find_nothing(reading: Reading, thresholds: Thresholds) -> Iterator[Finding]:
    """What only a web process can see: see `outages`. While conditions are examined, neither holds."""
    yield from ()


#: Of web processes.
STALLED = "monitoring_stalled"
DATABASE_AWAY = "database_away"

CONDITIONS: Mapping[str, Condition] = {
    condition.key: condition
    for condition in (
        Condition("memory", find_memory),
        Condition("error_rate", find_error_rate),
        Condition("latency", find_latency),
        Condition("lost_turns", find_lost_turns),
        Condition("process_down", find_process_down),
        Condition("model_down", find_model_down),
        Condition("role_on_fallback", find_role_on_fallback),
        Condition("restart_loop", find_restart_loop),
        Condition("disk_space", find_disk_space),
        Condition("log_folder", find_log_folder),
        Condition("backup_stale", find_backup_stale),
        Condition("backup_unverified", find_backup_unverified),
        Condition("retention_unfinished", find_retention_unfinished),
        Condition("sweep_refused", find_sweep_refused),
        Condition("queue_stuck", find_queue_stuck),
        Condition("certificate", find_certificate),
        Condition("secret_age", find_secret_age),
        Condition(STALLED, find_nothing),
        Condition(DATABASE_AWAY, find_nothing),
    )
}
