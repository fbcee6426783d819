"""Samples of a site as they might have been measured, for tests and pictures: an office by day, nobody by night."""

from __future__ import annotations

import datetime as dt
import math
import random
import uuid
from collections import Counter
from collections.abc import Iterator

from django.contrib.admin.models import ADDITION, LogEntry
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.core.cache import cache
from django.http import HttpRequest
from django.utils import timezone

from avatar_site.lib.audit import Access, log_access
from avatar_site.lib.metrics import find_bucket
from avatar_site.monitoring.models import Alert, Resolution, Sample
from avatar_site.monitoring.samples import Gauge, SampleValues
from avatar_site.operations.backups.manifest import make_name
from avatar_site.operations.models import BackupRun, RunKind, RunState
from conversations.models import Conversation, Speaker, Turn
from realtime.models import STALE_AFTER, CallState, LiveCall

GIB = 2**30
PROCESSES = {"web": 0.21, "inference": 3.4, "worker": 0.17, "maintenance": 0.12, "beat": 0.03}
#: Seconds from the end of speech, typical, and how far they scatter (of the logarithm).
STAGES = {"endpoint": (0.6, 0.04), "stt": (0.72, 0.15), "ttft": (1.05, 0.2), "ttfa": (1.85, 0.24), "total": (6.4, 0.35)}


class MeasuredSite:
    """
    `busy`: how full the site is at its busiest hour, 0 to 1; `steady`: how full at all hours, instead.

    `bytes_a_day`: how fast the disk fills.
    """

    def __init__(
        self,
        *,
        busy: float = 0.8,
        steady: float | None = None,
        places: int = 5,
        bytes_a_day: float = 2.2 * GIB,
        free_bytes: float = 96 * GIB,
        slow_hours: tuple[int, ...] = (11, 15),
        has_gpu: bool = False,
        web_processes: int = 1,
        seed: int = 8,
    ) -> None:
        self.busy = busy
        self.steady = steady
        self.places = places
        self.bytes_a_day = bytes_a_day
        self.free_bytes = free_bytes
        self.slow_hours = slow_hours
        self.has_gpu = has_gpu
        self.web_processes = web_processes
        self._random = random.Random(seed)

    def write(self, *, now: dt.datetime, days: float, minutes_for_days: float = 7) -> int:
        """Write samples up to `now`: of each minute of the newest days, of each hour before. Return how many rows."""
        rows: list[Sample] = []
        now = now.replace(second=0, microsecond=0)
        turning = (now - dt.timedelta(days=min(days, minutes_for_days))).replace(minute=0)
        begin = (now - dt.timedelta(days=days)).replace(minute=0)
        hours = int((turning - begin) / dt.timedelta(hours=1))
        for number in range(hours):
            rows += self._measure(begin + dt.timedelta(hours=number), now=now, resolution=Resolution.HOUR, minutes=60)
        for number in range(int((now - turning) / dt.timedelta(minutes=1))):
            rows += self._measure(turning + dt.timedelta(minutes=number), now=now)
        Sample.objects.bulk_create(rows, batch_size=500)
        return len(rows)

    def _measure(
        self, at: dt.datetime, *, now: dt.datetime, resolution: Resolution = Resolution.MINUTE, minutes: int = 1
    ) -> Iterator[Sample]:
        load = self._find_load(timezone.localtime(at))
        for number in range(self.web_processes):
            values = self._measure_web(at, load / self.web_processes, minutes)
            yield Sample(
                source=f"web main:{4100 + number}", resolution=resolution, began_at=at, values=values.to_json()
            )
        values = self._measure_system(load, (now - at) / dt.timedelta(days=1))
        yield Sample(source="system", resolution=resolution, began_at=at, values=values.to_json())

    def _find_load(self, local: dt.datetime) -> float:
        """Return how full the site is, 0 to 1: two humps on workdays, little at the weekend."""
        if self.steady is not None:
            return self.steady
        hour = local.hour + local.minute / 60
        hump = math.exp(-(((hour - 10.5) / 1.6) ** 2)) + 0.9 * math.exp(-(((hour - 15.5) / 2.0) ** 2))
        workday = 0.15 if local.weekday() >= 5 else 1.0
        return min(1.0, self.busy * workday * hump * self._random.uniform(0.75, 1.25))

    def _measure_web(self, at: dt.datetime, load: float, minutes: int) -> SampleValues:
        sessions = load * self.places
        whole = math.floor(sessions + self._random.random())
        turns = sum(self._random.random() < 0.8 for _ in range(whole * minutes))
        slow = 1.9 if self.steady is None and timezone.localtime(at).hour in self.slow_hours and load > 0.4 else 1.0
        counts = Counter({"turns": turns})
        for name, chance in (
            ("errors.PROCESSING_ERROR", 0.01),
            ("errors.INFERENCE_UNAVAILABLE", 0.006),
            ("gaps", 0.05),
        ):
            counts[name] = sum(self._random.random() < chance * slow**2 for _ in range(turns))
        counts["refused.full"] = int(whole >= self.places and self._random.random() < 0.1)
        latencies: dict[str, Counter[int]] = {}
        for stage, (typical, scatter) in STAGES.items():
            latencies[stage] = Counter(
                find_bucket(typical * slow * self._random.lognormvariate(0, scatter)) for _ in range(turns)
            )
        return SampleValues(
            latencies={stage: found for stage, found in latencies.items() if found},
            counts=Counter({name: count for name, count in counts.items() if count}),
            gauges={
                "sessions": Gauge(sessions if minutes > 1 else whole, min(whole + (minutes > 1), self.places)),
                "waiting": Gauge(0, 0),
                "loop_lag_s": Gauge(0.002, 0.004 + 0.02 * load),
            },
        )

    def _measure_system(self, load: float, days_ago: float) -> SampleValues:
        free = self.free_bytes + self.bytes_a_day * days_ago
        used = (7.6 + 2.8 * load + 0.2 * self._random.random()) * GIB
        readings: dict[str, float] = {
            "disk_free_bytes": free,
            "disk_total_bytes": 256 * GIB,
            "log_bytes": 0.3 * GIB,
            "media_bytes": max(0.0, 38 * GIB - self.bytes_a_day * days_ago),
            "database_bytes": 0.4 * GIB,
            "ram_used_bytes": used,
            "ram_total_bytes": 16 * GIB,
            "backup_age_s": 3600 * 8.0,
            "queue.voices": 0,
            "queue.maintenance": 0,
        }
        if self.has_gpu:
            readings |= {"vram_used_bytes": (21.4 + 0.6 * load) * GIB, "vram_total_bytes": 24 * GIB}
        readings |= {f"rss_bytes.{name}": gib * GIB for name, gib in PROCESSES.items()}
        return SampleValues(gauges={name: Gauge(value, value) for name, value in readings.items()})


PEOPLE = {"王小明": 312, "lin.yating": 188, "陳志豪": 95, "reception": 44, "huang": 6}


def write_people(*, now: dt.datetime) -> None:
    """Write people with kept conversations, in minutes of speech, of whom the first three are talking."""
    for number, (name, minutes) in enumerate(PEOPLE.items()):
        user = User.objects.create_user(name)
        conversation = Conversation.objects.create(owner=user, last_turn_at=now)
        Turn.objects.bulk_create(
            Turn(
                conversation=conversation,
                sequence=sequence,
                speaker=Speaker.USER if sequence % 2 else Speaker.AVATAR,
                audio_duration_ms=15_000,
                audio_bytes=60_000,
                created_at=now - dt.timedelta(minutes=1 + sequence % 50),
            )
            for sequence in range(minutes * 4)
        )
        if number < 3:
            LiveCall.objects.create(
                session_id=uuid.uuid4(),
                user=user,
                state=CallState.ACTIVE,
                process="main:4100",
                began_at=now - dt.timedelta(minutes=4 + 9 * number),
                # Nobody renews them: as of a machine whose clock is as far ahead as is believed.
                last_seen_at=now + STALE_AFTER - dt.timedelta(seconds=5),
            )


def write_backup(*, taken_at: dt.datetime) -> None:
    """Write a backup that was verified."""
    name = make_name(taken_at)
    for kind in (RunKind.BACKUP, RunKind.VERIFICATION):
        BackupRun.objects.create(
            kind=kind, state=RunState.DONE, name=name, reason="nightly", started_at=taken_at, finished_at=taken_at
        )


def write_alerts(*, now: dt.datetime) -> None:
    """Write open alerts: late answers, a disk that fills, a voice engine on its fallback."""
    alerts: dict[tuple[str, str, str], dict[str, float | str]] = {
        ("latency", "", "error"): {"p95_s": 5.02, "limit_s": 3.5, "turns": 212},
        ("disk_space", "data", "warning"): {"free_bytes": 9.1 * GIB, "limit_bytes": 10e9},
        ("role_on_fallback", "tts", "warning"): {"engine": "kokoro", "model": "82m", "problem": "out of memory"},
    }
    for number, ((condition, subject, severity), figures) in enumerate(alerts.items()):
        Alert.objects.create(
            condition=condition,
            subject=subject,
            severity=severity,
            figures=figures,
            opened_at=now - dt.timedelta(minutes=12 + 40 * number),
            last_seen_at=now,
        )


def write_site(state: str) -> None:
    """Write, in place of what was measured before, a month of a site: "good", with open "alerts", or "new"."""
    now = timezone.now()
    cache.clear()
    for model in (Sample, Alert, LiveCall, LogEntry, BackupRun):
        model.objects.all().delete()
    User.objects.filter(username__in=PEOPLE).delete()
    if state == "new":
        return
    is_bad = state == "alerts"
    slow_hours = (9, 10, 11, 14, 15, 16) if is_bad else ()
    free_bytes = (14 if is_bad else 180) * GIB
    site = MeasuredSite(busy=1.2 if is_bad else 0.7, slow_hours=slow_hours, free_bytes=free_bytes, has_gpu=is_bad)
    site.write(now=now, days=31, minutes_for_days=2)
    write_people(now=now)
    write_backup(taken_at=now - dt.timedelta(hours=40 if is_bad else 5))
    write_audit()
    if is_bad:
        write_alerts(now=now)


def write_audit() -> None:
    """Write what the first operator opened and changed."""
    operator = User.objects.filter(is_superuser=True).order_by("pk").first()
    conversation = Conversation.objects.order_by("pk").first()
    if operator is None or conversation is None:
        return
    request = HttpRequest()
    request.user = operator
    log_access(request, Access.CONVERSATION, of=conversation, model=Conversation)
    log_access(request, Access.BACKUP, of=None, model=BackupRun, detail="20261126T193000Z-ab12")
    LogEntry.objects.create(
        user=operator,
        content_type=ContentType.objects.get_for_model(User),
        object_id=str(operator.pk),
        object_repr=operator.username,
        action_flag=ADDITION,
        change_message='[{"added": {}}]',
    )
