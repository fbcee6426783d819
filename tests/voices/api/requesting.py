"""Requests to the API of voices, as tests send them."""

from __future__ import annotations

import json
from typing import Any

from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from tests import sounds

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
