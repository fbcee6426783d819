from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest

from inference.telemetry import tracing
from realtime import messages
from realtime.turn_trace import TurnTrace
from tests.fakes import SPEECH, UTTERANCE, make_inference, make_silence, open_call
from tests.otlp import Receiver, receive_traces

pytestmark = pytest.mark.virtual_clock

REPLY = "今天的天氣很好，我們可以一起出去走一走。晚上再回來看一部電影，你覺得好不好？"


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    with receive_traces() as (address, receiver):
        monkeypatch.setenv(tracing.ENDPOINT, address)
        assert tracing.configure("web")
        yield receiver
        tracing.shut_down()


def list_children(receiver: Receiver) -> set[str]:
    return {span.name for span in receiver.spans if span.parent_id}


class TestSpokenTurn:
    async def test_is_one_tree_under_the_users_turn(self, receiver: Receiver) -> None:
        inference = make_inference("芝麻開門", replies=["一二三四五。六七八九十。"])
        inference.llm.first_token_s = 0.1
        inference.llm.tokens_per_s = 20
        async with open_call(inference) as call:
            await call.speak_live(UTTERANCE)
            said = await call.wait_for(messages.Transcription, where=lambda message: message.is_final)
            end = await call.wait_for(messages.TurnEnd)
            await call.wait_until_listening()
        tracing.shut_down()

        (turn,) = receiver.find("turn")
        assert {span.trace_id for span in receiver.spans} == {said.turn_id.hex}
        assert {span.parent_id for span in receiver.spans if span is not turn} - {turn.span_id} <= {""}
        assert list_children(receiver) == {"endpoint", "stt", "prefill", "llm", "clauses", "tts", "playout"}
        assert len(receiver.find("tts")) == 2
        assert turn.attributes == {"was_interrupted": False}
        (playout,) = receiver.find("playout")
        assert end.latency_ms.ttfa is not None
        assert playout.began_at - turn.began_at == pytest.approx(end.latency_ms.ttfa / 1000, abs=0.002)
        assert playout.ended_at == pytest.approx(turn.ended_at, abs=0.001)

    async def test_says_nothing_of_what_was_said(self, receiver: Receiver) -> None:
        async with open_call(make_inference("芝麻開門", replies=["阿里巴巴。"])) as call:
            await call.speak_live(UTTERANCE)
            await call.wait_until_listening()
        tracing.shut_down()

        sent = b"".join(receiver.bodies)
        assert sent
        assert not [word for word in ("芝麻", "阿里") if word.encode() in sent]

    async def test_that_is_interrupted_ends_with_its_playout(self, receiver: Receiver) -> None:
        async with open_call(make_inference("你好", replies=[REPLY], ms_per_character=100)) as call:
            await call.speak_live(UTTERANCE)
            await call.wait_for(messages.TtsReady)
            await call.speak_live(SPEECH)
            interrupted = await call.wait_for(messages.Interrupted)
        tracing.shut_down()

        (turn,), (playout,) = receiver.find("turn"), receiver.find("playout")
        assert turn.attributes == {"was_interrupted": True}
        assert playout.attributes["heard_ms"] == pytest.approx(interrupted.heard_ms, abs=50)

    async def test_has_no_span_of_a_speculation_that_was_dropped(self, receiver: Receiver) -> None:
        inference = make_inference("你好嗎", replies=["不好。", "好。"])
        async with open_call(inference) as call:
            await call.speak_live(SPEECH + make_silence(300) + UTTERANCE)
            await call.wait_until_listening()
        tracing.shut_down()

        assert len(inference.llm.requests) == 2
        assert [len(receiver.find(name)) for name in ("turn", "llm", "tts")] == [1, 1, 1]


class TestTypedTurn:
    async def test_has_no_recognition(self, receiver: Receiver) -> None:
        inference = make_inference(replies=["好。"])
        async with open_call(inference) as call:
            await call.until(lambda: inference.llm.prefills)
            call.send(messages.TextMessage(text="你好"))
            await call.wait_until_listening()
        tracing.shut_down()

        assert list_children(receiver) == {"prefill", "llm", "clauses", "tts", "playout"}


class TestTurnTrace:
    def test_keeps_nothing_while_nothing_is_exported(self) -> None:
        trace = TurnTrace(uuid4())

        trace.add("llm", 1.0, 2.0)

        assert trace._early == []
