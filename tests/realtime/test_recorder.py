from __future__ import annotations

import asyncio
import errno
from typing import Any
from uuid import uuid4

import pytest
import soundfile
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.core.files.storage import FileSystemStorage
from django.db import OperationalError

from conversations.models import Conversation, Turn
from inference.interfaces import Quality
from realtime import recorder as recorder_module
from realtime.pipeline import CorrectedTurn, SaidTurn
from realtime.recorder import MAX_WAITING, Recorder, Trouble
from tests import factories
from tests.fakes import SPEECH

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def conversation(alice: User, transactional_db: None) -> Conversation:
    return factories.create_conversation(alice)


def make_turn(text: str = "你好", **fields: Any) -> SaidTurn:
    return SaidTurn(**{"turn_id": uuid4(), "speaker": "user", "text": text, "language": "zh"} | fields)


def make_recorder(conversation: Conversation, troubles: list[Trouble] | None = None) -> Recorder:
    return Recorder(conversation_id=conversation.pk, on_trouble=(troubles if troubles is not None else []).append)


async def list_texts(conversation: Conversation) -> list[str]:
    return [turn.text async for turn in Turn.objects.filter(conversation=conversation).order_by("sequence")]


class TestRecorder:
    async def test_saves_turns_in_order_with_their_sound(self, conversation: Conversation, settings: Any) -> None:
        settings.AVATAR_AUDIO_FORMAT = "flac"
        recorder = make_recorder(conversation)
        recorder.record(make_turn("一", pcm=SPEECH))
        recorder.record(make_turn("二", speaker="avatar", was_interrupted=True, latency={"stt": 5}))
        await recorder.close()

        first, second = [turn async for turn in Turn.objects.order_by("sequence")]
        assert (first.text, first.audio_duration_ms, bool(first.audio)) == ("一", 600, True)
        assert (second.was_interrupted, second.latency, bool(second.audio)) == (True, {"stt": 5}, False)
        kept, _ = await sync_to_async(soundfile.read)(first.audio.path, dtype="int16")
        assert kept.tobytes() == SPEECH

    async def test_saves_although_its_caller_is_cancelled(self, conversation: Conversation) -> None:
        recorder = make_recorder(conversation)
        recorder.record(make_turn("一", pcm=SPEECH))
        task = asyncio.create_task(recorder.close())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        await asyncio.wait_for(recorder._task, 5)

        assert await list_texts(conversation) == ["一"]

    @pytest.mark.parametrize(("speaker", "is_synthetic"), [("user", False), ("avatar", True)])
    async def test_keeps_sound_small_and_marks_what_is_synthetic(
        self, conversation: Conversation, speaker: str, is_synthetic: bool
    ) -> None:
        recorder = make_recorder(conversation)
        recorder.record(make_turn(pcm=SPEECH, speaker=speaker, quality=Quality.FAST if is_synthetic else None))
        await recorder.close()

        turn = await Turn.objects.aget()
        with turn.audio.open("rb") as file:
            audio = file.read()
        assert turn.audio_name.endswith(".ogg")
        assert turn.audio_bytes == len(audio) < len(SPEECH) / 3
        assert (b"Synthetic speech" in audio) is is_synthetic
        assert turn.quality == ("fast" if is_synthetic else "")

    async def test_corrects_a_turn_that_was_only_just_said(self, conversation: Conversation) -> None:
        said = make_turn("金天天氣")
        recorder = make_recorder(conversation)
        recorder.record(said)
        recorder.record(make_turn("我不懂", speaker="avatar"))
        recorder.record(CorrectedTurn(said.turn_id, "今天天氣"))
        recorder.record(make_turn("晴天", speaker="avatar"))
        await recorder.close()

        turns = [turn async for turn in Turn.objects.order_by("sequence")]
        assert [(turn.text, turn.heard_text, turn.is_superseded) for turn in turns] == [
            ("今天天氣", "金天天氣", False),
            ("我不懂", "", True),
            ("晴天", "", False),
        ]

    async def test_does_not_try_to_add_to_what_was_deleted(
        self, conversation: Conversation, caplog: pytest.LogCaptureFixture
    ) -> None:
        troubles: list[Trouble] = []
        recorder = make_recorder(conversation, troubles)
        await Conversation.objects.all().adelete()
        recorder.record(make_turn("一", pcm=SPEECH))
        recorder.record(make_turn("二"))
        await recorder.close()

        assert troubles == [Trouble.GONE]
        assert "is not saved" in caplog.text
        assert "attempt" not in caplog.text

    async def test_tries_again(self, conversation: Conversation, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(recorder_module, "RETRY_S", 0.001)
        failures = [OperationalError("locked"), OperationalError("locked")]
        append_turn = recorder_module.append_turn

        def fail_twice(**fields: Any) -> Turn:
            if failures:
                raise failures.pop()
            return append_turn(**fields)

        monkeypatch.setattr(recorder_module, "append_turn", fail_twice)
        recorder = make_recorder(conversation)
        recorder.record(make_turn("一"))
        await recorder.close()

        assert await list_texts(conversation) == ["一"]

    async def test_goes_on_after_a_turn_that_cannot_be_saved(
        self, conversation: Conversation, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(recorder_module, "RETRY_S", 0.001)
        troubles: list[Trouble] = []
        recorder = make_recorder(conversation, troubles)
        recorder.record(make_turn("一", speaker="nobody"))
        recorder.record(make_turn("二"))
        await recorder.close()

        assert await list_texts(conversation) == ["二"]
        assert troubles == [Trouble.LOST]

    async def test_keeps_the_words_when_their_sound_cannot_be_stored(
        self, conversation: Conversation, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*arguments: Any, **options: Any) -> None:
            raise OSError(errno.ENOSPC, "no space left on device")

        monkeypatch.setattr(FileSystemStorage, "_save", fail)
        troubles: list[Trouble] = []
        recorder = make_recorder(conversation, troubles)
        recorder.record(make_turn("一", pcm=SPEECH))
        recorder.record(make_turn("二", pcm=SPEECH))
        await recorder.close()

        assert await list_texts(conversation) == ["一", "二"]
        assert [bool(turn.audio) async for turn in Turn.objects.all()] == [False, False]
        assert troubles == [Trouble.NO_SOUND]

    async def test_keeps_the_words_when_their_sound_cannot_be_encoded(self, conversation: Conversation) -> None:
        troubles: list[Trouble] = []
        recorder = make_recorder(conversation, troubles)
        recorder.record(make_turn("一", pcm=SPEECH[:-1]))
        recorder.record(make_turn("二", pcm=SPEECH))
        await recorder.close()

        assert await list_texts(conversation) == ["一", "二"]
        assert [bool(turn.audio) async for turn in Turn.objects.order_by("sequence")] == [False, True]
        assert troubles == [Trouble.NO_SOUND]

    async def test_drops_turns_loudly_when_nothing_is_saved(
        self, conversation: Conversation, caplog: pytest.LogCaptureFixture
    ) -> None:
        recorder = make_recorder(conversation)
        for number in range(MAX_WAITING + 5):
            recorder.record(make_turn(str(number)))
        await recorder.close()

        assert len(await list_texts(conversation)) == MAX_WAITING - 1
        assert sum("is lost" in record.message for record in caplog.records) == 6
