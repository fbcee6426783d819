from __future__ import annotations

import io
import json
import zipfile

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from tests import factories
from tests.voices.api.requesting import URL
from voices.api.requests import ImportSerializer


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
