from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.core.files.base import ContentFile
from django.test import Client

from avatar_site.lib import inference_client, live_calls
from tests import factories
from tests.fakes import FakeInference
from tests.fakes import make_inference as make_fake_inference


@pytest.fixture
def inference(monkeypatch: pytest.MonkeyPatch) -> FakeInference:
    """Scripted engines in place of the inference process."""
    fake = make_fake_inference("今天天氣很好，我們去公園走走。", ms_per_character=60)
    monkeypatch.setattr(inference_client, "get_inference", lambda: fake)
    # The embeddings of other tests' stock voices.
    cache.clear()
    return fake


class RecordingLayer:
    """A channel layer that keeps which voices live calls were told of."""

    def __init__(self) -> None:
        self.voices: list[str] = []

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        assert (group, message["type"]) == (live_calls.ALL_CALLS, "voice.changed")
        self.voices.append(message["voice_profile_id"])


@pytest.fixture
def told_voices(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the voices that live calls are told of."""
    layer = RecordingLayer()
    monkeypatch.setattr(live_calls, "get_channel_layer", lambda: layer)
    return layer.voices


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is room for the first half of each file."""

    def write_half(file: ContentFile[bytes], chunk_size: int | None = None) -> Iterator[bytes]:
        content = file.read()
        yield content[: len(content) // 2]
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ContentFile, "chunks", write_half)


@pytest.fixture
def operator(db: None) -> User:
    return factories.create_user("olivia", is_staff=True, is_superuser=True)


@pytest.fixture
def operators_client(operator: User) -> Client:
    client = Client()
    client.force_login(operator)
    return client
