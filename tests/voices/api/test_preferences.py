from __future__ import annotations

from django.contrib.auth.models import User
from django.test import Client

from tests import factories
from tests.voices.api.requesting import URL
from voices.models import VoiceProfile


class TestDefault:
    def test_is_chosen_told_and_forgotten(self, alices_client: Client, alice: User) -> None:
        profile = factories.create_voice_profile(owner=alice)

        assert alices_client.post(f"{URL}/{profile.pk}/default").status_code == 204
        chosen = {"voice_profile_id": str(profile.pk), "quality": "fast"}
        assert alices_client.get("/api/voice-default").json() == chosen
        assert alices_client.get(f"{URL}/{profile.pk}").json()["is_default"] is True
        assert alices_client.delete("/api/voice-default").status_code == 204
        assert alices_client.get("/api/voice-default").json()["voice_profile_id"] is None

    def test_is_none_while_the_voice_cannot_be_had(self, bobs_client: Client, alice: User) -> None:
        profile = factories.create_voice_profile(owner=alice, is_shared=True)
        bobs_client.post(f"{URL}/{profile.pk}/default")

        for change in ({"is_shared": False}, {"is_shared": True, "availability": "disabled"}):
            VoiceProfile.objects.filter(pk=profile.pk).update(**change)
            assert bobs_client.get("/api/voice-default").json()["voice_profile_id"] is None

    def test_is_not_a_voice_that_is_still_being_made(self, alices_client: Client, alice: User) -> None:
        assert alices_client.post(f"{URL}/{factories.upload_voice(alice).pk}/default").status_code == 409
