from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import translation
from pytest_django import Settings

from avatar_site.lib.backup_notice import kept_in_backups
from conversations.models import Conversation
from tests import factories


@pytest.fixture
def operators_client(db: None) -> Client:
    client = Client()
    client.force_login(factories.create_user("operator", is_staff=True, is_superuser=True))
    return client


class TestKeptInBackups:
    @pytest.mark.parametrize(
        ("language", "database_days", "audio_days", "expected"),
        [
            ("en", 7, 30, "Backups keep it for 30 more days at most."),
            ("en", 1, 1, "Backups keep it for 1 more day at most."),
            ("zh-hant", 60, 30, "備份中最多再保留 60 天。"),
        ],
    )
    def test_names_the_longer_time(
        self, settings: Settings, language: str, database_days: int, audio_days: int, expected: str
    ) -> None:
        settings.AVATAR_BACKUP_DATABASE_DAYS, settings.AVATAR_BACKUP_AUDIO_DAYS = database_days, audio_days

        with translation.override(language):
            assert kept_in_backups() == expected


class TestPagesThatDelete:
    @pytest.mark.parametrize(("language", "expected"), [("en", "30 more days"), ("zh-hant", "最多再保留 30 天")])
    def test_say_how_long_backups_keep_it(self, alice: User, language: str, expected: str) -> None:
        client = Client(headers={"accept-language": language})
        client.force_login(alice)
        conversation = Conversation.objects.create(owner=alice)

        # Once a dialog: a conversation, the chosen ones, all, the retention; a voice, a recording.
        assert client.get(f"/history/{conversation.pk}/").content.decode().count(expected) == 4
        assert client.get("/voices/").content.decode().count(expected) == 2

    def test_of_the_admin_do_so_too(self, operators_client: Client, alice: User) -> None:
        one = operators_client.get(f"/admin/auth/user/{alice.pk}/delete/").content.decode()
        several = operators_client.post(
            "/admin/auth/user/", {"action": "delete_selected", "_selected_action": [str(alice.pk)]}
        ).content.decode()

        for page in (one, several):
            assert "最多再保留 30 天" in page
            assert "alice" in page
