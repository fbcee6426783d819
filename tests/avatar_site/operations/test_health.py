"""What `/health` and `/ready` answer, of a given snapshot. How fast: `tests/avatar_site/web/test_background.py`."""

import threading
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import AsyncClient, Client

from avatar_site import version
from avatar_site.operations import health
from avatar_site.operations.status import (
    DatabaseReport,
    Health,
    InferenceReport,
    MachineReport,
    Snapshot,
    Usage,
)
from inference.interfaces import InferenceStatus, Role, RoleState, RoleStatus
from realtime.admission import Admission

TOKEN = "a token of the monitoring"
STATUS = InferenceStatus(
    profile="fake",
    roles=tuple(RoleStatus(role, RoleState.READY, "fake", "script", "cpu", 0.5, 1000) for role in Role),
    resident_bytes=5000,
    started_at=1.0,
)
GOOD = Snapshot(
    Health.HEALTHY,
    (),
    0.0,
    DatabaseReport(active=2, waiting=1),
    InferenceReport(STATUS),
    MachineReport(ram=Usage(25, 100), disk=Usage(1, 2), serve=None),
)
DEGRADED = Snapshot(Health.DEGRADED, ("encoder_unavailable",), 0.0, GOOD.database, GOOD.inference, GOOD.machine)
BAD = Snapshot(
    Health.UNHEALTHY,
    ("inference_unreachable",),
    0.0,
    DatabaseReport(),
    InferenceReport(None, "refused by 10.0.0.7"),
    None,
)


class Known:
    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot


@pytest.fixture
def know(monkeypatch: pytest.MonkeyPatch) -> Any:
    def know(snapshot: Snapshot) -> None:
        known = Known(snapshot)
        monkeypatch.setattr(health, "get_prober", lambda: known)

    know(GOOD)
    return know


@pytest.fixture(autouse=True)
def _closed_thread() -> Any:
    yield
    health._logins.close()


class TestHealth:
    @pytest.mark.parametrize(
        ("snapshot", "code", "word"),
        [(GOOD, 200, "healthy"), (DEGRADED, 200, "degraded"), (BAD, 503, "unhealthy")],
    )
    async def test_tells_strangers_the_state_alone(
        self, know: Any, async_client: AsyncClient, snapshot: Snapshot, code: int, word: str
    ) -> None:
        know(snapshot)

        response = await async_client.get("/health")

        assert (response.status_code, response.json()) == (code, {"status": word})
        assert response.headers["Cache-Control"] == "no-store"

    async def test_tells_the_detail_to_who_has_the_token(
        self, know: Any, async_client: AsyncClient, settings: Any
    ) -> None:
        settings.AVATAR_METRICS_TOKEN = TOKEN

        body = (await async_client.get("/health", headers={"Authorization": f"Bearer {TOKEN}"})).json()

        assert body == {
            "status": "healthy",
            "reasons": [],
            "models": {"stt": "ready", "llm": "ready", "tts": "ready", "encoder": "ready"},
            "sessions": {"active": 2, "limit": 5, "waiting": 1},
            "memory": {"kind": "ram", "used": 25, "total": 100, "percent": 25.0},
            "version": version.read_version(),
        }

    @pytest.mark.parametrize(
        ("token", "sent"), [(TOKEN, "Bearer another"), (TOKEN, TOKEN), ("", "Bearer "), ("", "Bearer None")]
    )
    async def test_tells_none_to_who_has_another(
        self, know: Any, async_client: AsyncClient, settings: Any, token: str, sent: str
    ) -> None:
        settings.AVATAR_METRICS_TOKEN = token

        response = await async_client.get("/health", headers={"Authorization": sent})

        assert response.json() == {"status": "healthy"}

    @pytest.mark.django_db(transaction=True)
    async def test_tells_the_detail_to_operators_who_are_logged_in_and_not_to_others(
        self, know: Any, monkeypatch: pytest.MonkeyPatch, alice: User, bob: User
    ) -> None:
        monkeypatch.setattr(health, "LOGIN_TIMEOUT_S", 10.0)
        know(DEGRADED)
        alice.is_staff = True
        await alice.asave()
        operator, other = AsyncClient(), AsyncClient()
        await operator.aforce_login(alice)
        await other.aforce_login(bob)

        assert (await operator.get("/health")).json()["reasons"] == ["encoder_unavailable"]
        assert (await other.get("/health")).json() == {"status": "degraded"}

    async def test_does_not_wait_for_a_login_that_cannot_be_read(
        self, know: Any, monkeypatch: pytest.MonkeyPatch, async_client: AsyncClient, settings: Any
    ) -> None:
        released, asked = threading.Event(), threading.Event()

        def hang(session_key: str) -> bool:
            asked.set()
            return released.wait(20)

        monkeypatch.setattr(health, "_is_operator", hang)
        async_client.cookies[settings.SESSION_COOKIE_NAME] = "a session"

        bodies = [(await async_client.get("/health")).json() for _ in range(2)]
        released.set()

        assert asked.is_set()
        assert bodies == [{"status": "healthy"}] * 2

    def test_says_what_is_missing_while_nothing_answers(self) -> None:
        body = health.describe(BAD)

        assert body["reasons"] == ["inference_unreachable"]
        assert set(body["models"].values()) == {"unavailable"}
        assert body["memory"] is None
        # Where the engines are is for the log.
        assert "10.0.0.7" not in str(body)

    async def test_is_answered_over_plain_http_and_for_any_host(
        self, know: Any, async_client: AsyncClient, settings: Any
    ) -> None:
        settings.SECURE_SSL_REDIRECT = True
        settings.ALLOWED_HOSTS = ["avatar.example.org"]

        for address in ("/health", "/ready"):
            assert (await async_client.get(address, headers={"Host": "10.0.0.9:8000"})).status_code == 200

    async def test_is_read_alone(self, know: Any, async_client: AsyncClient) -> None:
        assert (await async_client.post("/health")).status_code == 405

    def test_is_answered_by_a_synchronous_server_too(self, know: Any, client: Client, settings: Any) -> None:
        settings.AVATAR_METRICS_TOKEN = TOKEN

        assert client.get("/health").json() == {"status": "healthy"}
        assert client.get("/health", headers={"Authorization": f"Bearer {TOKEN}"}).json()["sessions"]["limit"] == 5


class TestReady:
    @pytest.mark.parametrize(("snapshot", "code"), [(GOOD, 200), (DEGRADED, 200), (BAD, 503)])
    async def test_follows_health(self, know: Any, async_client: AsyncClient, snapshot: Snapshot, code: int) -> None:
        know(snapshot)

        response = await async_client.get("/ready")

        assert (response.status_code, response.json()) == (code, {"status": "ready" if code == 200 else "not_ready"})

    async def test_gets_no_more_clients_while_it_drains(
        self, know: Any, async_client: AsyncClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        draining = Admission()
        await draining.drain()
        monkeypatch.setattr(health, "admission", draining)

        assert (await async_client.get("/ready")).status_code == 503
        assert (await async_client.get("/health")).status_code == 200
