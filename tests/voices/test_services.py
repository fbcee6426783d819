from __future__ import annotations

import hashlib
import stat
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.core.management import call_command
from django.db import IntegrityError, transaction
from django.utils import timezone, translation
from pytest_django import DjangoCaptureOnCommitCallbacks, Settings

from avatar_site.celery import app
from avatar_site.lib import stored_files
from avatar_site.lib.problems import ProblemError
from inference.audio.decode import MAX_KEPT_SAMPLE_RATE_HZ
from tests import factories, sounds
from tests.files import list_files
from voices import archive, files, leases, services, tasks
from voices.build import steps
from voices.consents import word_consent
from voices.models import Consent, Preview, Recording, VoicePreference, VoiceProfile
from voices.recordings import quality
from voices.stock import write_stock_voices

WAV = sounds.encode(sounds.make_speech(6.0), "wav")


def create(owner: User, **fields: object) -> VoiceProfile:
    given = {"name": "Mine", "audio": WAV, "attestation": "own_voice"} | fields
    return services.create_voice_profile(owner=owner, **given)  # type: ignore[arg-type]  # what a test says is right


@pytest.fixture(autouse=True)
def queued(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids handed to workers, which do nothing here."""
    ids: list[str] = []
    monkeypatch.setattr(tasks.extract_embedding, "run", lambda *, voice_profile_id: ids.append(voice_profile_id))
    monkeypatch.setattr(tasks.fit_style, "run", lambda *, voice_profile_id: ids.append(voice_profile_id))
    return ids


class TestCreateVoiceProfile:
    def test_keeps_recording_and_consent_and_hands_over_to_a_worker(
        self,
        alice: User,
        queued: list[str],
        django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
    ) -> None:
        with translation.override("en"), django_capture_on_commit_callbacks(execute=True):
            profile = create(alice, name="  My   voice ", language="en")

        profile.refresh_from_db()
        assert (profile.name, profile.language, profile.state, profile.kind) == ("My voice", "en", "pending", "matched")
        assert not profile.is_language_guessed
        assert profile.consent is not None
        assert profile.consent.given_by == alice
        assert profile.consent.text.startswith("This is my own voice.")
        assert profile.consent.text_sha256 == hashlib.sha256(profile.consent.text.encode()).hexdigest()
        recording = profile.recordings.get()
        assert recording.duration_s == pytest.approx(6.0, abs=0.1)
        assert recording.warnings == ["short"]
        assert queued == [str(profile.pk)]

    def test_stores_files_under_owner_and_voice_with_mode_0600(self, alice: User, media_root: Path) -> None:
        profile = create(alice)

        (path,) = list_files(media_root)
        assert path.parent == media_root / "voices" / str(alice.pk) / str(profile.pk)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert path.read_bytes()[:4] == b"fLaC"
        assert "Mine" not in path.name

    @pytest.mark.parametrize(
        ("fields", "code"),
        [
            ({"attestation": ""}, "consent_required"),
            ({"attestation": "whatever"}, "consent_invalid"),
            ({"name": " "}, "name_required"),
            ({"name": "x" * 81}, "name_too_long"),
            ({"language": "fr"}, "language_unknown"),
            ({"audio": b""}, "audio_required"),
            ({"audio": b"<html></html>"}, "audio_unsupported"),
            ({"audio": WAV[: len(WAV) // 2]}, "audio_damaged"),
            ({"audio": bytes(21 * 1024 * 1024)}, "audio_too_large"),
            ({"audio": sounds.encode(sounds.make_speech(2.0), "wav")}, "audio_too_short"),
            ({"audio": sounds.encode(sounds.make_speech(200.0, rate_hz=8000), "flac", rate_hz=8000)}, "audio_too_long"),
            ({"audio": sounds.encode(sounds.make_speech(6.0) * 0, "flac")}, "audio_silent"),
            ({"audio": sounds.encode((sounds.make_speech(6.0) * 30).clip(-1, 1), "flac")}, "audio_clipped"),
        ],
    )
    def test_refuses_and_leaves_nothing_behind(
        self, alice: User, media_root: Path, fields: dict[str, object], code: str
    ) -> None:
        with pytest.raises(ProblemError) as caught:
            create(alice, **fields)

        assert caught.value.code == code
        assert len(caught.value.sentence) > 5
        assert list_files(media_root) == []
        assert not VoiceProfile.objects.filter(owner=alice).exists()
        assert not Consent.objects.exists()

    def test_refuses_more_than_the_quota_and_takes_the_file_back(
        self, alice: User, settings: Settings, media_root: Path
    ) -> None:
        settings.AVATAR_VOICE_QUOTA_MIB = 1
        create(alice)
        kept = list_files(media_root)
        Recording.objects.update(size_bytes=1024 * 1024 - 100)

        with pytest.raises(ProblemError, match="quota_exceeded"):
            create(alice)

        assert list_files(media_root) == kept
        assert VoiceProfile.objects.filter(owner=alice).count() == 1

    @pytest.mark.usefixtures("full_disk")
    def test_says_that_the_disk_is_full_and_leaves_no_half_of_a_file(self, alice: User, media_root: Path) -> None:
        with pytest.raises(ProblemError, match="storage_full"):
            create(alice)

        assert list_files(media_root) == []
        assert not (media_root / "voices" / str(alice.pk)).exists()

    def test_takes_the_file_back_when_the_row_does_not_come_to_be(
        self, alice: User, monkeypatch: pytest.MonkeyPatch, media_root: Path
    ) -> None:
        def fail(*args: object, **kwargs: object) -> None:
            raise RuntimeError("the database has gone")

        monkeypatch.setattr(Consent, "save", fail)

        with pytest.raises(RuntimeError):
            create(alice)

        assert not (media_root / "voices" / str(alice.pk)).exists()


@pytest.fixture(params=["a server", "a folder"])
def broker_that_is_away(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
    """The queue of the real Celery application: a Redis port where nothing listens, or a folder that is gone."""
    gone = {"data_folder_in": str(tmp_path / "gone"), "data_folder_out": str(tmp_path / "gone")}
    is_server = request.param == "a server"
    changed = {
        "task_always_eager": False,
        "broker_url": "redis://127.0.0.1:1/0" if is_server else "filesystem://",
        "broker_transport_options": {} if is_server else gone,
    }
    before = {name: getattr(app.conf, name) for name in changed}
    app.conf.update(changed)
    app.set_current()
    _forget_connections()
    yield
    app.conf.update(before)
    _forget_connections()


def _forget_connections() -> None:
    app._pool = None
    app.amqp._producer_pool = None


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("broker_that_is_away")
class TestBrokerAway:
    def test_keeps_what_was_uploaded_and_beat_hands_it_out(
        self, alice: User, media_root: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        profile = create(alice)

        assert VoiceProfile.objects.get(pk=profile.pk).state == "pending"
        assert list_files(media_root) == [media_root / profile.recordings.get().audio.name]
        assert "on_commit" in caplog.text
        later = timezone.now() + leases.FORGOTTEN_AFTER
        assert leases.sweep(now=later) == ([profile.pk], [])

    def test_keeps_a_recording_that_was_added(self, alice: User, media_root: Path) -> None:
        profile = create(alice)

        services.add_recording(profile=profile, audio=WAV, attestation="own_voice")

        assert profile.recordings.count() == 2
        assert len(list_files(media_root)) == 2


class TestConsent:
    def test_is_demanded_by_the_database_itself(self, alice: User) -> None:
        with pytest.raises(IntegrityError), transaction.atomic():
            factories.create_voice_profile(owner=alice, consent=None)

    def test_cannot_go_before_the_voice(self, alice: User) -> None:
        profile = factories.create_voice_profile(owner=alice)

        with pytest.raises(IntegrityError), transaction.atomic():
            Consent.objects.filter(profile=profile).delete()

    def test_goes_with_the_person(self, alice: User) -> None:
        factories.create_voice_profile(owner=alice)

        alice.delete()

        assert not Consent.objects.exists()

    def test_is_in_the_words_that_were_shown(self, alice: User) -> None:
        with translation.override("zh-hant"):
            shown, digest = word_consent("own_voice")

        with translation.override("en"):
            profile = create(alice, consent_text_sha256=digest)

        assert profile.consent is not None
        assert (profile.consent.text, profile.consent.text_sha256) == (shown, digest)
        assert shown.startswith("這是我自己的聲音")

    @pytest.mark.parametrize("digest", ["0" * 64, word_consent("permission")[1]])
    def test_is_not_given_in_words_of_anything_else(self, alice: User, digest: str) -> None:
        with pytest.raises(ProblemError, match="consent_invalid"):
            create(alice, consent_text_sha256=digest)


class TestRecordings:
    def test_each_has_a_consent_that_goes_with_it(self, alice: User) -> None:
        profile = create(alice)
        for attestation, code in (("", "consent_required"), ("whatever", "consent_invalid")):
            with pytest.raises(ProblemError, match=code):
                services.add_recording(profile=profile, audio=WAV, attestation=attestation)
        assert profile.recordings.count() == 1

        second = services.add_recording(profile=profile, audio=WAV, attestation="permission")

        assert [each.attestation for each in Consent.objects.of_voice(profile).oldest_first()] == [
            *("own_voice", "permission")
        ]
        assert second.consent.attestation == "permission"
        services.remove_recording(recording=second)
        assert [each.attestation for each in Consent.objects.all()] == ["own_voice"]

    def test_the_consent_of_the_voice_outlives_its_first_recording(self, alice: User) -> None:
        profile = create(alice)
        first = profile.recordings.get()
        services.add_recording(profile=profile, audio=WAV, attestation="permission")

        services.remove_recording(recording=first)

        assert Consent.objects.of_voice(profile).count() == 2
        services.delete_voice_profile(profile=profile)
        assert not Consent.objects.exists()

    def test_is_demanded_by_the_database_itself(self, alice: User) -> None:
        recording = create(alice).recordings.get()

        with pytest.raises(IntegrityError), transaction.atomic():
            Recording.objects.filter(pk=recording.pk).update(consent=None)

    def test_one_more_rebuilds_the_voice(self, alice: User) -> None:
        profile = create(alice)
        VoiceProfile.objects.filter(pk=profile.pk).update(version=1, engine_voice="zf_xiaoni")
        factories.set_job(profile, "build", state="done")

        services.add_recording(
            profile=profile, audio=sounds.encode(sounds.make_speech(8.0), "mp3"), attestation="own_voice"
        )

        profile.refresh_from_db()
        assert profile.recordings.count() == 2
        assert profile.state == "pending"
        # It can still be spoken in.
        assert profile.is_speakable

    def test_the_last_one_stays(self, alice: User) -> None:
        recording = create(alice).recordings.get()

        with pytest.raises(ProblemError, match="last_recording"):
            services.remove_recording(recording=recording)

    def test_one_of_two_goes_with_its_file(self, alice: User, media_root: Path) -> None:
        profile = create(alice)
        second = services.add_recording(profile=profile, audio=WAV, attestation="own_voice")

        services.remove_recording(recording=second)

        assert len(list_files(media_root)) == 1
        assert profile.recordings.count() == 1


class TestDeleteRecordings:
    """Those that were removed before, and are back with an old database."""

    def test_takes_file_and_consent_and_builds_the_voice_from_the_others(
        self, alice: User, media_root: Path, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
    ) -> None:
        profile = create(alice)
        removed = services.add_recording(profile=profile, audio=WAV, attestation="permission")
        factories.set_job(profile, "build", state="done")

        with django_capture_on_commit_callbacks(execute=True):
            assert services.delete_recordings(ids=[removed.pk, uuid.uuid4()]) == 1

        assert list_files(media_root) == [media_root / str(profile.recordings.get().audio.name)]
        assert [consent.attestation for consent in Consent.objects.all()] == ["own_voice"]
        assert VoiceProfile.objects.get(pk=profile.pk).state == "pending"

    def test_leaves_a_voice_without_any_unbuilt_until_it_is_given_one(
        self, alice: User, media_root: Path, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
    ) -> None:
        profile = create(alice)
        files.write(profile.clip, b"fLaC")
        profile.version, profile.engine_voice, profile.embedding = 1, "zf_xiaoxiao", b"1" * 1024
        profile.save()
        factories.set_job(profile, "build", state="done")
        factories.set_job(profile, "fit", state="running")

        with django_capture_on_commit_callbacks(execute=True):
            services.delete_recordings(ids=profile.recordings.values_list("pk", flat=True))

        assert list_files(media_root) == []
        profile = VoiceProfile.objects.get(pk=profile.pk)
        assert (profile.state, profile.is_speakable, bytes(profile.embedding)) == ("failed", False, b"")
        assert {job.state for job in profile.jobs.all()} == {"cancelled"}
        services.add_recording(profile=profile, audio=WAV, attestation="own_voice")
        assert VoiceProfile.objects.get(pk=profile.pk).state == "pending"


class TestDeletePreviews:
    def test_takes_their_files(
        self, alice: User, media_root: Path, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
    ) -> None:
        profile = factories.create_voice_profile(owner=alice)
        preview = Preview(
            profile=profile,
            requested_by=alice,
            text_sha256="0" * 64,
            voice_version=1,
            quality="fast",
            made_with="fast",
            duration_ms=1,
        )
        files.write(preview.audio, b"RIFF")
        preview.save()

        with django_capture_on_commit_callbacks(execute=True):
            assert services.delete_previews(ids=[preview.pk]) == 1

        assert list_files(media_root) == []
        assert not Preview.objects.exists()


class TestDeleteUnusedConsents:
    def test_leaves_those_of_a_voice_or_a_recording(self, alice: User) -> None:
        profile = create(alice)
        services.add_recording(profile=profile, audio=WAV, attestation="permission")
        unused = services.declare_consent(user=alice, attestation="own_voice")
        unused.save()

        assert services.delete_unused_consents(ids=Consent.objects.values_list("pk", flat=True)) == 1

        assert Consent.objects.count() == 2


class TestChange:
    @pytest.mark.parametrize("hidden", ["\u202e", "\u2066", "\x1b", "\u200b", "\ufeff"])
    def test_names_without_what_reorders_or_hides_text(self, alice: User, hidden: str) -> None:
        profile = create(alice, name=f"{hidden}my{hidden} voice")
        assert profile.name == "my voice"

        assert services.change_voice_profile(profile=profile, user=alice, name=f"e{hidden}xe").name == "exe"
        with pytest.raises(ProblemError, match="name_required"):
            services.change_voice_profile(profile=profile, user=alice, name=hidden)

    def test_renames(self, alice: User) -> None:
        profile = services.change_voice_profile(profile=create(alice), user=alice, name=" New  name ")

        assert profile.name == "New name"

    def test_another_language_rebuilds_the_voice(self, alice: User) -> None:
        profile = factories.create_voice_profile(owner=alice)

        services.change_voice_profile(profile=profile, user=alice, language="en")

        profile.refresh_from_db()
        assert (profile.language, profile.state) == ("en", "pending")

    def test_only_operators_share(self, alice: User, bob: User, operator: User) -> None:
        hers = factories.create_voice_profile(owner=alice)
        theirs = factories.create_voice_profile(owner=operator)

        with pytest.raises(ProblemError, match="operators_only"):
            services.change_voice_profile(profile=hers, user=alice, is_shared=True)
        services.change_voice_profile(profile=theirs, user=operator, is_shared=True)

        assert set(VoiceProfile.objects.usable_by(bob).filter(owner__isnull=False)) == {theirs}

    def test_operators_share_their_own(self, alice: User, operator: User) -> None:
        hers = factories.create_voice_profile(owner=alice)

        with pytest.raises(ProblemError, match="operators_only"):
            services.change_voice_profile(profile=hers, user=operator, is_shared=True)

    def test_any_owner_stops_sharing(self, alice: User) -> None:
        hers = factories.create_voice_profile(owner=alice, is_shared=True)

        services.change_voice_profile(profile=hers, user=alice, is_shared=False)

        hers.refresh_from_db()
        assert not hers.is_shared

    def test_stock_voices_stay_as_they_are(self, operator: User) -> None:
        stock = VoiceProfile.objects.get(engine_voice="af_heart")
        for change in (
            lambda: services.change_voice_profile(profile=stock, user=operator, name="Mine now"),
            lambda: services.delete_voice_profile(profile=stock),
            lambda: services.rebuild(profile=stock),
        ):
            with pytest.raises(ProblemError, match="stock_voice"):
                change()


class TestDisable:
    @pytest.fixture
    def disabled_profile(self, alice: User) -> VoiceProfile:
        profile = create(alice)
        services.add_recording(profile=profile, audio=WAV, attestation="own_voice")
        VoiceProfile.objects.filter(pk=profile.pk).update(version=1, engine_voice="zf_xiaoni")
        factories.set_job(profile, "build", state="done")
        services.disable(profile=profile)
        profile.refresh_from_db()
        return profile

    def test_is_not_taken_back_by_the_owner(
        self, alice: User, disabled_profile: VoiceProfile, queued: list[str], media_root: Path
    ) -> None:
        # Read before it was disabled.
        earlier = VoiceProfile.objects.get(pk=disabled_profile.pk)
        earlier.availability = "available"
        kept = list_files(media_root)
        recording = disabled_profile.recordings.oldest_first()[0]
        queued.clear()

        for profile in (disabled_profile, earlier):
            for change in (
                lambda profile=profile: services.add_recording(profile=profile, audio=WAV, attestation="own_voice"),
                lambda profile=profile: services.rebuild(profile=profile),
                lambda profile=profile: services.change_voice_profile(profile=profile, user=alice, language="en"),
                lambda: services.remove_recording(recording=recording),
            ):
                with pytest.raises(ProblemError, match="disabled"):
                    change()
        with pytest.raises(ProblemError, match="disabled"):
            services.retry(profile=disabled_profile)

        disabled_profile.refresh_from_db()
        assert (disabled_profile.state, disabled_profile.language) == ("disabled", "zh")
        assert disabled_profile.recordings.count() == 2
        assert list_files(media_root) == kept
        assert queued == []

    def test_during_a_rebuild_queues_it_again_once_enabled(self, alice: User) -> None:
        profile = factories.create_voice_profile(owner=alice)
        services.rebuild(profile=profile)
        services.disable(profile=profile)

        services.enable(profile=profile)

        profile.refresh_from_db()
        assert (profile.state, profile.is_speakable) == ("pending", True)

    def test_is_taken_back_of_nothing_that_is_not_disabled(self, alice: User) -> None:
        profile = create(alice)
        factories.set_job(profile, "build", state="failed", error="no_speech")

        services.enable(profile=profile)

        profile.refresh_from_db()
        assert profile.state == "failed"

    def test_stops_its_use_until_it_is_enabled(self, alice: User) -> None:
        profile = factories.create_voice_profile(owner=alice)

        services.disable(profile=profile)
        assert profile not in VoiceProfile.objects.usable_by(alice)

        services.enable(profile=profile)
        assert profile in VoiceProfile.objects.usable_by(alice)

    @pytest.mark.django_db
    def test_a_disabled_stock_voice_stays_so_over_updates(self) -> None:
        services.disable(profile=VoiceProfile.objects.get(engine_voice="af_heart"))

        write_stock_voices(VoiceProfile)

        assert VoiceProfile.objects.get(engine_voice="af_heart").state == "disabled"


class TestPreference:
    def test_remembers_voice_and_quality_apart(self, alice: User) -> None:
        profile = factories.create_voice_profile(owner=alice)

        services.choose_default(user=alice, profile=profile)
        services.choose_quality(user=alice, quality="high_quality")

        preference = services.read_preference(user=alice)
        assert (preference.profile, preference.quality) == (profile, "high_quality")

    def test_is_automatic_while_the_voice_cannot_be_had(self, alice: User, bob: User) -> None:
        profile = factories.create_voice_profile(owner=alice, is_shared=True)
        services.choose_default(user=bob, profile=profile)

        VoiceProfile.objects.update(is_shared=False)
        assert services.read_preference(user=bob).profile is None
        VoiceProfile.objects.update(is_shared=True)
        assert services.read_preference(user=bob).profile == profile
        services.disable(profile=profile)
        assert services.read_preference(user=bob).profile is None

    def test_is_automatic_once_the_voice_is_deleted(self, alice: User) -> None:
        profile = factories.create_voice_profile(owner=alice)
        services.choose_default(user=alice, profile=profile)

        services.delete_voice_profile(profile=profile)

        assert VoicePreference.objects.get(user=alice).profile is None


class TestFitting:
    def test_is_started_once_and_cancelled(self, alice: User) -> None:
        profile = factories.create_voice_profile(owner=alice)

        services.start_fitting(profile=profile)
        services.start_fitting(profile=profile)
        assert factories.read_fit_state(profile) == "queued"

        services.cancel_fitting(profile=profile)
        assert factories.read_fit_state(profile) == "cancelled"

    def test_is_for_matched_voices_that_are_ready(self, alice: User) -> None:
        cloned = factories.create_voice_profile(owner=alice, kind="cloned")

        with pytest.raises(ProblemError, match="fitting_impossible"):
            services.start_fitting(profile=cloned)
        with pytest.raises(ProblemError, match="not_ready"):
            services.start_fitting(profile=create(alice))


class TestExport:
    def test_can_be_imported_with_a_new_consent(self, alice: User, bob: User) -> None:
        profile = create(alice, name="我的聲音", language="en")
        services.add_recording(profile=profile, audio=WAV, attestation="own_voice")
        exported = services.export_voice_profile(profile=profile)

        with pytest.raises(ProblemError, match="consent_required"):
            services.import_voice_profile(owner=bob, file=exported, attestation="")
        imported = services.import_voice_profile(owner=bob, file=exported, attestation="permission")

        assert (imported.name, imported.language, imported.state) == ("我的聲音", "en", "pending")
        assert imported.recordings.count() == 2
        assert imported.consent is not None
        assert (imported.consent.given_by, imported.consent.attestation) == (bob, "permission")

    def test_is_no_larger_than_what_can_be_taken_in_again(self, alice: User, media_root: Path) -> None:
        profile = create(alice)
        kept = list_files(media_root)
        most = archive.MAX_RECORDINGS_BYTES
        # Of other voices, only the quota says how much.
        Recording.objects.filter(pk=create(alice).recordings.get().pk).update(size_bytes=most)
        Recording.objects.filter(profile=profile).update(size_bytes=most - 100)

        with pytest.raises(ProblemError, match="voice_too_large"):
            services.add_recording(profile=profile, audio=WAV, attestation="own_voice")

        assert profile.recordings.count() == 1
        assert set(kept) < set(list_files(media_root))
        assert len(list_files(media_root)) == 2
        longest_bytes = quality.MAX_DURATION_S * MAX_KEPT_SAMPLE_RATE_HZ * 2
        assert longest_bytes < archive.MAX_ENTRY_BYTES
        beside_bytes = steps.MAX_CLIP_S * steps.CLIP_RATE_HZ * 2 + archive.MAX_JSON_BYTES + 1024 * 1024
        assert most + beside_bytes < archive.MAX_ARCHIVE_BYTES

    def test_is_refused_in_words_of_its_own_when_it_is_too_large(
        self, alice: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        exported = services.export_voice_profile(profile=create(alice))
        monkeypatch.setattr(services, "MAX_ARCHIVE_BYTES", len(exported) - 1)

        with pytest.raises(ProblemError, match="archive_too_large"):
            services.import_voice_profile(owner=alice, file=exported, attestation="own_voice")


class TestOrphans:
    def test_are_deleted_once_they_are_old(self, alice: User, media_root: Path) -> None:
        profile = create(alice)
        default_storage.save(f"voices/{alice.pk}/{profile.pk}/left.flac", ContentFile(b"x"))
        default_storage.save(f"voices/77/{'0' * 32}/left.flac", ContentFile(b"x"))

        assert files.delete_orphans(now=timezone.now()) == 0
        assert files.delete_orphans(now=timezone.now() + timedelta(hours=2)) == 2

        assert [path.name for path in list_files(media_root)] == [Path(profile.recordings.get().audio.name).name]
        assert not (media_root / "voices" / "77").exists()

    def test_that_most_files_are_say_that_the_database_is_another_ones(
        self, alice: User, media_root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(stored_files, "MIN_ORPHAN_AGE", timedelta(0))
        create(alice)
        names = [f"voices/77/{uuid.uuid4()}/theirs.flac" for _ in range(11)]
        for name in names:
            default_storage.save(name, ContentFile(b"x"))

        assert files.delete_orphans(now=timezone.now()) == 0
        assert len(list_files(media_root)) == 12
        assert "another database" in caplog.text

        call_command("remove_orphans")
        assert len(list_files(media_root)) == 12
        call_command("remove_orphans", "--force")
        assert len(list_files(media_root)) == 1
