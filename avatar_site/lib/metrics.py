"""
What this process measures of its calls: for Prometheus, and for the sample that it writes each minute.

Imports no Django: the call records here. Nothing here says who spoke or what was said.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from threading import Lock

from prometheus_client import CollectorRegistry, Gauge, Histogram
from prometheus_client import Counter as PrometheusCounter

#: Of this process alone.
REGISTRY = CollectorRegistry()


class Stage(StrEnum):
    """Stages of a turn, each in seconds since the end of speech (since the message, for typed input)."""

    #: Until the pause was found to end the utterance.
    ENDPOINT = "endpoint"
    STT = "stt"
    #: The first token of the reply, and its first sound.
    TTFT = "ttft"
    TTFA = "ttfa"
    #: The last sound was sent.
    TOTAL = "total"


TURN_SECONDS = Histogram(
    "avatar_turn_seconds",
    "Seconds from the end of speech to each stage of the answer",
    ["stage"],
    buckets=(0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 2.5, 3, 3.5, 4, 5, 7.5, 10, 15, 30, 60),
    registry=REGISTRY,
)
BARGE_IN_STOP_SECONDS = Histogram(
    "avatar_barge_in_stop_seconds",
    "Seconds from the beginning of the user's speech to the order that ends the reply's sound",
    buckets=(0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 2, 5),
    registry=REGISTRY,
)
GAP_SECONDS = Histogram(
    "avatar_gap_seconds",
    "Silence in a reply because its next sound was not ready",
    buckets=(0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30),
    registry=REGISTRY,
)
TURNS = PrometheusCounter("avatar_turns", "Turns of users that were answered", registry=REGISTRY)
ERRORS = PrometheusCounter("avatar_errors", "Error messages to clients", ["code"], registry=REGISTRY)
REFUSED_CALLS = PrometheusCounter("avatar_refused_calls", "Calls refused at the start", ["reason"], registry=REGISTRY)
DEGRADED_REPLIES = PrometheusCounter(
    "avatar_degraded_replies", "Replies with less than was asked for", ["reason"], registry=REGISTRY
)
LOST_TURNS = PrometheusCounter("avatar_lost_turns", "Turns that could not be kept", registry=REGISTRY)
DROPPED_AUDIO_SECONDS = PrometheusCounter(
    "avatar_dropped_audio_seconds",
    "Microphone audio that was discarded because recognition was behind",
    registry=REGISTRY,
)
LOOP_LAG_SECONDS = Gauge("avatar_event_loop_lag_seconds", "How late the event loop runs what is due", registry=REGISTRY)

#: Bucket `n` of a sample's latencies ends at FIRST_BUCKET_S * GROWTH**n seconds: a quantile is right within 2.5 %.
FIRST_BUCKET_S = 0.01
GROWTH = 1.05
LAST_BUCKET = 200


def find_bucket(seconds: float) -> int:
    """Return the bucket of a latency, 0 to LAST_BUCKET (173 s)."""
    if seconds <= FIRST_BUCKET_S:
        return 0
    return min(LAST_BUCKET, math.ceil(math.log(seconds / FIRST_BUCKET_S) / math.log(GROWTH)))


@dataclass(slots=True)
class Minute:
    """What was counted since the last `take_minute`."""

    #: Of each stage, counts by bucket.
    latencies: dict[str, Counter[int]] = field(default_factory=dict)
    #: turns, errors.<code>, refused.<reason>, degraded.<reason>, lost_turns, barge_ins, gaps, dropped_audio_ms.
    counts: Counter[str] = field(default_factory=Counter)


_minute = Minute()
_lock = Lock()


def take_minute() -> Minute:
    """Return what was counted since the last call, and reset it."""
    global _minute
    with _lock:
        taken, _minute = _minute, Minute()
    return taken


def give_back(minute: Minute) -> None:
    """Add what could not be written to the present minute."""
    with _lock:
        for stage, counts in minute.latencies.items():
            _minute.latencies.setdefault(stage, Counter()).update(counts)
        _minute.counts.update(minute.counts)


def observe_stage(stage: Stage, seconds: float) -> None:
    TURN_SECONDS.labels(stage.value).observe(seconds)
    with _lock:
        _minute.latencies.setdefault(stage.value, Counter())[find_bucket(seconds)] += 1


def count_turn() -> None:
    TURNS.inc()
    _count("turns")


def count_error(code: str) -> None:
    """Count an error message to a client, by its code in the protocol."""
    ERRORS.labels(code).inc()
    _count(f"errors.{code}")


def count_refused_call(reason: str) -> None:
    REFUSED_CALLS.labels(reason).inc()
    _count(f"refused.{reason}")


def count_degraded_reply(reason: str) -> None:
    """Count a reply in a lower quality than was chosen, without sound, or incomplete."""
    DEGRADED_REPLIES.labels(reason).inc()
    _count(f"degraded.{reason}")


def count_lost_turn() -> None:
    LOST_TURNS.inc()
    _count("lost_turns")


def observe_gap(seconds: float) -> None:
    GAP_SECONDS.observe(seconds)
    _count("gaps")


def observe_barge_in(stop_seconds: float) -> None:
    BARGE_IN_STOP_SECONDS.observe(stop_seconds)
    _count("barge_ins")


def count_dropped_audio(seconds: float) -> None:
    DROPPED_AUDIO_SECONDS.inc(seconds)
    _count("dropped_audio_ms", round(seconds * 1000))


def _count(name: str, number: int = 1) -> None:
    with _lock:
        _minute.counts[name] += number
