from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import soundfile
from asgiref.sync import sync_to_async
from channels.db import database_sync_to_async
from django.conf import settings
from django.contrib.auth.models import User
from django.core.files.storage import FileSystemStorage
from django.db import OperationalError, connection
from django.utils import timezone

from avatar_site.lib import metrics
from conversations import call_store, services, spool
from conversations.models import Conversation, Turn
from inference.interfaces import Quality
from realtime import recorder as recording
from realtime.call.turns import BegunTurn, CorrectedTurn, DroppedTurn, SaidTurn
from realtime.recorder import (
    ATTEMPTS,
    HURRIED_PATIENCE_S,
    LONGEST_PAUSE_S,
    MAX_WAITING,
    PATIENCE_S,
    Recorder,
    Trouble,
)
from tests import factories
from tests.fakes import SPEECH

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def conversation(alice: User, transactional_db: None) -> Conversation:
    return factories.create_conversation(alice)


def make_turn(text: str = "你好", **fields: Any) -> SaidTurn:
    return SaidTurn(**{"turn_id": uuid4(), "speaker": "user", "text": text, "language": "zh"} | fields)


class Patience:
    """Stands for the clock of a recorder: pauses are over at once, and the end's patience when the test says so."""

    def __init__(self) -> None:
        self.pauses: list[float] = []
        self.is_over = asyncio.Event()
        self.is_hurried_over = asyncio.Event()

    async def __call__(self, delay_s: float) -> None:
        if delay_s == PATIENCE_S:
            await self.is_over.wait()
        elif delay_s == HURRIED_PATIENCE_S:
            await self.is_hurried_over.wait()
        else:
            self.pauses.append(delay_s)
            await asyncio.sleep(0)


class Database:
    """Puts itself before the database: away, it answers no service of a recorder."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_away = False
        self.attempts = 0
        #: Comes back by itself after so many attempts.
        self.comes_back_after: int | None = None
        self._place = services._place
        monkeypatch.setattr(services, "_place", self._answer)

    def _answer(self, *arguments: Any, **fields: Any) -> Turn:
        if self.is_away:
            self.attempts += 1
            if self.attempts != self.comes_back_after:
                raise OperationalError("the database system is starting up")
            self.is_away = False
        return self._place(*arguments, **fields)


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Database:
    return Database(monkeypatch)


@pytest.fixture
def patience() -> Patience:
    return Patience()


def make_recorder(
    conversation: Conversation,
    troubles: list[Trouble] | None = None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Recorder:
    on_trouble = (troubles if troubles is not None else []).append
    return Recorder(conversation_id=conversation.pk, on_trouble=on_trouble, sleep=sleep)


async def until(is_true: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while not is_true():  # noqa: ASYNC110 — the recorder says nobody when it has saved
            await asyncio.sleep(0.001)


def read_spool() -> str:
    texts = []
    for path in Path(settings.AVATAR_SPOOL_DIR).glob("*.jsonl"):
        with contextlib.suppress(FileNotFoundError):  # taken in since it was listed
            texts.append(path.read_text())
    return "".join(texts)


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

    async def test_goes_on_after_a_turn_that_cannot_be_saved(self, conversation: Conversation) -> None:
        metrics.take_minute()
        troubles: list[Trouble] = []
        recorder = make_recorder(conversation, troubles)
        recorder.record(make_turn("一", speaker="nobody"))
        recorder.record(make_turn("二"))
        await recorder.close()

        assert await list_texts(conversation) == ["二"]
        assert troubles == [Trouble.LOST]
        assert metrics.take_minute().counts == {"lost_turns": 1}

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

    async def test_keeps_a_reply_from_its_first_sound_on(self, conversation: Conversation) -> None:
        reply_id = uuid4()
        recorder = make_recorder(conversation)
        recorder.record(make_turn("說故事"))
        recorder.record(BegunTurn(reply_id, "從前，", "zh"))
        await until(lambda: not recorder._waiting)
        begun = await Turn.objects.aget(pk=reply_id)
        recorder.record(BegunTurn(reply_id, "從前，有一隻", "zh"))
        recorder.record(make_turn("從前，有一隻貓。", turn_id=reply_id, speaker="avatar", pcm=SPEECH))
        await recorder.close()

        assert (begun.text, begun.was_interrupted, begun.is_in_progress) == ("從前，", True, True)
        ended = await Turn.objects.aget(pk=reply_id)
        assert (ended.text, ended.was_interrupted, ended.is_in_progress) == ("從前，有一隻貓。", False, False)
        assert (ended.sequence, ended.created_at, bool(ended.audio)) == (2, begun.created_at, True)

    async def test_takes_back_a_reply_that_nobody_heard(self, conversation: Conversation) -> None:
        reply_id = uuid4()
        recorder = make_recorder(conversation)
        recorder.record(make_turn("一"))
        recorder.record(BegunTurn(reply_id, "從前，", "zh"))
        recorder.record(DroppedTurn(reply_id))
        recorder.record(make_turn("二"))
        await recorder.close()

        assert await list_texts(conversation) == ["一", "二"]


class TestOutage:
    async def test_of_a_moment_is_waited_for_and_not_told(
        self, conversation: Conversation, database: Database, patience: Patience
    ) -> None:
        database.is_away, database.comes_back_after = True, ATTEMPTS
        troubles: list[Trouble] = []
        recorder = make_recorder(conversation, troubles, patience)
        recorder.record(make_turn("一", pcm=SPEECH))
        await recorder.close()

        assert await list_texts(conversation) == ["一"]
        assert patience.pauses == [0.5, 1.0, 2.0]
        assert (troubles, read_spool()) == ([], "")

    async def test_loses_nothing_and_keeps_the_order(
        self, conversation: Conversation, database: Database, patience: Patience, caplog: pytest.LogCaptureFixture
    ) -> None:
        database.is_away = True
        troubles: list[Trouble] = []
        recorder = make_recorder(conversation, troubles, patience)
        said = [make_turn(str(number), pcm=SPEECH if number == 1 else b"") for number in range(MAX_WAITING)]
        for turn in said:
            recorder.record(turn)
        # All of it is on the disk: killed now, this process loses nothing.
        await until(lambda: read_spool().count('"append_turn"') == MAX_WAITING and not recorder._waiting)
        assert troubles == [Trouble.DELAYED]
        database.is_away = False
        recorder.record(make_turn("後來"))
        await recorder.close()

        assert await list_texts(conversation) == [*map(str, range(MAX_WAITING)), "後來"]
        assert [bool(turn.audio) async for turn in Turn.objects.order_by("sequence")[:3]] == [False, True, False]
        assert troubles == [Trouble.DELAYED, Trouble.RECOVERED]
        assert read_spool() == ""
        # However often it was tried.
        assert sum(record.levelname == "ERROR" for record in caplog.records) == 1

    async def test_is_over_though_nothing_more_is_said(
        self, conversation: Conversation, database: Database, patience: Patience
    ) -> None:
        database.is_away, database.comes_back_after = True, 2 * ATTEMPTS
        troubles: list[Trouble] = []
        recorder = make_recorder(conversation, troubles, patience)
        recorder.record(make_turn("一"))
        await until(lambda: Trouble.RECOVERED in troubles)

        assert await list_texts(conversation) == ["一"]
        assert max(patience.pauses) == LONGEST_PAUSE_S
        await recorder.close()

    async def test_that_outlasts_the_call_leaves_its_turns_to_the_next_start(
        self, conversation: Conversation, database: Database, patience: Patience
    ) -> None:
        database.is_away = True
        recorder = make_recorder(conversation, sleep=patience)
        reply_id = uuid4()
        recorder.record(make_turn("說故事", pcm=SPEECH))
        recorder.record(BegunTurn(reply_id, "從前，", "zh"))
        recorder.record(make_turn("從前。", turn_id=reply_id, speaker="avatar", latency={"stt": 5}))
        await recorder.close()
        said_at = timezone.now()
        database.is_away = False

        assert await sync_to_async(call_store.replay_all_spooled_turns)() == 2
        assert await sync_to_async(call_store.replay_all_spooled_turns)() == 0
        first, second = [turn async for turn in Turn.objects.order_by("sequence")]
        assert (first.text, bool(first.audio), first.created_at < said_at) == ("說故事", True, True)
        assert (second.text, second.is_in_progress, second.latency) == ("從前。", False, {"stt": 5})

    async def test_of_a_database_that_hangs_leaves_its_turns_on_the_disk(
        self, conversation: Conversation, patience: Patience, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        is_asked, is_back = threading.Event(), threading.Event()
        place = services._place

        def hang(*arguments: Any, **fields: Any) -> Turn:
            is_asked.set()
            is_back.wait(10)
            return place(*arguments, **fields)

        monkeypatch.setattr(services, "_place", hang)
        recorder = make_recorder(conversation, sleep=patience)
        recorder.record(make_turn("一"))
        recorder.record(make_turn("二"))
        end = asyncio.create_task(recorder.close())
        await until(is_asked.is_set)
        patience.is_over.set()
        await end

        assert read_spool().count("append_turn") == 2
        is_back.set()
        await asyncio.wait([recorder._task])
        assert await sync_to_async(call_store.replay_all_spooled_turns)() == 2
        assert await list_texts(conversation) == ["一", "二"]

    async def test_is_waited_for_less_long_when_something_waits_for_the_end(
        self, conversation: Conversation, patience: Patience, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        is_asked, is_back = threading.Event(), threading.Event()

        def hang(*arguments: Any, **fields: Any) -> Turn:
            is_asked.set()
            is_back.wait(10)
            raise OperationalError("the database is locked")

        monkeypatch.setattr(services, "_place", hang)
        recorder = make_recorder(conversation, sleep=patience)
        recorder.record(make_turn("一"))
        end = asyncio.create_task(recorder.close())
        await until(is_asked.is_set)
        recorder.limit_patience(HURRIED_PATIENCE_S)
        patience.is_hurried_over.set()
        try:
            await asyncio.wait_for(end, 5)
            assert read_spool().count("append_turn") == 1
        finally:
            is_back.set()
            await asyncio.wait([recorder._task])

    async def test_that_nobody_expected_loses_nothing(
        self,
        conversation: Conversation,
        database: Database,
        patience: Patience,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        replay = recording.replay_spooled_turns
        failures: list[RuntimeError] = []

        def fail(**fields: Any) -> int:
            if len(failures) < 3:
                failures.append(RuntimeError("nobody expected this"))
                raise failures[-1]
            return replay(**fields)

        monkeypatch.setattr(recording, "replay_spooled_turns", fail)
        database.is_away = True
        recorder = make_recorder(conversation, sleep=patience)
        recorder.record(make_turn("一"))
        await until(read_spool)
        database.is_away = False
        recorder.record(make_turn("二"))
        await until(lambda: len(failures) == 3 and not read_spool())
        recorder.record(make_turn("三"))
        await recorder.close()

        assert await list_texts(conversation) == ["一", "二", "三"]
        assert "nobody expected this" in caplog.text

    async def test_of_the_recorder_itself_leaves_what_waits_on_the_disk(
        self, conversation: Conversation, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def fail(*arguments: Any) -> None:
            raise RuntimeError("nobody expected this")

        monkeypatch.setattr(Recorder, "_keep", fail)
        recorder = make_recorder(conversation)
        recorder.record(make_turn("一"))
        await asyncio.wait([recorder._task])
        recorder.record(make_turn("二"))
        await recorder.close()

        assert read_spool().count("append_turn") == 2
        assert "nobody expected this" in caplog.text
        assert await sync_to_async(call_store.replay_all_spooled_turns)() == 2
        assert await list_texts(conversation) == ["一", "二"]

    async def test_on_a_full_disk_keeps_what_memory_holds(
        self,
        conversation: Conversation,
        database: Database,
        patience: Patience,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        def fail(*arguments: Any, **options: Any) -> None:
            raise OSError(errno.ENOSPC, "no space left on device")

        metrics.take_minute()
        database.is_away = True
        monkeypatch.setattr(spool, "append", fail)
        troubles: list[Trouble] = []
        recorder = make_recorder(conversation, troubles, patience)
        for number in range(MAX_WAITING + 5):
            recorder.record(make_turn(str(number)))
        await until(lambda: database.attempts > 50)
        database.is_away = False
        await recorder.close()

        assert await list_texts(conversation) == [*map(str, range(MAX_WAITING))]
        assert troubles == [Trouble.LOST, Trouble.DELAYED, Trouble.RECOVERED]
        assert metrics.take_minute().counts == {"lost_turns": 5}
        # Not one for each attempt: the disk is full.
        assert sum(record.levelname == "ERROR" for record in caplog.records) == 3

    async def test_of_a_full_database_is_one_like_others(self, conversation: Conversation, patience: Patience) -> None:
        """SQLite's own error, from a file that may not grow."""
        troubles: list[Trouble] = []

        def limit(pages: int) -> int:
            with connection.cursor() as cursor:
                cursor.execute(f"PRAGMA max_page_count = {pages}")
                return int(cursor.fetchone()[0])

        limit_in_thread = database_sync_to_async(limit)
        await limit_in_thread(1)
        recorder = make_recorder(conversation, troubles, patience)
        recorder.record(make_turn("很長" * 20_000))
        await until(lambda: troubles)
        assert troubles == [Trouble.DELAYED]
        await limit_in_thread(2**30)
        await recorder.close()

        assert [len(text) for text in await list_texts(conversation)] == [40_000]
        assert troubles == [Trouble.DELAYED, Trouble.RECOVERED]


class TestKilledProcess:
    def test_leaves_a_reply_that_reads_as_interrupted(self, conversation: Conversation, tmp_path: Path) -> None:
        """A process of its own, killed while it speaks."""
        reply_id = uuid4()
        script = tmp_path / "speak.py"
        script.write_text(
            f"""
import asyncio, os, signal
from uuid import UUID
import django
from django.conf import settings
settings.DATABASES["default"]["NAME"] = {str(connection.settings_dict["NAME"])!r}
django.setup()
from realtime.call.turns import BegunTurn, SaidTurn
from realtime.recorder import Recorder
from uuid import uuid4

async def speak():
    recorder = Recorder(conversation_id=UUID({str(conversation.pk)!r}), on_trouble=print)
    recorder.record(SaidTurn(uuid4(), "user", "說故事", "zh"))
    recorder.record(BegunTurn(UUID({str(reply_id)!r}), "從前，有一隻", "zh"))
    while recorder._waiting:
        await asyncio.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(speak())
"""
        )
        environment = os.environ | {"DJANGO_SETTINGS_MODULE": "avatar_site.settings.test", "PYTHONPATH": str(ROOT)}

        killed = subprocess.run([sys.executable, str(script)], env=environment, cwd=ROOT, timeout=60, check=False)

        assert killed.returncode == -signal.SIGKILL
        turn = Turn.objects.get(pk=reply_id)
        assert (turn.text, turn.was_interrupted, turn.is_in_progress) == ("從前，有一隻", True, True)
        remembered = call_store.resume_conversation(conversation_id=conversation.pk, limit=10)
        assert [text for _, _, text in remembered] == ["說故事", "從前，有一隻"]
        assert list(Conversation.objects.matching("一隻", owner=conversation.owner)) == [conversation]
