from typing import Any

import pytest
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.test import Client

from avatar_site.lib import live_calls
from realtime.models import CallState, LiveCall
from realtime.services import end_calls, log_out
from tests import factories

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What the channel layer was given: group and type."""
    told: list[tuple[str, str]] = []

    async def put(group: str, message: dict[str, Any]) -> None:
        told.append((group, message["type"]))

    monkeypatch.setattr(live_calls, "_put", put)
    return told


class TestEndCalls:
    def test_marks_and_tells_those_that_are_live_and_leaves_the_others_alone(
        self, alice: User, bob: User, told: list[tuple[str, str]]
    ) -> None:
        alices, bobs = factories.create_live_call(alice), factories.create_live_call(bob)
        replaced = factories.create_live_call(alice, state=CallState.REPLACED)

        ended = end_calls(session_ids=[alices.pk, replaced.pk])

        assert ended == 1
        assert dict(LiveCall.objects.values_list("pk", "state")) == {
            alices.pk: CallState.ENDING,
            bobs.pk: CallState.ACTIVE,
            replaced.pk: CallState.REPLACED,
        }
        assert told == [(f"user.{alice.pk}", "call.ended")]


class TestLogOut:
    def test_ends_every_login_of_this_person_alone(self, alice: User, bob: User, told: list[tuple[str, str]]) -> None:
        clients = [Client() for _ in range(3)]
        for client, user in zip(clients, (alice, alice, bob), strict=True):
            client.force_login(user)
        Session.objects.create(session_key="damaged", session_data="x", expire_date=Session.objects.first().expire_date)
        told.clear()

        count = log_out(user_id=alice.pk)

        assert count == 2
        assert [client.get("/account/").status_code for client in clients] == [302, 302, 200]
        assert told == [(f"user.{alice.pk}", "login.changed")]
