from __future__ import annotations

import datetime as dt
import logging

import pytest
from django.utils import translation

from avatar_site.monitoring import alerts, sentences
from avatar_site.monitoring.alerts import Keep, Open, Resolve, Standing
from avatar_site.monitoring.conditions import ANY, CONDITIONS, GB, Condition, Finding, Reading, Thresholds, Verdict
from avatar_site.monitoring.models import Alert, AlertState, Severity

NOW = dt.datetime(2026, 11, 27, 4, 0, 12, tzinfo=dt.UTC)
LOW = Finding("data", figures={"free_bytes": 9 * GB, "limit_bytes": 10 * GB})
STAYS = Finding("data", Verdict.STAYS)


def make_standing(minutes_ago: float = 1, *, condition: str = "disk_space", severity: str = "warning") -> Standing:
    return Standing(7, condition, "data", severity, NOW - dt.timedelta(minutes=minutes_ago))


def decide(standing: list[Standing], *findings: Finding) -> list[alerts.Change]:
    return list(alerts.decide(standing, {"disk_space": findings}, now=NOW))


class TestDecide:
    def test_opens_what_holds(self) -> None:
        assert decide([], LOW) == [Open("disk_space", LOW)]

    def test_opens_nothing_between_the_thresholds(self) -> None:
        assert decide([], STAYS) == []

    def test_keeps_one_alert_while_it_holds(self) -> None:
        alert = make_standing()

        assert decide([alert], LOW) == [Keep(alert, LOW, is_worse=False)]

    def test_tells_when_a_warning_becomes_an_error(self) -> None:
        warning, error = make_standing(), make_standing(severity="error")
        worse = Finding("data", severity=Severity.ERROR)

        assert decide([warning], worse) == [Keep(warning, worse, is_worse=True)]
        assert decide([error], worse) == [Keep(error, worse, is_worse=False)]
        assert decide([error], LOW) == [Keep(error, LOW, is_worse=False)]

    def test_resolves_after_the_pause(self) -> None:
        assert decide([make_standing(1.9)]) == []
        assert decide([make_standing(2)]) == [Resolve(make_standing(2))]

    def test_resolves_what_was_seen_before_the_clock_was_set_back(self) -> None:
        alert = make_standing(-90)

        assert decide([alert]) == [Resolve(alert)]
        assert decide([alert], LOW) == [Keep(alert, LOW, is_worse=False)]

    @pytest.mark.parametrize("finding", [STAYS, Finding(ANY, Verdict.STAYS)])
    def test_resolves_nothing_that_stays(self, finding: Finding) -> None:
        assert decide([make_standing(90)], finding) == []

    def test_tells_subjects_apart(self) -> None:
        other = Finding("backups")

        assert decide([make_standing(2)], other) == [Open("disk_space", other), Resolve(make_standing(2))]

    def test_leaves_conditions_alone_that_were_not_examined(self) -> None:
        assert decide([make_standing(90, condition="memory")]) == []

    def test_resolves_those_of_a_condition_that_is_no_more(self) -> None:
        gone = make_standing(0, condition="of_an_earlier_version")

        assert decide([gone]) == [Resolve(gone)]


class TestEvaluate:
    def test_keeps_the_alerts_of_a_condition_that_fails(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(reading: Reading, thresholds: Thresholds) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(alerts, "CONDITIONS", {**CONDITIONS, "memory": Condition("memory", fail)})  # type: ignore[arg-type]

        findings = alerts.evaluate(Reading(now=NOW), Thresholds())

        assert findings["memory"] == [Finding(ANY, Verdict.STAYS)]
        assert findings.keys() == CONDITIONS.keys()
        assert "condition memory could not be examined" in caplog.text

    def test_finds_nothing_on_a_site_without_a_past(self) -> None:
        findings = alerts.evaluate(Reading(now=NOW), Thresholds())

        assert not [each for found in findings.values() for each in found if each.verdict is Verdict.HOLDS]


def step(minutes: int, *findings: Finding) -> None:
    """Apply what was found so many minutes later."""
    now = NOW + dt.timedelta(minutes=minutes)
    alerts.apply(alerts.decide(alerts.read_standing(), {"disk_space": findings}, now=now), now=now)


@pytest.mark.django_db
class TestApply:
    def test_opens_and_resolves_one_alert_and_logs_both(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)

        for minute, finding in enumerate([LOW, LOW, STAYS, LOW, STAYS]):
            step(minute, finding)
        for minute in (5, 6):
            step(minute)

        alert = Alert.objects.get()
        assert (alert.state, alert.opened_at) == (AlertState.RESOLVED, NOW)
        assert alert.last_seen_at == NOW + dt.timedelta(minutes=3)
        assert alert.resolved_at == NOW + dt.timedelta(minutes=5)
        assert [(record.levelname, record.message) for record in caplog.records] == [
            (
                "WARNING",
                "alert opened: disk_space data: 9.0 GB are free on the disk of the data folder; the limit is 10.0 GB.",
            ),
            ("INFO", "alert resolved: disk_space data"),
        ]

    def test_opens_another_when_it_holds_again(self) -> None:
        for minute, found in ((0, [LOW]), (5, []), (6, [LOW])):
            step(minute, *found)

        assert sorted(Alert.objects.values_list("state", flat=True)) == ["open", "resolved"]

    def test_opens_an_acknowledged_warning_that_becomes_an_error(self, caplog: pytest.LogCaptureFixture) -> None:
        step(0, LOW)
        Alert.objects.update(state=AlertState.ACKNOWLEDGED, acknowledged_at=NOW)

        step(1, LOW)
        acknowledged = Alert.objects.get().state
        step(2, Finding("data", severity=Severity.ERROR, figures=LOW.figures))

        alert = Alert.objects.get()
        assert (acknowledged, alert.state, alert.severity) == ("acknowledged", "open", "error")
        assert alert.acknowledged_at is None
        assert [record.levelname for record in caplog.records] == ["WARNING", "ERROR"]

    def test_leaves_what_another_process_did_first(self, caplog: pytest.LogCaptureFixture) -> None:
        first = list(alerts.decide([], {"disk_space": [LOW]}, now=NOW))
        alerts.apply(first, now=NOW)
        alerts.apply(first, now=NOW)
        resolving = [Resolve(alert) for alert in alerts.read_standing()]
        alerts.apply(resolving, now=NOW)
        alerts.apply(resolving, now=NOW + dt.timedelta(hours=1))

        alert = Alert.objects.get()
        assert alert.resolved_at == NOW
        assert len([record for record in caplog.records if "opened" in record.message]) == 1

    def test_resolves_what_was_open_when_a_restored_backup_was_made(self) -> None:
        step(0, LOW)

        step(3 * 24 * 60)

        assert Alert.objects.get().state == AlertState.RESOLVED


class TestSentences:
    def test_exist_for_every_condition(self) -> None:
        assert sentences.TITLES.keys() == CONDITIONS.keys() == sentences._SENTENCES.keys()

    def test_survive_figures_of_another_version(self) -> None:
        with translation.override("en"):
            assert sentences.describe("disk_space", "data", {}) == "The disk is almost full (data)"
            assert sentences.describe("of_a_later_version", "", {}) == "of_a_later_version"
