"""Each condition: when it holds, when it does not, and between."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from avatar_site.lib.metrics import find_bucket
from avatar_site.monitoring.conditions import (
    ANY,
    CONDITIONS,
    GB,
    LOADING_MINUTES,
    MB,
    MEMORY_MINUTES,
    Certificate,
    Finding,
    Minute,
    Reading,
    Retention,
    Thresholds,
    Unverified,
    Verdict,
)
from avatar_site.monitoring.models import Severity
from avatar_site.monitoring.samples import SampleValues
from avatar_site.operations.serve_state import ChildState
from inference.interfaces import Role, RoleState, RoleStatus

NOW = dt.datetime(2026, 11, 27, 4, 0, 12, tzinfo=dt.UTC)
HOLDS, STAYS = Verdict.HOLDS, Verdict.STAYS


def make_minutes(*gauges: Mapping[str, float]) -> tuple[Minute, ...]:
    """The newest is of this minute."""
    newest = NOW.replace(second=0)
    return tuple(
        Minute(newest - dt.timedelta(minutes=len(gauges) - 1 - place), each) for place, each in enumerate(gauges)
    )


def read_gauge(name: str, *values: float) -> Reading:
    return Reading(now=NOW, minutes=make_minutes(*({name: value} for value in values)))


def find(condition: str, reading: Reading, **thresholds: Any) -> list[Finding]:
    return list(CONDITIONS[condition].find(reading, Thresholds(**thresholds)))


def verdicts(condition: str, reading: Reading) -> dict[str, Verdict]:
    return {finding.subject: finding.verdict for finding in find(condition, reading)}


def make_role(role: Role, state: RoleState = RoleState.READY, reason: str = "") -> RoleStatus:
    return RoleStatus(role, state, "kokoro", "kokoro-82m", "cpu", 1.0, 0, reason=reason)


class TestReading:
    def test_leaves_out_samples_that_are_too_old(self) -> None:
        minutes = (Minute(NOW - dt.timedelta(minutes=20), {"down.web": 1.0}), *make_minutes({"down.web": 0.0}))

        assert Reading(now=NOW, minutes=minutes).read_last("down.web", 2) == [0.0]

    def test_bridges_a_minute_without_a_sample(self) -> None:
        minutes = make_minutes({"down.web": 1.0}, {}, {"down.web": 1.0})

        assert Reading(now=NOW, minutes=minutes).read_last("down.web", 2) == [1.0, 1.0]


class TestMemory:
    @pytest.mark.parametrize("kind", ["ram", "gpu0", "kv_cache"])
    def test_holds_after_three_full_minutes(self, kind: str) -> None:
        reading = read_gauge(f"memory_percent.{kind}", 50, 91, 92, 93)

        assert find("memory", reading) == [Finding(kind, HOLDS, figures={"percent": 93, "limit_percent": 90})]

    @pytest.mark.parametrize("percents", [(91, 91), (91, 89, 91), (95, 95, 86), (86,)])
    def test_stays_for_a_moment_and_near_the_limit(self, percents: tuple[float, ...]) -> None:
        assert verdicts("memory", read_gauge("memory_percent.ram", *percents)) == {"ram": STAYS}

    @pytest.mark.parametrize("percents", [(91, 91, 91, 85), (10,), ()])
    def test_ends_well_below(self, percents: tuple[float, ...]) -> None:
        assert find("memory", read_gauge("memory_percent.ram", *percents)) == []

    def test_is_an_error_where_almost_nothing_is_left(self) -> None:
        (finding,) = find("memory", read_gauge("memory_percent.ram", *[98] * MEMORY_MINUTES))

        assert finding.severity == Severity.ERROR


def read_traffic(**counts: int) -> Reading:
    return Reading(
        now=NOW, traffic=SampleValues(counts=Counter({name.replace("__", "."): n for name, n in counts.items()}))
    )


class TestErrorRate:
    @pytest.mark.parametrize(
        ("counts", "holds"),
        [
            ({"turns": 50, "errors__PROCESSING_ERROR": 3}, True),
            ({"turns": 0, "errors__INFERENCE_UNAVAILABLE": 3}, True),
            # Fewer than three; not more than five percent; errors of clients; nothing at all.
            ({"turns": 2, "errors__PROCESSING_ERROR": 2}, False),
            ({"turns": 57, "errors__PROCESSING_ERROR": 3}, False),
            ({"turns": 10, "errors__VALIDATION_ERROR": 90, "errors__SERVER_FULL": 90}, False),
            ({}, False),
        ],
    )
    def test_counts_failures_of_ours(self, counts: dict[str, int], holds: bool) -> None:
        assert bool(find("error_rate", read_traffic(**counts))) is holds

    @pytest.mark.parametrize(("turns", "severity"), [(9, Severity.WARNING), (8, Severity.ERROR)])
    def test_is_an_error_where_a_quarter_fails(self, turns: int, severity: Severity) -> None:
        (finding,) = find("error_rate", read_traffic(turns=turns, errors__FATAL_ERROR=3))

        assert finding.severity == severity


def read_latencies(seconds: float, turns: int) -> Reading:
    return Reading(now=NOW, traffic=SampleValues(latencies={"ttfa": Counter({find_bucket(seconds): turns})}))


class TestLatency:
    @pytest.mark.parametrize(
        ("seconds", "turns", "verdict"),
        [(4.0, 5, HOLDS), (4.0, 4, None), (3.3, 20, STAYS), (2.0, 20, None)],
    )
    def test_is_of_the_first_sound_of_several_turns(self, seconds: float, turns: int, verdict: Verdict | None) -> None:
        expected = {} if verdict is None else {"": verdict}

        assert verdicts("latency", read_latencies(seconds, turns)) == expected

    @pytest.mark.parametrize(("slow", "verdict"), [(1, STAYS), (2, HOLDS)])
    def test_is_not_that_of_a_single_slow_turn(self, slow: int, verdict: Verdict) -> None:
        latencies = {"ttfa": Counter({find_bucket(1.0): 8, find_bucket(9.0): slow})}

        assert verdicts("latency", Reading(now=NOW, traffic=SampleValues(latencies=latencies))) == {"": verdict}


class TestLostTurns:
    def test_holds_of_a_single_one(self) -> None:
        assert verdicts("lost_turns", read_traffic(lost_turns=1)) == {"": HOLDS}
        assert verdicts("lost_turns", read_traffic(turns=9)) == {}


class TestProcessDown:
    def test_holds_after_two_minutes(self) -> None:
        reading = Reading(
            now=NOW,
            minutes=make_minutes({"down.web": 1, "down.beat": 0}, {"down.web": 1, "down.beat": 1}),
            children=(ChildState("web", None, None, last_problem="killed by SIGKILL"),),
        )

        assert find("process_down", reading) == [
            Finding("beat", STAYS),
            Finding("web", HOLDS, Severity.ERROR, {"problem": "killed by SIGKILL"}),
        ]

    def test_ends_with_the_first_answer(self) -> None:
        assert find("process_down", read_gauge("down.web", 1, 1, 0)) == []

    def test_says_why_inference_does_not_answer(self) -> None:
        reading = Reading(
            now=NOW, minutes=make_minutes(*[{"down.inference": 1}] * 2), inference_problem="no answer within 5 s"
        )

        (finding,) = find("process_down", reading)
        assert finding.figures == {"problem": "no answer within 5 s"}


class TestModelDown:
    def test_holds_after_two_minutes(self) -> None:
        reading = Reading(
            now=NOW,
            minutes=make_minutes(*[{"unavailable.tts": 1, "unavailable.encoder": 1}] * 2),
            roles=(
                make_role(Role.TTS, RoleState.UNAVAILABLE, "no file"),
                make_role(Role.ENCODER, RoleState.UNAVAILABLE),
            ),
        )

        assert [(each.subject, each.severity) for each in find("model_down", reading)] == [
            ("tts", Severity.ERROR),
            ("encoder", Severity.WARNING),
        ]

    @pytest.mark.parametrize(("minutes", "verdict"), [(LOADING_MINUTES, HOLDS), (LOADING_MINUTES - 1, STAYS)])
    def test_allows_a_model_time_to_load(self, minutes: int, verdict: Verdict) -> None:
        reading = Reading(
            now=NOW,
            minutes=make_minutes(*[{"loading.llm": 1}] * minutes),
            roles=(make_role(Role.LLM, RoleState.LOADING),),
        )

        assert verdicts("model_down", reading) == {"llm": verdict}

    def test_is_not_known_while_inference_is_away(self) -> None:
        assert verdicts("model_down", Reading(now=NOW)) == {ANY: STAYS}


class TestRoleOnFallback:
    def test_says_on_what_and_why(self) -> None:
        reading = Reading(
            now=NOW,
            minutes=make_minutes(*[{"fallback.tts": 1, "fallback.stt": 0}] * 2),
            roles=(make_role(Role.TTS, reason="f5_tts: out of memory"), make_role(Role.STT)),
        )

        (finding,) = find("role_on_fallback", reading)
        assert (finding.subject, finding.verdict) == ("tts", HOLDS)
        assert finding.figures == {"engine": "kokoro", "model": "kokoro-82m", "problem": "f5_tts: out of memory"}

    def test_is_not_known_while_inference_is_away(self) -> None:
        assert verdicts("role_on_fallback", Reading(now=NOW)) == {ANY: STAYS}


class TestRestartLoop:
    @pytest.mark.parametrize(
        ("ages_s", "verdict"), [((500, 300, 10), HOLDS), ((500, 10), STAYS), ((3000, 2000, 1000), None)]
    )
    def test_counts_the_restarts_of_ten_minutes(self, ages_s: tuple[int, ...], verdict: Verdict | None) -> None:
        restarts = tuple(NOW.timestamp() - age_s for age_s in ages_s)
        reading = Reading(now=NOW, children=(ChildState("worker", 1, 1.0, restarts=restarts),))

        assert verdicts("restart_loop", reading) == ({} if verdict is None else {"worker": verdict})


class TestDiskSpace:
    @pytest.mark.parametrize(
        ("free_gb", "expected"),
        [
            (1.9, (HOLDS, Severity.ERROR)),
            (9.9, (HOLDS, Severity.WARNING)),
            (10.5, (STAYS, Severity.WARNING)),
            (11.1, None),
        ],
    )
    @pytest.mark.parametrize(("gauge", "subject"), [("disk_free_bytes", "data"), ("backup_disk_free_bytes", "backups")])
    def test_has_a_band(
        self, gauge: str, subject: str, free_gb: float, expected: tuple[Verdict, Severity] | None
    ) -> None:
        found = find("disk_space", read_gauge(gauge, free_gb * GB))

        assert [(each.subject, each.verdict, each.severity) for each in found] == (
            [] if expected is None else [(subject, *expected)]
        )


class TestLogFolder:
    @pytest.mark.parametrize(("mb", "verdict"), [(101, HOLDS), (95, STAYS), (90, None)])
    def test_has_a_band(self, mb: float, verdict: Verdict | None) -> None:
        found = find("log_folder", read_gauge("log_bytes", mb * MB), logs_mb=100)

        assert [each.verdict for each in found] == ([] if verdict is None else [verdict])


class TestBackupStale:
    @pytest.mark.parametrize(("hours", "holds"), [(25.9, False), (26.1, True)])
    def test_counts_from_the_newest_verified_one(self, hours: float, holds: bool) -> None:
        reading = Reading(now=NOW, backed_up_at=NOW - dt.timedelta(hours=hours), watched_since=NOW)

        assert bool(find("backup_stale", reading)) is holds

    @pytest.mark.parametrize(("hours", "holds"), [(25.9, False), (26.1, True)])
    def test_gives_a_new_site_its_first_night(self, hours: float, holds: bool) -> None:
        reading = Reading(now=NOW, watched_since=NOW - dt.timedelta(hours=hours))

        assert bool(find("backup_stale", reading)) is holds

    @pytest.mark.parametrize(("hours", "severity"), [(49.9, Severity.WARNING), (50.1, Severity.ERROR)])
    @pytest.mark.parametrize("known", ["backed_up_at", "watched_since"])
    def test_is_an_error_after_the_second_night(self, known: str, hours: float, severity: Severity) -> None:
        reading = replace(Reading(now=NOW), **{known: NOW - dt.timedelta(hours=hours)})

        assert [each.severity for each in find("backup_stale", reading)] == [severity]


class TestBackupUnverified:
    @pytest.mark.parametrize(("hours", "holds"), [(2.9, False), (3.1, True)])
    def test_allows_the_verification_its_time(self, hours: float, holds: bool) -> None:
        reading = Reading(now=NOW, unverified=Unverified("20261127T033000Z-1a2b", NOW - dt.timedelta(hours=hours)))

        assert bool(find("backup_unverified", reading)) is holds


class TestRetentionUnfinished:
    @pytest.mark.parametrize(
        ("hours", "is_finished", "holds"),
        [(1.9, False, False), (2.1, False, True), (25.9, True, False), (26.1, True, True)],
    )
    def test_is_of_one_that_did_not_end_or_did_not_begin(self, hours: float, is_finished: bool, holds: bool) -> None:
        began_at = NOW - dt.timedelta(hours=hours)
        reading = Reading(now=NOW, retention=Retention(began_at, began_at if is_finished else None))

        assert bool(find("retention_unfinished", reading)) is holds

    @pytest.mark.parametrize(("hours", "holds"), [(25.9, False), (26.1, True)])
    def test_gives_a_new_site_its_first_night(self, hours: float, holds: bool) -> None:
        assert (
            bool(find("retention_unfinished", Reading(now=NOW, watched_since=NOW - dt.timedelta(hours=hours)))) is holds
        )


class TestSweepRefused:
    def test_names_both_reasons(self) -> None:
        reading = Reading(
            now=NOW, sweep_refusal="Backup x was restored.", doubtful_sweep=(9, 0), doubtful_voices=(8, 9)
        )

        assert verdicts("sweep_refused", reading) == {"restore": HOLDS, "storage": HOLDS, "voices": HOLDS}
        assert verdicts("sweep_refused", Reading(now=NOW)) == {}


class TestQueueStuck:
    @pytest.mark.parametrize(("wait_s", "holds"), [(15 * 60, False), (15 * 60 + 1, True)])
    def test_is_of_the_oldest_task(self, wait_s: float, holds: bool) -> None:
        assert bool(find("queue_stuck", read_gauge("queue_wait_s.celery", wait_s))) is holds

    @pytest.mark.parametrize(("minutes", "severity"), [(60, Severity.WARNING), (61, Severity.ERROR)])
    def test_is_an_error_after_an_hour(self, minutes: int, severity: Severity) -> None:
        (finding,) = find("queue_stuck", read_gauge("queue_wait_s.celery", minutes * 60))

        assert finding.severity == severity


class TestCertificateCondition:
    @pytest.mark.parametrize(
        ("days", "severity"), [(22, None), (20, Severity.WARNING), (2, Severity.ERROR), (-1, Severity.ERROR)]
    )
    def test_holds_before_it_expires(self, days: float, severity: Severity | None) -> None:
        reading = Reading(now=NOW, certificate=Certificate("example.tw:443", NOW + dt.timedelta(days=days)))

        assert [each.severity for each in find("certificate", reading)] == ([] if severity is None else [severity])

    def test_holds_of_one_that_cannot_be_read(self) -> None:
        reading = Reading(now=NOW, certificate=Certificate("/etc/cert.pem", None, "Permission denied"))

        assert verdicts("certificate", reading) == {"": HOLDS}


class TestSecretAge:
    def test_holds_after_a_year(self) -> None:
        secrets = {"AVATAR_SECRET_KEY": NOW - dt.timedelta(days=366), "AVATAR_METRICS_TOKEN": NOW}

        assert verdicts("secret_age", Reading(now=NOW, secrets=secrets)) == {"AVATAR_SECRET_KEY": HOLDS}
