from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
from django.db import OperationalError

from inference.interfaces import (
    EndOfUtterance,
    InferenceBusy,
    InferenceError,
    InferenceUnavailable,
    Message,
    Quality,
    TranscriptEvent,
    TranscriptionInput,
    TranscriptionOptions,
    VoiceReference,
)
from realtime import messages
from realtime.call.settings import ReplyLimits
from realtime.call.turns import BegunTurn, DroppedTurn, PastTurn
from realtime.call.utterance import POST_ROLL_MS
from realtime.call.voice import Voice
from realtime.messages import AudioFormat, ErrorCode, Mode, ProtocolError, Stage
from realtime.runner import CallOverrun
from tests.fakes import (
    PAUSE,
    SPEECH,
    UTTERANCE,
    Call,
    FakeSpeechToText,
    FakeTextToSpeech,
    describe,
    make_inference,
    make_silence,
    make_tone,
    open_call,
)

pytestmark = pytest.mark.virtual_clock

REPLY = "今天的天氣很好，我們可以一起出去走一走。晚上再回來看一部電影，你覺得好不好？"
HOLDING = messages.ConfigureMessage(mode=Mode.HOLD_TO_TALK)


def list_stages(call: Call) -> list[str]:
    return [str(m.stage) for m in call.list_of(messages.Status)]


def read_text(call: Call, turn_id: object) -> str:
    pieces = [m for m in call.list_of(messages.LlmResponse) if m.turn_id == turn_id and not m.is_final]
    return "".join(m.text for m in pieces)


class TestSpokenTurn:
    async def test_is_answered(self) -> None:
        async with open_call(make_inference("今天天氣如何", replies=[REPLY])) as call:
            call.speak(UTTERANCE)
            end = await call.wait_for(messages.TurnEnd)
            await call.wait_until_listening()

        final = next(m for m in call.list_of(messages.Transcription) if m.is_final)
        whole = next(m for m in call.list_of(messages.LlmResponse) if m.is_final)
        ready = call.list_of(messages.TtsReady)
        assert final.text == "今天天氣如何"
        assert read_text(call, end.turn_id) == whole.text == REPLY
        assert [m.turn_id for m in ready] == [end.turn_id]
        assert ready[0].audio_url == f"/audio/{end.turn_id}"
        assert end.user_turn_id == final.turn_id != end.turn_id
        assert not end.was_interrupted
        assert sum(map(len, call.list_of(bytes))) == end.audio_ms * 48
        assert all(len(m) <= 9600 for m in call.list_of(bytes))
        assert list_stages(call) == ["listening", "llm", "tts", "listening"]

    async def test_comes_in_order(self) -> None:
        async with open_call(make_inference("你好", replies=[REPLY])) as call:
            call.speak(UTTERANCE)
            await call.wait_until_listening()

        def find(kind: type) -> int:
            return next(n for n, m in enumerate(call.sent) if isinstance(m, kind))

        assert find(messages.Transcription) < find(messages.LlmResponse) < find(messages.TurnEnd)
        assert find(messages.TtsReady) < find(bytes) < find(messages.TurnEnd)

    async def test_is_kept_with_both_sounds(self) -> None:
        async with open_call(make_inference("你好", replies=[REPLY])) as call:
            call.speak(make_silence(1000) + UTTERANCE)
            await call.wait_until_listening()

        user, avatar = call.kept
        assert (user.speaker, user.text) == ("user", "你好")
        assert user.pcm == make_silence(200) + SPEECH + make_silence(200)
        assert (avatar.speaker, avatar.text, avatar.was_interrupted) == ("avatar", REPLY, False)
        assert avatar.pcm == b"".join(call.list_of(bytes))
        assert avatar.latency is not None
        assert set(avatar.latency) == {"stt", "ttft", "ttfa", "total"}

    async def test_measures_from_the_end_of_speech(self) -> None:
        async with open_call(make_inference("你好", replies=[REPLY])) as call:
            call.speak(UTTERANCE)
            latency = (await call.wait_for(messages.TurnEnd)).latency_ms

        # All audio arrived at once, so the pause of 600 ms counts in audio, and little else.
        assert latency.stt is not None
        assert 600 <= latency.stt < 900
        assert latency.ttft is not None
        assert latency.stt <= latency.ttft
        assert latency.ttfa is not None
        assert latency.ttft <= latency.ttfa
        assert latency.total is not None
        assert latency.ttfa <= latency.total

    async def test_gives_the_model_the_conversation(self) -> None:
        history = [Message("user", "嗨"), Message("assistant", "嗨，你好。")]
        inference = make_inference("再見", "下次見", replies=["掰掰。", "好的。"])
        async with open_call(inference, history=history, system_prompt="請簡短。") as call:
            call.speak(UTTERANCE)
            await call.wait_until_listening()
            call.speak(UTTERANCE)
            await call.wait_until_listening(2)

        assert inference.llm.requests[-1] == (
            Message("system", "請簡短。"),
            *history,
            Message("user", "再見"),
            Message("assistant", "掰掰。"),
            Message("user", "下次見"),
        )

    async def test_asks_for_english_before_an_english_request(self) -> None:
        history = [Message("user", "嗨"), Message("assistant", "嗨，你好。")]
        inference = make_inference("Good morning.", replies=["Good morning."])
        async with open_call(inference, history=history, system_prompt="請簡短。") as call:
            call.speak(UTTERANCE)
            await call.wait_until_listening()

        assert inference.llm.requests[-1][1:] == (*history, Message("user", "(Answer in English.) Good morning."))

    async def test_asks_for_chinese_again_after_an_english_request(self) -> None:
        history = [Message("user", "Hi."), Message("assistant", "Hello.")]
        inference = make_inference("早安", "再見", replies=["早安。", "再見。"])
        async with open_call(inference, history=history, system_prompt="請簡短。") as call:
            call.speak(UTTERANCE)
            await call.wait_until_listening()
            call.speak(UTTERANCE)
            await call.wait_until_listening(2)

        asked = [message.content for message in inference.llm.requests[-1] if message.role == "user"]
        assert asked == ["(Answer in English.) Hi.", "（請用中文回答。）早安", "再見"]

    async def test_speaks_nothing_of_a_beginning_in_the_wrong_language(self) -> None:
        inference = make_inference("你好", replies=["Good morning, Jim. How are you?", REPLY])
        async with open_call(inference, system_prompt="請簡短。") as call:
            call.speak(UTTERANCE)
            await call.wait_until_listening()

        assert "Jim" not in "".join(m.text for m in call.list_of(messages.LlmResponse))
        assert not any("Jim" in text for text, _ in inference.tts.requests)
        assert call.kept[-1].text == REPLY

    async def test_gives_the_model_results_and_the_time(self) -> None:
        noon = datetime(2026, 3, 12, 12, 0, tzinfo=UTC)
        inference = make_inference("一百二十五加三百七十八等於多少", replies=[REPLY])
        async with open_call(
            inference,
            system_prompt="請簡短。",
            examples=(("嗨", "嗨，你好。"),),
            place="台灣台北",
            read_time=lambda: noon,
            repeat_penalty=1.05,
        ) as call:
            call.speak(UTTERANCE)
            await call.wait_until_listening()

        *shared, moment, asked = inference.llm.requests[-1]
        assert [message.is_shared for message in shared] == [True] * 3
        assert moment.content.startswith("地點是台灣台北，今天是2026年")
        assert asked.content == "一百二十五加三百七十八等於多少\n（計算結果：125 + 378 = 503，五百零三）"
        # What is read when a call begins is what its first reply begins with.
        assert inference.llm.prefills[0] == (*shared, moment)

    async def test_says_so_when_nothing_was_heard(self) -> None:
        async with open_call(make_inference("")) as call:
            call.speak(UTTERANCE)
            await call.wait_until_listening()

        assert [m.text for m in call.list_of(messages.Transcription)] == [""]
        assert call.inference.llm.calls.started == 0
        assert call.kept == []

    async def test_marks_the_first_and_the_last_clause(self) -> None:
        inference = make_inference("你好", replies=[REPLY])
        async with open_call(inference) as call:
            call.speak(UTTERANCE)
            await call.wait_until_listening()

        marks = [(options.is_first, options.is_last) for _, options in inference.tts.requests]
        assert marks[0][0] is True
        assert not any(is_first for is_first, _ in marks[1:])
        assert len(inference.tts.requests[0][0]) <= 15

    async def test_skips_what_is_not_said(self) -> None:
        inference = make_inference("你好", replies=["😀"])
        async with open_call(inference) as call:
            call.speak(UTTERANCE)
            end = await call.wait_for(messages.TurnEnd)
            await call.wait_until_listening()

        assert inference.tts.requests == []
        assert end.audio_ms == 0
        assert end.latency_ms.ttfa is None
        assert [turn.text for turn in call.kept] == ["你好", "😀"]


class TestSpeculation:
    async def test_has_the_reply_ready_before_the_transcript_is_final(self) -> None:
        inference = make_inference("你好", replies=[REPLY])
        async with open_call(inference) as call:
            call.speak(SPEECH + make_silence(300))
            await call.until(lambda: inference.tts.calls.finished)
            sent_before = list(call.sent)
            call.speak(make_silence(400))
            await call.wait_until_listening()

        assert not any(isinstance(m, messages.LlmResponse | messages.TtsReady | bytes) for m in sent_before)
        assert not any(isinstance(m, messages.Transcription) and m.is_final for m in sent_before)
        assert inference.llm.calls.started == 1

    async def test_prepares_one_clause_only(self) -> None:
        inference = make_inference("你好", replies=[REPLY])
        async with open_call(inference) as call:
            call.speak(SPEECH + make_silence(300))
            await call.until(lambda: inference.llm.calls.finished and inference.tts.calls.finished)

            assert inference.tts.calls.started == 1

    async def test_is_taken_back_when_the_user_goes_on(self) -> None:
        inference = make_inference("我想要去看電影", replies=["想要什麼？", REPLY], provisional={})
        inference.llm.hold_after(2)
        async with open_call(inference) as call:
            call.speak(SPEECH + make_silence(300))
            await asyncio.wait_for(inference.llm.is_holding.wait(), 5)
            call.speak(SPEECH)
            await call.until(lambda: inference.llm.calls.cancelled == 1)
            inference.llm.release()
            call.speak(PAUSE)
            end = await call.wait_for(messages.TurnEnd)

        assert read_text(call, end.turn_id) == REPLY
        assert len(call.list_of(messages.TurnEnd)) == 1

    async def test_is_replaced_when_the_text_turns_out_different(self) -> None:
        inference = make_inference("我想睡覺", replies=["甲", REPLY], provisional={0: "我想睡"})
        async with open_call(inference) as call:
            call.speak(SPEECH + make_silence(300))
            await call.until(lambda: inference.llm.requests)
            call.speak(make_silence(400))
            end = await call.wait_for(messages.TurnEnd)

        assert [request[-1].content for request in inference.llm.requests] == ["我想睡", "我想睡覺"]
        assert read_text(call, end.turn_id) == REPLY

    async def test_failing_is_tried_again_aloud(self) -> None:
        inference = make_inference("你好", replies=[REPLY])
        inference.llm.fail_next(InferenceBusy("full"))
        async with open_call(inference) as call:
            call.speak(SPEECH + make_silence(300))
            await call.until(lambda: inference.llm.calls.failed)
            call.speak(make_silence(400))
            end = await call.wait_for(messages.TurnEnd)

        assert read_text(call, end.turn_id) == REPLY
        assert call.list_of(messages.ErrorMessage) == []


class TestReadingAhead:
    async def test_warms_the_prefix_at_the_start_and_after_each_reply(self) -> None:
        inference = make_inference("你好", replies=["好。"])
        async with open_call(inference, system_prompt="請簡短。") as call:
            await call.until(lambda: inference.llm.prefills)
            call.speak(UTTERANCE)
            await call.wait_until_listening()
            await call.until(lambda: inference.llm.prefills[-1][-1].role == "assistant")

        system = Message("system", "請簡短。")
        assert inference.llm.prefills[0] == (system,)
        assert inference.llm.prefills[-1] == (system, Message("user", "你好"), Message("assistant", "好。"))

    async def test_reads_what_is_being_said_one_at_a_time(self) -> None:
        inference = make_inference("今天天氣真的很不錯對不對呢")
        inference.llm.prefill_s = 60
        async with open_call(inference) as call:
            await call.until(lambda: inference.llm.prefill_calls.active)
            call.speak(make_tone(2000))
            await call.until(lambda: len(call.list_of(messages.Transcription)) >= 3)

            assert inference.llm.prefill_calls.active == 1

    async def test_stops_before_the_reply_is_thought(self) -> None:
        inference = make_inference("今天天氣")
        inference.llm.prefill_s = 60
        inference.llm.hold_after(0)
        async with open_call(inference) as call:
            call.speak(SPEECH + make_silence(300))
            await asyncio.wait_for(inference.llm.is_holding.wait(), 5)

            assert inference.llm.prefill_calls.active == 0


class TestQuality:
    @pytest.mark.parametrize(("is_short_of_memory", "said"), [(False, "high_quality"), (True, "fast")])
    async def test_is_said_as_it_was_made_not_as_it_was_wished_for(self, is_short_of_memory: bool, said: str) -> None:
        inference = make_inference("你好", replies=[REPLY])
        inference.tts.is_short_of_memory = is_short_of_memory
        async with open_call(inference, quality=Quality.HIGH_QUALITY) as call:
            call.speak(UTTERANCE)
            ready = await call.wait_for(messages.TtsReady)

        assert ready.quality == said

    async def test_is_said_in_the_end_when_memory_was_short_in_the_middle(self) -> None:
        inference = make_inference("你好", replies=["第一句話說得很好。第二句話也很好。第三句話就不好了。" * 3])
        async with open_call(inference, quality=Quality.HIGH_QUALITY) as call:
            call.speak(UTTERANCE)
            ready = await call.wait_for(messages.TtsReady)
            inference.tts.is_short_of_memory = True
            call.send(messages.PlaybackMessage(turn_id=ready.turn_id, played_ms=60_000))
            end = await call.wait_for(messages.TurnEnd)
            kept = await call.wait_for_kept("avatar")

        assert (ready.quality, end.quality) == ("high_quality", "fast")
        assert kept.quality is Quality.FAST


class TestBargeIn:
    async def test_cancels_announces_and_keeps_what_was_heard(self) -> None:
        inference = make_inference("你好", "停", replies=[REPLY, "好。"], ms_per_character=100)
        async with open_call(inference) as call:
            call.speak(UTTERANCE)
            ready = await call.wait_for(messages.TtsReady)
            await call.until(lambda: sum(map(len, call.list_of(bytes))) >= 48 * 1500)
            call.send(messages.PlaybackMessage(turn_id=ready.turn_id, played_ms=1000))
            call.speak(SPEECH)
            interrupted = await call.wait_for(messages.Interrupted)
            await call.wait_for(messages.TurnEnd)
            place = call.sent.index(interrupted)
            after = [m for m in call.sent[place:] if isinstance(m, bytes)]
            call.speak(PAUSE)
            await call.wait_until_listening()

        assert after == []
        assert interrupted.turn_id == ready.turn_id
        assert 1000 <= interrupted.heard_ms < 1400
        rest = [m for m in call.sent[place + 1 :] if getattr(m, "turn_id", None) == ready.turn_id]
        assert [type(m) for m in rest] == [messages.LlmResponse, messages.TurnEnd]
        heard = rest[0]
        assert isinstance(heard, messages.LlmResponse)
        assert heard.was_interrupted
        assert heard.is_final
        assert REPLY.startswith(heard.text)
        assert 8 <= len(heard.text) <= 15
        kept = next(turn for turn in call.kept if turn.speaker == "avatar")
        assert (kept.text, kept.was_interrupted) == (heard.text, True)
        assert kept.duration_ms == interrupted.heard_ms
        assert inference.llm.requests[-1][-2:] == (Message("assistant", heard.text), Message("user", "停"))

    async def test_cancels_before_it_announces(self) -> None:
        inference = make_inference("你好", replies=[REPLY], ms_per_character=100)
        inference.tts.real_time_factor = 0.02
        async with open_call(inference, reply=ReplyLimits(max_ahead_ms=10**9)) as call:
            call.send_s[messages.Interrupted] = 0.1
            call.speak(UTTERANCE)
            await call.wait_for(bytes)
            call.send(messages.InterruptMessage())
            interrupted = await call.wait_for(messages.Interrupted)
            await call.wait_for(messages.TurnEnd)

        assert not any(isinstance(m, bytes) for m in call.sent[call.sent.index(interrupted) :])

    async def test_lets_nothing_out_that_comes_in_the_same_moment(self) -> None:
        inference = make_inference("你好", replies=[REPLY], ms_per_character=100)
        async with open_call(inference, reply=ReplyLimits(max_ahead_ms=10**9)) as call:
            call.speak(UTTERANCE)
            await call.wait_for(messages.TurnEnd)
            reply = call.runner._replies.committed
            assert reply is not None
            # A task that waits to send sound may run before it is cancelled; some of it may wait to be written.
            await reply._send_piece(bytes(960))
            call.send(messages.InterruptMessage())
            await reply._send_piece(bytes(960))
            interrupted = await call.wait_for(messages.Interrupted)

        assert not any(isinstance(m, bytes) for m in call.sent[call.sent.index(interrupted) :])

    async def test_before_any_sound_keeps_only_the_users_words(self) -> None:
        inference = make_inference("我想去", "看電影", replies=["甲", "好。"])
        inference.llm.hold_after(0)
        async with open_call(inference) as call:
            call.speak(UTTERANCE)
            await asyncio.wait_for(inference.llm.is_holding.wait(), 5)
            await call.wait_for(messages.Status, where=lambda m: m.stage is Stage.LLM)
            call.speak(SPEECH)
            interrupted = await call.wait_for(messages.Interrupted)
            inference.llm.release()
            call.speak(PAUSE)
            await call.wait_until_listening()

        assert interrupted.heard_ms == 0
        assert [(turn.speaker, turn.text) for turn in call.kept] == [
            ("user", "我想去"),
            ("user", "看電影"),
            ("avatar", "好。"),
        ]
        assert inference.llm.requests[-1] == (Message("user", "我想去\n看電影"),)

    async def test_by_message_goes_back_to_listening(self) -> None:
        inference = make_inference("你好", replies=[REPLY], ms_per_character=100)
        async with open_call(inference) as call:
            call.speak(UTTERANCE)
            await call.wait_for(bytes)
            call.send(messages.InterruptMessage())
            end = await call.wait_for(messages.TurnEnd)
            await call.wait_until_listening()

        assert end.was_interrupted
        assert inference.llm.calls.active == inference.tts.calls.active == 0

    async def test_after_the_last_byte_ends_the_turn_only_once(self) -> None:
        inference = make_inference("你好", replies=["好的沒問題。"], ms_per_character=100)
        async with open_call(inference) as call:
            call.speak(UTTERANCE)
            await call.wait_for(messages.TurnEnd)
            call.send(messages.InterruptMessage())
            await call.wait_for(messages.Interrupted)
            await call.wait_until_listening()

        assert len(call.list_of(messages.TurnEnd)) == 1

    async def test_does_not_happen_in_hold_to_talk(self) -> None:
        inference = make_inference("你好", replies=[REPLY], ms_per_character=50)
        async with open_call(inference) as call:
            call.send(HOLDING)
            call.speak(SPEECH)
            call.send(messages.AudioEndMessage())
            await call.wait_for(bytes)
            call.speak(UTTERANCE)
            call.send(messages.AudioEndMessage())
            error = await call.wait_for(messages.ErrorMessage)
            await call.wait_for(messages.TurnEnd)

        assert error.code == ErrorCode.ALREADY_PROCESSING
        assert call.list_of(messages.Interrupted) == []


class TestPacing:
    async def test_runs_two_seconds_ahead_and_no_further(self) -> None:
        inference = make_inference("你好", replies=[REPLY * 3], ms_per_character=200)
        async with open_call(inference) as call:
            call.speak(UTTERANCE)
            ready = await call.wait_for(messages.TtsReady)
            await call.until(lambda: sum(map(len, call.list_of(bytes))) >= 48 * 1800)
            call.send(messages.PlaybackMessage(turn_id=ready.turn_id, played_ms=0))
            before_ms = sum(map(len, call.list_of(bytes))) / 48
            call.send(messages.PlaybackMessage(turn_id=ready.turn_id, played_ms=1500))
            await call.until(lambda: sum(map(len, call.list_of(bytes))) / 48 > before_ms + 1000)

        assert before_ms <= 2300
        # The sound being sent, one being made ready, and one more.
        assert inference.tts.calls.started <= 4

    async def test_does_not_wait_for_ever_for_a_client_that_plays_nothing(self) -> None:
        inference = make_inference("你好", replies=[REPLY], ms_per_character=20)
        limits = ReplyLimits(max_ahead_ms=200, stall_s=0.05)
        async with open_call(inference, reply=limits) as call:
            call.speak(UTTERANCE)
            ready = await call.wait_for(messages.TtsReady)
            for _ in range(400):
                call.send(messages.PlaybackMessage(turn_id=ready.turn_id, played_ms=0))
                await asyncio.sleep(0.002)
                if call.list_of(messages.TurnEnd):
                    break
            await call.wait_for(messages.TurnEnd)

    async def test_listens_as_soon_as_the_client_has_played_it_all(self) -> None:
        inference = make_inference("你好", replies=["好的沒問題。"], ms_per_character=2000)
        async with open_call(inference, reply=ReplyLimits(max_ahead_ms=10**9)) as call:
            call.speak(UTTERANCE)
            end = await call.wait_for(messages.TurnEnd)
            call.send(messages.PlaybackMessage(turn_id=end.turn_id, played_ms=end.audio_ms, is_finished=True))
            await call.wait_until_listening()


class TestHoldToTalk:
    async def test_ends_only_when_the_key_is_released(self) -> None:
        inference = make_inference("你好")
        async with open_call(inference) as call:
            call.send(HOLDING)
            call.speak(SPEECH + make_silence(3000) + SPEECH)
            await call.wait_for(messages.Status)
            call.send(messages.AudioEndMessage())
            await call.wait_for(messages.TurnEnd)

        assert len([m for m in call.list_of(messages.Transcription) if m.is_final]) == 1
        assert list_stages(call)[:3] == ["listening", "stt", "llm"]

    async def test_without_audio_is_an_error(self) -> None:
        async with open_call(make_inference()) as call:
            call.send(HOLDING)
            call.send(messages.AudioEndMessage())
            error = await call.wait_for(messages.ErrorMessage)

        assert error.code == ErrorCode.NO_AUDIO_DATA

    async def test_of_silence_hears_nothing(self) -> None:
        async with open_call(make_inference()) as call:
            call.send(HOLDING)
            call.speak(make_silence(500))
            call.send(messages.AudioEndMessage())
            await call.wait_until_listening()

        assert [m.text for m in call.list_of(messages.Transcription)] == [""]

    async def test_goes_on_in_a_voice_that_is_chosen_while_it_is_spoken(self) -> None:
        # Long clauses: the second and third are not yet asked for when the voice changes.
        text = (
            "第一句話要說得很長才行，這樣才聽得到。第二句話也是一樣長，慢慢地說。第三句話也要很長，才能換人說。第四句。"
        )
        inference = make_inference(replies=[text], ms_per_character=50)
        voice = Voice(uuid4(), "zm_yunxi", style=bytes(1024), reference=VoiceReference(b"", 24_000, "你好"))
        async with open_call(inference) as call:
            call.voices[voice.profile_id] = voice
            call.send(messages.TextMessage(text="你好"))
            await call.wait_for(messages.TtsReady)
            call.send(messages.ConfigureMessage(voice_profile_id=voice.profile_id))
            await call.wait_until_listening()

        spoken = [options for _, options in inference.tts.requests]
        assert spoken[0].voice == ""
        assert (spoken[-1].voice, spoken[-1].style, spoken[-1].reference) == ("zm_yunxi", voice.style, voice.reference)
        assert call.kept[-1].voice_profile_id == voice.profile_id

    async def test_takes_the_voice_that_comes_with_the_release(self) -> None:
        inference = make_inference("你好")
        voice = Voice(uuid4(), "zm_yunxi")
        async with open_call(inference) as call:
            call.voices[voice.profile_id] = voice
            call.send(HOLDING)
            call.speak(SPEECH)
            call.send(messages.AudioEndMessage(voice_profile_id=voice.profile_id))
            await call.wait_until_listening()

        assert {options.voice for _, options in inference.tts.requests} == {"zm_yunxi"}
        assert call.kept[-1].voice_profile_id == voice.profile_id


class RecordingSpeechToText(FakeSpeechToText):
    """Keeps what it is given, and hears nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.items: list[TranscriptionInput] = []

    async def _transcribe(
        self, audio: AsyncIterator[TranscriptionInput], options: TranscriptionOptions
    ) -> AsyncGenerator[TranscriptEvent]:
        async for item in audio:
            self.items.append(item)
        return
        yield  # a generator


class TestOrderOfReceipt:
    @pytest.mark.parametrize("end", [{}, {"voice_profile_id": uuid4()}], ids=["end", "end with a voice"])
    async def test_puts_the_end_between_two_utterances(self, end: dict[str, UUID]) -> None:
        inference = make_inference()
        inference.stt = RecordingSpeechToText()
        first, second = make_tone(60), make_tone(80)
        async with open_call(inference) as call:
            call.find_s = 1.0
            call.send(HOLDING)
            call.speak(first)
            call.send(messages.AudioEndMessage(**end))
            call.speak(second)
            await call.until(lambda: len(inference.stt.items) == 4)

        options, *heard = inference.stt.items
        assert isinstance(options, TranscriptionOptions)
        assert heard == [first, EndOfUtterance(), second]

    async def test_counts_what_is_sent_before_the_call_runs(self) -> None:
        inference = make_inference()
        inference.stt = RecordingSpeechToText()
        call = Call(inference)
        for event in (make_tone(40), messages.AudioEndMessage(), make_tone(60)):
            call.speak(event) if isinstance(event, bytes) else call.send(event)

        task = asyncio.create_task(call.runner.run())
        await call.until(lambda: len(inference.stt.items) == 3)
        task.cancel()
        await asyncio.wait([task])

        assert inference.stt.items == [make_tone(40), EndOfUtterance(), make_tone(60)]

    @pytest.mark.parametrize("end", [{}, {"voice_profile_id": uuid4()}], ids=["end", "end with a voice"])
    async def test_keeps_the_next_utterance_behind_the_end_of_the_one_before(self, end: dict[str, UUID]) -> None:
        inference = make_inference("甲", "乙", replies=["好。"])
        async with open_call(inference) as call:
            call.send(HOLDING)
            # All at once: nothing is handled before the last frame has come.
            call.speak(make_tone(400))
            call.send(messages.AudioEndMessage(**end))
            call.speak(make_tone(2000))
            await call.wait_for(messages.TurnEnd)

        assert call.kept[0].text == "甲"
        assert call.kept[0].duration_ms <= 400 + POST_ROLL_MS

    async def test_keeps_the_next_utterance_behind_an_upload_that_is_being_decoded(self) -> None:
        inference = make_inference("甲", replies=["好。"])
        async with open_call(inference) as call:
            call.may_find.clear()
            call.send(messages.AudioChunkMessage(b"RIFF" + SPEECH))
            call.send(messages.AudioEndMessage())
            call.speak(make_tone(2000))
            await call.wait_for(messages.Status, where=lambda m: m.stage is Stage.STT)
            call.may_find.set()
            await call.wait_for(messages.TurnEnd)

        assert call.kept[0].duration_ms <= 600 + POST_ROLL_MS

    async def test_of_an_end_that_is_refused_leaves_the_audio_after_it(self) -> None:
        inference = make_inference("甲", "乙", replies=["好。"])
        inference.llm.hold_after(0)
        async with open_call(inference) as call:
            call.send(HOLDING)
            call.send(messages.TextMessage("你好"))
            await asyncio.wait_for(inference.llm.is_holding.wait(), 5)
            call.speak(make_tone(400))
            call.send(messages.AudioEndMessage())
            call.speak(make_tone(800))
            await call.wait_for(messages.ErrorMessage)
            inference.llm.release()
            await call.wait_until_listening()
            call.send(messages.AudioEndMessage())
            await call.wait_for(messages.TurnEnd, count=2)

        (spoken,) = [turn for turn in call.kept if turn.pcm and turn.speaker == "user"]
        assert 800 <= spoken.duration_ms < 1200


class TestPunctuality:
    """Barge-in on the clock: from the frame that makes speech of sound to the announcement."""

    async def measure_barge_in_s(self, call: Call) -> float:
        began_at = asyncio.get_running_loop().time()
        await call.speak_live(SPEECH)
        interrupted = await call.wait_for(messages.Interrupted)
        # The recogniser takes sound for speech after `min_speech_ms`.
        due_at = began_at + TranscriptionOptions().min_speech_ms / 1000
        return call.sent_at[call.sent.index(interrupted)] - due_at

    async def test_holds_while_a_voice_is_looked_up_for_a_second(self) -> None:
        inference = make_inference("你好", "停", replies=[REPLY], ms_per_character=100)
        async with open_call(inference) as call:
            call.speak(UTTERANCE)
            await call.wait_for(bytes)
            call.find_s = 1.0
            call.send(messages.ConfigureMessage(voice_profile_id=uuid4()))

            assert await self.measure_barge_in_s(call) <= 0.02
            assert call.list_of(messages.ErrorMessage) == []  # it is still being looked up

    @pytest.mark.parametrize("find_s", [0.0, 0.1])
    async def test_holds_while_the_database_fails_and_the_call_survives(self, find_s: float) -> None:
        inference = make_inference("你好", "停", replies=[REPLY, "好。"], ms_per_character=100)
        async with open_call(inference, voice=Voice(uuid4(), "zm_yunxi")) as call:
            call.speak(UTTERANCE)
            await call.wait_for(bytes)
            call.find_s, call.failure = find_s, OperationalError("server closed the connection unexpectedly")
            call.send(messages.ConfigureMessage(voice_profile_id=uuid4()))
            assert call.runner.voice.profile_id is not None
            call.runner.notify_voice(call.runner.voice.profile_id)

            assert await self.measure_barge_in_s(call) <= 0.02
            call.speak(PAUSE)
            await call.wait_until_listening()

        assert [error.code for error in call.list_of(messages.ErrorMessage)] == [ErrorCode.PROCESSING_ERROR]
        assert call.kept[-1].text == "好。"

    async def test_holds_while_an_upload_is_decoded(self) -> None:
        inference = make_inference("你好", "停", replies=[REPLY], ms_per_character=100, recognition_s=0.2)
        async with open_call(inference) as call:
            call.find_s = 10.0
            call.speak(UTTERANCE)
            # The transcript is on its way when the upload comes; the microphone's audio waits behind it.
            call.send(messages.AudioChunkMessage(b"RIFF" + SPEECH))
            call.send(messages.AudioEndMessage())
            await call.wait_for(bytes)
            inference.stt.recognition_s = 0.0

            assert await self.measure_barge_in_s(call) <= 0.02

        assert [error.code for error in call.list_of(messages.ErrorMessage)] == [ErrorCode.ALREADY_PROCESSING]


class TestWaitingForOthers:
    async def test_for_a_voice_does_not_keep_the_user_from_barging_in(self) -> None:
        inference = make_inference("你好", "停", replies=[REPLY], ms_per_character=100)
        async with open_call(inference) as call:
            call.speak(UTTERANCE)
            await call.wait_for(bytes)
            call.may_find.clear()
            call.send(messages.ConfigureMessage(voice_profile_id=uuid4()))
            call.speak(SPEECH)

            # Nothing that it waits for comes while the voice is looked for.
            await call.wait_for(messages.Interrupted)
            assert not call.may_find.is_set()

    async def test_for_the_voice_that_comes_with_the_release_keeps_the_reply_from_beginning(self) -> None:
        inference = make_inference("你好", replies=[REPLY])
        voice = Voice(uuid4(), "zm_yunxi")
        async with open_call(inference) as call:
            call.voices[voice.profile_id] = voice
            call.may_find.clear()
            call.send(HOLDING)
            call.speak(SPEECH)
            call.send(messages.AudioEndMessage(voice_profile_id=voice.profile_id))
            await call.until(lambda: inference.llm.calls.finished)
            assert inference.tts.requests == []
            call.may_find.set()
            await call.wait_until_listening()

        assert {options.voice for _, options in inference.tts.requests} == {"zm_yunxi"}

    async def test_for_a_voice_ends_and_the_reply_is_spoken_in_the_one_before(self) -> None:
        inference = make_inference(replies=["好。"])
        async with open_call(inference, lookup_s=0.02) as call:
            call.may_find.clear()
            call.send(messages.ConfigureMessage(voice_profile_id=uuid4()))
            call.send(messages.TextMessage("你好"))
            await call.wait_for(messages.TurnEnd)

        assert [error.code for error in call.list_of(messages.ErrorMessage)] == [ErrorCode.PROCESSING_ERROR]
        assert len(inference.tts.requests) == 1

    async def test_is_over_for_a_voice_when_another_is_chosen(self) -> None:
        inference = make_inference(replies=["好。"])
        first, second = Voice(uuid4(), "zm_yunxi"), Voice(uuid4(), "af_heart")
        async with open_call(inference) as call:
            call.voices |= {first.profile_id: first, second.profile_id: second}
            call.may_find.clear()
            for voice in (first, second):
                call.send(messages.ConfigureMessage(voice_profile_id=voice.profile_id))
            call.send(messages.TextMessage("你好"))
            call.may_find.set()
            await call.wait_for(messages.TurnEnd)

        assert [options.voice for _, options in inference.tts.requests] == ["af_heart"]

    @pytest.mark.parametrize(
        "message",
        [
            messages.ConfigureMessage(voice_profile_id=uuid4()),
            messages.CorrectMessage(uuid4(), "明天"),
            messages.AudioEndMessage(),
        ],
        ids=["for a voice", "for the past", "for an upload"],
    )
    async def test_for_a_database_that_is_away_ends_no_call(self, message: messages.ClientMessage) -> None:
        inference = make_inference(replies=["好。"])
        async with open_call(inference) as call:
            call.failure = OperationalError("server closed the connection unexpectedly")
            call.send(messages.AudioChunkMessage(b"RIFF" + SPEECH))
            call.send(message)
            error = await call.wait_for(messages.ErrorMessage)
            call.send(messages.TextMessage("你好"))
            await call.wait_for(messages.TurnEnd)

        assert error.code == ErrorCode.PROCESSING_ERROR

    async def test_for_an_upload_has_an_end(self) -> None:
        async with open_call(make_inference(), decode_s=0.02) as call:
            call.may_find.clear()
            call.send(messages.AudioChunkMessage(b"RIFF" + SPEECH))
            call.send(messages.AudioEndMessage())
            error = await call.wait_for(messages.ErrorMessage)
            await call.wait_until_listening()

        assert error.code == ErrorCode.PROCESSING_ERROR

    async def test_for_the_past_refuses_a_second_correction(self) -> None:
        inference = make_inference(replies=["好。"])
        turn_id = uuid4()
        async with open_call(inference) as call:
            call.past[turn_id] = [PastTurn(turn_id, Message("user", "名天"))]
            call.may_find.clear()
            call.send(messages.CorrectMessage(turn_id, "明天"))
            call.send(messages.CorrectMessage(turn_id, "後天"))
            error = await call.wait_for(messages.ErrorMessage)
            call.may_find.set()
            await call.wait_for(messages.TurnEnd)

        assert error.code == ErrorCode.ALREADY_PROCESSING
        assert [turn.text for turn in call.corrected] == ["明天"]


class TestTranscriptThatComesLate:
    async def test_is_answered_and_said_to_be_late(self) -> None:
        async with open_call(make_inference("你好", replies=["好。"])) as call:
            call.speak(UTTERANCE)
            call.clock_ahead_s = 5.1
            await call.wait_for(messages.TurnEnd)

        (error,) = call.list_of(messages.ErrorMessage)
        assert error.code == ErrorCode.FELL_BEHIND

    @pytest.mark.parametrize("pause_ms", [600, 3000])
    async def test_is_not_late_on_a_machine_that_is_merely_slow(self, pause_ms: int) -> None:
        async with open_call(make_inference("你好", replies=["好。"]), pause_ms=pause_ms) as call:
            call.speak(SPEECH + make_silence(pause_ms + 100))
            call.clock_ahead_s = 4.7
            await call.wait_for(messages.TurnEnd)

        assert call.list_of(messages.ErrorMessage) == []

    async def test_is_kept_and_not_answered_when_the_user_says_something_new(self) -> None:
        # What it answers depends on what it is asked: a silent reply to the first words may have been begun.
        inference = make_inference("現在幾點", "算了")
        async with open_call(inference) as call:
            call.speak(UTTERANCE + SPEECH)
            call.clock_ahead_s = 6
            error = await call.wait_for(messages.ErrorMessage)
            call.speak(PAUSE)
            await call.wait_for(messages.TurnEnd)
            await call.wait_until_listening(2)

        assert error.code == ErrorCode.FELL_BEHIND
        assert [(turn.speaker, bool(turn.pcm)) for turn in call.kept] == [
            ("user", True),
            ("user", True),
            ("avatar", True),
        ]
        assert [turn.text for turn in call.kept[:2]] == ["現在幾點", "算了"]
        assert inference.llm.requests[-1] == (Message("user", "現在幾點\n算了"),)

    async def test_of_a_key_that_was_held_counts_from_its_release(self) -> None:
        inference = make_inference("一", "二", "三", replies=["好。", "是。"])
        async with open_call(inference) as call:
            call.send(HOLDING)
            # Ten seconds of silence before the release are not the machine's.
            call.speak(SPEECH + make_silence(10_000))
            call.clock_ahead_s = 10
            call.send(messages.AudioEndMessage())
            await call.wait_for(messages.TurnEnd)
            await call.wait_until_listening()
            assert call.list_of(messages.ErrorMessage) == []
            call.speak(SPEECH)
            call.send(messages.AudioEndMessage())
            call.clock_ahead_s += 6
            call.speak(make_silence(20))
            error = await call.wait_for(messages.ErrorMessage)
            await call.wait_until_listening(2)

        assert error.code == ErrorCode.FELL_BEHIND
        assert [turn.text for turn in call.kept] == ["一", "好。", "二"]


class TestUpload:
    async def test_is_heard_as_one_utterance_pauses_and_all(self) -> None:
        inference = make_inference("你好")
        data = SPEECH + make_silence(2000) + SPEECH + make_silence(2000)
        async with open_call(inference) as call:
            call.send(messages.AudioChunkMessage(b"RIFF"))
            call.send(messages.AudioChunkMessage(data))
            call.send(messages.AudioEndMessage())
            await call.wait_until_listening()
            call.speak(UTTERANCE)
            await call.wait_for(messages.TurnEnd, count=2)

        assert len([m for m in call.list_of(messages.Transcription) if m.is_final]) == 2

    async def test_of_two_formats_is_refused(self) -> None:
        async with open_call(make_inference()) as call:
            call.send(messages.AudioChunkMessage(b"RIFF"))

            with pytest.raises(ProtocolError, match="UNSUPPORTED_FORMAT"):
                call.send(messages.AudioChunkMessage(b"1234", AudioFormat.WEBM))


class TestTypedTurn:
    async def test_is_answered(self) -> None:
        async with open_call(make_inference(replies=[REPLY])) as call:
            call.send(messages.TextMessage(" 你好 "))
            end = await call.wait_for(messages.TurnEnd)
            await call.wait_until_listening()

        assert end.latency_ms.stt is None
        assert end.latency_ms.ttfa is not None
        assert [(turn.speaker, turn.text, bool(turn.pcm)) for turn in call.kept] == [
            ("user", "你好", False),
            ("avatar", REPLY, True),
        ]

    async def test_is_refused_while_replying(self) -> None:
        inference = make_inference(replies=[REPLY])
        inference.llm.hold_after(1)
        async with open_call(inference) as call:
            call.send(messages.TextMessage("你好"))
            call.send(messages.TextMessage("喂"))
            error = await call.wait_for(messages.ErrorMessage)
            inference.llm.release()
            await call.wait_for(messages.TurnEnd)

        assert error.code == ErrorCode.ALREADY_PROCESSING
        assert len(inference.llm.requests) == 1

    async def test_wins_over_what_is_being_said(self) -> None:
        inference = make_inference("算了", replies=[REPLY])
        async with open_call(inference) as call:
            call.speak(SPEECH)
            await call.wait_for(messages.Status)
            call.send(messages.TextMessage("你好"))
            await call.wait_for(messages.TurnEnd)

        assert [request[-1].content for request in inference.llm.requests] == ["你好"]


class TestCorrecting:
    async def test_puts_what_was_meant_in_the_place_of_what_was_heard(self) -> None:
        inference = make_inference("名天天氣", "謝謝", replies=["我不懂", "不客氣", "晴天"])
        async with open_call(inference) as call:
            for number in (1, 2):
                call.speak(UTTERANCE)
                await call.wait_for(messages.TurnEnd, count=number)
                await call.wait_until_listening(number)
            first = next(m for m in call.list_of(messages.Transcription) if m.is_final)
            call.send(messages.CorrectMessage(first.turn_id, " 明天天氣 "))
            end = await call.wait_for(messages.TurnEnd, count=3)
            await call.wait_until_listening(3)

        assert call.list_of(messages.Corrected) == [messages.Corrected(first.turn_id, "明天天氣", "zh")]
        assert end.user_turn_id == first.turn_id
        asked = ["明天天氣\n（提示：你查不到天氣，請對方看氣象預報）"]
        assert [message.content for message in inference.llm.requests[-1]] == asked
        assert [(turn.turn_id, turn.text) for turn in call.corrected] == [(first.turn_id, "明天天氣")]
        assert [turn.text for turn in call.kept] == ["名天天氣", "我不懂", "謝謝", "不客氣", "晴天"]

    async def test_is_refused_while_replying(self) -> None:
        inference = make_inference(replies=[REPLY])
        inference.llm.hold_after(1)
        async with open_call(inference) as call:
            call.send(messages.TextMessage("你好"))
            said = await call.wait_for(messages.Transcription)
            call.send(messages.CorrectMessage(said.turn_id, "您好"))
            error = await call.wait_for(messages.ErrorMessage)
            inference.llm.release()
            await call.wait_for(messages.TurnEnd)

        assert error.code == ErrorCode.ALREADY_PROCESSING
        assert call.corrected == []

    async def test_keeps_what_was_heard_of_an_answer_that_was_stopped_for_it(self) -> None:
        inference = make_inference(replies=[REPLY, "好"], ms_per_character=100)
        async with open_call(inference) as call:
            call.send(messages.TextMessage("名天"))
            said = await call.wait_for(messages.Transcription)
            await call.wait_for(messages.TtsReady)
            call.send(messages.InterruptMessage())
            call.send(messages.CorrectMessage(said.turn_id, "明天"))
            await call.wait_for(messages.TurnEnd, count=2)

        assert [message.content for message in inference.llm.requests[-1]] == ["明天"]

    async def test_is_refused_for_what_the_avatar_said_and_for_blanks(self) -> None:
        async with open_call(make_inference(replies=["好"])) as call:
            call.send(messages.TextMessage("你好"))
            end = await call.wait_for(messages.TurnEnd)
            await call.wait_until_listening()
            for turn_id, text in ((end.turn_id, "x"), (uuid4(), "x"), (end.user_turn_id, "  ")):
                call.send(messages.CorrectMessage(turn_id, text))
            await call.wait_for(messages.ErrorMessage, count=3)

        assert {error.code for error in call.list_of(messages.ErrorMessage)} == {ErrorCode.VALIDATION_ERROR}
        assert call.corrected == []


class TestLimits:
    async def test_of_seconds_drops_the_utterance_and_the_session_lives(self) -> None:
        inference = make_inference("你好")
        async with open_call(inference, max_utterance_s=2) as call:
            call.send(HOLDING)
            call.speak(make_tone(2000))
            await call.until(lambda: inference.stt.heard_bytes == 64_000)
            assert call.list_of(messages.ErrorMessage) == []
            call.speak(make_tone(20))
            error = await call.wait_for(messages.ErrorMessage)
            call.speak(SPEECH)
            call.send(messages.AudioEndMessage())
            await call.wait_for(messages.TurnEnd)

        assert error.code == ErrorCode.BUFFER_LIMIT_EXCEEDED
        assert call.kept[0].duration_ms < 1000

    async def test_of_seconds_counts_only_speech_when_hands_free(self) -> None:
        async with open_call(make_inference("你好"), max_utterance_s=2) as call:
            call.speak(make_silence(5000) + make_tone(1900) + PAUSE)
            await call.wait_for(messages.TurnEnd)

        assert call.list_of(messages.ErrorMessage) == []

    async def test_of_seconds_holds_when_hands_free(self) -> None:
        async with open_call(make_inference("你好"), max_utterance_s=2) as call:
            call.speak(make_silence(1000) + make_tone(400))
            await call.wait_for(messages.Status)
            call.speak(make_tone(1700))
            error = await call.wait_for(messages.ErrorMessage)
            await call.wait_until_listening()

        assert error.code == ErrorCode.BUFFER_LIMIT_EXCEEDED

    async def test_of_chunks_counts_messages(self) -> None:
        async with open_call(make_inference("你好"), max_utterance_chunks=5) as call:
            call.send(HOLDING)
            for _ in range(5):
                call.send(messages.AudioChunkMessage(make_tone(100)))
            call.send(messages.AudioEndMessage())
            await call.wait_until_listening()
            assert call.list_of(messages.ErrorMessage) == []
            for _ in range(6):
                call.send(messages.AudioChunkMessage(make_tone(100)))
            error = await call.wait_for(messages.ErrorMessage)

        assert error.code == ErrorCode.BUFFER_LIMIT_EXCEEDED

    async def test_of_bytes_counts_uploads(self) -> None:
        async with open_call(make_inference("你好"), max_utterance_bytes=1000) as call:
            call.send(messages.AudioChunkMessage(b"RIFF" + bytes(996)))
            await asyncio.sleep(0)
            assert call.list_of(messages.ErrorMessage) == []
            call.send(messages.AudioChunkMessage(b"1"))
            error = await call.wait_for(messages.ErrorMessage)

        assert error.code == ErrorCode.BUFFER_LIMIT_EXCEEDED

    async def test_of_requests_ends_the_call(self) -> None:
        inference = make_inference()
        call = Call(inference)

        for _ in range(256):
            call.send(messages.InterruptMessage())

        with pytest.raises(CallOverrun):
            call.send(messages.InterruptMessage())

    async def test_of_answers_that_are_not_read_ends_the_call_and_records_what_was_said(self) -> None:
        inference = make_inference(replies=[REPLY])
        call = Call(inference)
        # The client reads one message, and none after it.
        call.send_s = dict.fromkeys((messages.ErrorMessage, messages.Transcription, messages.Status), 1e6)
        running = asyncio.create_task(call.runner.run())
        await asyncio.sleep(0.1)

        for _ in range(300):
            call.send(messages.TextMessage(" "))
        call.send(messages.TextMessage("你好"))

        with pytest.raises(ExceptionGroup) as failure:
            await running
        assert failure.group_contains(CallOverrun)
        assert [turn.text for turn in call.kept if turn.speaker == "user"] == ["你好"]


class TestVoiceInUse:
    async def test_is_not_one_that_was_chosen_and_given_up_for_it(self) -> None:
        call = Call(make_inference(), voice=(alices := Voice(uuid4(), "alice")))
        bobs = Voice(uuid4(), "bob")
        call.voices |= {each.profile_id: each for each in (alices, bobs)}
        call.find_s = 1.0
        running = asyncio.create_task(call.runner.run())
        await asyncio.sleep(0.1)

        call.send(messages.ConfigureMessage(voice_profile_id=bobs.profile_id))
        call.send(messages.ConfigureMessage(voice_profile_id=alices.profile_id))
        await asyncio.sleep(2)

        assert call.runner.voice is alices
        call.send(messages.ConfigureMessage(voice_profile_id=bobs.profile_id))
        await asyncio.sleep(2)
        assert call.runner.voice is bobs
        running.cancel()
        await asyncio.wait([running])


class TestFailures:
    async def test_of_recognition_is_told_once_and_the_next_turn_works(self) -> None:
        inference = make_inference("你好", replies=[REPLY])
        inference.stt.start_outage()
        async with open_call(inference) as call:
            for _ in range(3):
                started = inference.stt.calls.started
                call.speak(SPEECH)
                await call.until(lambda started=started: inference.stt.calls.started > started)
            await call.wait_for(messages.ErrorMessage)
            inference.stt.end_outage()
            await call.until(lambda: inference.stt.calls.active == 1 or call.speak(make_silence(20)))
            call.speak(UTTERANCE)
            await call.wait_for(messages.TurnEnd)

        assert [m.code for m in call.list_of(messages.ErrorMessage)] == [ErrorCode.INFERENCE_UNAVAILABLE]

    async def test_of_recognition_in_mid_speech_forgets_the_utterance(self) -> None:
        inference = make_inference("你好")
        async with open_call(inference) as call:
            call.speak(SPEECH)
            await call.wait_for(messages.Status)
            inference.stt.start_outage()
            error = await call.wait_for(messages.ErrorMessage)
            await call.wait_until_listening()

        assert error.code == ErrorCode.INFERENCE_UNAVAILABLE

    async def test_of_recognition_is_told_for_each_utterance_that_was_held(self) -> None:
        inference = make_inference("你好")
        inference.stt.start_outage()
        async with open_call(inference) as call:
            call.send(HOLDING)
            for count in (1, 2):
                call.speak(SPEECH)
                call.send(messages.AudioEndMessage())
                await call.wait_for(messages.ErrorMessage, count=count)

        assert {m.code for m in call.list_of(messages.ErrorMessage)} == {ErrorCode.INFERENCE_UNAVAILABLE}

    async def test_of_a_transcript_that_never_comes_is_noticed(self) -> None:
        inference = make_inference("你好", recognition_s=60)
        async with open_call(inference, transcript_s=0.05) as call:
            call.send(HOLDING)
            call.speak(SPEECH)
            call.send(messages.AudioEndMessage())
            error = await call.wait_for(messages.ErrorMessage)

        assert error.code == ErrorCode.INFERENCE_UNAVAILABLE

    async def test_of_a_second_transcript_that_never_comes_is_noticed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        inference = make_inference("你好", "再見")
        durations = iter([0.2, 0.2, 60, 60])  # read twice each: whether to wait, and how long
        monkeypatch.setattr(type(inference.stt), "recognition_s", property(lambda _: next(durations)), raising=False)
        async with open_call(inference, transcript_s=1.0) as call:
            call.send(HOLDING)
            for _ in range(2):
                call.speak(SPEECH)
                call.send(messages.AudioEndMessage())
            error = await call.wait_for(messages.ErrorMessage)

        assert error.code == ErrorCode.INFERENCE_UNAVAILABLE
        assert [said.text for said in call.list_of(messages.Transcription) if said.is_final] == ["你好"]

    async def test_of_a_transcript_that_never_comes_is_noticed_when_hands_free(self) -> None:
        inference = make_inference("你好", recognition_s=60)
        async with open_call(inference, transcript_s=1.0) as call:
            call.speak(SPEECH)
            await call.wait_for(messages.Status)
            call.speak(make_silence(900))
            assert call.list_of(messages.ErrorMessage) == []
            call.speak(make_silence(200))
            error = await call.wait_for(messages.ErrorMessage)
            await call.wait_until_listening()

        assert error.code == ErrorCode.INFERENCE_UNAVAILABLE

    @pytest.mark.parametrize(
        ("failure", "code"),
        [
            (InferenceUnavailable("away"), ErrorCode.INFERENCE_UNAVAILABLE),
            (InferenceError("broken"), ErrorCode.PROCESSING_ERROR),
        ],
    )
    async def test_of_thinking_in_mid_reply_keeps_what_was_said(self, failure: InferenceError, code: ErrorCode) -> None:
        inference = make_inference(replies=[REPLY, "好。"])
        inference.llm.fail_next(failure, after_tokens=10)
        async with open_call(inference) as call:
            call.send(messages.TextMessage("你好"))
            end = await call.wait_for(messages.TurnEnd)
            await call.wait_until_listening()
            call.send(messages.TextMessage("再一次"))
            await call.wait_for(messages.TurnEnd, count=2)

        error = call.list_of(messages.ErrorMessage)[0]
        assert (error.code, error.turn_id) == (code, end.turn_id)
        assert call.kept[1].text == REPLY[:10]
        assert call.kept[1].pcm

    async def test_of_thinking_at_once_keeps_the_users_words(self) -> None:
        inference = make_inference()
        inference.llm.start_outage()
        async with open_call(inference) as call:
            call.send(messages.TextMessage("你好"))
            error = await call.wait_for(messages.ErrorMessage)
            await call.wait_until_listening()

        assert error.code == ErrorCode.INFERENCE_UNAVAILABLE
        assert [turn.speaker for turn in call.kept] == ["user"]

    async def test_of_thinking_that_says_nothing_is_noticed(self) -> None:
        inference = make_inference(replies=[REPLY])
        inference.llm.hold_after(0)
        async with open_call(inference, reply=ReplyLimits(first_token_s=0.05)) as call:
            call.send(messages.TextMessage("你好"))
            error = await call.wait_for(messages.ErrorMessage)
            await call.wait_until_listening()

        assert error.code == ErrorCode.INFERENCE_UNAVAILABLE

    async def test_of_speaking_still_delivers_the_text(self) -> None:
        inference = make_inference(replies=[REPLY])
        inference.tts.start_outage()
        async with open_call(inference) as call:
            call.send(messages.TextMessage("你好"))
            end = await call.wait_for(messages.TurnEnd)
            await call.wait_until_listening()

        assert [m.code for m in call.list_of(messages.ErrorMessage)] == [ErrorCode.INFERENCE_UNAVAILABLE]
        assert read_text(call, end.turn_id) == REPLY
        assert call.kept[-1].text == REPLY
        assert call.list_of(messages.TtsReady) == []

    async def test_that_nobody_expected_ends_the_call(self) -> None:
        inference = make_inference(replies=[REPLY])
        inference.tts.fail_next(ZeroDivisionError())
        call = Call(inference)
        task = asyncio.create_task(call.runner.run())
        call.send(messages.TextMessage("你好"))

        with pytest.raises(ExceptionGroup):
            await asyncio.wait_for(task, 5)
        assert inference.active_calls == 0


class TestHangingUp:
    async def test_in_mid_reply_leaves_nothing_and_keeps_what_was_heard(self) -> None:
        inference = make_inference("你好", replies=[REPLY], ms_per_character=100)
        async with open_call(inference) as call:
            call.speak(UTTERANCE)
            ready = await call.wait_for(messages.TtsReady)
            await call.until(lambda: sum(map(len, call.list_of(bytes))) >= 48 * 1500)
            call.send(messages.PlaybackMessage(turn_id=ready.turn_id, played_ms=1000))

        assert inference.active_calls == 0
        assert [turn.speaker for turn in call.kept] == ["user", "avatar"]
        assert call.kept[1].was_interrupted
        assert REPLY.startswith(call.kept[1].text)

    async def test_while_speculating_leaves_nothing(self) -> None:
        inference = make_inference("你好", replies=[REPLY])
        inference.llm.hold_after(1)
        async with open_call(inference) as call:
            call.speak(SPEECH + make_silence(300))
            await asyncio.wait_for(inference.llm.is_holding.wait(), 5)

        assert inference.active_calls == 0
        assert call.kept == []


class TestKeepingOfAReply:
    async def test_begins_with_its_first_sound_and_goes_on_with_its_clauses(self) -> None:
        inference = make_inference(replies=[REPLY], ms_per_character=20)
        async with open_call(inference) as call:
            call.send(messages.TextMessage("你好"))
            await call.until(lambda: call.begun)
            assert [turn.speaker for turn in call.kept] == ["user"]
            begun = call.begun[0]
            await call.wait_until_listening()

        assert isinstance(begun, BegunTurn)
        texts = [turn.text for turn in call.begun if isinstance(turn, BegunTurn)]
        assert len(texts) > 2
        assert all(REPLY.startswith(text) for text in texts)
        assert [len(text) for text in texts] == sorted({len(text) for text in texts})
        assert {turn.turn_id for turn in call.begun} == {begun.turn_id} == {call.kept[1].turn_id}

    async def test_is_taken_back_when_nothing_of_it_was_heard(self) -> None:
        # Its first character takes longer to say than a person takes to interrupt.
        inference = make_inference(replies=[REPLY], ms_per_character=5000)
        async with open_call(inference) as call:
            call.send(messages.TextMessage("你好"))
            ready = await call.wait_for(messages.TtsReady)
            call.send(messages.InterruptMessage())
            await call.wait_for(messages.Interrupted)
            await call.wait_until_listening()

        assert call.begun[-1] == DroppedTurn(ready.turn_id)
        assert [turn.speaker for turn in call.kept] == ["user"]


class TestConfiguring:
    async def test_reaches_the_recogniser(self) -> None:
        inference = make_inference("你好")
        async with open_call(inference) as call:
            call.speak(make_silence(100))
            await call.until(lambda: inference.stt.options_seen)
            call.send(messages.ConfigureMessage(pause_ms=300, language="en", sensitivity=0.7))
            await call.until(lambda: len(inference.stt.options_seen) == 2)

        assert inference.stt.options_seen[1] == replace(
            TranscriptionOptions(), pause_ms=300, language="en", sensitivity=0.7
        )

    async def test_of_an_unknown_voice_is_refused_and_changes_nothing(self) -> None:
        inference = make_inference(replies=["好。"])
        async with open_call(inference) as call:
            call.send(messages.ConfigureMessage(voice_profile_id=uuid4(), speed=1.5))
            error = await call.wait_for(messages.ErrorMessage)
            call.send(messages.TextMessage("你好"))
            await call.wait_for(messages.TurnEnd)

        assert error.code == ErrorCode.VOICE_GONE
        ((_, options),) = inference.tts.requests
        assert (options.voice, options.speed) == ("", 1.5)


LONG_REPLY = (
    "第一句話要說得很長才行，這樣才聽得到。第二句話也是一樣長，慢慢地說。第三句話也要很長，才能換人說。第四句。"
)


class TestVoiceThatChanges:
    async def test_is_left_at_the_next_clause_when_it_is_deleted(self) -> None:
        inference = make_inference(replies=[LONG_REPLY], ms_per_character=50)
        voice = Voice(uuid4(), "zm_yunxi")
        async with open_call(inference, voice=voice) as call:
            call.voices[voice.profile_id] = voice
            call.send(messages.TextMessage("你好"))
            await call.wait_for(messages.TtsReady)
            del call.voices[voice.profile_id]
            call.runner.notify_voice(voice.profile_id)
            await call.wait_until_listening()

        spoken = [options.voice for _, options in inference.tts.requests]
        assert (spoken[0], spoken[-1]) == ("zm_yunxi", "")
        (error,) = call.list_of(messages.ErrorMessage)
        assert (error.code, error.voice_profile_id) == (ErrorCode.VOICE_GONE, voice.profile_id)
        # The turn was partly spoken in it: that is not to be forgotten.
        assert call.kept[-1].voice_profile_id == voice.profile_id

    async def test_is_not_heard_again_when_it_was_deleted_between_replies(self) -> None:
        inference = make_inference(replies=["好。"])
        voice = Voice(uuid4(), "zm_yunxi")
        async with open_call(inference, voice=voice) as call:
            call.runner.notify_voice(voice.profile_id)
            await call.wait_for(messages.ErrorMessage)
            call.send(messages.TextMessage("你好"))
            await call.wait_until_listening()

        assert [options.voice for _, options in inference.tts.requests] == [""]
        assert call.kept[-1].voice_profile_id is None

    async def test_sounds_as_it_was_remade_from_the_next_clause_on(self) -> None:
        inference = make_inference(replies=[LONG_REPLY], ms_per_character=50)
        voice = Voice(uuid4(), "zm_yunxi", version=1)
        async with open_call(inference, voice=voice) as call:
            call.voices[voice.profile_id] = voice
            call.send(messages.TextMessage("你好"))
            await call.wait_for(messages.TtsReady)
            call.voices[voice.profile_id] = replace(voice, style=bytes(1024), version=2)
            call.runner.notify_voice(voice.profile_id)
            await call.wait_until_listening()

        spoken = [options.style for _, options in inference.tts.requests]
        assert (spoken[0], spoken[-1]) == (b"", bytes(1024))
        assert call.list_of(messages.ErrorMessage) == []
        assert call.kept[-1].voice_profile_id == voice.profile_id

    async def test_that_cannot_be_read_now_leaves_the_one_before(self) -> None:
        inference = make_inference(replies=["好。"])
        async with open_call(inference) as call:
            call.is_storage_away = True
            call.send(messages.ConfigureMessage(voice_profile_id=uuid4()))
            error = await call.wait_for(messages.ErrorMessage)
            call.send(messages.TextMessage("你好"))
            await call.wait_for(messages.TurnEnd)

        assert (error.code, error.voice_profile_id) == (ErrorCode.PROCESSING_ERROR, None)


class TestParallelCalls:
    async def test_never_mix(self) -> None:
        inference = make_inference()
        inference.tts = FakeTextToSpeech(ms_per_character=5)

        async def hold(name: str) -> Call:
            async with open_call(make_inference(f"我是{name}號"), history=[]) as call:
                call.speak(UTTERANCE)
                await call.wait_until_listening()
                return call

        calls = await asyncio.gather(*(hold(name) for name in "甲乙丙丁戊"))

        for name, call in zip("甲乙丙丁戊", calls, strict=True):
            assert name in call.kept[1].text, describe(call.sent)
