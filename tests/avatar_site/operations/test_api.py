"""`GET /api/system/info` of given snapshots."""

from dataclasses import replace
from typing import Any

import jsonschema
import pytest
from django.contrib.auth.models import User
from django.test import Client
from drf_spectacular.generators import SchemaGenerator

from avatar_site import version
from avatar_site.operations import api
from avatar_site.operations.status import UNPROBED, Health, InferenceReport, Snapshot
from inference.interfaces import DeviceMemory, RoleState
from tests.avatar_site.operations.test_health import BAD, GOOD, STATUS, Known
from tests.avatar_site.operations.test_status import make_status

pytestmark = pytest.mark.django_db


@pytest.fixture
def know(monkeypatch: pytest.MonkeyPatch) -> Any:
    def know(snapshot: Snapshot) -> None:
        known = Known(snapshot)
        monkeypatch.setattr(api, "get_prober", lambda: known)

    know(GOOD)
    return know


@pytest.fixture
def operators_client() -> Client:
    client = Client()
    client.force_login(User.objects.create_user("operator", is_staff=True))
    return client


def ask(client: Client) -> dict[str, Any]:
    response = client.get("/api/system/info")
    assert response.status_code == 200
    return dict(response.json())


class TestSystemInfo:
    def test_says_to_members_neither_reasons_nor_how_full_the_machine_is(
        self, know: Any, alices_client: Client, operators_client: Client
    ) -> None:
        know(
            replace(GOOD, reasons=("backup_stale",), inference=InferenceReport(make_status(tts=RoleState.UNAVAILABLE)))
        )

        member, operator = ask(alices_client), ask(operators_client)

        assert (operator["reasons"], operator["disk"]["percent"]) == (["backup_stale"], 50.0)
        assert (member["reasons"], member["disk"], member["memory"]) == ([], None, {"ram": None, "vram": None})
        assert member["inference"]["resident_bytes"] is None
        assert {role["reason"] for role in member["inference"]["roles"]} == {""}
        assert member["capabilities"]["can_call"] == operator["capabilities"]["can_call"]

    def test_is_not_for_strangers(self, know: Any, client: Client) -> None:
        response = client.get("/api/system/info")

        assert (response.status_code, response.json()["code"]) == (403, "not_logged_in")

    def test_says_what_runs_and_how_it_is(self, know: Any, operators_client: Client) -> None:
        body = ask(operators_client)

        assert {name: body[name] for name in ("version", "build", "schema")} == version.describe()
        assert (body["profile"], body["status"], body["reasons"]) == ("fake", "healthy", [])
        assert body["sessions"] == {"active": 2, "limit": 5, "waiting": 1}
        assert body["memory"] == {"ram": {"used": 25, "total": 100, "percent": 25.0}, "vram": None}
        assert body["disk"] == {"used": 1, "total": 2, "percent": 50.0}
        assert (body["limits"]["max_calls_per_person"], body["limits"]["max_waiting"]) == (2, 20)
        assert 0 <= body["uptime_s"] < 24 * 60 * 60

    def test_names_the_engines_and_the_reasons(self, know: Any, operators_client: Client) -> None:
        know(replace(GOOD, inference=InferenceReport(make_status(tts=RoleState.UNAVAILABLE))))

        inference = ask(operators_client)["inference"]

        assert (inference["is_ready"], inference["resident_bytes"]) == (False, 5000)
        assert [(role["role"], role["engine"], role["load_s"], role["reason"]) for role in inference["roles"]] == [
            ("stt", "fake", 0.5, ""),
            ("llm", "fake", 0.5, ""),
            ("tts", "fake", 0.5, "weights are missing"),
            ("encoder", "fake", 0.5, ""),
        ]

    def test_says_why_inference_does_not_answer(self, know: Any, operators_client: Client) -> None:
        know(BAD)

        inference = ask(operators_client)["inference"]

        assert (inference["is_ready"], inference["reason"], inference["roles"]) == (False, "refused by 10.0.0.7", [])

    def test_says_how_much_of_the_accelerators_is_used(self, know: Any, operators_client: Client) -> None:
        devices = (DeviceMemory("GPU", 1000, 250), DeviceMemory("GPU", 1000, 750))
        know(replace(GOOD, inference=InferenceReport(replace(STATUS, devices=devices))))

        assert ask(operators_client)["memory"]["vram"] == {"used": 1000, "total": 2000, "percent": 50.0}

    def test_says_before_a_call_whether_it_is_possible(self, know: Any, alices_client: Client) -> None:
        full = replace(GOOD, database=replace(GOOD.database, active=5))
        awaited = replace(GOOD, database=replace(GOOD.database, active=4, waiting=1))
        possible = []
        for snapshot in (GOOD, full, awaited, replace(GOOD, health=Health.UNHEALTHY), UNPROBED):
            know(snapshot)
            possible.append(ask(alices_client)["capabilities"]["can_call"])

        assert possible == [True, False, False, False, False]

    def test_says_what_voices_can_be_built(self, know: Any, alices_client: Client) -> None:
        cloning = replace(STATUS, roles=tuple(replace(role, clones=True) for role in STATUS.roles))
        without = make_status(encoder=RoleState.UNAVAILABLE)
        found = []
        for status in (STATUS, cloning, without):
            know(replace(GOOD, inference=InferenceReport(status)))
            capabilities = ask(alices_client)["capabilities"]
            found.append((capabilities["can_build_voices"], capabilities["clones_voices"]))

        assert found == [(True, False), (True, True), (False, False)]

    def test_tells_operators_that_they_may_share_voices(self, know: Any, alices_client: Client, alice: User) -> None:
        assert ask(alices_client)["capabilities"]["can_share_voices"] is False
        User.objects.filter(pk=alice.pk).update(is_staff=True)
        assert ask(alices_client)["capabilities"]["can_share_voices"] is True

    @pytest.mark.parametrize("snapshot", [GOOD, BAD, UNPROBED], ids=["good", "bad", "unprobed"])
    def test_agrees_with_the_schema(self, know: Any, alices_client: Client, snapshot: Snapshot) -> None:
        know(snapshot)
        schema = SchemaGenerator().get_schema(request=None, public=True)
        responses = schema["paths"]["/api/system/info"]["get"]["responses"]
        wanted = responses["200"]["content"]["application/json"]["schema"]

        jsonschema.validate(ask(alices_client), to_json_schema({**wanted, "components": schema["components"]}))


def to_json_schema(schema: Any) -> Any:
    """OpenAPI 3.0 writes null as `nullable`, JSON Schema as a type."""
    if isinstance(schema, list):
        return [to_json_schema(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: to_json_schema(value) for name, value in schema.items() if name != "nullable"}
    return {"anyOf": [made, {"type": "null"}]} if schema.get("nullable") is True else made
