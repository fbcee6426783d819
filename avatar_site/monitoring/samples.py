"""The values of a sample: their format, and how several become one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Self

from avatar_site.lib.metrics import FIRST_BUCKET_S, GROWTH


@dataclass(frozen=True, slots=True)
class Gauge:
    """A quantity over a time: its mean and its largest value. Of one reading, both are the reading."""

    mean: float
    max: float


@dataclass(slots=True)
class SampleValues:
    """
    What was measured in a minute or an hour.

    Names of gauges, from "system": disk_free_bytes, disk_total_bytes, log_bytes, media_bytes, database_bytes,
    ram_used_bytes, ram_total_bytes, vram_used_bytes, vram_total_bytes, rss_bytes.<process>, queue.<name>, backup_age_s;
    for alerts also backup_disk_free_bytes, memory_percent.<kind> (ram, gpu<number>, kv_cache), queue_wait_s.<name>, and
    as 0 or 1 down.<process>, unavailable.<role>, loading.<role>, fallback.<role>;
    from a web process: sessions, waiting, loop_lag_s. Names of counts: see `metrics.Minute`.
    """

    #: Of each stage, counts by bucket (`metrics.find_bucket`).
    latencies: dict[str, Counter[int]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    gauges: dict[str, Gauge] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "latencies": {
                stage: {str(bucket): count for bucket, count in counts.items()}
                for stage, counts in self.latencies.items()
            },
            "counts": dict(self.counts),
            "gauges": {name: [gauge.mean, gauge.max] for name, gauge in self.gauges.items()},
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        return cls(
            latencies={
                stage: Counter({int(bucket): count for bucket, count in counts.items()})
                for stage, counts in values.get("latencies", {}).items()
            },
            counts=Counter(values.get("counts", {})),
            gauges={name: Gauge(mean, most) for name, (mean, most) in values.get("gauges", {}).items()},
        )

    @classmethod
    def merge_times(cls, parts: Iterable[SampleValues]) -> Self:
        """Return one source's values over several times of equal length."""
        merged = cls()
        readings: dict[str, list[Gauge]] = {}
        for part in parts:
            for stage, counts in part.latencies.items():
                merged.latencies.setdefault(stage, Counter()).update(counts)
            merged.counts.update(part.counts)
            for name, gauge in part.gauges.items():
                readings.setdefault(name, []).append(gauge)
        merged.gauges = {
            name: Gauge(sum(each.mean for each in gauges) / len(gauges), max(each.max for each in gauges))
            for name, gauges in readings.items()
        }
        return merged


def estimate_quantile(counts: Counter[int], quantile: float) -> float | None:
    """
    Return the latency in seconds below which this share of the counted ones lies; None of none.

    The geometric middle of the bucket: right within 2.5 %.
    """
    total = counts.total()
    if not total:
        return None
    rank, seen = quantile * total, 0
    bucket = 0
    for bucket in sorted(counts):
        seen += counts[bucket]
        if seen >= rank:
            break
    return float(FIRST_BUCKET_S * GROWTH ** (bucket - 0.5)) if bucket else FIRST_BUCKET_S
