from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import pytest

from inference.engines.fake import FakeLanguageModel
from inference.interfaces import GenerationEvent, GenerationOptions, Message, Quality
from realtime.call.events import CommitReply, ReplyEnded, ReplyEvent, ReportPlayback, StartReply
from realtime.call.prompt import Scene
from realtime.call.settings import CallSettings
from realtime.call.voice import Voice
from realtime.messages import LlmResponse
from realtime.reply import Outlet, Reply
from realtime.reply_tasks import MAX_ENDING_S, SENTENCE_POLL_S, ReplyTasks
from tests.fakes import FakeTextToSpeech

pytestmark = pytest.mark.virtual_clock

#: The first sentence lasts 0.8 s, the second one 1.4 s.
REPLY = "第一句話說完了呢。第二句話比第一句長得多了啊。"
SENTENCE_MS = 800


class StubbornModel(FakeLanguageModel):
    """A model whose engine goes on for a while after its caller has left."""

    def __init__(self, *, ending_s: float) -> None:
        super().__init__([REPLY] * 10)
        self.ending_s = ending_s
        #: When each generation began, and how many were in progress by then.
        self.began: list[tuple[float, int]] = []

    async def _generate(
        self, messages: tuple[Message, ...], options: GenerationOptions
    ) -> AsyncGenerator[GenerationEvent]:
        self.began.append((asyncio.get_running_loop().time(), self.calls.active))
        with self.calls.count():
            try:
                await asyncio.sleep(3600)
                yield  # never reached: it makes this a generator
            finally:
                await asyncio.sleep(self.ending_s)


class Replies:
    """The replies of a call, and all that comes out of them."""

    def __init__(self, llm: FakeLanguageModel, start: Callable[..., asyncio.Task[None]]) -> None:
        self.tts = FakeTextToSpeech(ms_per_character=100)
        self.sent: list[tuple[UUID, Any]] = []
        self.reports: list[ReplyEvent] = []
        self.has_sound = asyncio.Event()
        #: Called while a piece of audio is being sent.
        self.on_sound: Callable[[], Any] = lambda: None
        may_speak = asyncio.Event()
        may_speak.set()
        self.tasks = ReplyTasks(
            llm=llm,
            tts=self.tts,
            scene=Scene("請簡短。"),
            settings=CallSettings(system_prompt="請簡短。"),
            outlet=Outlet(self._send, self.reports.append, may_speak, lambda turn_id: None),
            clock=asyncio.get_running_loop().time,
            start=start,
        )

    async def _send(self, reply: Reply, message: Any) -> None:
        self.sent.append((reply.turn_id, message))
        if isinstance(message, bytes):
            self.has_sound.set()
            self.on_sound()

    def start(self, voice: Voice | None = None) -> UUID:
        turn_id = uuid4()
        self.tasks.start(StartReply(turn_id, uuid4(), "你好", (), voice or Voice(), Quality.FAST, 1.0))
        return turn_id

    def commit(self, turn_id: UUID) -> None:
        self.tasks.commit(CommitReply(turn_id, asked_at=asyncio.get_running_loop().time(), stt_ms=600))

    def read_senders(self) -> set[UUID]:
        return {turn_id for turn_id, _ in self.sent}


@asynccontextmanager
async def hold(llm: FakeLanguageModel | None = None) -> AsyncGenerator[Replies]:
    """Replies in a task group of their own, as a call owns it; at the end none of its tasks is left."""
    async with asyncio.TaskGroup() as group:
        started: list[asyncio.Task[None]] = []

        def start(work: Any) -> asyncio.Task[None]:
            started.append(group.create_task(work))
            return started[-1]

        yield Replies(llm or FakeLanguageModel([REPLY] * 10), start)
        for task in started:
            task.cancel()


def read_clock() -> float:
    return asyncio.get_running_loop().time()


class TestCancelling:
    async def test_lets_the_next_reply_have_the_engines_once_they_are_free(self) -> None:
        llm = StubbornModel(ending_s=0.4)
        async with hold(llm) as replies:
            first = replies.start()
            await asyncio.sleep(1)
            replies.tasks.cancel(first)
            cancelled_at = read_clock()
            replies.start()
            await asyncio.sleep(1)

            (_, _), (second_at, busy) = llm.began
            assert busy == 0
            assert second_at - cancelled_at == pytest.approx(0.4, abs=0.01)

    async def test_does_not_wait_without_end_for_an_engine_that_hangs(self, caplog: pytest.LogCaptureFixture) -> None:
        llm = StubbornModel(ending_s=60)
        async with hold(llm) as replies:
            first = replies.start()
            await asyncio.sleep(1)
            replies.tasks.cancel(first)
            cancelled_at = read_clock()
            replies.start()
            await asyncio.sleep(MAX_ENDING_S + 1)

            assert llm.began[1][0] - cancelled_at == pytest.approx(MAX_ENDING_S, abs=0.01)
            assert "1 cancelled replies have not ended within 10 s" in caplog.text

    async def test_of_a_speculation_reports_nothing_heard_and_lets_nothing_out(self) -> None:
        async with hold() as replies:
            speculation = replies.start()
            await asyncio.sleep(1)

            assert replies.tts.calls.started == 1
            assert replies.tasks.cancel(speculation) is None
            await asyncio.sleep(10)
            assert replies.sent == []

    async def test_reports_what_was_heard_and_sends_nothing_afterwards(self) -> None:
        async with hold() as replies:
            spoken = replies.start()
            replies.commit(spoken)
            await replies.has_sound.wait()
            await asyncio.sleep(SENTENCE_MS / 1000 + 0.01)
            heard = replies.tasks.cancel(spoken)
            sent = len(replies.sent)
            await asyncio.sleep(10)

            assert heard is not None
            assert heard.heard_text == "第一句話說完了呢。"
            assert replies.tasks.committed is None
            assert len(replies.sent) == sent
            assert not any(isinstance(report, ReplyEnded) for report in replies.reports)

    async def test_lets_nothing_out_that_was_ready_to_be_sent(self) -> None:
        async with hold() as replies:
            spoken = replies.start()
            await asyncio.sleep(1)
            replies.on_sound = lambda: replies.tasks.cancel(spoken)
            replies.commit(spoken)
            await asyncio.sleep(10)

            # Its first clause was ready, four pieces of it.
            assert len([message for _, message in replies.sent if isinstance(message, bytes)]) == 1

    async def test_of_a_speculation_leaves_the_committed_reply_alone(self) -> None:
        async with hold() as replies:
            spoken, speculation = replies.start(), replies.start()
            replies.commit(spoken)
            replies.tasks.cancel(speculation)
            await asyncio.sleep(60)

            whole = [m.text for _, m in replies.sent if isinstance(m, LlmResponse) and m.is_final]
            assert whole == [REPLY]
            assert replies.read_senders() == {spoken}


class TestFinishingASentence:
    async def test_returns_when_the_sentence_that_is_heard_was_played(self) -> None:
        async with hold() as replies:
            spoken = replies.start()
            replies.commit(spoken)
            await replies.has_sound.wait()
            began_at = read_clock()
            await asyncio.sleep(0.3)
            await replies.tasks.finish_sentence()

            assert SENTENCE_MS / 1000 <= read_clock() - began_at <= SENTENCE_MS / 1000 + 2 * SENTENCE_POLL_S

    async def test_believes_the_client_who_plays_later(self) -> None:
        async with hold() as replies:
            spoken = replies.start()
            replies.commit(spoken)
            await replies.has_sound.wait()
            began_at = read_clock()
            await asyncio.sleep(0.5)
            replies.tasks.report_playback(ReportPlayback(spoken, 100, is_finished=False))
            await replies.tasks.finish_sentence()

            # 400 ms late: what was said to be played by 0.5 s was 100 ms.
            assert read_clock() - began_at == pytest.approx(SENTENCE_MS / 1000 + 0.4, abs=2 * SENTENCE_POLL_S)

    async def test_returns_at_once_where_nothing_is_heard(self) -> None:
        async with hold() as replies:
            began_at = read_clock()
            await replies.tasks.finish_sentence()
            replies.start()
            await asyncio.sleep(1)
            await replies.tasks.finish_sentence()

            assert read_clock() - began_at == pytest.approx(1, abs=0.001)

    async def test_returns_when_the_reply_is_cancelled_in_its_middle(self) -> None:
        async with hold() as replies:
            spoken = replies.start()
            replies.commit(spoken)
            await replies.has_sound.wait()
            began_at = read_clock()
            asyncio.get_running_loop().call_later(0.2, replies.tasks.cancel, spoken)
            await replies.tasks.finish_sentence()

            assert read_clock() - began_at <= 0.2 + SENTENCE_POLL_S + 0.001


class TestEnding:
    async def test_is_reported_once_it_was_played_and_the_reply_is_forgotten(self) -> None:
        async with hold() as replies:
            spoken = replies.start()
            replies.commit(spoken)
            await replies.has_sound.wait()
            began_at = read_clock()
            while replies.tasks.committed is not None:  # noqa: ASYNC110 — a reply tells nobody that it is forgotten
                await asyncio.sleep(0.01)

            ended = replies.reports[-1]
            assert isinstance(ended, ReplyEnded)
            assert (ended.report.turn_id, ended.report.heard_text) == (spoken, REPLY)
            assert read_clock() - began_at >= ended.report.audio_ms / 1000 > 1
            with pytest.raises(KeyError):
                replies.tasks.cancel(spoken)


class TestChangingTheVoice:
    async def test_reaches_what_is_spoken_and_what_is_only_prepared(self) -> None:
        old, new = Voice(uuid4(), "zf_xiaoxiao"), Voice(uuid4(), "zm_yunxi")
        async with hold() as replies:
            spoken = replies.start(old)
            replies.commit(spoken)
            await replies.has_sound.wait()
            replies.start(old)
            replies.tasks.change_voice(new)
            before = len(replies.tts.requests)
            await asyncio.sleep(60)

            voices = [options.voice for _, options in replies.tts.requests]
            assert set(voices[:before]) == {old.engine_voice}
            assert voices[before:] == [new.engine_voice] * (len(voices) - before)
            # The rest of what is spoken, and the first clause of what is prepared.
            assert len(voices) - before >= 2
