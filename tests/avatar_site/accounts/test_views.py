import logging

import pytest
from django.contrib.auth.models import User
from django.test import Client
from pytest_django import Settings

from avatar_site.accounts import forms
from avatar_site.accounts.login_throttle import ACCOUNT_POLICY, HashingBusy

PASSWORD = "correct horse battery staple"
NEW_PASSWORD = "a much better one than before"


@pytest.fixture
def person(db: None) -> User:
    return User.objects.create_user("dora", password=PASSWORD)


def log_in(client: Client, password: str, name: str = "dora") -> int:
    return client.post("/accounts/login/", {"username": name, "password": password}).status_code


class TestLogin:
    def test_slows_down_guessing_and_says_for_how_long(self, person: User, client: Client) -> None:
        for _ in range(ACCOUNT_POLICY.free_failures):
            assert log_in(client, "wrong") == 200

        answer = client.post(
            "/accounts/login/", {"username": "dora", "password": PASSWORD}, headers={"Accept-Language": "en"}
        )

        assert answer.status_code == 429
        assert answer.headers["Retry-After"] == "2"
        assert "Too many wrong passwords" in answer.content.decode()
        assert "_auth_user_id" not in client.session

    def test_counts_nothing_against_who_logs_in(self, person: User, client: Client) -> None:
        for _ in range(3 * ACCOUNT_POLICY.free_failures):
            assert log_in(client, PASSWORD) == 302
            client.logout()

    def test_logs_a_failure_with_account_and_address_and_no_word_that_was_typed(
        self, person: User, client: Client, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.WARNING, logger="avatar_site.accounts.forms"):
            log_in(client, "wrong")
            log_in(client, "wrong", name="a password in the wrong field")

        assert caplog.messages == [
            f"login failed: user {person.pk}, address 127.0.0.1",
            "login failed: no such account, address 127.0.0.1",
        ]

    def test_believes_of_forwarded_addresses_only_what_the_proxy_added(
        self, person: User, client: Client, caplog: pytest.LogCaptureFixture, settings: Settings
    ) -> None:
        settings.AVATAR_HTTPS = True

        with caplog.at_level(logging.WARNING, logger="avatar_site.accounts.forms"):
            client.post(
                "/accounts/login/",
                {"username": "dora", "password": "wrong"},
                headers={"X-Forwarded-For": "198.51.100.7, 203.0.113.9"},
            )

        assert caplog.messages == [f"login failed: user {person.pk}, address 203.0.113.9"]

    def test_asks_to_wait_when_others_are_logging_in(
        self, person: User, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Full:
            def __enter__(self) -> None:
                raise HashingBusy

            def __exit__(self, *_: object) -> None: ...

        monkeypatch.setattr(forms.throttle, "hash_slot", Full)

        assert [log_in(client, PASSWORD) for _ in range(10)] == [429] * 10

        monkeypatch.undo()
        assert log_in(client, PASSWORD) == 302


class TestAdminLogin:
    def test_leads_to_the_one_login_page(self, client: Client) -> None:
        answer = client.get("/admin/")
        answer = client.get(answer.headers["Location"])

        assert answer.headers["Location"] == "/accounts/login/?next=/admin/"

    def test_takes_no_password_of_its_own(self, person: User, client: Client) -> None:
        client.post("/admin/login/", {"username": "dora", "password": PASSWORD})

        assert "_auth_user_id" not in client.session

    def test_refuses_people_who_are_no_operators(self, alices_client: Client) -> None:
        assert alices_client.get("/admin/login/?next=/admin/").status_code == 403

    def test_sends_nobody_to_another_site(self, client: Client) -> None:
        answer = client.get("/admin/login/?next=https://example.org/")

        assert answer.headers["Location"] == "/accounts/login/?next=/admin/"

    def test_leads_to_the_account_page_for_a_new_password(self, alices_client: Client) -> None:
        assert alices_client.get("/admin/password_change/").headers["Location"] == "/account/"


class TestAccount:
    def test_changes_the_password_and_stays_logged_in(self, person: User, client: Client) -> None:
        client.force_login(person)

        answer = client.post(
            "/account/",
            {"old_password": PASSWORD, "new_password1": NEW_PASSWORD, "new_password2": NEW_PASSWORD},
            follow=True,
            headers={"Accept-Language": "en"},
        )

        assert "Your password is changed." in answer.content.decode()
        assert answer.context["user"] == person
        person.refresh_from_db()
        assert person.check_password(NEW_PASSWORD)

    def test_logs_out_other_sessions(self, person: User, client: Client) -> None:
        elsewhere = Client()
        elsewhere.force_login(person)
        client.force_login(person)

        client.post(
            "/account/", {"old_password": PASSWORD, "new_password1": NEW_PASSWORD, "new_password2": NEW_PASSWORD}
        )

        assert elsewhere.get("/account/").status_code == 302

    def test_refuses_the_wrong_password_and_slows_down_guessing(self, person: User, client: Client) -> None:
        client.force_login(person)
        wrong = {"old_password": "wrong", "new_password1": NEW_PASSWORD, "new_password2": NEW_PASSWORD}
        for _ in range(ACCOUNT_POLICY.free_failures):
            client.post("/account/", wrong)

        answer = client.post("/account/", wrong | {"old_password": PASSWORD}, headers={"Accept-Language": "en"})

        assert "Too many wrong passwords" in answer.content.decode()
        person.refresh_from_db()
        assert person.check_password(PASSWORD)

    def test_needs_a_login(self, client: Client) -> None:
        assert client.get("/account/").headers["Location"] == "/accounts/login/?next=/account/"
