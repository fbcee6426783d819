"""Whatever changes how a voice sounds, or who may use it, tells live calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from pytest_django import DjangoCaptureOnCommitCallbacks

from tests import factories
from tests.fakes import FakeInference
from voices import services
from voices.build import job as build_job
from voices.models import VoiceProfile


@pytest.fixture
def shared_profile(operator: User) -> VoiceProfile:
    return factories.create_voice_profile(owner=operator, is_shared=True)


def change(profile: VoiceProfile, **fields: Any) -> None:
    assert profile.owner is not None
    services.change_voice_profile(profile=profile, user=profile.owner, **fields)


def delete_owner(profile: VoiceProfile) -> None:
    assert profile.owner is not None
    profile.owner.delete()


class TestLiveCalls:
    @pytest.mark.parametrize(
        "do",
        [
            lambda profile: services.delete_voice_profile(profile=profile),
            lambda profile: services.disable(profile=profile),
            lambda profile: services.unshare(profile=profile),
            lambda profile: change(profile, is_shared=False),
            delete_owner,
        ],
        ids=["delete", "disable", "unshare", "stop sharing", "delete the owner"],
    )
    def test_are_told(
        self,
        shared_profile: VoiceProfile,
        told_voices: list[str],
        django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
        do: Callable[[VoiceProfile], None],
    ) -> None:
        voice_profile_id = str(shared_profile.pk)

        with django_capture_on_commit_callbacks(execute=True):
            do(shared_profile)

        assert [each for each in told_voices if each == voice_profile_id]

    def test_are_told_once_a_voice_is_built(
        self,
        alice: User,
        inference: FakeInference,
        told_voices: list[str],
        django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
    ) -> None:
        profile = factories.upload_voice(alice)

        with django_capture_on_commit_callbacks(execute=True):
            build_job.build(voice_profile_id=profile.pk, inference=inference)

        assert told_voices == [str(profile.pk)]

    def test_are_not_told_of_a_name(
        self,
        shared_profile: VoiceProfile,
        told_voices: list[str],
        django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
    ) -> None:
        with django_capture_on_commit_callbacks(execute=True):
            change(shared_profile, name="Another name")

        assert not told_voices
