from __future__ import annotations

import pytest

from avatar_site.lib import metrics
from inference.interfaces import InferenceError, Quality
from realtime import messages
from tests.fakes import SPEECH, UTTERANCE, make_inference, open_call

pytestmark = pytest.mark.virtual_clock

REPLY = "今天的天氣很好，我們可以一起出去走一走。晚上再回來看一部電影，你覺得好不好？"
STAGES = {"endpoint", "stt", "ttft", "ttfa", "total"}


@pytest.fixture(autouse=True)
def _new_minute() -> None:
    metrics.take_minute()


class TestTurn:
    async def test_that_is_spoken_has_every_stage_once(self) -> None:
        async with open_call(make_inference("你好", replies=["好。"])) as call:
            await call.speak_live(UTTERANCE)
            end = await call.wait_for(messages.TurnEnd)
            await call.wait_until_listening()

        minute = metrics.take_minute()
        assert minute.counts == {"turns": 1}
        assert {stage: counts.total() for stage, counts in minute.latencies.items()} == dict.fromkeys(STAGES, 1)
        assert end.latency_ms.ttfa is not None
        assert list(minute.latencies["ttfa"]) == [metrics.find_bucket(end.latency_ms.ttfa / 1000)]

    async def test_ends_after_the_pause_of_its_settings(self) -> None:
        async with open_call(make_inference("你好", replies=["好。"]), pause_ms=600) as call:
            await call.speak_live(UTTERANCE)
            await call.wait_until_listening()

        (bucket,) = metrics.take_minute().latencies["endpoint"]
        assert metrics.find_bucket(0.58) <= bucket <= metrics.find_bucket(0.64)

    async def test_that_is_typed_has_no_recognition(self) -> None:
        async with open_call(make_inference(replies=["好。"])) as call:
            call.send(messages.TextMessage(text="你好"))
            await call.wait_until_listening()

        minute = metrics.take_minute()
        assert minute.counts == {"turns": 1}
        assert set(minute.latencies) == STAGES - {"endpoint", "stt"}

    async def test_that_is_hung_up_on_counts_what_it_came_to(self) -> None:
        async with open_call(make_inference(replies=[REPLY], ms_per_character=100)) as call:
            call.send(messages.TextMessage(text="你好"))
            await call.wait_for(messages.TtsReady)

        assert {"ttft", "ttfa"} <= set(metrics.take_minute().latencies)

    async def test_whose_speculation_is_dropped_counts_once(self) -> None:
        async with open_call(make_inference("你好", "再見", replies=["好。", "不好。"])) as call:
            await call.speak_live(SPEECH + bytes(16 * 2 * 300) + UTTERANCE)
            await call.wait_until_listening()

        minute = metrics.take_minute()
        assert (minute.counts["turns"], minute.latencies["ttfa"].total()) == (1, 1)


class TestBargeIn:
    async def test_is_timed_from_the_beginning_of_the_speech(self) -> None:
        async with open_call(make_inference("你好", "停", replies=[REPLY], ms_per_character=100)) as call:
            call.send(messages.TextMessage(text="你好"))
            await call.wait_for(messages.TtsReady)
            await call.until(lambda: any(isinstance(message, bytes) for message in call.sent))
            before = metrics.REGISTRY.get_sample_value("avatar_barge_in_stop_seconds_sum") or 0.0
            await call.speak_live(SPEECH)
            await call.wait_for(messages.Interrupted)

        stop_s = (metrics.REGISTRY.get_sample_value("avatar_barge_in_stop_seconds_sum") or 0.0) - before
        assert metrics.take_minute().counts["barge_ins"] == 1
        assert 0 < stop_s < 0.6

    async def test_is_none_when_a_button_stops_the_reply(self) -> None:
        async with open_call(make_inference("你好", replies=[REPLY], ms_per_character=100)) as call:
            call.send(messages.TextMessage(text="你好"))
            await call.wait_for(messages.TtsReady)
            call.send(messages.InterruptMessage())
            await call.wait_for(messages.Interrupted)
            await call.speak_live(SPEECH)

        assert "barge_ins" not in metrics.take_minute().counts


class TestDegradedReply:
    async def test_is_counted_when_memory_was_short(self) -> None:
        inference = make_inference(replies=["好。"])
        inference.tts.is_short_of_memory = True
        async with open_call(inference, quality=Quality.HIGH_QUALITY) as call:
            call.send(messages.TextMessage(text="你好"))
            await call.wait_until_listening()

        assert metrics.take_minute().counts == {"turns": 1, "degraded.fast_quality": 1}

    async def test_is_not_counted_where_fast_was_asked_for(self) -> None:
        async with open_call(make_inference(replies=["好。"]), quality=Quality.FAST) as call:
            call.send(messages.TextMessage(text="你好"))
            await call.wait_until_listening()

        assert metrics.take_minute().counts == {"turns": 1}

    async def test_is_counted_when_it_has_no_sound(self) -> None:
        inference = make_inference(replies=["好。"])
        inference.tts.fail_next(InferenceError("no voice"))
        async with open_call(inference) as call:
            call.send(messages.TextMessage(text="你好"))
            await call.wait_until_listening()

        assert metrics.take_minute().counts["degraded.without_sound"] == 1


class TestGap:
    async def test_is_counted_where_the_next_clause_comes_late(self) -> None:
        inference = make_inference(replies=["一二三四五。六七八九十。"], ms_per_character=10)
        inference.llm.tokens_per_s = 10
        async with open_call(inference) as call:
            call.send(messages.TextMessage(text="你好"))
            await call.wait_for(messages.TurnEnd)

        assert metrics.take_minute().counts["gaps"] == 1

    async def test_is_none_where_everything_is_ready(self) -> None:
        async with open_call(make_inference(replies=["一二三四五。六七八九十。"], ms_per_character=10)) as call:
            call.send(messages.TextMessage(text="你好"))
            await call.wait_for(messages.TurnEnd)

        assert "gaps" not in metrics.take_minute().counts
