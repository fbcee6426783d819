from __future__ import annotations

import asyncio
import io
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
import soundfile
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.db import OperationalError

from conversations.models import Conversation, Turn
from realtime import recorder as recorder_module
from realtime.pipeline import SaidTurn
from realtime.recorder import MAX_WAITING, Recorder, encode_flac
from tests import factories
from tests.fakes import SPEECH

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def conversation(alice: User, transactional_db: None) -> Conversation:
    return factories.create_conversation(alice)


def make_turn(text: str = "你好", **fields: Any) -> SaidTurn:
    return SaidTurn(**{"turn_id": uuid4(), "speaker": "user", "text": text, "language": "zh"} | fields)


async def list_texts(conversation: Conversation) -> list[str]:
    return [turn.text async for turn in Turn.objects.filter(conversation=conversation).order_by("sequence")]


class TestRecorder:
    async def test_saves_turns_in_order_with_their_sound(self, conversation: Conversation) -> None:
        recorder = Recorder(conversation_id=conversation.pk)
        recorder.record(make_turn("一", pcm=SPEECH))
        recorder.record(make_turn("二", speaker="avatar", was_interrupted=True, latency={"stt": 5}))
        await recorder.close()

        first, second = [turn async for turn in Turn.objects.order_by("sequence")]
        assert (first.text, first.audio_duration_ms, bool(first.audio)) == ("一", 600, True)
        assert (second.was_interrupted, second.latency, bool(second.audio)) == (True, {"stt": 5}, False)
        kept, _ = await sync_to_async(soundfile.read)(first.audio.path, dtype="int16")
        assert kept.tobytes() == SPEECH

    async def test_saves_although_its_caller_is_cancelled(self, conversation: Conversation) -> None:
        recorder = Recorder(conversation_id=conversation.pk)
        recorder.record(make_turn("一", pcm=SPEECH))
        task = asyncio.create_task(recorder.close())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        await asyncio.wait_for(recorder._task, 5)

        assert await list_texts(conversation) == ["一"]

    async def test_tries_again(self, conversation: Conversation, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(recorder_module, "RETRY_S", 0.001)
        failures = [OperationalError("locked"), OperationalError("locked")]
        append_turn = recorder_module.append_turn

        def fail_twice(**fields: Any) -> Turn:
            if failures:
                raise failures.pop()
            return append_turn(**fields)

        monkeypatch.setattr(recorder_module, "append_turn", fail_twice)
        recorder = Recorder(conversation_id=conversation.pk)
        recorder.record(make_turn("一"))
        await recorder.close()

        assert await list_texts(conversation) == ["一"]

    async def test_goes_on_after_a_turn_that_cannot_be_saved(
        self, conversation: Conversation, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(recorder_module, "RETRY_S", 0.001)
        recorder = Recorder(conversation_id=conversation.pk)
        recorder.record(make_turn("一", speaker="nobody"))
        recorder.record(make_turn("二"))
        await recorder.close()

        assert await list_texts(conversation) == ["二"]

    async def test_drops_turns_loudly_when_nothing_is_saved(
        self, conversation: Conversation, caplog: pytest.LogCaptureFixture
    ) -> None:
        recorder = Recorder(conversation_id=conversation.pk)
        for number in range(MAX_WAITING + 5):
            recorder.record(make_turn(str(number)))
        await recorder.close()

        assert len(await list_texts(conversation)) == MAX_WAITING - 1
        assert sum("is lost" in record.message for record in caplog.records) == 6


class TestEncodeFlac:
    def test_loses_nothing(self) -> None:
        samples, rate = soundfile.read(io.BytesIO(encode_flac(SPEECH, 16_000)), dtype="int16")

        assert rate == 16_000
        assert np.array_equal(samples, np.frombuffer(SPEECH, "<i2"))
