import re

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import translation

from avatar_site.accounts.ui_strings import DJANGO_STRINGS

#: Words of the mainland, and 用戶, which Taiwan calls 使用者.
MAINLAND = re.compile("用戶|哈希|鹽值|默認|信息|數據|禁用|通過設定|活躍")


@pytest.fixture
def operators_client(db: None) -> Client:
    client = Client(headers={"Accept-Language": "zh-hant"})
    client.force_login(User.objects.create_superuser("operator", password="operate it well"))
    return client


@pytest.fixture
def person(db: None) -> User:
    return User.objects.create_user("dora", password="correct horse battery staple")


def find_bare_inputs(page: str) -> list[str]:
    """Text fields without the border that the theme's classes give."""
    inputs = re.findall(r"<input[^>]+type=\"(?:text|password|email)\"[^>]*>", page)
    assert inputs
    return [each for each in inputs if "border" not in each and "hidden" not in each]


class TestUserAdmin:
    @pytest.mark.parametrize("path", ["add/", "{pk}/change/", "{pk}/password/"])
    def test_shows_fields_with_the_themes_borders(self, operators_client: Client, person: User, path: str) -> None:
        answer = operators_client.get(f"/admin/auth/user/{path.format(pk=person.pk)}")

        assert answer.status_code == 200
        assert find_bare_inputs(answer.content.decode()) == []

    @pytest.mark.parametrize("path", ["", "add/", "{pk}/change/", "{pk}/password/"])
    def test_speaks_taiwanese_chinese(self, operators_client: Client, person: User, path: str) -> None:
        page = operators_client.get(f"/admin/auth/user/{path.format(pk=person.pk)}").content.decode()

        assert MAINLAND.findall(page) == []

    @pytest.mark.parametrize("path", ["", "{pk}/change/"])
    def test_has_an_action_that_resets_the_password(self, operators_client: Client, person: User, path: str) -> None:
        page = operators_client.get(f"/admin/auth/user/{path.format(pk=person.pk)}").content.decode()

        link = re.search(rf'href="([^"]*/{person.pk}/reset-password/)"[^>]*>\s*(?:<[^>]+>\s*)*重設密碼', page)
        assert link
        answer = operators_client.get(link[1], follow=True)
        assert answer.redirect_chain[-1][0] == f"/admin/auth/user/{person.pk}/password/"
        assert answer.status_code == 200

    def test_gives_a_person_a_new_password(self, operators_client: Client, person: User) -> None:
        new = {"password1": "a much better one", "password2": "a much better one", "usable_password": "true"}
        operators_client.post(f"/admin/auth/user/{person.pk}/password/", new)

        person.refresh_from_db()
        assert person.check_password("a much better one")

    def test_logs_people_out(self, operators_client: Client, person: User) -> None:
        client = Client()
        client.force_login(person)
        form = {"action": "log_out", "_selected_action": [str(person.pk)]}

        operators_client.post(reverse("admin:auth_user_changelist"), form, follow=True)

        assert client.get("/account/").status_code == 302
        assert LogEntry.objects.get().change_message == "Logged out."

    def test_adds_a_person(self, operators_client: Client) -> None:
        new = {"username": "emil", "password1": "a good password", "password2": "a good password"}
        operators_client.post("/admin/auth/user/add/", new | {"usable_password": "true"})

        assert User.objects.get(username="emil").check_password("a good password")

    def test_shows_groups_with_the_themes_borders(self, operators_client: Client) -> None:
        assert find_bare_inputs(operators_client.get("/admin/auth/group/add/").content.decode()) == []


class TestDjangosTexts:
    @pytest.mark.parametrize("text", DJANGO_STRINGS, ids=lambda text: text._args[0][:30])
    def test_are_worded_as_in_taiwan(self, text: object) -> None:
        with translation.override("zh-hant"):
            assert MAINLAND.findall(str(text)) == []
        with translation.override("en"):
            english = str(text)
        with translation.override("zh-hant"):
            assert str(text) != english
