"""The dashboard, rules and tables in docs/monitoring, against the metrics that there are."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterable
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.conf import settings
from prometheus_client.metrics_core import Metric

from avatar_site.lib import metrics
from avatar_site.lib.metrics import Stage
from avatar_site.monitoring import conditions, exposition
from avatar_site.monitoring.conditions import CONDITIONS, FAILURES
from avatar_site.monitoring.reading import read_thresholds
from avatar_site.operations.serve_state import ServeState
from avatar_site.operations.status import Health, Snapshot
from inference.telemetry.metrics import EngineMetrics, StatusCollector
from realtime.messages import ErrorCode
from tests.fakes import FakeInference

FOLDER = Path(settings.BASE_DIR) / "docs" / "monitoring"
DASHBOARD = json.loads((FOLDER / "dashboard.json").read_text(encoding="utf-8"))
RULES = yaml.safe_load((FOLDER / "alerts.yml").read_text(encoding="utf-8"))
LIMITS = read_thresholds()
#: Where `make promtool` puts it.
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "avatar"
PROMTOOL = shutil.which("promtool", path=f"{CACHE}{os.pathsep}{os.environ.get('PATH', '')}")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not here: `make promtool` fetches it")

#: From the database.
COUNTED = {"avatar_sessions", "avatar_waiting", "avatar_alerts", "avatar_voices", "avatar_voices_built_total"}
_SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "gauge": ("",)}


def list_samples(families: Iterable[Metric]) -> set[str]:
    return {family.name + suffix for family in families for suffix in _SUFFIXES[family.type]}


def list_expressions() -> list[str]:
    panels = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]
    notes = [note["expr"] for note in DASHBOARD["annotations"]["list"]]
    return [*panels, *notes, *(rule["expr"] for rule in list_rules())]


def list_rules() -> list[dict[str, Any]]:
    return [rule for group in RULES["groups"] for rule in group["rules"]]


def find_rule(alert: str, severity: str) -> dict[str, Any]:
    (rule,) = [rule for rule in list_rules() if (rule["alert"], rule["labels"]["severity"]) == (alert, severity)]
    return rule


def run_promtool(*arguments: str, folder: Path = FOLDER) -> None:
    assert PROMTOOL is not None
    run = subprocess.run([PROMTOOL, *arguments], cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.fixture
async def known() -> set[str]:
    """Every sample that `/metrics` may have."""
    status = await FakeInference().status()
    site: list[Metric] = [
        *exposition.describe_snapshot(Snapshot(Health.HEALTHY, ())),
        *exposition.describe_gauges({f"{name}.x" if label else name: 0 for name, (*_, label) in _sampled()}),
        *exposition.describe_processes(ServeState("http://x", os.getpid(), time.time()), dt.datetime.now(dt.UTC)),
    ]
    return COUNTED | list_samples(
        [
            *metrics.REGISTRY.collect(),
            *site,
            *EngineMetrics().registry.collect(),
            *StatusCollector(status).collect(),
        ]
    )


def _sampled() -> Iterable[tuple[str, tuple[str, str, str]]]:
    return exposition._SAMPLED.items()


class TestNames:
    def test_are_found_in_expressions(self) -> None:
        assert len(list_expressions()) > 60

    async def test_of_dashboard_and_rules_exist(self, known: set[str]) -> None:
        used = {name for expression in list_expressions() for name in re.findall(r"avatar_\w+", expression)}

        assert used - known == set()

    @pytest.mark.parametrize("page", ["README.md", "README.zh-Hant.md"])
    async def test_of_the_tables_exist(self, known: set[str], page: str) -> None:
        text = (FOLDER / page).read_text(encoding="utf-8")
        named = set(re.findall(r"`(avatar_\w+)`", text))

        assert len(named) > 20
        # A histogram is named without the suffixes of its samples.
        assert named - known - {name.removesuffix("_bucket") for name in known} == set()

    @pytest.mark.django_db
    def test_counted_in_the_database_are_these(self) -> None:
        from django.utils import timezone

        families = [*exposition.count_calls(timezone.now()), *exposition.count_alerts(), *exposition.count_voices()]

        assert list_samples(families) == COUNTED

    def test_of_stages_codes_and_conditions_exist(self) -> None:
        text = " ".join(list_expressions())

        assert set(re.findall(r'stage="(\w+)"', text)) <= set(Stage)
        assert {code for codes in re.findall(r'code=~"([\w|]+)"', text) for code in codes.split("|")} == FAILURES
        assert set(ErrorCode) >= FAILURES
        named = {each for group in re.findall(r'condition=~"([\w|]+)"', text) for each in group.split("|")}
        assert named <= set(CONDITIONS)


class TestRules:
    """Prometheus's rules have the thresholds of AVATAR's own alerts, as they are by default."""

    @pytest.mark.parametrize(
        ("alert", "severity", "threshold"),
        [
            ("AvatarMemoryShort", "warning", f">= {LIMITS.memory_percent:g}"),
            ("AvatarMemoryShort", "critical", f">= {conditions.VERY_FULL_MEMORY_PERCENT:g}"),
            ("AvatarErrors", "warning", f"> {LIMITS.error_percent / 100:g}"),
            ("AvatarErrors", "warning", f">= {LIMITS.min_errors}"),
            ("AvatarErrors", "critical", f"> {LIMITS.error_percent * conditions.VERY_MANY_ERRORS / 100:g}"),
            ("AvatarErrors", "critical", f">= {LIMITS.min_errors}"),
            ("AvatarSlow", "warning", f"> {LIMITS.latency_s:g}"),
            ("AvatarSlow", "warning", f">= {conditions.MIN_TURNS}"),
            ("AvatarSlow", "warning", f'le="{LIMITS.latency_s:g}"}}[10m])) >= {conditions.MIN_SLOW_TURNS}'),
            ("AvatarTurnsLost", "critical", "> 0"),
            ("AvatarRestartLoop", "critical", f">= {conditions.RESTARTS_IN_LOOP}"),
            ("AvatarDiskSpace", "warning", f"< {LIMITS.disk_gb:g} * 2 ^ 30"),
            ("AvatarDiskSpace", "critical", f"< {LIMITS.disk_gb * conditions.VERY_LOW_DISK:g} * 2 ^ 30"),
            ("AvatarLogFolderLarge", "warning", f"> {LIMITS.logs_mb:g} * 2 ^ 20"),
            ("AvatarBackupStale", "warning", f"> {LIMITS.backup_hours:g} * 3600"),
            (
                "AvatarBackupStale",
                "critical",
                f"> {LIMITS.backup_hours + conditions.VERY_OLD_BACKUP / dt.timedelta(hours=1):g} * 3600",
            ),
            ("AvatarQueueStuck", "warning", f"> {LIMITS.queue_minutes:g} * 60"),
            ("AvatarQueueStuck", "critical", f"> {LIMITS.queue_minutes * conditions.VERY_LONG_QUEUE:g} * 60"),
            ("AvatarEventLoopLags", "warning", f"> {settings.AVATAR_MAX_EVENT_LOOP_LAG_MS / 1000:g}"),
        ],
    )
    def test_have_the_same_thresholds(self, alert: str, severity: str, threshold: str) -> None:
        assert re.search(rf"{re.escape(threshold)}(?!\S)", find_rule(alert, severity)["expr"])

    @pytest.mark.parametrize(
        ("alert", "minutes"),
        [
            ("AvatarMemoryShort", conditions.MEMORY_MINUTES),
            ("AvatarProcessDown", conditions.DOWN_MINUTES),
            ("AvatarRoleUnavailable", conditions.DOWN_MINUTES),
            ("AvatarRoleLoads", conditions.LOADING_MINUTES),
            ("AvatarRoleOnFallback", conditions.FALLBACK_MINUTES),
        ],
    )
    def test_wait_for_as_long(self, alert: str, minutes: int) -> None:
        assert {rule["for"] for rule in list_rules() if rule["alert"] == alert} == {f"{minutes}m"}

    @pytest.mark.parametrize("alert", ["AvatarErrors", "AvatarSlow", "AvatarTurnsLost"])
    def test_have_the_same_window(self, alert: str) -> None:
        windows = {
            window
            for rule in list_rules()
            if rule["alert"] == alert
            for window in re.findall(r"\[(\w+)\]", rule["expr"])
        }

        assert windows == {f"{conditions.TRAFFIC_WINDOW // dt.timedelta(minutes=1)}m"}

    def test_leave_out_no_condition(self) -> None:
        rules = {
            "memory": "AvatarMemoryShort",
            "error_rate": "AvatarErrors",
            "latency": "AvatarSlow",
            "lost_turns": "AvatarTurnsLost",
            "process_down": "AvatarProcessDown",
            "model_down": "AvatarRoleUnavailable",
            "role_on_fallback": "AvatarRoleOnFallback",
            "restart_loop": "AvatarRestartLoop",
            "disk_space": "AvatarDiskSpace",
            "log_folder": "AvatarLogFolderLarge",
            "queue_stuck": "AvatarQueueStuck",
            # No alert of ours can be read then.
            "database_away": "AvatarUnhealthy",
        }
        forwarded = {
            severity: re.search(r'condition=~"([\w|]+)"', find_rule("AvatarAlert", severity)["expr"])
            for severity in ("warning", "critical")
        }

        assert set(rules.values()) <= {rule["alert"] for rule in list_rules()}
        for match in forwarded.values():
            assert match is not None
            assert set(CONDITIONS) == set(rules) | set(match.group(1).split("|"))


class TestDashboard:
    def test_has_panels_that_do_not_overlap(self) -> None:
        def overlap(one: dict[str, int], other: dict[str, int]) -> bool:
            return all(
                one[place] < other[place] + other[size] and other[place] < one[place] + one[size]
                for place, size in (("x", "w"), ("y", "h"))
            )

        places = [panel["gridPos"] for panel in DASHBOARD["panels"]]

        assert not [pair for pair in combinations(places, 2) if overlap(*pair)]
        assert all(place["x"] + place["w"] <= 24 for place in places)
        assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(places)

    def test_asks_the_data_source_that_is_chosen(self) -> None:
        (variable,) = DASHBOARD["templating"]["list"]
        sources = [panel["datasource"] for panel in DASHBOARD["panels"] if panel["type"] != "row"]

        assert (variable["name"], variable["query"]) == ("datasource", "prometheus")
        assert {source["uid"] for source in sources} == {"${datasource}"}


@needs_promtool
class TestPromtool:
    def test_takes_the_rules(self) -> None:
        run_promtool("check", "rules", "alerts.yml")

    def test_takes_the_configuration(self) -> None:
        run_promtool("check", "config", "--syntax-only", "prometheus.yml")

    def test_sees_the_rules_fire_and_end(self) -> None:
        run_promtool("test", "rules", "alerts.test.yml")

    def test_takes_the_dashboards_expressions(self, tmp_path: Path) -> None:
        expressions = [expression.replace("$__rate_interval", "5m") for expression in list_expressions()]
        rules: list[dict[str, Any]] = [
            {"record": f"expression:{number}", "expr": expression} for number, expression in enumerate(expressions)
        ]
        (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))

        run_promtool("check", "rules", "--lint=none", "rules.yml", folder=tmp_path)

    @pytest.mark.django_db(transaction=True)
    async def test_takes_what_is_exposed(self, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(exposition, "get_inference", FakeInference)
        assert PROMTOOL is not None
        try:
            text = await exposition.expose()
        finally:
            exposition._thread.close()

        run = subprocess.run(  # noqa: ASYNC221 — nothing else runs in this test
            [PROMTOOL, "check", "metrics"], input=text, capture_output=True, timeout=60, check=False
        )

        # 3: style only.
        assert (run.returncode, run.stderr) in ((0, b""), (3, run.stderr)), run.stderr
        assert b"error" not in run.stderr
