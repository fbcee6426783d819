from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from pytest_django import DjangoAssertNumQueries, Settings

from tests import factories, sounds
from tests.fakes import FakeInference
from tests.voices.api.requesting import URL, patch, post, upload
from voices.models import VoiceProfile


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
