import pytest
from django.contrib.auth.models import User
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from tests import factories


class TestVoiceProfileList:
    def test_shows_own_voices_first_then_stock_mandarin_before_english(
        self, alices_client: Client, alice: User, bob: User
    ) -> None:
        hers = factories.create_voice_profile(owner=alice, name="Mine", language="en")
        factories.create_voice_profile(owner=bob, name="His")

        voices = alices_client.get("/api/voice-profiles").json()

        assert voices[0] == {
            "id": str(hers.pk),
            "name": "Mine",
            "language": "en",
            "gender": "female",
            "is_stock": False,
            "created_at": voices[0]["created_at"],
        }
        assert [voice["language"] for voice in voices[1:]] == ["zh"] * 8 + ["en"] * 6
        assert "His" not in {voice["name"] for voice in voices}

    def test_asks_the_database_once_for_all_voices(
        self, alices_client: Client, django_assert_num_queries: DjangoAssertNumQueries
    ) -> None:
        with django_assert_num_queries(3):  # session, user, voices
            alices_client.get("/api/voice-profiles")

    @pytest.mark.django_db
    def test_is_not_for_strangers(self, client: Client) -> None:
        assert client.get("/api/voice-profiles").status_code == 403

    def test_only_reads(self, alices_client: Client) -> None:
        assert alices_client.post("/api/voice-profiles", {}).status_code == 405
