from __future__ import annotations

import asyncio
import datetime as dt
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import OperationalError
from django.test import AsyncClient
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families
from pytest_django import Settings

from avatar_site.lib import metrics
from avatar_site.monitoring import exposition, sampling
from avatar_site.monitoring.models import Alert, Severity
from avatar_site.operations import health
from avatar_site.operations.serve_state import ChildState, ServeState, StateFile
from avatar_site.operations.status import DatabaseReport, Health, Snapshot
from avatar_site.settings import prod
from inference.interfaces import DeviceMemory
from realtime.models import LiveCall
from tests.fakes import FakeInference
from voices.models import BuildCount

TOKEN = "a token of more than twenty characters"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


def parse(text: bytes) -> dict[tuple[str, ...], float]:
    """Return values by name and the values of labels, sorted. Fails on a name that is exposed twice."""
    families = list(text_string_to_metric_families(text.decode()))
    names = [family.name for family in families]
    assert len(names) == len(set(names))
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value for family in families for sample in family.samples
    }


@pytest.fixture
def inference(monkeypatch: pytest.MonkeyPatch) -> FakeInference:
    fake = FakeInference()
    monkeypatch.setattr(exposition, "get_inference", lambda: fake)
    return fake


@pytest.fixture(autouse=True)
def _closed_threads() -> Iterator[None]:
    yield
    exposition._thread.close()
    health._logins.close()


@pytest.fixture
def prober(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Knows that the database answers, and nothing else."""

    class Prober:
        snapshot = Snapshot(Health.UNHEALTHY, ("inference_unreachable",), database=DatabaseReport())

    monkeypatch.setattr(exposition, "get_prober", Prober)
    monkeypatch.setattr(health, "get_prober", Prober)
    return Prober


@pytest.fixture
async def scrape(
    async_client: AsyncClient, settings: Settings, inference: FakeInference, prober: Any, data_dir: Path
) -> Any:
    settings.AVATAR_METRICS_TOKEN = TOKEN

    async def get() -> dict[tuple[str, ...], float]:
        response = await async_client.get("/metrics", headers=BEARER)
        assert response.status_code == 200
        assert response.headers["Content-Type"].startswith("text/plain; version=")
        return parse(response.content)

    return get


@pytest.mark.django_db(transaction=True)
class TestMetrics:
    @pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer another"}, {"Authorization": TOKEN}])
    async def test_are_for_who_has_the_token(
        self, async_client: AsyncClient, settings: Settings, headers: dict[str, str]
    ) -> None:
        settings.AVATAR_METRICS_TOKEN = TOKEN

        response = await async_client.get("/metrics", headers=headers)

        assert (response.status_code, response.content) == (401, b"")
        assert response.headers["WWW-Authenticate"] == "Bearer"

    async def test_are_for_nobody_without_a_token(self, async_client: AsyncClient, settings: Settings) -> None:
        settings.AVATAR_METRICS_TOKEN = ""

        assert (await async_client.get("/metrics", headers={"Authorization": "Bearer "})).status_code == 401

    async def test_are_for_operators_who_are_logged_in(
        self, scrape: Any, alice: User, bob: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(health, "LOGIN_TIMEOUT_S", 10.0)
        alice.is_staff = True
        await alice.asave()
        operator, other = AsyncClient(), AsyncClient()
        await operator.aforce_login(alice)
        await other.aforce_login(bob)

        assert (await operator.get("/metrics")).status_code == 200
        assert (await other.get("/metrics")).status_code == 401

    async def test_are_not_redirected_to_https(self, scrape: Any, settings: Settings) -> None:
        settings.SECURE_SSL_REDIRECT = True
        settings.SECURE_REDIRECT_EXEMPT = prod.SECURE_REDIRECT_EXEMPT

        assert (await AsyncClient().get("/api/docs")).status_code == 301
        assert "avatar_info" in {name for name, *_ in await scrape()}

    async def test_have_what_this_process_counted(self, scrape: Any) -> None:
        before = await scrape()
        metrics.count_error("SERVER_FULL")
        metrics.observe_stage(metrics.Stage.TTFA, 1.2)

        after = await scrape()

        name = ("avatar_errors_total", "SERVER_FULL")
        assert after[name] - before.get(name, 0) == 1
        bucket = ("avatar_turn_seconds_bucket", "1.5", "ttfa")
        assert after[bucket] - before.get(bucket, 0) == 1

    async def test_have_those_of_the_inference_process(self, scrape: Any) -> None:
        assert (await scrape())["avatar_inference_role_ready", "cpu", "fake", "script", "stt"] == 1

    async def test_do_without_those_of_a_process_that_is_away(self, scrape: Any, inference: FakeInference) -> None:
        inference.start_outage()

        found = await scrape()

        assert found["avatar_inference_reachable",] == 0
        assert not [name for name, *_ in found if name.startswith("avatar_inference_role")]

    async def test_do_not_wait_for_one_that_hangs(
        self, scrape: Any, inference: FakeInference, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(exposition, "INFERENCE_TIMEOUT_S", 0.05)
        monkeypatch.setattr(inference, "read_metrics", asyncio.Event().wait)

        assert "avatar_disk_free_bytes" in {name for name, *_ in await scrape()}

    async def test_count_calls_alerts_and_voices(self, scrape: Any, alice: User, noon: dt.datetime) -> None:
        now = timezone.now()
        await LiveCall.objects.acreate(session_id="0" * 32, user=alice, began_at=now, last_seen_at=now)
        await Alert.objects.acreate(condition="disk_full", severity=Severity.ERROR, opened_at=noon, last_seen_at=noon)
        await BuildCount.objects.aupdate_or_create(defaults={"value": 7})

        found = await scrape()

        assert (found["avatar_sessions",], found["avatar_waiting",]) == (1, 0)
        assert found["avatar_alerts", "disk_full", "error"] == 1
        assert found["avatar_voices", "ready"] == 0
        assert found["avatar_voices_built_total",] == 7

    async def test_measure_the_processes_of_serve(self, scrape: Any, data_dir: Path) -> None:
        now = time.time()
        children = (
            ChildState("web", os.getpid(), now, restarts=(now - 660, now - 60, now)),
            ChildState("worker", os.getpid(), now),
            ChildState("maintenance", None, None),
        )
        StateFile(data_dir, on_failure=pytest.fail).write(ServeState("http://x", os.getpid(), now, children))

        found = await scrape()

        assert found["avatar_process_resident_bytes", "web"] > 1_000_000
        assert found["avatar_process_restarts", "web"] == 2
        assert (found["avatar_process_down", "web"], found["avatar_process_down", "maintenance"]) == (0, 1)
        assert found["avatar_workers_alive",] == 1

    async def test_leave_out_what_a_database_that_is_away_knows(
        self, scrape: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*arguments: object) -> None:
            raise OperationalError("gone")

        monkeypatch.setattr(sampling, "measure_database", fail)
        monkeypatch.setattr(exposition, "count_calls", fail)

        names = {name for name, *_ in await scrape()}

        assert not {"avatar_sessions", "avatar_database_bytes"} & names
        assert {"avatar_disk_free_bytes", "avatar_ram_total_bytes", "avatar_info"} <= names


class TestGaugesOfSamples:
    def test_have_a_name_each(self) -> None:
        names = [name for name, _, _ in exposition._SAMPLED.values()]

        assert len(names) == len(set(names))

    @pytest.mark.django_db
    def test_are_all_named(self, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        inference = FakeInference()
        status = replace(asyncio.run(inference.status()), devices=(DeviceMemory("GPU", 100, 40),))
        monkeypatch.setattr(sampling, "list_shares_bytes", lambda: [10])
        monkeypatch.setattr(sampling, "find_backed_up_at", timezone.now)
        now = time.time()
        state = ServeState("http://x", os.getpid(), now, (ChildState("web", os.getpid(), now),))

        gauges = sampling.measure(state, status, now=timezone.now())

        assert len(gauges) > 20
        assert {name.partition(".")[0] for name in gauges} - set(exposition._SAMPLED) == set()
