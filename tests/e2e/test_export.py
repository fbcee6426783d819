"""An export larger than the web process, over the real server: for clients that read slowly, not at all, or leave."""

from __future__ import annotations

import time
import uuid
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.e2e.stack import PASSWORD, Stack

MIB = 1024 * 1024
TURNS = 20
AUDIO_BYTES = 10 * MIB
MOST_GROWTH_BYTES = 30 * MIB

_MAKE = f"""
import os, uuid
from django.contrib.auth.models import User
from conversations.models import Conversation
from conversations.services import append_turn
conversation = Conversation.objects.create(owner=User.objects.get(username="carol"))
for _ in range({TURNS}):
    append_turn(conversation_id=conversation.pk, turn_id=uuid.uuid4(), speaker="user", text="long", language="en",
        audio=b"fLaC" + os.urandom({AUDIO_BYTES}), audio_duration_ms=1, was_interrupted=False, voice_profile_id=None,
        latency=None)
print(conversation.pk)
"""


@pytest.fixture(scope="module")
def large_conversation(fake_stack: Stack) -> uuid.UUID:
    """Carol's: 200 MB of what passes for sound."""
    return uuid.UUID(fake_stack.manage("shell", "--no-imports", "--command", _MAKE).split()[-1])


@pytest.fixture
def carol(fake_stack: Stack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=fake_stack.url, timeout=60) as client:
        client.get("/accounts/login/")
        form = {"username": "carol", "password": PASSWORD, "csrfmiddlewaretoken": client.cookies["csrftoken"]}
        assert client.post("/accounts/login/", data=form).status_code == httpx.codes.FOUND
        client.headers["X-CSRFToken"] = client.cookies["csrftoken"]
        yield client


class TestALargeExport:
    def test_that_nobody_reads_lies_in_no_memory_and_holds_nobody_up(
        self, fake_stack: Stack, carol: httpx.Client, large_conversation: uuid.UUID
    ) -> None:
        web = psutil.Process(fake_stack.find_pid("web"))
        before = largest = web.memory_info().rss
        with carol.stream("POST", f"/api/conversations/{large_conversation}/export"):
            deadline = time.monotonic() + 4
            while time.monotonic() < deadline:
                assert httpx.get(f"{fake_stack.url}/health", timeout=2).status_code == httpx.codes.OK
                largest = max(largest, web.memory_info().rss)
                time.sleep(0.05)

        assert largest - before < MOST_GROWTH_BYTES

    def test_ends_with_the_one_who_wanted_it(
        self, fake_stack: Stack, carol: httpx.Client, large_conversation: uuid.UUID
    ) -> None:
        web = psutil.Process(fake_stack.find_pid("web"))
        for _ in range(3):
            with carol.stream("POST", f"/api/conversations/{large_conversation}/export") as response:
                # Words come first, and between two files none is open.
                assert any(find_open_audio(web) for _ in response.iter_raw())

        deadline = time.monotonic() + 10
        while find_open_audio(web):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert "Traceback" not in fake_stack.read_log("web")
        assert "took too long" not in fake_stack.read_log("web")

    def test_arrives_whole(self, carol: httpx.Client, large_conversation: uuid.UUID, tmp_path: Path) -> None:
        target = tmp_path / "export.zip"
        with (
            target.open("wb") as file,
            carol.stream("POST", f"/api/conversations/{large_conversation}/export") as response,
        ):
            for piece in response.iter_raw():
                file.write(piece)

        with zipfile.ZipFile(target) as archive:
            assert archive.testzip() is None
            sizes = [entry.file_size for entry in archive.infolist() if "/audio/" in entry.filename]
        assert sizes == [AUDIO_BYTES + 4] * TURNS


def find_open_audio(process: psutil.Process) -> list[str]:
    return [file.path for file in process.open_files() if file.path.endswith((".flac", ".ogg"))]
