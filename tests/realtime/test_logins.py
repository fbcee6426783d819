from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from realtime import logins
from realtime.logins import Login, read_login

pytestmark = pytest.mark.django_db


def log_in(user: User) -> tuple[Client, Login]:
    client = Client()
    client.force_login(user)
    session: Any = client.session
    return client, read_login(user, session)


def holds(login: Login) -> bool:
    return logins.find_logged_in(login) is not None


class TestLogin:
    def test_holds_until_its_session_is_logged_out_and_others_go_on(self, alice: User) -> None:
        here, ended = log_in(alice)
        _, goes_on = log_in(alice)
        assert holds(ended)

        here.logout()

        assert not holds(ended)
        assert holds(goes_on)

    def test_holds_without_a_session(self, alice: User) -> None:
        assert holds(read_login(alice, None))

    def test_ends_with_a_session_that_now_is_another_persons(self, alice: User, bob: User) -> None:
        client, login = log_in(alice)
        session: Any = client.session
        session["_auth_user_id"] = str(bob.pk)
        session.save()

        assert not holds(login)

    @pytest.mark.parametrize("has_session", [True, False])
    @pytest.mark.parametrize("event", ["password", "deactivation", "deletion"])
    def test_ends_with_the_account_or_its_password(self, alice: User, event: str, has_session: bool) -> None:
        login = log_in(alice)[1] if has_session else read_login(alice, None)
        match event:
            case "password":
                alice.set_password("something else entirely")
                alice.save()
            case "deactivation":
                User.objects.update(is_active=False)
            case "deletion":
                alice.delete()

        assert not holds(login)

    def test_costs_two_queries_and_changes_nothing(self, alice: User) -> None:
        _, login = log_in(alice)
        before = list(Session.objects.values_list())

        with CaptureQueriesContext(connection) as queries:
            assert holds(login)

        assert [query["sql"].split()[0] for query in queries] == ["SELECT", "SELECT"]
        assert list(Session.objects.values_list()) == before
