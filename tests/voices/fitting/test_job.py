from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from django.contrib.auth.models import User
from django.core.files.base import ContentFile
from pytest_django import DjangoCaptureOnCommitCallbacks

from inference.engines.fake import FakeSpeakerEncoder, make_embedding
from inference.interfaces import InferenceError
from tests import factories
from tests.fakes import FakeInference
from voices import services, tasks
from voices.build import job as build_job
from voices.fitting import job as fitting_job
from voices.fitting import search
from voices.fitting.search import Fit
from voices.leases import Lease
from voices.models import Preview, VoiceProfile

STYLE = np.ones(256, "<f4").tobytes()


@pytest.fixture
def ready_profile(alice: User) -> VoiceProfile:
    embedding = np.array(make_embedding("alice").values, "<f4").tobytes()
    profile = factories.create_voice_profile(
        owner=alice, engine_voice="zf_xiaoni", similarity=0.6, embedding=embedding, encoder="fake-1"
    )
    services.start_fitting(profile=profile)
    return profile


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch, inference: FakeInference) -> dict[str, Any]:
    """What the search finds, and what it was asked for."""
    outcome: dict[str, Any] = {"fit": Fit(STYLE, 0.74, 0.6, 0.05, True)}

    async def fit_style(**asked: Any) -> Fit:
        outcome["asked"] = asked
        asked["on_progress"](1, 4, 0.65)
        return outcome["fit"]  # type: ignore[no-any-return]  # a test says what is found

    async def list_styles() -> dict[str, bytes]:
        return {"zf_xiaoni": STYLE}

    monkeypatch.setattr(search, "fit_style", fit_style)
    monkeypatch.setattr(inference.tts, "list_styles", list_styles)
    return outcome


def fit(profile: VoiceProfile, inference: FakeInference) -> VoiceProfile:
    fitting_job.fit(voice_profile_id=profile.pk, inference=inference)
    profile.refresh_from_db()
    return profile


class TestFit:
    def test_keeps_what_is_nearer(
        self, ready_profile: VoiceProfile, inference: FakeInference, found: dict[str, Any]
    ) -> None:
        profile = fit(ready_profile, inference)

        assert (profile.fit_job.state, profile.fit_job.progress, profile.fitting_similarity) == ("done", 1.0, 0.74)
        assert bytes(profile.style) == STYLE
        assert (profile.best_similarity, profile.version) == (0.74, 2)
        assert profile.qualities == ["fast", "high_quality"]
        assert found["asked"]["voice"] == "zf_xiaoni"
        assert np.allclose(found["asked"]["target"], make_embedding("alice").values, atol=1e-6)

    def test_tells_live_calls(
        self,
        ready_profile: VoiceProfile,
        inference: FakeInference,
        found: dict[str, Any],
        told_voices: list[str],
        django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
    ) -> None:
        with django_capture_on_commit_callbacks(execute=True):
            fit(ready_profile, inference)

        assert told_voices == [str(ready_profile.pk)]

    def test_keeps_nothing_that_is_no_better(
        self, ready_profile: VoiceProfile, inference: FakeInference, found: dict[str, Any]
    ) -> None:
        found["fit"] = Fit(STYLE, 0.9, 0.6, 0.8, False)

        profile = fit(ready_profile, inference)

        assert (factories.read_fit_state(profile), bytes(profile.style), profile.version) == ("done", b"", 1)

    def test_keeps_the_better_of_two(
        self, ready_profile: VoiceProfile, inference: FakeInference, found: dict[str, Any]
    ) -> None:
        VoiceProfile.objects.filter(pk=ready_profile.pk).update(style=b"\2" * 1024, fitting_similarity=0.8)

        profile = fit(ready_profile, inference)

        assert (bytes(profile.style), profile.fitting_similarity) == (b"\2" * 1024, 0.8)

    def test_forgets_previews_of_what_it_sounded_like(
        self, ready_profile: VoiceProfile, inference: FakeInference, found: dict[str, Any], alice: User, media_root: Any
    ) -> None:
        services.preview(profile=ready_profile, user=alice, text="你好")

        fit(ready_profile, inference)

        assert not Preview.objects.exists()
        assert [path for path in media_root.rglob("*") if path.is_file()] == []

    def test_is_cancelled(
        self,
        ready_profile: VoiceProfile,
        inference: FakeInference,
        found: dict[str, Any],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        renew = Lease.renew

        def cancelled_first(held: Any, **fields: Any) -> None:
            services.cancel_fitting(profile=ready_profile)
            renew(held, **fields)

        monkeypatch.setattr(Lease, "renew", cancelled_first)

        profile = fit(ready_profile, inference)

        assert (factories.read_fit_state(profile), bytes(profile.style)) == ("cancelled", b"")

    def test_says_that_it_failed(
        self, ready_profile: VoiceProfile, inference: FakeInference, found: dict[str, Any]
    ) -> None:
        async def no_styles() -> dict[str, bytes]:
            raise InferenceError("broken")

        inference.tts.list_styles = no_styles  # type: ignore[method-assign]  # broken by the test

        assert factories.read_fit_state(fit(ready_profile, inference)) == "failed"

    def test_is_done_one_at_a_time_and_once(
        self, ready_profile: VoiceProfile, alice: User, inference: FakeInference, found: dict[str, Any]
    ) -> None:
        other = factories.create_voice_profile(owner=alice)
        factories.set_job(other, "fit", state="running")

        assert factories.read_fit_state(fit(ready_profile, inference)) == "queued"
        factories.set_job(other, "fit", state="done")
        assert fit(ready_profile, inference).version == 2
        assert fit(ready_profile, inference).version == 2


class TestOtherEncoder:
    def test_rebuilds_the_voice_first(
        self, alice: User, inference: FakeInference, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        profile = factories.upload_voice(alice)
        tasks.extract_embedding(voice_profile_id=str(profile.pk))
        factories.set_job(profile, "fit", state="queued")
        monkeypatch.setattr(FakeSpeakerEncoder, "ENCODER", "fake-2")

        tasks.fit_style(voice_profile_id=str(profile.pk))

        profile.refresh_from_db()
        assert (profile.state, profile.encoder, profile.version) == ("ready", "fake-2", 2)
        assert (factories.read_fit_state(profile), bytes(profile.style)) == ("none", b"")

    def test_leaves_a_disabled_voice_alone(
        self, ready_profile: VoiceProfile, inference: FakeInference, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(FakeSpeakerEncoder, "ENCODER", "fake-2")
        search = fitting_job._search

        def disabled_in_between(*args: Any) -> Any:
            VoiceProfile.objects.filter(pk=ready_profile.pk).update(availability="disabled")
            return search(*args)

        monkeypatch.setattr(fitting_job, "_search", disabled_in_between)

        profile = fit(ready_profile, inference)

        assert (profile.state, factories.read_fit_state(profile)) == ("disabled", "failed")


def test_rebuilding_a_voice_discards_the_style(alice: User, inference: FakeInference) -> None:
    profile = factories.upload_voice(alice)
    VoiceProfile.objects.filter(pk=profile.pk).update(style=STYLE, fitting_similarity=0.7)
    factories.set_job(profile, "fit", state="done")
    profile.clip.save("x", ContentFile(b"old"), save=True)
    old = profile.clip.name

    build_job.build(voice_profile_id=profile.pk, inference=inference)

    profile.refresh_from_db()
    assert (bytes(profile.style), factories.read_fit_state(profile), profile.fitting_similarity) == (b"", "none", None)
    assert not profile.clip.storage.exists(old)
