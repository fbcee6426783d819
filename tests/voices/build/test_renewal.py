from __future__ import annotations

import uuid

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from inference.interfaces import InferenceError
from tests import factories
from tests.fakes import FakeInference
from voices import tasks
from voices.build import job as build_job
from voices.build import renewal
from voices.models import VoiceProfile


@pytest.fixture
def profile(alice: User, inference: FakeInference) -> VoiceProfile:
    """Matched, on an engine that does not clone."""
    profile = factories.upload_voice(alice)
    build_job.build(voice_profile_id=profile.pk, inference=inference)
    profile.refresh_from_db()
    assert (profile.kind, profile.state) == ("matched", "ready")
    return profile


def queue_outdated(inference: FakeInference) -> list[uuid.UUID]:
    return renewal.queue_outdated(inference=inference, now=timezone.now())


def work(profile: VoiceProfile, inference: FakeInference) -> VoiceProfile:
    profile.refresh_from_db()
    assert (profile.state, profile.is_speakable) == ("pending", True)
    build_job.build(voice_profile_id=profile.pk, inference=inference)
    profile.refresh_from_db()
    return profile


class TestRenewal:
    def test_clones_what_was_matched_once_an_engine_clones(
        self, profile: VoiceProfile, inference: FakeInference
    ) -> None:
        assert queue_outdated(inference) == []
        inference.tts.can_clone = True

        assert queue_outdated(inference) == [profile.pk]
        profile = work(profile, inference)

        assert (profile.kind, profile.version, profile.engine_voice) == ("cloned", 2, "")
        assert queue_outdated(inference) == []

    def test_matches_what_was_cloned_once_none_does(self, profile: VoiceProfile, inference: FakeInference) -> None:
        VoiceProfile.objects.filter(pk=profile.pk).update(kind="cloned", engine_voice="")

        assert queue_outdated(inference) == [profile.pk]
        profile = work(profile, inference)

        assert profile.kind == "matched"
        assert profile.engine_voice

    def test_leaves_alone_what_is_disabled_or_has_no_words_to_clone_by(
        self, profile: VoiceProfile, inference: FakeInference
    ) -> None:
        inference.tts.can_clone = True
        VoiceProfile.objects.filter(pk=profile.pk).update(clip_transcript="")
        assert queue_outdated(inference) == []

        VoiceProfile.objects.filter(pk=profile.pk).update(clip_transcript="你好", availability="disabled")
        assert queue_outdated(inference) == []

    def test_that_failed_is_tried_again_later(self, profile: VoiceProfile, inference: FakeInference) -> None:
        inference.tts.can_clone = True
        assert queue_outdated(inference) == [profile.pk]
        inference.tts.fail_next(InferenceError("broken"))
        profile = work(profile, inference)
        assert (profile.state, profile.build_job.error, profile.is_speakable) == ("failed", "inference_failed", True)

        assert queue_outdated(inference) == []
        later = timezone.now() + renewal.AGAIN_AFTER
        assert renewal.queue_outdated(inference=inference, now=later) == [profile.pk]
        assert work(profile, inference).kind == "cloned"

    @pytest.mark.parametrize("code", ["no_speech", "recording_missing"])
    def test_that_failed_for_good_is_not_tried_again(
        self, profile: VoiceProfile, inference: FakeInference, code: str
    ) -> None:
        inference.tts.can_clone = True
        factories.set_job(profile, "build", state="failed", error=code, claimed_at=None)

        assert queue_outdated(inference) == []

    def test_of_what_failed_for_another_reason_is_its_owners(
        self, profile: VoiceProfile, inference: FakeInference
    ) -> None:
        factories.set_job(profile, "build", state="failed", error="internal", claimed_at=None)

        assert queue_outdated(inference) == []

    def test_waits_for_the_engine(self, profile: VoiceProfile, inference: FakeInference) -> None:
        VoiceProfile.objects.filter(pk=profile.pk).update(kind="cloned", engine_voice="")
        inference.start_outage()

        tasks.renew()

        profile.refresh_from_db()
        assert profile.state == "ready"

    def test_is_handed_to_workers(self, profile: VoiceProfile, inference: FakeInference) -> None:
        inference.tts.can_clone = True

        tasks.renew()

        profile.refresh_from_db()
        assert (profile.kind, profile.state, profile.version) == ("cloned", "ready", 2)
