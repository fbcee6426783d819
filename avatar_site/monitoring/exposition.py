"""What Prometheus reads: this web process's metrics, the site's gauges, and the inference process's own metrics."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from django.conf import settings
from django.db import DatabaseError
from django.db.models import Count
from django.utils import timezone
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from avatar_site import version
from avatar_site.lib import metrics
from avatar_site.lib.inference_client import get_inference
from avatar_site.lib.own_thread import OwnThread
from avatar_site.monitoring import sampling
from avatar_site.monitoring.conditions import count_restarts
from avatar_site.monitoring.models import Alert
from avatar_site.operations.serve_state import ServeState, read_state
from avatar_site.operations.status import Health, Snapshot, get_prober
from inference.interfaces import InferenceError
from realtime.models import CallState, LiveCall
from voices.models import BuildCount, State, VoiceProfile

logger = logging.getLogger(__name__)
T = TypeVar("T")

#: Prometheus itself gives up after 10 s; Redis has 5 s to answer.
SITE_TIMEOUT_S = 8.0
INFERENCE_TIMEOUT_S = 2.0
#: Of its own: a database or a disk that hangs blocks no call.
_thread = OwnThread("metrics of the site")

#: Gauges of `sampling` by their name there: the name here, its help, and the label that the part after the dot is.
_SAMPLED = {
    "disk_free_bytes": ("avatar_disk_free_bytes", "Free space of the disk with the data folder", ""),
    "disk_total_bytes": ("avatar_disk_total_bytes", "Size of the disk with the data folder", ""),
    "backup_disk_free_bytes": ("avatar_backup_disk_free_bytes", "Free space of another disk with the backups", ""),
    "log_bytes": ("avatar_log_bytes", "Size of the folder of logs", ""),
    "media_bytes": ("avatar_media_bytes", "Size of the folder of recordings", ""),
    "database_bytes": ("avatar_database_bytes", "Size of the database", ""),
    "ram_used_bytes": ("avatar_ram_used_bytes", "Memory of the machine in use", ""),
    "ram_total_bytes": ("avatar_ram_total_bytes", "Memory of the machine", ""),
    "vram_used_bytes": ("avatar_vram_used_bytes", "Memory of the GPUs in use", ""),
    "vram_total_bytes": ("avatar_vram_total_bytes", "Memory of the GPUs", ""),
    "memory_percent": ("avatar_memory_percent", "Memory in use of what is free to be used, in per cent", "memory"),
    "queue": ("avatar_queue_length", "Tasks that wait for a worker", "queue"),
    "queue_wait_s": ("avatar_queue_wait_seconds", "How long the oldest task of a queue has waited", "queue"),
    "backup_age_s": ("avatar_backup_age_seconds", "Age of the newest state that a verified backup has", ""),
    "rss_bytes": ("avatar_process_resident_bytes", "Resident memory of a process and its children", "process"),
    "down": ("avatar_process_down", "Whether a process does not run or does not answer", "process"),
    "unavailable": ("avatar_role_unavailable", "Whether a role has no engine", "role"),
    "loading": ("avatar_role_loading", "Whether a role's engine is being loaded", "role"),
    "fallback": ("avatar_role_on_fallback", "Whether a role is on its fallback", "role"),
}
#: Processes that take tasks.
_WORKERS = ("worker", "maintenance")


async def expose() -> bytes:
    """
    Return all metrics in Prometheus's text format.

    Takes some 20 ms, and SITE_TIMEOUT_S where database or disk do not answer: what cannot be read is left out.
    """
    snapshot = get_prober().snapshot
    async with asyncio.TaskGroup() as group:
        inference = group.create_task(_read_inference())
        site = group.create_task(_read_site(snapshot))
    registry = CollectorRegistry()
    registry.register(_Families([*describe_snapshot(snapshot), *site.result()]))
    return generate_latest(metrics.REGISTRY) + generate_latest(registry) + inference.result()


async def _read_inference() -> bytes:
    try:
        async with asyncio.timeout(INFERENCE_TIMEOUT_S):
            return await get_inference().read_metrics()
    except (TimeoutError, InferenceError) as error:
        logger.info("the inference process gives no metrics: %s", error)
        return b""


async def _read_site(snapshot: Snapshot) -> list[Metric]:
    try:
        return await _thread.run(read_site, SITE_TIMEOUT_S, snapshot, now=timezone.now())
    except TimeoutError as error:
        logger.warning("the gauges of the site cannot be read: %s", error)
        return []


def describe_snapshot(snapshot: Snapshot) -> Iterator[Metric]:
    """Yield what is known without asking."""
    info = GaugeMetricFamily("avatar_info", "What runs", labels=["version", "profile"])
    info.add_metric([version.read_version(), settings.AVATAR_PROFILE], 1.0)
    yield info
    health = GaugeMetricFamily("avatar_health", "1 for the state that the site is in", labels=["state"])
    for state in Health:
        health.add_metric([state.value], float(snapshot.health is state))
    yield health
    reachable = float(snapshot.inference.status is not None)
    yield GaugeMetricFamily("avatar_inference_reachable", "Whether the inference process answers", value=reachable)
    limit = float(settings.AVATAR_MAX_SESSIONS)
    yield GaugeMetricFamily("avatar_sessions_limit", "Calls that may be live at once", value=limit)


def read_site(snapshot: Snapshot, *, now: dt.datetime) -> list[Metric]:
    """Read database, disk, queues and processes. What one of them does not answer is left out, and logged."""
    serve = read_state(Path(settings.AVATAR_DATA_DIR))
    gauges = sampling.measure(serve, snapshot.inference.status, now=now)
    found = list(describe_gauges(gauges))
    if serve is not None and sampling.is_of_a_supervisor(serve):
        found += describe_processes(serve, now)
    for count in (lambda: count_calls(now), count_alerts, count_voices):
        found += _try(count, [])
    return found


def _try(read: Callable[[], T], default: T) -> T:
    try:
        return read()
    except (OSError, DatabaseError) as error:
        logger.warning("a metric cannot be read: %s", error)
        return default


def describe_gauges(gauges: Mapping[str, float]) -> Iterator[Metric]:
    """Yield gauges of `sampling` under their names here."""
    families: dict[str, GaugeMetricFamily] = {}
    for sampled, value in gauges.items():
        key, _, subject = sampled.partition(".")
        if key not in _SAMPLED:
            continue  # a test sees that there is none: a scrape must not fail for it
        name, text, label = _SAMPLED[key]
        if name not in families:
            families[name] = GaugeMetricFamily(name, text, labels=[label] if label else [])
        families[name].add_metric([subject] if label else [], value)
    yield from families.values()


def describe_processes(serve: ServeState, now: dt.datetime) -> Iterator[Metric]:
    """Yield what the supervisor knows of its children."""
    restarts = GaugeMetricFamily(
        "avatar_process_restarts", "Restarts of a process within the last ten minutes", labels=["process"]
    )
    for child in serve.children:
        restarts.add_metric([child.name], float(count_restarts(child, now)))
    yield restarts
    workers = [child for child in serve.children if child.name in _WORKERS]
    alive = sum(child.pid is not None and child.missed < sampling.MISSED for child in workers)
    yield GaugeMetricFamily("avatar_workers_alive", "Processes that take tasks", value=float(alive))


def count_calls(now: dt.datetime) -> list[Metric]:
    """Count the live calls of all machines."""
    states = list(LiveCall.objects.fresh(now).values_list("state", flat=True))
    return [
        GaugeMetricFamily("avatar_sessions", "Live calls", value=float(states.count(CallState.ACTIVE))),
        GaugeMetricFamily(
            "avatar_waiting", "Calls that wait for a place", value=float(states.count(CallState.WAITING))
        ),
    ]


def count_alerts() -> list[Metric]:
    """Count unresolved alerts by condition and severity."""
    family = GaugeMetricFamily("avatar_alerts", "Alerts that are not resolved", labels=["condition", "severity"])
    rows = Alert.objects.unresolved().values_list("condition", "severity").annotate(number=Count("pk"))
    for condition, severity, number in rows.order_by("condition", "severity"):
        family.add_metric([condition, severity], float(number))
    return [family]


def count_voices() -> list[Metric]:
    """Count the voices of people by state, and the builds that were ever done, those of deleted voices too."""
    family = GaugeMetricFamily("avatar_voices", "Voices of people", labels=["state"])
    for state in State:
        number = VoiceProfile.objects.in_state(state).filter(owner__isnull=False).count()
        family.add_metric([state.value], float(number))
    built = float(BuildCount.objects.read())
    return [family, CounterMetricFamily("avatar_voices_built", "Builds of voices that were done", value=built)]


class _Families(Collector):
    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families
