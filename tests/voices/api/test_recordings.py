from __future__ import annotations

import io
from typing import Any

import pytest
import soundfile
from django.contrib.auth.models import User
from django.test import Client

from tests import factories
from tests.voices.api.requesting import URL, upload
from voices.models import VoiceProfile


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
