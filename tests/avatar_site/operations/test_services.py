import io
import re

import pytest
from django.contrib.auth.models import User
from django.core.cache import caches
from django.core.management import call_command
from pytest_django import Settings

from avatar_site.operations.services import ensure_operator, prepare_database
from tests import factories


@pytest.mark.django_db
class TestEnsureOperator:
    def test_makes_a_superuser_with_a_password_of_its_own(self) -> None:
        created = ensure_operator(username="admin", password="")

        assert created is not None
        user, password = created
        assert user.is_superuser
        assert user.is_staff
        assert re.fullmatch(r"([a-z2-9]{5}-){3}[a-z2-9]{5}", password)
        assert User.objects.get().check_password(password)

    def test_takes_the_password_it_is_given(self) -> None:
        ensure_operator(username="operator", password="chosen by hand")

        assert User.objects.get(username="operator").check_password("chosen by hand")

    def test_changes_nothing_when_there_is_an_operator(self) -> None:
        boss = factories.create_user("boss", is_superuser=True)

        assert ensure_operator(username="admin", password="other") is None
        assert list(User.objects.all()) == [boss]

    def test_makes_one_when_the_only_operator_was_switched_off(self) -> None:
        factories.create_user("boss", is_superuser=True, is_active=False)

        assert ensure_operator(username="admin", password="") is not None

    def test_promotes_the_person_who_has_the_name(self) -> None:
        admin = factories.create_user("admin")

        ensure_operator(username="admin", password="new")

        admin.refresh_from_db()
        assert admin.is_superuser
        assert admin.check_password("new")

    def test_command_prints_a_password_once(self) -> None:
        first, second = io.StringIO(), io.StringIO()

        call_command("ensure_operator", stdout=first)
        call_command("ensure_operator", stdout=second)

        match = re.search(r"password: (\S+)", first.getvalue())
        assert match is not None
        assert User.objects.get(username="admin").check_password(match.group(1))
        assert second.getvalue() == "There is an operator account already.\n"

    def test_command_does_not_print_a_password_from_the_environment(self, settings: Settings) -> None:
        settings.AVATAR_ADMIN_PASSWORD = "chosen by hand"
        output = io.StringIO()

        call_command("ensure_operator", stdout=output)

        assert "chosen" not in output.getvalue()


@pytest.mark.django_db
class TestPrepareDatabase:
    def test_makes_the_table_of_the_cache(self, settings: Settings) -> None:
        settings.CACHES = {
            "default": {"BACKEND": "django.core.cache.backends.db.DatabaseCache", "LOCATION": "cache_of_test"}
        }

        prepare_database()
        prepare_database()

        caches["default"].set("key", "value")
        assert caches["default"].get("key") == "value"
