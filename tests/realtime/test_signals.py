from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import transaction
from django.test import Client

from avatar_site.lib import live_calls
from tests import factories

pytestmark = pytest.mark.django_db(transaction=True)

Told = list[tuple[str, dict[str, Any]]]


class Layer:
    """A channel layer that keeps what calls are told, or that is away."""

    def __init__(self) -> None:
        self.told: Told = []
        self.is_away = False

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        if self.is_away:
            raise ConnectionError("away")
        self.told.append((group, message))


@pytest.fixture
def layer(monkeypatch: pytest.MonkeyPatch, alice: User, bob: User) -> Layer:
    """Made once Alice and Bob are."""
    layer = Layer()
    monkeypatch.setattr(live_calls, "get_channel_layer", lambda: layer)
    return layer


def describe_change(user_id: int) -> tuple[str, dict[str, Any]]:
    return f"user.{user_id}", {"type": "login.changed"}


class TestLoggingOut:
    def test_ends_the_calls_of_that_session_and_does_not_send_its_key(self, alice: User, layer: Layer) -> None:
        client = Client()
        client.force_login(alice)
        session_key = client.cookies["sessionid"].value

        client.logout()

        digest = live_calls.digest_session(session_key)
        assert layer.told == [(f"user.{alice.pk}", {"type": "login.ended", "session_digest": digest})]

    def test_of_nobody_ends_nothing(self, layer: Layer) -> None:
        Client().logout()

        assert layer.told == []


class TestChangingAnAccount:
    @pytest.mark.parametrize(("field", "value"), [("is_active", False), ("password", "!"), ("username", "alicia")])
    @pytest.mark.parametrize("is_whole", [True, False])
    def test_has_its_calls_checked(self, alice: User, layer: Layer, field: str, value: Any, is_whole: bool) -> None:
        setattr(alice, field, value)

        alice.save(update_fields=None if is_whole else [field, "last_login"])

        assert layer.told == [describe_change(alice.pk)]

    def test_by_a_new_login_is_nothing(self, alice: User, layer: Layer) -> None:
        Client().force_login(alice)

        assert alice.last_login is not None
        assert layer.told == []

    def test_by_creating_one_is_nothing(self, layer: Layer) -> None:
        factories.create_user("carol")

        assert layer.told == []

    def test_is_told_once_others_can_see_it(self, alice: User, layer: Layer) -> None:
        with transaction.atomic():
            alice.save()
            assert layer.told == []

        assert layer.told == [describe_change(alice.pk)]

    def test_that_is_rolled_back_is_nothing(self, alice: User, layer: Layer) -> None:
        with transaction.atomic():
            alice.save()
            transaction.set_rollback(True)

        assert layer.told == []

    def test_by_deleting_it_names_who_it_was(self, alice: User, bob: User, layer: Layer) -> None:
        user_id = alice.pk

        with transaction.atomic():
            alice.delete()

        assert layer.told == [describe_change(user_id)]

    def test_succeeds_while_calls_cannot_be_told(self, alice: User, layer: Layer) -> None:
        layer.is_away = True

        alice.is_active = False
        alice.save()

        alice.refresh_from_db()
        assert not alice.is_active
