from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import soundfile
from django.conf import settings
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import get_resolver
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.validation import validate_schema
from pytest_django import DjangoAssertNumQueries, Settings

from avatar_site.lib.problems import PROBLEMS
from inference.interfaces import InferenceBusy, InferenceUnavailable, Quality
from tests import factories, sounds
from tests.fakes import FakeInference
from voices.api import urls
from voices.api.requests import ImportSerializer
from voices.models import Preview, VoiceProfile

URL = "/api/voice-profiles"
WAV = sounds.encode(sounds.make_speech(6.0), "wav")


def upload(client: Client, url: str = URL, **fields: Any) -> Any:
    given = {"name": "Mine", "audio": WAV, "consent_attestation": "own_voice"} | fields
    if isinstance(given.get("audio"), bytes):
        given["audio"] = SimpleUploadedFile("anything.txt", given["audio"], content_type="text/plain")
    return client.post(url, {key: value for key, value in given.items() if value is not None})


def patch(client: Client, url: str, **body: Any) -> Any:
    return client.patch(url, json.dumps(body), content_type="application/json")


def post(client: Client, url: str, **body: Any) -> Any:
    return client.post(url, json.dumps(body), content_type="application/json")


class TestList:
    def test_shows_own_shared_and_stock_voices_newest_first(
        self, alices_client: Client, alice: User, bob: User
    ) -> None:
        hers = factories.create_voice_profile(owner=alice, name="Mine", language="en")
        factories.create_voice_profile(owner=bob, name="His")
        shared = factories.create_voice_profile(owner=bob, name="Ours", is_shared=True)

        page = alices_client.get(URL).json()

        assert page["count"] == 16
        assert [voice["name"] for voice in page["results"][:2]] == ["Ours", "Mine"]
        assert page["results"][0]["id"] == str(shared.pk)
        assert (page["results"][0]["is_own"], page["results"][0]["is_shared"]) == (False, True)
        assert page["results"][1] | {"created_at": ""} == {
            "id": str(hers.pk),
            "name": "Mine",
            "language": "en",
            "gender": "female",
            "kind": "matched",
            "state": "ready",
            "progress": 1.0,
            "error": None,
            "similarity": None,
            "fitting": {"state": "none", "progress": 0.0, "similarity": None},
            "version": 1,
            "is_own": True,
            "is_shared": False,
            "is_default": False,
            "is_stock": False,
            "qualities": ["fast"],
            "recordings": [],
            "size_bytes": 0,
            "created_at": "",
            "last_used_at": None,
        }

    @pytest.mark.parametrize(("scope", "names"), [("own", {"Mine"}), ("shared", {"Ours"})])
    def test_can_be_narrowed(self, alices_client: Client, alice: User, bob: User, scope: str, names: set[str]) -> None:
        factories.create_voice_profile(owner=alice, name="Mine")
        factories.create_voice_profile(owner=bob, name="Ours", is_shared=True)

        assert {voice["name"] for voice in alices_client.get(f"{URL}?scope={scope}").json()["results"]} == names
        assert alices_client.get(f"{URL}?scope=stock").json()["count"] == 14

    def test_comes_in_pages(self, alices_client: Client, alice: User) -> None:
        for number in range(5):
            factories.create_voice_profile(owner=alice, name=f"Voice {number}")

        first = alices_client.get(f"{URL}?scope=own&page_size=2").json()
        last = alices_client.get(f"{URL}?scope=own&page_size=2&page=3").json()

        assert [voice["name"] for voice in first["results"]] == ["Voice 4", "Voice 3"]
        assert (first["count"], first["previous"], last["next"]) == (5, None, None)
        assert [voice["name"] for voice in last["results"]] == ["Voice 0"]
        assert alices_client.get(f"{URL}?page=9").json()["code"] == "not_found"

    def test_asks_the_database_as_often_for_many_voices_as_for_few(
        self, alices_client: Client, alice: User, django_assert_num_queries: DjangoAssertNumQueries
    ) -> None:
        for _ in range(3):
            factories.upload_voice(alice)

        with django_assert_num_queries(7):  # session, user, count, voices, jobs, recordings, preference
            alices_client.get(URL)

    @pytest.mark.django_db
    def test_is_not_for_strangers(self, client: Client) -> None:
        response = client.get(URL)

        assert (response.status_code, response.json()["code"]) == (403, "not_logged_in")


class TestCreate:
    @pytest.mark.parametrize("container", sounds.CONTAINERS)
    def test_takes_all_six_containers_whatever_the_file_is_called(self, alices_client: Client, container: str) -> None:
        response = upload(alices_client, audio=sounds.encode(sounds.make_speech(6.0), container))

        assert response.status_code == 201
        profile = response.json()
        assert (profile["state"], profile["kind"], profile["is_own"]) == ("pending", "matched", True)
        assert profile["recordings"][0]["duration_s"] == pytest.approx(6.0, abs=0.2)
        assert profile["size_bytes"] == profile["recordings"][0]["size_bytes"] > 1000

    @pytest.mark.parametrize(
        ("fields", "code", "field"),
        [
            ({"consent_attestation": None}, "consent_required", "consent_attestation"),
            ({"consent_attestation": None, "audio": None, "name": None}, "consent_required", "consent_attestation"),
            ({"consent_attestation": "no"}, "consent_invalid", "consent_attestation"),
            ({"consent_text_sha256": "no"}, "consent_invalid", "consent_text_sha256"),
            ({"name": None}, "name_required", "name"),
            ({"audio": None}, "audio_required", "audio"),
            ({"audio": b"<html>"}, "audio_unsupported", "audio"),
            ({"audio": "a word"}, "audio_required", "audio"),
        ],
    )
    def test_says_what_is_wrong_in_the_users_language(
        self, alices_client: Client, fields: dict[str, Any], code: str, field: str
    ) -> None:
        response = upload(alices_client, **fields)

        assert (response.status_code, response.json()["code"], response.json()["field"]) == (400, code, field)
        assert response.json()["detail"]

    def test_refuses_what_is_too_large(self, alices_client: Client, alice: User) -> None:
        response = upload(alices_client, audio=bytes(20 * 1024 * 1024 + 1))

        assert (response.status_code, response.json()["code"]) == (413, "audio_too_large")

    def test_refuses_more_than_the_quota(self, alices_client: Client, settings: Settings) -> None:
        settings.AVATAR_VOICE_QUOTA_MIB = 0

        assert upload(alices_client).status_code == 409

    def test_is_not_done_for_other_sites(self, alice: User) -> None:
        client = Client(enforce_csrf_checks=True)
        client.force_login(alice)

        assert upload(client).status_code == 403


class TestAnothersVoice:
    PATHS = (
        *(("get", ""), ("patch", ""), ("delete", ""), ("get", "/status"), ("get", "/audio"), ("get", "/export")),
        *(("post", "/preview"), ("post", "/fit"), ("delete", "/fit"), ("post", "/default"), ("post", "/retry")),
        *(("post", "/recordings"), ("get", "/recordings/{r}/audio"), ("delete", "/recordings/{r}")),
    )

    @pytest.mark.parametrize(("method", "path"), PATHS)
    def test_does_not_exist(
        self, alices_client: Client, bobs_client: Client, alice: User, method: str, path: str
    ) -> None:
        profile = factories.upload_voice(alice)
        address = f"{URL}/{profile.pk}{path}".format(r=profile.recordings.get().pk)

        response = getattr(bobs_client, method)(address)

        assert (response.status_code, response.json()["code"]) == (404, "not_found")
        assert getattr(bobs_client, method)(address.replace("profiles", "profile")).status_code == 404
        profile.refresh_from_db()
        assert profile.recordings.count() == 1

    def test_that_is_shared_can_be_used_and_no_more(
        self, bobs_client: Client, alice: User, inference: FakeInference
    ) -> None:
        profile = factories.upload_voice(alice)
        VoiceProfile.objects.filter(pk=profile.pk).update(version=1, is_shared=True, engine_voice="zm_yunxi")
        factories.set_job(profile, "build", state="done")
        address = f"{URL}/{profile.pk}"

        assert bobs_client.get(address).json()["recordings"] == []
        assert post(bobs_client, f"{address}/preview", text="你好").status_code == 200
        assert bobs_client.post(f"{address}/default").status_code == 204
        for method, path in (("get", "/audio"), ("get", "/export"), ("delete", ""), ("post", "/fit")):
            assert getattr(bobs_client, method)(address + path).status_code == 404


class TestDetail:
    def test_answers_under_both_names(self, alices_client: Client, alice: User) -> None:
        profile = factories.create_voice_profile(owner=alice)

        plural = alices_client.get(f"/api/voice-profiles/{profile.pk}").json()

        assert plural == alices_client.get(f"/api/voice-profile/{profile.pk}").json()
        assert upload(alices_client, "/api/voice-profile").status_code == 201

    def test_is_renamed(self, alices_client: Client, alice: User) -> None:
        profile = factories.create_voice_profile(owner=alice)

        assert patch(alices_client, f"{URL}/{profile.pk}", name="New").json()["name"] == "New"
        assert patch(alices_client, f"{URL}/{profile.pk}", name="").json()["code"] == "name_required"
        assert patch(alices_client, f"{URL}/{profile.pk}", is_shared=True).status_code == 403

    @pytest.mark.parametrize("name", ["a\0b", "a\ud800b"])
    def test_has_a_name_that_can_be_kept(self, alices_client: Client, alice: User, name: str) -> None:
        profile = factories.create_voice_profile(owner=alice)

        response = patch(alices_client, f"{URL}/{profile.pk}", name=name)

        assert (response.status_code, response.json()["code"], response.json()["field"]) == (400, "invalid", "name")

    @pytest.mark.parametrize("value", ["false", "true", 0, 1, None, [], {}])
    def test_is_shared_or_not(self, alices_client: Client, alice: User, value: object) -> None:
        profile = factories.create_voice_profile(owner=alice, is_shared=True)

        response = patch(alices_client, f"{URL}/{profile.pk}", is_shared=value)

        assert (response.status_code, response.json()["code"]) == (400, "invalid")
        assert response.json()["field"] == "is_shared"

    def test_is_deleted(self, alices_client: Client, alice: User) -> None:
        profile = factories.upload_voice(alice)

        assert alices_client.delete(f"{URL}/{profile.pk}").status_code == 204
        assert alices_client.get(f"{URL}/{profile.pk}").status_code == 404

    def test_of_a_stock_voice_cannot_be_changed(self, alices_client: Client) -> None:
        stock = VoiceProfile.objects.get(engine_voice="af_heart")

        assert alices_client.delete(f"{URL}/{stock.pk}").json()["code"] == "stock_voice"


class TestStatus:
    def test_tells_step_progress_and_error(self, alices_client: Client, alice: User) -> None:
        profile = factories.upload_voice(alice)
        factories.set_job(profile, "build", step="clip", progress=0.5, error="no_speech")

        status = alices_client.get(f"{URL}/{profile.pk}/status").json()

        assert status == {
            "state": "pending",
            "step": "clip",
            "step_index": 3,
            "step_count": 5,
            "progress": 0.5,
            "error": {"code": "no_speech", "detail": status["error"]["detail"]},
            "similarity": None,
            "fitting": {"state": "none", "progress": 0.0, "similarity": None},
        }

    def test_of_a_failed_voice_can_be_tried_again(self, alices_client: Client, alice: User) -> None:
        profile = factories.upload_voice(alice)

        assert alices_client.post(f"{URL}/{profile.pk}/retry").status_code == 409
        factories.set_job(profile, "build", state="failed", error="no_speech")

        response = alices_client.post(f"{URL}/{profile.pk}/retry")
        assert (response.status_code, response.json()["state"], response.json()["error"]) == (202, "pending", None)


class TestRecordings:
    def test_are_added_played_and_removed(self, alices_client: Client, alice: User) -> None:
        profile = factories.upload_voice(alice)
        address = f"{URL}/{profile.pk}/recordings"

        added = upload(alices_client, address, name=None)
        assert added.status_code == 201
        played = alices_client.get(f"{address}/{added.json()['id']}/audio", headers={"accept": "audio/*"})
        assert (played.status_code, played.headers["Content-Type"]) == (200, "audio/flac")
        assert played.headers["Cache-Control"] == "private, no-store"
        assert soundfile.info(io.BytesIO(played.content)).duration == pytest.approx(6.0, abs=0.1)
        assert alices_client.delete(f"{address}/{added.json()['id']}").status_code == 204
        assert alices_client.delete(f"{address}/{profile.recordings.get().pk}").json()["code"] == "last_recording"

    def test_are_played_in_parts(self, alices_client: Client, alice: User) -> None:
        profile = factories.upload_voice(alice)

        part = alices_client.get(f"{URL}/{profile.pk}/audio", headers={"range": "bytes=0-3"})

        assert (part.status_code, part.content) == (206, b"fLaC")
        assert part.headers["Content-Range"].startswith("bytes 0-3/")

    @pytest.mark.parametrize(
        ("fields", "code", "field"),
        [
            ({"consent_attestation": None}, "consent_required", "consent_attestation"),
            ({"consent_attestation": None, "audio": None}, "consent_required", "consent_attestation"),
            ({"consent_attestation": "no"}, "consent_invalid", "consent_attestation"),
            ({"consent_text_sha256": "0" * 64}, "consent_invalid", "consent_text_sha256"),
        ],
    )
    def test_need_consent_each(
        self, alices_client: Client, alice: User, fields: dict[str, Any], code: str, field: str
    ) -> None:
        profile = factories.upload_voice(alice)

        response = upload(alices_client, f"{URL}/{profile.pk}/recordings", name=None, **fields)

        assert (response.status_code, response.json()["code"], response.json()["field"]) == (400, code, field)
        assert profile.recordings.count() == 1

    def test_of_a_disabled_voice_stay_as_they_are(self, alices_client: Client, alice: User) -> None:
        profile = factories.upload_voice(alice)
        VoiceProfile.objects.filter(pk=profile.pk).update(availability="disabled")

        response = upload(alices_client, f"{URL}/{profile.pk}/recordings")

        assert (response.status_code, response.json()["code"]) == (409, "disabled")
        assert profile.recordings.count() == 1


class TestPreview:
    def test_is_spoken_once_and_says_that_it_is_synthetic(
        self, alices_client: Client, inference: FakeInference
    ) -> None:
        stock = VoiceProfile.objects.get(engine_voice="zm_yunxi")

        first = post(alices_client, f"{URL}/{stock.pk}/preview", text="你好，很高興認識你。")
        again = post(alices_client, f"{URL}/{stock.pk}/preview", text=" 你好，很高興認識你。 ")

        assert first.status_code == 200
        assert first.json() | {"is_cached": True} == again.json()
        assert (first.json()["is_cached"], first.json()["quality"]) == (False, "fast")
        assert inference.tts.calls.finished == 1
        wav = alices_client.get(first.json()["audio_url"], headers={"accept": "audio/*"})
        assert wav.headers["Content-Type"] == "audio/wav"
        with soundfile.SoundFile(io.BytesIO(wav.content)) as sound:
            assert sound.frames / sound.samplerate * 1000 == pytest.approx(first.json()["duration_ms"], abs=1)
            assert "Synthetic speech" in sound.comment
            assert sound.software == "AVATAR"

    def test_is_only_for_whoever_asked_for_it(
        self, alices_client: Client, bobs_client: Client, inference: FakeInference
    ) -> None:
        stock = VoiceProfile.objects.get(engine_voice="zm_yunxi")
        audio_url = post(alices_client, f"{URL}/{stock.pk}/preview", text="秘密").json()["audio_url"]

        assert bobs_client.get(audio_url).status_code == 404

    def test_is_in_the_quality_that_was_asked_for_or_is_preferred(
        self, alices_client: Client, alice: User, inference: FakeInference
    ) -> None:
        address = f"{URL}/{VoiceProfile.objects.get(engine_voice='zm_yunxi').pk}/preview"
        patch(alices_client, "/api/voice-default", quality="high_quality")

        post(alices_client, address, text="你好")
        post(alices_client, address, text="你好", quality="fast")

        assert [options.quality for _, options in inference.tts.requests] == [Quality.HIGH_QUALITY, Quality.FAST]
        assert post(alices_client, address, text="你好", quality="best").json()["code"] == "quality_unknown"

    def test_is_spoken_anew_when_memory_was_short(
        self, alices_client: Client, alice: User, inference: FakeInference
    ) -> None:
        profile = factories.create_voice_profile(owner=alice, style=b"\1" * 1024)
        address = f"{URL}/{profile.pk}/preview"

        def hear() -> tuple[str, bool]:
            told = post(alices_client, address, text="你好", quality="high_quality").json()
            return told["quality"], told["is_cached"]

        inference.tts.is_short_of_memory = True
        assert hear() == ("fast", False)
        worse = Preview.objects.get().audio
        inference.tts.is_short_of_memory = False

        assert hear() == ("high_quality", False)
        assert hear() == ("high_quality", True)
        assert Preview.objects.get().audio != worse
        assert not worse.storage.exists(worse.name)

    def test_of_a_voice_without_high_quality_is_spoken_once(
        self, alices_client: Client, inference: FakeInference
    ) -> None:
        address = f"{URL}/{VoiceProfile.objects.get(engine_voice='zm_yunxi').pk}/preview"
        inference.tts.is_short_of_memory = True

        told = [post(alices_client, address, text="你好", quality="high_quality").json() for _ in range(2)]

        assert [(each["quality"], each["is_cached"]) for each in told] == [("fast", False), ("fast", True)]
        assert inference.tts.calls.started == 1

    def test_waits_for_whoever_is_talked_with(self, alices_client: Client, inference: FakeInference) -> None:
        stock = VoiceProfile.objects.get(engine_voice="zm_yunxi")

        post(alices_client, f"{URL}/{stock.pk}/preview", text="你好")

        ((_, options),) = inference.tts.requests
        assert options.is_background

    def test_speaks_in_the_style_of_the_voice(
        self, alices_client: Client, alice: User, inference: FakeInference
    ) -> None:
        profile = factories.create_voice_profile(owner=alice, engine_voice="zf_xiaoni", style=b"\1" * 1024)

        post(alices_client, f"{URL}/{profile.pk}/preview", text="你好")

        ((_, options),) = inference.tts.requests
        assert (options.voice, options.style) == ("zf_xiaoni", b"\1" * 1024)

    @pytest.mark.parametrize(
        ("text", "code"),
        [("", "text_required"), ("字" * 201, "text_too_long"), ("a\0b", "invalid"), ("a\udfffb", "invalid")],
    )
    def test_has_a_length(self, alices_client: Client, inference: FakeInference, text: str, code: str) -> None:
        stock = VoiceProfile.objects.get(engine_voice="zm_yunxi")

        answer = post(alices_client, f"{URL}/{stock.pk}/preview", text=text)

        assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (400, code, "text")

    @pytest.mark.parametrize(
        ("error", "status", "code"),
        [
            (InferenceUnavailable("away"), 503, "inference_unavailable"),
            (InferenceBusy("full"), 503, "inference_busy"),
        ],
    )
    def test_says_when_nobody_can_speak_and_keeps_nothing(
        self, alices_client: Client, inference: FakeInference, error: Exception, status: int, code: str
    ) -> None:
        stock = VoiceProfile.objects.get(engine_voice="zm_yunxi")
        inference.tts.fail_next(error)

        response = post(alices_client, f"{URL}/{stock.pk}/preview", text="你好")

        assert (response.status_code, response.json()["code"]) == (status, code)
        assert not Preview.objects.exists()

    def test_says_that_the_disk_is_full_and_keeps_nothing(
        self, alices_client: Client, inference: FakeInference, full_disk: None, media_root: Path
    ) -> None:
        stock = VoiceProfile.objects.get(engine_voice="zm_yunxi")

        response = post(alices_client, f"{URL}/{stock.pk}/preview", text="你好")

        assert (response.status_code, response.json()["code"]) == (507, "storage_full")
        assert not Preview.objects.exists()
        assert [path for path in media_root.rglob("*") if path.is_file()] == []

    def test_is_heard_no_more_once_the_voice_is_not_shared_or_disabled(
        self, alices_client: Client, bobs_client: Client, alice: User, inference: FakeInference
    ) -> None:
        profile = factories.create_voice_profile(owner=alice, is_shared=True)
        hers, his = (
            post(client, f"{URL}/{profile.pk}/preview", text="你好").json()["audio_url"]
            for client in (alices_client, bobs_client)
        )
        assert bobs_client.get(his).status_code == 200

        VoiceProfile.objects.update(is_shared=False)
        assert (alices_client.get(hers).status_code, bobs_client.get(his).status_code) == (200, 404)
        VoiceProfile.objects.filter(pk=profile.pk).update(is_shared=True, availability="disabled")
        assert (alices_client.get(hers).status_code, bobs_client.get(his).status_code) == (409, 404)

    def test_waits_until_the_voice_is_made(self, alices_client: Client, alice: User, inference: FakeInference) -> None:
        profile = factories.upload_voice(alice)

        response = post(alices_client, f"{URL}/{profile.pk}/preview", text="你好")

        assert (response.status_code, response.json()["code"]) == (409, "not_ready")


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


class TestConsents:
    def test_are_worded_in_the_language_of_the_request(self, alices_client: Client) -> None:
        english = alices_client.get("/api/voice-consent", headers={"accept-language": "en"}).json()

        assert [each["attestation"] for each in english] == ["own_voice", "permission"]
        assert english[0]["text"].startswith("This is my own voice")
        assert len(english[0]["text_sha256"]) == 64

    def test_are_kept_as_shown_whatever_the_language_of_what_follows(self, alices_client: Client) -> None:
        english = alices_client.get("/api/voice-consent", headers={"accept-language": "en"}).json()

        made = upload(alices_client, consent_text_sha256=english[0]["text_sha256"]).json()

        consent = VoiceProfile.objects.get(pk=made["id"]).consent
        assert consent is not None
        assert consent.text == english[0]["text"]


class TestExport:
    def test_is_one_file_that_can_be_taken_in_again(
        self, alices_client: Client, bobs_client: Client, alice: User
    ) -> None:
        profile = factories.upload_voice(alice, name="我的聲音")

        response = alices_client.get(f"{URL}/{profile.pk}/export")

        assert response.headers["Content-Type"] == "application/zip"
        described = json.loads(zipfile.ZipFile(io.BytesIO(response.content)).read("profile.json"))
        assert (described["name"], described["consent"]["attestation"]) == ("我的聲音", "own_voice")
        assert [each["consent"]["attestation"] for each in described["recordings"]] == ["own_voice"]
        file = SimpleUploadedFile("voice.zip", response.content)
        refused = bobs_client.post(f"{URL}/import", {"file": file})
        assert refused.json()["code"] == "consent_required"
        file.seek(0)
        taken = bobs_client.post(f"{URL}/import", {"file": file, "consent_attestation": "permission"})
        assert (taken.status_code, taken.json()["name"]) == (201, "我的聲音")

    @pytest.mark.parametrize("content", [b"", b"no zip", b"PK\3\4" + bytes(100)])
    def test_is_refused_when_it_is_none(self, alices_client: Client, content: bytes) -> None:
        fields = {"file": SimpleUploadedFile("voice.zip", content or b" "), "consent_attestation": "own_voice"}

        assert alices_client.post(f"{URL}/import", fields).json()["code"] == "archive_unreadable"

    def test_is_refused_when_it_is_too_large(self, alices_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(ImportSerializer._declared_fields["file"]._kwargs, "max_bytes", 1000)
        fields = {"file": SimpleUploadedFile("voice.zip", bytes(1001)), "consent_attestation": "own_voice"}

        answer = alices_client.post(f"{URL}/import", fields)

        assert (answer.status_code, answer.json()["code"]) == (413, "archive_too_large")
        assert "AVATAR" in answer.json()["detail"]

    def test_unpacks_no_bomb(self, alices_client: Client) -> None:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("recordings/01.flac", bytes(30 * 1024 * 1024))
            described = {"format": "avatar-voice", "version": 1, "recordings": [{"file": "recordings/01.flac"}]}
            archive.writestr("profile.json", json.dumps(described))

        fields = {"file": SimpleUploadedFile("voice.zip", file.getvalue()), "consent_attestation": "own_voice"}

        assert alices_client.post(f"{URL}/import", fields).json()["code"] == "archive_unreadable"


class TestSchema:
    @pytest.fixture
    def schema(self) -> dict[str, Any]:
        schema: dict[str, Any] = SchemaGenerator().get_schema(request=None, public=True)
        return schema

    def test_is_valid_and_has_every_endpoint(self, schema: dict[str, Any]) -> None:
        validate_schema(schema)
        plural = {
            "/api/" + pattern.pattern._route.replace("<uuid:", "{").replace(">", "}")  # type: ignore[union-attr]
            for pattern in urls.urlpatterns
            if not str(pattern.name).startswith("singular-")
        }

        assert {path for path in schema["paths"] if path.startswith("/api/voice")} == plural
        assert get_resolver().reverse_dict

    def test_has_words_errors_and_examples_for_every_operation(self, schema: dict[str, Any]) -> None:
        for path, operations in schema["paths"].items():
            for method, operation in operations.items():
                if method == "parameters" or not path.startswith("/api/voice"):
                    continue
                assert operation["summary"], (path, method)
                errors = {status for status in operation["responses"] if status.startswith(("4", "5"))}
                assert errors, (path, method)
                for status in errors:
                    content = operation["responses"][status]["content"]["application/json"]
                    assert content["examples"], (path, method, status)

    @pytest.mark.parametrize(
        ("method", "path", "codes"),
        [
            ("get", "/audio", {"416": ["range_invalid"], "503": ["storage_unavailable"]}),
            ("get", "/recordings/{recording_id}/audio", {"416": ["range_invalid"], "503": ["storage_unavailable"]}),
            ("get", "/previews/{preview_id}/audio", {"416": ["range_invalid"], "503": ["storage_unavailable"]}),
            ("get", "/export", {"503": ["storage_unavailable"]}),
            ("delete", "", {"503": ["deletion_unfinished"]}),
            (
                "post",
                "/preview",
                {
                    "502": ["inference_failed"],
                    "503": ["inference_unavailable", "inference_busy", "storage_unavailable"],
                    "507": ["storage_full"],
                },
            ),
            (
                "post",
                "/recordings",
                {"409": ["quota_exceeded", "too_many_recordings", "voice_too_large", "disabled", "deleting"]},
            ),
        ],
    )
    def test_tells_what_files_and_engines_can_refuse(
        self, schema: dict[str, Any], method: str, path: str, codes: dict[str, list[str]]
    ) -> None:
        responses = schema["paths"][f"/api/voice-profiles/{{profile_id}}{path}"][method]["responses"]

        for status, expected in codes.items():
            assert list(responses[status]["content"]["application/json"]["examples"]) == [
                "".join(part.capitalize() for part in code.split("_")) for code in expected
            ]

    def test_is_served_with_a_page_that_needs_no_other_host(self, alices_client: Client) -> None:
        assert alices_client.get("/api/schema").status_code == 200
        page = alices_client.get("/api/docs").content.decode()

        assert "swagger" in page
        assert "http://" not in page
        assert "https://" not in page


class TestDocumentation:
    def test_lists_every_endpoint_and_every_refusal_of_a_recording(self) -> None:
        page = (settings.BASE_DIR / "docs/api.md").read_text(encoding="utf-8")

        for path in SchemaGenerator().get_schema(request=None, public=True)["paths"]:
            if path.startswith("/api/voice"):
                assert f"{path}`" in page, path
        for code in PROBLEMS:
            if code.startswith(("audio_", "consent_")) and code != "audio_required":
                assert f"`{code}`" in page, code
