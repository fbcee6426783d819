import asyncio
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import AsyncClient

from avatar_site import version
from avatar_site.operations import status
from avatar_site.operations.status import InferenceProbe
from inference.interfaces import InferenceStatus, InferenceUnavailable, Role, RoleState, RoleStatus


def make_status(**states: RoleState) -> InferenceStatus:
    return InferenceStatus(
        profile="fake",
        roles=tuple(
            RoleStatus(
                role=role,
                state=states.get(role.value, RoleState.READY),
                engine="fake",
                model="script",
                device="cpu",
                load_s=0.5,
                memory_bytes=1000,
                reason="weights are missing" if states.get(role.value) is RoleState.UNAVAILABLE else "",
            )
            for role in Role
        ),
        resident_bytes=5000,
        started_at=1.0,
    )


class Inference:
    """Answers `status()` as told, and counts how often it was asked."""

    def __init__(self, answer: InferenceStatus | Exception) -> None:
        self.answer = answer
        self.times_asked = 0

    async def status(self) -> InferenceStatus:
        self.times_asked += 1
        await asyncio.sleep(0)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class NeverAnswers:
    async def status(self) -> InferenceStatus:
        await asyncio.Event().wait()
        raise AssertionError


def probe(inference: Any, **options: Any) -> InferenceProbe:
    return InferenceProbe(inference, **options)


@pytest.fixture
def use_inference(monkeypatch: pytest.MonkeyPatch) -> Any:
    def use(inference: Any) -> None:
        made = probe(inference)
        monkeypatch.setattr(status, "get_inference_probe", lambda: made)

    return use


class TestInferenceProbe:
    async def test_asks_once_however_many_want_to_know(self) -> None:
        inference = Inference(make_status())
        asked = probe(inference, max_age_s=600)

        reports = [await asked.report() for _ in range(5)]

        assert inference.times_asked == 1
        assert all(report.is_ready for report in reports)

    async def test_makes_all_who_come_first_together_wait_for_one_answer(self) -> None:
        inference = Inference(make_status())
        asked = probe(inference, max_age_s=600)

        reports = await asyncio.gather(*(asked.report() for _ in range(5)))

        assert inference.times_asked == 1
        assert all(report.is_ready for report in reports)

    async def test_asks_again_when_the_answer_is_old(self) -> None:
        inference = Inference(make_status())
        asked = probe(inference, max_age_s=0)

        await asked.report()
        inference.answer = InferenceUnavailable("gone")
        report = await asked.report()

        assert (report.status, report.reason) == (None, "gone")

    async def test_gives_up_on_a_process_that_does_not_answer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(status, "INFERENCE_TIMEOUT_S", 0.01)

        report = await probe(NeverAnswers()).report()

        assert report.reason.startswith("no answer within")


class TestIsSettled:
    @pytest.mark.parametrize(
        ("state", "expected"),
        [
            (RoleState.LOADING, False),
            (RoleState.WARMING, False),
            (RoleState.READY, True),
            (RoleState.UNAVAILABLE, True),
        ],
    )
    def test_when_no_role_is_under_way(self, state: RoleState, expected: bool) -> None:
        assert make_status(tts=state).is_settled is expected


@pytest.mark.django_db(transaction=True)
class TestHealth:
    async def test_is_200_when_a_conversation_is_possible(self, async_client: AsyncClient, use_inference: Any) -> None:
        use_inference(Inference(make_status()))

        response = await async_client.get("/health")

        assert response.status_code == 200
        assert response.json() == {
            "status": "ok",
            "database": "ok",
            "inference": {
                "status": "ok",
                "roles": {"stt": "ready", "llm": "ready", "tts": "ready", "encoder": "ready"},
            },
        }

    async def test_is_503_and_names_the_role_that_is_missing(
        self, async_client: AsyncClient, use_inference: Any
    ) -> None:
        use_inference(Inference(make_status(tts=RoleState.UNAVAILABLE)))

        response = await async_client.get("/health")

        assert response.status_code == 503
        assert response.json()["inference"] == {
            "status": "not ready",
            "roles": {"stt": "ready", "llm": "ready", "tts": "unavailable", "encoder": "ready"},
        }

    async def test_is_503_when_inference_is_not_there(self, async_client: AsyncClient, use_inference: Any) -> None:
        use_inference(Inference(InferenceUnavailable("refused by 10.0.0.7")))

        response = await async_client.get("/health")

        assert response.status_code == 503
        assert response.json()["inference"] == {"status": "unreachable", "roles": {}}
        # Strangers may ask: where it is, is not for them.
        assert b"10.0.0.7" not in response.content

    async def test_is_503_when_the_database_does_not_answer(
        self, async_client: AsyncClient, use_inference: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def fail() -> str:
            return "OperationalError"

        use_inference(Inference(make_status()))
        monkeypatch.setattr(status, "check_database", fail)

        response = await async_client.get("/health")

        assert response.status_code == 503
        assert response.json()["database"] == "unavailable"

    async def test_is_not_kept_by_caches(self, async_client: AsyncClient, use_inference: Any) -> None:
        use_inference(Inference(make_status()))

        response = await async_client.get("/health")

        assert "no-store" in response.headers["Cache-Control"]


@pytest.mark.django_db(transaction=True)
class TestSystemInfo:
    async def test_is_not_for_strangers(self, async_client: AsyncClient, use_inference: Any) -> None:
        use_inference(Inference(make_status()))

        assert (await async_client.get("/api/system/info")).status_code == 401

    async def test_names_the_engines_and_the_reasons(
        self, async_client: AsyncClient, use_inference: Any, alice: User
    ) -> None:
        use_inference(Inference(make_status(tts=RoleState.UNAVAILABLE)))
        await async_client.aforce_login(alice)

        body = (await async_client.get("/api/system/info")).json()

        assert {name: body[name] for name in ("version", "build", "schema")} == version.describe()
        assert body["profile"] == "fake"
        assert body["limits"]["max_sessions"] == 5
        assert body["inference"]["is_ready"] is False
        assert body["inference"]["resident_bytes"] == 5000
        assert [(role["role"], role["engine"], role["reason"]) for role in body["inference"]["roles"]] == [
            ("stt", "fake", ""),
            ("llm", "fake", ""),
            ("tts", "fake", "weights are missing"),
            ("encoder", "fake", ""),
        ]

    async def test_says_why_inference_does_not_answer(
        self, async_client: AsyncClient, use_inference: Any, alice: User
    ) -> None:
        use_inference(Inference(InferenceUnavailable("connection refused")))
        await async_client.aforce_login(alice)

        body = (await async_client.get("/api/system/info")).json()

        assert body["inference"] == {"is_ready": False, "reason": "connection refused", "roles": []}
