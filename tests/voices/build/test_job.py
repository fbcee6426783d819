from __future__ import annotations

import errno
import io
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from django.contrib.auth.models import User
from django.core.files.storage import FileSystemStorage
from django.utils import timezone

from avatar_site.lib.stored_files import StorageUnavailable
from inference import offline
from inference.audio.levels import measure_levels_db
from inference.engines.fake import FakeSpeakerEncoder
from inference.interfaces import InferenceError, InferenceUnavailable
from tests import factories, sounds
from tests.fakes import FakeInference
from voices import leases, services, tasks
from voices.build import job as build_job
from voices.leases import Lease
from voices.models import JobKind, VoiceJob, VoiceProfile
from voices.recordings.quality import detect_speech


@pytest.fixture
def pending_profile(alice: User) -> VoiceProfile:
    return factories.upload_voice(alice)


def build(profile: VoiceProfile, inference: FakeInference) -> VoiceProfile:
    build_job.build(voice_profile_id=profile.pk, inference=inference)
    profile.refresh_from_db()
    return profile


class TestExtract:
    def test_makes_a_voice_that_can_be_spoken_in(self, pending_profile: VoiceProfile, inference: FakeInference) -> None:
        profile = build(pending_profile, inference)

        assert (profile.state, profile.version) == ("ready", 1)
        job = profile.build_job
        assert (job.state, job.error, job.progress, job.token) == ("done", "", 1.0, None)
        assert profile.kind == "matched"
        assert profile.engine_voice
        assert profile.similarity is not None
        assert -1 <= profile.similarity <= 1
        values = np.frombuffer(bytes(profile.embedding), "<f4")
        assert values.shape == (256,)
        assert np.linalg.norm(values) == pytest.approx(1.0, abs=1e-5)
        assert profile.encoder == "fake-1"
        recording = profile.recordings.get()
        assert recording.transcript.startswith("今天天氣很好")
        assert recording.speaker_count == 1

    def test_cuts_a_reference_clip(self, alice: User, inference: FakeInference) -> None:
        profile = build(factories.upload_voice(alice, seconds=30.0), inference)

        with profile.clip.open("rb") as file:
            data = file.read()
        samples, rate = soundfile.read(io.BytesIO(data))
        assert (rate, samples.ndim, profile.clip_bytes) == (24_000, 1, len(data))
        assert 8.0 < len(samples) / rate <= 12.0
        assert np.abs(samples).max() <= 0.9
        levels = measure_levels_db(samples, rate)
        spoken = levels[detect_speech(levels)]
        assert 10 * np.log10(np.mean(10 ** (spoken / 10))) == pytest.approx(-20, abs=1)
        loud = np.abs(samples) > 0.02
        # No more than a tenth of a second of silence at either end.
        assert loud[: round(0.2 * rate)].any()
        assert loud[-round(0.2 * rate) :].any()

    def test_is_a_clone_where_the_engine_clones(self, pending_profile: VoiceProfile, inference: FakeInference) -> None:
        inference.tts.can_clone = True

        profile = build(pending_profile, inference)

        assert (profile.state, profile.kind, profile.engine_voice) == ("ready", "cloned", "")
        assert profile.clip_transcript
        assert profile.qualities == ["fast", "high_quality"]
        ((_, options),) = inference.tts.requests
        assert options.reference is not None
        assert options.reference.transcript == profile.clip_transcript
        assert options.is_background

    def test_learns_from_all_recordings(self, pending_profile: VoiceProfile, inference: FakeInference) -> None:
        alone = bytes(build(pending_profile, inference).embedding)
        services.add_recording(
            profile=pending_profile,
            audio=sounds.encode(sounds.make_speech(6.0, pitch_hz=180.0), "wav"),
            attestation="own_voice",
        )

        together = build(pending_profile, inference)

        assert together.version == 2
        alike = np.frombuffer(alone, "<f4") @ np.frombuffer(bytes(together.embedding), "<f4")
        assert 0.3 < alike < 0.999

    def test_tells_how_far_it_is(
        self, pending_profile: VoiceProfile, inference: FakeInference, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        told: list[tuple[str, float]] = []
        renew = Lease.renew

        def note(held: Lease, **fields: Any) -> None:
            if "progress" in fields and "step" in fields:
                told.append((str(fields["step"]), fields["progress"]))
            renew(held, **fields)

        monkeypatch.setattr(Lease, "renew", note)
        build(pending_profile, inference)

        steps = list(dict.fromkeys(step for step, _ in told))
        assert steps == ["recognising", "embedding", "clip", "matching"]
        assert [progress for _, progress in told] == sorted(progress for _, progress in told)

    def test_guesses_the_language_from_what_is_said(self, alice: User, inference: FakeInference) -> None:
        inference.stt.transcripts = ["The weather is lovely today.", "The weather is lovely today."]
        profile = build(factories.upload_voice(alice, language=""), inference)

        assert (profile.language, profile.is_language_guessed) == ("en", False)

    def test_warns_when_another_language_is_heard(
        self, pending_profile: VoiceProfile, inference: FakeInference
    ) -> None:
        inference.stt.transcripts = ["The weather is lovely today."]

        assert "language_differs" in build(pending_profile, inference).recordings.get().warnings

    def test_measures_the_stock_voices_once(self, alice: User, inference: FakeInference) -> None:
        build(factories.upload_voice(alice), inference)
        first = len(inference.tts.requests)
        build(factories.upload_voice(alice), inference)

        assert len(inference.tts.requests) - first < first

    def test_measures_them_again_with_another_encoder(
        self, alice: User, inference: FakeInference, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        build(factories.upload_voice(alice), inference)
        first = len(inference.tts.requests)
        monkeypatch.setattr(FakeSpeakerEncoder, "ENCODER", "fake-2")

        build(factories.upload_voice(alice), inference)
        assert len(inference.tts.requests) == 2 * first
        build(factories.upload_voice(alice), inference)
        assert len(inference.tts.requests) < 3 * first


class TestDeliveredTwice:
    def test_is_done_once(self, pending_profile: VoiceProfile, inference: FakeInference) -> None:
        build(pending_profile, inference)
        heard = inference.encoder.calls.finished

        profile = build(pending_profile, inference)

        assert profile.version == 1
        assert inference.encoder.calls.finished == heard

    def test_of_a_voice_that_is_gone_does_nothing(self, db: None, inference: FakeInference) -> None:
        build_job.build(voice_profile_id=uuid.uuid4(), inference=inference)

        assert inference.encoder.calls.started == 0


class TestFailure:
    def test_is_told_without_speech(self, pending_profile: VoiceProfile, inference: FakeInference) -> None:
        inference.encoder.fail_next(InferenceError("there is no speech in the recording"))

        profile = build(pending_profile, inference)

        assert (profile.state, profile.build_job.error, profile.build_job.token) == ("failed", "no_speech", None)

    def test_is_told_when_a_recording_is_gone(self, pending_profile: VoiceProfile, inference: FakeInference) -> None:
        recording = pending_profile.recordings.get()
        recording.audio.storage.delete(recording.audio.name)

        assert build(pending_profile, inference).build_job.error == "recording_missing"

    def test_of_an_engine_is_told(self, pending_profile: VoiceProfile, inference: FakeInference) -> None:
        inference.tts.fail_next(InferenceError("broken"))

        assert build(pending_profile, inference).build_job.error == "inference_failed"

    def test_that_is_unexpected_is_told_and_raised(
        self, pending_profile: VoiceProfile, inference: FakeInference
    ) -> None:
        inference.encoder.fail_next(ZeroDivisionError("whatever"))

        with pytest.raises(ZeroDivisionError):
            build(pending_profile, inference)
        pending_profile.refresh_from_db()
        assert (pending_profile.state, pending_profile.build_job.error) == ("failed", "internal")

    def test_of_a_disk_that_is_full_is_told(
        self, pending_profile: VoiceProfile, inference: FakeInference, media_root: Path, full_disk: None
    ) -> None:
        kept = [path for path in media_root.rglob("*") if path.is_file()]

        profile = build(pending_profile, inference)

        assert (profile.state, profile.build_job.error, profile.clip.name) == ("failed", "storage_full", "")
        assert [path for path in media_root.rglob("*") if path.is_file()] == kept

    @pytest.mark.parametrize("method", ["_open", "_save"])
    def test_of_the_storage_is_tried_again(
        self,
        pending_profile: VoiceProfile,
        inference: FakeInference,
        monkeypatch: pytest.MonkeyPatch,
        method: str,
    ) -> None:
        def fail(*args: object, **kwargs: object) -> None:
            raise StorageUnavailable(errno.EIO, "nobody answers")

        with monkeypatch.context() as away:
            away.setattr(FileSystemStorage, method, fail)
            with pytest.raises(build_job.TryAgain):
                build(pending_profile, inference)
            pending_profile.refresh_from_db()
            assert (pending_profile.state, pending_profile.build_job.error) == ("pending", "")
            VoiceJob.objects.update(attempts=build_job.MAX_TRIES - 1)
            assert build(pending_profile, inference).build_job.error == "storage_unavailable"

        services.retry(profile=pending_profile)
        assert build(pending_profile, inference).state == "ready"

    def test_to_delete_what_was_before_leaves_it_for_later(
        self, pending_profile: VoiceProfile, inference: FakeInference, alice: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        old = build(pending_profile, inference).clip.name
        services.preview(profile=pending_profile, user=alice, text="你好")
        services.rebuild(profile=pending_profile)
        monkeypatch.setattr(FileSystemStorage, "delete", lambda *args: (_ for _ in ()).throw(OSError("down")))

        profile = build(pending_profile, inference)

        assert (profile.state, profile.version) == ("ready", 2)
        assert profile.clip.name != old
        assert not profile.previews.exists()

    def test_to_reach_the_engines_is_tried_again(
        self, pending_profile: VoiceProfile, inference: FakeInference, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        inference.encoder.fail_next(InferenceUnavailable("loading"))
        delays: list[int] = []
        monkeypatch.setattr(
            tasks.extract_embedding, "apply_async", lambda *, kwargs, countdown: delays.append(countdown)
        )

        tasks.extract_embedding(voice_profile_id=str(pending_profile.pk))
        pending_profile.refresh_from_db()
        assert (pending_profile.state, delays) == ("pending", [10])

        tasks.extract_embedding(voice_profile_id=str(pending_profile.pk))
        pending_profile.refresh_from_db()
        assert pending_profile.state == "ready"

    def test_to_reach_the_engines_is_told_in_the_end(
        self, pending_profile: VoiceProfile, inference: FakeInference
    ) -> None:
        VoiceJob.objects.update(attempts=build_job.MAX_TRIES - 1)
        inference.encoder.start_outage()

        assert build(pending_profile, inference).build_job.error == "inference_unavailable"


class TestEngineThatHangs:
    @pytest.mark.timeout(20)
    @pytest.mark.parametrize("role", ["stt", "tts", "encoder"])
    def test_fails_the_voice_which_can_be_tried_again(
        self, pending_profile: VoiceProfile, inference: FakeInference, monkeypatch: pytest.MonkeyPatch, role: str
    ) -> None:
        with monkeypatch.context() as impatient:
            impatient.setattr(offline, "MAX_WAIT_S", 0.3)
            impatient.setattr(offline, "MAX_S_PER_HEARD_S", 0.0)
            impatient.setattr(offline, "MAX_S_PER_CHARACTER", 0.0)
            match role:
                case "stt":
                    inference.stt.recognition_s = 3600
                case "tts":
                    inference.tts.real_time_factor = 3600
                case _:
                    inference.encoder.hold()
            profile = build(pending_profile, inference)

        assert (profile.state, profile.build_job.error) == ("failed", "inference_unavailable")
        assert inference.active_calls == 0
        inference.stt.recognition_s = inference.tts.real_time_factor = 0.0
        inference.encoder.release()
        services.retry(profile=profile)
        assert build(profile, inference).state == "ready"


class TestLostLease:
    """The voice is changed while a worker builds it."""

    def interrupt(self, monkeypatch: pytest.MonkeyPatch, change: Any) -> None:
        """Apply `change` just before the result is written."""
        store = build_job._store

        def interrupted(*args: Any) -> None:
            change()
            store(*args)

        monkeypatch.setattr(build_job, "_store", interrupted)

    def test_writes_nothing_when_the_voice_is_deleted(
        self,
        pending_profile: VoiceProfile,
        inference: FakeInference,
        monkeypatch: pytest.MonkeyPatch,
        media_root: Any,
    ) -> None:
        profile = VoiceProfile.objects.get(pk=pending_profile.pk)
        self.interrupt(monkeypatch, lambda: services.delete_voice_profile(profile=profile))

        build_job.build(voice_profile_id=pending_profile.pk, inference=inference)

        assert not VoiceProfile.objects.filter(pk=pending_profile.pk).exists()
        assert [path for path in media_root.rglob("*") if path.is_file()] == []

    def test_writes_nothing_when_it_is_rebuilt(
        self, pending_profile: VoiceProfile, inference: FakeInference, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.interrupt(monkeypatch, lambda: services.rebuild(profile=pending_profile))

        profile = build(pending_profile, inference)

        assert (profile.state, profile.version) == ("pending", 0)
        assert not profile.clip

    def test_stops_the_engines(
        self, pending_profile: VoiceProfile, inference: FakeInference, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Lease, "renew", lambda *args, **fields: (_ for _ in ()).throw(leases.LeaseLost("gone")))
        inference.stt.recognition_s = 60  # it is being listened to when the claim is lost

        build_job.build(voice_profile_id=pending_profile.pk, inference=inference)

        assert inference.active_calls == 0
        assert (inference.stt.calls.finished, inference.encoder.calls.started) == (0, 0)


class TestSweep:
    def test_takes_back_what_a_dead_worker_had(self, pending_profile: VoiceProfile, inference: FakeInference) -> None:
        lease = Lease.claim(pending_profile.pk, JobKind.BUILD)
        assert lease is not None

        assert leases.sweep(now=timezone.now()) == ([], [])
        later = timezone.now() + leases.LOST_AFTER + timedelta(seconds=1)
        assert leases.sweep(now=later) == ([pending_profile.pk], [])

        with pytest.raises(leases.LeaseLost):
            lease.renew(progress=0.5)
        assert build(pending_profile, inference).state == "ready"

    def test_gives_up_what_kills_every_worker(self, pending_profile: VoiceProfile) -> None:
        later = timezone.now()
        for _ in range(leases.MAX_ATTEMPTS):
            assert Lease.claim(pending_profile.pk, JobKind.BUILD) is not None
            later += leases.LOST_AFTER * 10
            leases.sweep(now=later)

        pending_profile.refresh_from_db()
        assert (pending_profile.state, pending_profile.build_job.error) == ("failed", "worker_lost")

    def test_hands_out_jobs_that_no_worker_claimed_once(self, pending_profile: VoiceProfile) -> None:
        later = timezone.now() + leases.FORGOTTEN_AFTER

        assert leases.sweep(now=later)[0] == [pending_profile.pk]
        assert leases.sweep(now=later + timedelta(seconds=30))[0] == []
