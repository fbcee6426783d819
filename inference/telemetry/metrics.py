"""
What the inference process measures of its engines, as Prometheus reads it. Imports no engine and no Django.

The web process appends it to its own `/metrics`. Nothing here says who spoke or what was said.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from inference.interfaces import REQUESTS_WAITING, InferenceStatus, Role, RoleState

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30, 60)


class EngineMetrics:
    """Times and failures of engines since the process began. `priority` is "live" or "background"."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.registry = CollectorRegistry()
        self._seconds = Histogram(
            "avatar_inference_seconds",
            "Seconds of work for one request, its wait for the engine included",
            ["role", "work", "engine", "priority"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._first_seconds = Histogram(
            "avatar_inference_first_result_seconds",
            "Seconds from a request to its first token or its first sound",
            ["role", "engine", "priority"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._failures = Counter(
            "avatar_inference_failures", "Requests that failed", ["role", "reason"], registry=self.registry
        )

    @contextmanager
    def request(self, role: Role, work: str, engine: str, *, is_background: bool = False) -> Iterator[RequestTimer]:
        """Time one request. One that fails or is cancelled is not counted as done."""
        timer = RequestTimer(self._clock)
        priority = "background" if is_background else "live"
        try:
            yield timer
            self._seconds.labels(role.value, work, engine, priority).observe(timer.read_s())
        finally:
            if timer.first_s is not None:
                self._first_seconds.labels(role.value, engine, priority).observe(timer.first_s)

    def observe_transcript(self, engine: str, seconds: float, *, is_background: bool) -> None:
        """Count a final transcript, so many seconds after the audio that ended the utterance had come."""
        priority = "background" if is_background else "live"
        self._seconds.labels(Role.STT.value, "transcript", engine, priority).observe(seconds)

    def count_failure(self, role: Role, reason: str) -> None:
        self._failures.labels(role.value, reason).inc()

    def follow_audio(self) -> AudioClock:
        return AudioClock(self._clock)

    def render(self, status: InferenceStatus) -> bytes:
        """Return everything in Prometheus's text format."""
        now_registry = CollectorRegistry()
        now_registry.register(StatusCollector(status))
        return generate_latest(self.registry) + generate_latest(now_registry)


class RequestTimer:
    """The time of one request."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.began_s = clock()
        self.first_s: float | None = None

    def read_s(self) -> float:
        return self._clock() - self.began_s

    def note_result(self) -> None:
        """Note a piece of the result; only the first counts."""
        if self.first_s is None:
            self.first_s = self.read_s()


class AudioClock:
    """Remembers when the audio of a stream came: the last KEPT messages, 10 s of frames."""

    KEPT = 500

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._bytes = 0
        self._came: deque[tuple[int, float]] = deque(maxlen=self.KEPT)

    def add(self, size_bytes: int) -> None:
        self._bytes += size_bytes
        self._came.append((self._bytes, self._clock()))

    def find_age_s(self, position_bytes: int) -> float | None:
        """Return how long ago the audio up to a position had come; None if that is not known."""
        for end, came_at in self._came:
            if end >= position_bytes:
                return self._clock() - came_at
        return None


class StatusCollector(Collector):
    """The status as gauges."""

    def __init__(self, status: InferenceStatus) -> None:
        self._status = status

    def collect(self) -> Iterable[Metric]:
        roles = self._status.roles
        ready = GaugeMetricFamily(
            "avatar_inference_role_ready", "Whether a role can be used", labels=["role", "engine", "model", "device"]
        )
        for role in roles:
            labels = [role.role.value, role.engine, role.model, role.device]
            ready.add_metric(labels, float(role.state is RoleState.READY))
        yield ready
        for name, text, values in (
            ("active_calls", "Calls that an engine works for", [float(role.active_calls) for role in roles]),
            ("load_seconds", "How long loading took", [role.load_s for role in roles]),
            ("memory_bytes", "Memory that loading took", [float(role.memory_bytes) for role in roles]),
            ("queue_length", "Requests that wait for the engine", [_read_queue(role.figures) for role in roles]),
        ):
            family = GaugeMetricFamily(f"avatar_inference_{name}", text, labels=["role"])
            for role, value in zip(roles, values, strict=True):
                family.add_metric([role.role.value], value)
            yield family
        figures = GaugeMetricFamily(
            "avatar_inference_figure", "An engine's own figure: KV-cache use, times, counts", labels=["role", "name"]
        )
        for role in roles:
            for name, value in role.figures.items():
                figures.add_metric([role.role.value, name], value)
        yield figures
        yield GaugeMetricFamily(
            "avatar_inference_resident_bytes", "Resident memory of the process", value=self._status.resident_bytes
        )
        yield GaugeMetricFamily(
            "avatar_inference_started_seconds", "When the process began", value=self._status.started_at
        )
        for name, text in (("total", "Memory of a GPU"), ("free", "Free memory of a GPU")):
            family = GaugeMetricFamily(f"avatar_inference_device_{name}_bytes", text, labels=["device"])
            for number, device in enumerate(self._status.devices):
                value = device.total_bytes if name == "total" else device.free_bytes
                family.add_metric([f"{number} {device.name}"], float(value))
            yield family


def _read_queue(figures: Mapping[str, float]) -> float:
    return figures.get(REQUESTS_WAITING, 0.0)
