from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.base import ContentFile
from django.db import DatabaseError, InterfaceError

from realtime.call.voice import Voice, VoiceUnreadable
from realtime.voice_lookup import read_voice
from tests import factories
from voices.models import VoiceProfile

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def profile(alice: User) -> VoiceProfile:
    return factories.create_voice_profile(owner=alice, engine_voice="zm_yunxi")


class TestReadVoice:
    def test_reads_what_the_engine_is_told(self, alice: User, profile: VoiceProfile) -> None:
        VoiceProfile.objects.filter(pk=profile.pk).update(version=2, style=bytes(1024))

        assert read_voice(alice, profile.pk) == Voice(profile.pk, "zm_yunxi", bytes(1024), version=2)

    def test_is_none_when_it_is_deleted_disabled_or_not_shared_any_more(
        self, alice: User, bob: User, profile: VoiceProfile
    ) -> None:
        profiles = VoiceProfile.objects.filter(pk=profile.pk)
        profiles.update(is_shared=True)
        assert read_voice(bob, profile.pk) is not None

        profiles.update(is_shared=False)
        assert read_voice(bob, profile.pk) is None
        assert read_voice(alice, profile.pk) is not None
        profiles.update(availability="disabled")
        assert read_voice(alice, profile.pk) is None
        profiles.delete()
        assert read_voice(alice, profile.pk) is None

    @pytest.mark.parametrize("error", [DatabaseError, InterfaceError])
    def test_cannot_be_read_while_the_database_is_away(
        self, alice: User, profile: VoiceProfile, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
    ) -> None:
        def fail(*arguments: Any, **fields: Any) -> None:
            raise error("away")

        monkeypatch.setattr(type(VoiceProfile.objects.all()), "first", fail)

        with pytest.raises(VoiceUnreadable):
            read_voice(alice, profile.pk)

    @pytest.mark.parametrize("content", [None, b"no FLAC at all"])
    def test_cannot_be_read_without_its_clip(self, alice: User, profile: VoiceProfile, content: bytes | None) -> None:
        profile.clip.save("clip.flac", ContentFile(content or b""), save=False)
        VoiceProfile.objects.filter(pk=profile.pk).update(kind="cloned", clip=profile.clip.name)
        if content is None:
            profile.clip.storage.delete(profile.clip.name)

        with pytest.raises(VoiceUnreadable):
            read_voice(alice, profile.pk)
