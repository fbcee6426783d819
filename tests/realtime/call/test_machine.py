"""The call's decisions, without an event loop: most of these were tests of a running call."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest

from inference.interfaces import (
    DiscardUtterance,
    EndOfUtterance,
    InferenceError,
    InferenceUnavailable,
    Message,
    PartialTranscript,
    ProvisionalTranscript,
    Quality,
    SpeechResumed,
    TranscriptionOptions,
)
from realtime import messages
from realtime.call import events
from realtime.call.events import Input
from realtime.call.turn_state import TRANSITIONS, Action, Cue, State
from realtime.call.turns import BegunTurn, CorrectedTurn, DroppedTurn, PastTurn, SaidTurn
from realtime.call.utterance import AudioDecodingError, AudioTooLong
from realtime.call.voice import Voice, VoiceUnreadable
from realtime.messages import AudioFormat, ErrorCode, ProtocolError, Stage
from tests.fakes import make_silence, make_tone
from tests.realtime.call.script import FRAME, HOLDING, Script, describe, list_of

VOICE = Voice(UUID(int=77), "zm_yunxi", version=1)
AWAY = InferenceUnavailable("away")


def make_script(state: State, **settings: Any) -> Script:
    """A call in this state."""
    script = Script(**settings)
    if state is State.USER_SPEAKING:
        script.feed(events.SpeechBegan(300))
    elif state is State.REPLYING:
        script.feed(messages.TextMessage("早安"))
    return script


#: What makes each cue happen.
INPUTS: dict[Cue, Callable[[Script], list[Input]]] = {
    Cue.SPEECH_BEGAN: lambda _: [events.SpeechBegan(300)],
    Cue.HELD_SPEECH_BEGAN: lambda _: [HOLDING, events.SpeechBegan(300)],
    Cue.PAUSED: lambda _: [ProvisionalTranscript("你好", "zh")],
    Cue.RESUMED: lambda _: [SpeechResumed()],
    Cue.FINISHED: lambda script: [script.transcribe("你好")],
    Cue.FINISHED_EMPTY: lambda script: [script.transcribe("")],
    Cue.FINISHED_OVERTAKEN: lambda script: [
        script.transcribe("你好", ended_at=script.now - 10, speech=make_tone(600), newer=make_tone(600))
    ],
    Cue.LOST: lambda _: [events.RecognitionFailed(AWAY, is_news=False)],
    Cue.TYPED: lambda _: [messages.TextMessage("你好")],
    Cue.END_REQUESTED: lambda _: [FRAME, messages.AudioEndMessage()],
    Cue.INTERRUPT_REQUESTED: lambda _: [messages.InterruptMessage()],
    Cue.REPLY_ENDED: lambda script: [events.ReplyEnded(script.report())],
}
HEARD = ["CancelReply", "say: Interrupted", "say: LlmResponse", "say: TurnEnd", "record: SaidTurn"]
#: What is done, for each action of the table. There is no speculation before any of these.
DONE: dict[Action | None, list[str]] = {
    None: [],
    Action.ANNOUNCE_SPEECH: ["say: speaking"],
    Action.BARGE_IN: [*HEARD, "say: speaking"],
    Action.SPECULATE: ["StopPrefill", "StartReply"],
    Action.DROP_SPECULATION: [],
    Action.ANSWER: ["say: Transcription", "StopPrefill", "StartReply", "CommitReply", "record: SaidTurn"],
    Action.REPORT_NOTHING_HEARD: ["say: Transcription", "say: listening"],
    Action.LEAVE_UNANSWERED: ["say: Transcription", "say: FELL_BEHIND", "record: SaidTurn", "say: listening"],
    Action.LISTEN_AGAIN: ["say: listening"],
    Action.ANSWER_TYPED: [
        *("feed: DiscardUtterance", "say: Transcription", "StopPrefill", "StartReply", "CommitReply"),
        "record: SaidTurn",
    ],
    Action.FINISH_UTTERANCE: ["feed: EndOfUtterance", "say: Status"],
    Action.REFUSE: ["say: ALREADY_PROCESSING"],
    Action.STOP_REPLY: [*HEARD, "say: listening", "Prefill"],
    Action.LISTEN: ["record: SaidTurn", "say: listening", "Prefill"],
}


class TestTransitions:
    @pytest.mark.parametrize(("state", "cue"), TRANSITIONS, ids=lambda part: part.value)
    def test_have_their_effects(self, state: State, cue: Cue) -> None:
        script = make_script(state)
        *before, last = INPUTS[cue](script)
        script.feed(*before)

        effects = script.feed(last)

        _, action = TRANSITIONS[state, cue]
        expected = DONE[action]
        if cue is Cue.END_REQUESTED and action is Action.REFUSE:
            expected = ["feed: DiscardUtterance", *expected]
        assert describe(effects) == expected

    def test_never_leave_a_speculation_beside_a_reply(self) -> None:
        """Every reply that is started is committed or cancelled before another one is."""
        chance = random.Random(11)
        for _ in range(300):
            script = Script()
            running: set[UUID] = set()
            for cue in chance.choices(list(Cue), k=12):
                for event in INPUTS[cue](script):
                    for effect in script.feed(event):
                        match effect:
                            case events.StartReply(turn_id=turn_id):
                                running.add(turn_id)
                            case events.CancelReply(turn_id=turn_id):
                                running.remove(turn_id)
                    if isinstance(event, events.ReplyEnded):
                        running.discard(event.report.turn_id)
                    assert len(running) <= 1


class TestSpokenTurn:
    def test_is_answered_once_around(self) -> None:
        script = Script()

        script.say("今天天氣如何", pcm=b"1234")
        script.end_reply()

        user, avatar = script.recorded
        assert isinstance(user, SaidTurn)
        assert isinstance(avatar, SaidTurn)
        assert (user.speaker, user.text, user.pcm) == ("user", "今天天氣如何", b"1234")
        assert (avatar.speaker, avatar.text, avatar.was_interrupted) == ("avatar", "好的。", False)
        assert avatar.latency == {"stt": None, "ttft": None, "ttfa": None, "total": None}
        (final,) = script.list_sent(messages.Transcription)
        (end,) = script.list_sent(messages.TurnEnd)
        assert end.user_turn_id == final.turn_id == user.turn_id != end.turn_id == avatar.turn_id

    def test_counts_latency_from_the_end_of_speech(self) -> None:
        script = Script()

        script.say("你好", ended_at=script.now - 0.85)

        (commit,) = script.list_of(events.CommitReply)
        assert (commit.asked_at, commit.stt_ms) == (script.now - 0.85, 850)

    def test_gives_the_model_the_conversation(self) -> None:
        history = [PastTurn(uuid4(), Message("user", "嗨")), PastTurn(uuid4(), Message("assistant", "嗨，你好。"))]
        script = Script(history)

        script.say("再見")
        script.end_reply()
        script.say("下次見")

        assert [message.content for message in script.read_prompt()] == ["嗨", "嗨，你好。", "再見", "好的。", "下次見"]

    def test_gives_the_model_no_more_than_it_takes(self) -> None:
        script = Script([PastTurn(uuid4(), Message("user", str(n))) for n in range(9)], max_history_messages=2)

        script.say("你好")

        assert [message.content for message in script.read_prompt()] == ["7", "8", "你好"]

    def test_shows_each_partial_transcript_once_and_reads_it_ahead(self) -> None:
        script = Script()
        script.feed(events.SpeechBegan(300))

        effects = script.feed(*(PartialTranscript(text, "zh") for text in ("今天", " 今天 ", "", "今天天氣")))

        assert describe(effects) == ["say: Transcription", "Prefill"] * 2
        assert [each.text for each in list_of(events.Prefill, effects)] == ["今天", "今天天氣"]


class TestSpeculation:
    @pytest.mark.parametrize(
        ("provisional", "final"),
        [
            ("What's the time", "What's the time?"),
            ("what's  the time", "What’s the time？"),
            ("你好 嗎", "你好嗎？"),
            ("ＡＢＣ", "abc"),
            ("一，二", "一、二。"),
        ],
    )
    def test_is_committed_when_only_punctuation_case_or_width_differ(self, provisional: str, final: str) -> None:
        script = Script()

        script.say(final, provisional=provisional)

        (start,) = script.list_of(events.StartReply)
        assert [commit.turn_id for commit in script.list_of(events.CommitReply)] == [start.turn_id]
        assert script.list_of(events.CancelReply) == []
        # What is recorded and remembered is the final text.
        (user,) = script.recorded
        assert isinstance(user, SaidTurn)
        assert user.text == final
        script.end_reply()
        script.say("再見")
        assert script.read_prompt()[0].content == final

    @pytest.mark.parametrize(
        ("provisional", "final"),
        [
            ("What's the time", "What's the date?"),
            ("我想睡", "我想睡覺"),
            ("It is 3.5", "It is 35"),
            ("負 -5", "負 5"),
            ("12:30", "1230"),
            ("50", "50%"),
            ("5 + 3", "5 - 3"),
            ("?", "!"),
        ],
    )
    def test_is_made_again_when_the_words_differ(self, provisional: str, final: str) -> None:
        script = Script()

        script.say(final, provisional=provisional)

        first, second = script.list_of(events.StartReply)
        assert [each.turn_id for each in script.list_of(events.CancelReply)] == [first.turn_id]
        assert [each.turn_id for each in script.list_of(events.CommitReply)] == [second.turn_id]
        assert second.text == final

    def test_is_kept_when_the_same_words_are_provisional_twice(self) -> None:
        script = Script()
        script.feed(events.SpeechBegan(300), ProvisionalTranscript("你好", "zh"))

        assert script.feed(ProvisionalTranscript("你好。", "zh")) == []

    def test_is_dropped_once_when_the_user_goes_on(self) -> None:
        script = Script()
        script.feed(events.SpeechBegan(300), ProvisionalTranscript("我想", "zh"))

        assert describe(script.feed(SpeechResumed())) == ["CancelReply"]
        assert script.feed(SpeechResumed()) == []

    def test_is_dropped_when_the_utterance_is_lost(self) -> None:
        script = Script()
        script.feed(events.SpeechBegan(300), ProvisionalTranscript("我想", "zh"))

        effects = script.feed(events.RecognitionFailed(AWAY, is_news=True))

        assert describe(effects) == ["say: INFERENCE_UNAVAILABLE", "CancelReply", "say: listening"]

    def test_that_failed_is_made_again_and_not_reported(self) -> None:
        script = Script()
        script.feed(events.SpeechBegan(300), ProvisionalTranscript("你好", "zh"))
        (failed,) = script.list_of(events.StartReply)

        effects = script.feed(events.ReplyFailed(failed.turn_id, Stage.LLM, AWAY), script.transcribe("你好"))

        assert script.list_sent(messages.ErrorMessage) == []
        assert len(list_of(events.StartReply, effects)) == 1


class TestBargeIn:
    def test_records_and_remembers_what_was_heard(self) -> None:
        script = Script()
        script.say("你好")

        script.feed(events.SpeechBegan(300))

        (interrupted,) = script.list_sent(messages.Interrupted)
        (heard,) = script.list_sent(messages.LlmResponse)
        (end,) = script.list_sent(messages.TurnEnd)
        avatar = script.recorded[-1]
        assert isinstance(avatar, SaidTurn)
        assert (heard.text, heard.is_final, heard.was_interrupted, end.was_interrupted) == ("好的", True, True, True)
        assert (avatar.text, avatar.was_interrupted) == ("好的", True)
        assert avatar.duration_ms == interrupted.heard_ms == 400
        script.feed(script.transcribe("停"))
        assert [message.content for message in script.read_prompt()] == ["你好", "好的", "停"]

    def test_before_any_sound_records_nothing_of_the_reply(self) -> None:
        script = Script()
        script.heard_text = ""
        script.say("我想去")

        script.feed(events.SpeechBegan(300), script.transcribe("看電影"))

        assert [turn.text for turn in script.recorded if isinstance(turn, SaidTurn)] == ["我想去", "看電影"]

    def test_after_everything_was_sent_ends_the_turn_only_once(self) -> None:
        script = Script()
        script.say("你好")
        script.feed(events.ReplySent(script.report()))

        script.feed(messages.InterruptMessage())

        assert len(script.list_sent(messages.TurnEnd)) == 1

    def test_takes_back_what_was_begun_and_not_heard(self) -> None:
        script = Script()
        script.heard_text = ""
        script.say("你好")
        (start,) = script.list_of(events.StartReply)
        script.feed(events.ClauseBegan(start.turn_id, "好的。", (None,)))

        script.feed(messages.InterruptMessage())

        assert script.recorded[1:] == [BegunTurn(start.turn_id, "好的。", "zh"), DroppedTurn(start.turn_id)]

    def test_does_not_happen_in_hold_to_talk(self) -> None:
        script = make_script(State.REPLYING)

        assert describe(script.feed(HOLDING, events.SpeechBegan(300))) == ["feed: TranscriptionOptions"]


class TestKeepingOfAReply:
    def test_begins_with_its_first_sound_and_says_nothing_twice(self) -> None:
        script = Script()
        script.say("你好")
        (start,) = script.list_of(events.StartReply)

        for text in ("好的。", "好的。", "好的。沒問題。"):
            script.feed(events.ClauseBegan(start.turn_id, text, (None,)))

        assert [turn.text for turn in script.recorded[1:]] == ["好的。", "好的。沒問題。"]  # type: ignore[union-attr]

    @pytest.mark.parametrize(
        ("is_sent", "heard_ms", "was_cut"), [(False, 400, True), (True, 400, True), (True, 1000, False)]
    )
    def test_ends_with_the_call(self, is_sent: bool, heard_ms: int, was_cut: bool) -> None:
        script = Script()
        script.say("你好")
        if is_sent:
            script.feed(events.ReplySent(script.report()))

        (effect,) = script.feed(events.CallEnded(script.report(heard_ms=heard_ms)))

        assert isinstance(effect, events.Record)
        assert isinstance(effect.turn, SaidTurn)
        assert (effect.turn.was_interrupted, effect.turn.text) == (was_cut, "好的" if was_cut else "好的。")

    def test_has_nothing_to_keep_when_a_call_ends_in_silence(self) -> None:
        assert Script().feed(events.CallEnded(None)) == []


class TestHoldToTalk:
    def test_without_audio_is_an_error(self) -> None:
        script = Script()

        assert describe(script.feed(HOLDING, messages.AudioEndMessage())) == [
            "feed: TranscriptionOptions",
            "say: NO_AUDIO_DATA",
        ]

    def test_puts_the_end_between_the_frames_of_two_utterances(self) -> None:
        script = Script()
        script.feed(HOLDING)

        effects = script.feed(FRAME, FRAME, FRAME, messages.AudioEndMessage(), FRAME, FRAME)

        order = [each for each in describe(effects) if not each.startswith("say")]
        assert order == ["FeedAudio"] * 3 + ["feed: EndOfUtterance"] + ["FeedAudio"] * 2

    def test_puts_the_end_in_order_when_a_voice_comes_with_it(self) -> None:
        script = Script()
        script.feed(HOLDING)

        effects = script.feed(FRAME, messages.AudioEndMessage(voice_profile_id=VOICE.profile_id), FRAME)

        order = [each for each in describe(effects) if not each.startswith("say")]
        assert order == ["FeedAudio", "HoldSpeech", "LookUpVoice", "feed: EndOfUtterance", "FeedAudio"]

    def test_tells_why_an_utterance_was_lost_when_it_ends(self) -> None:
        script = Script()
        script.feed(HOLDING, FRAME, events.RecognitionFailed(AWAY, is_news=False))

        effects = script.feed(messages.AudioEndMessage(), messages.AudioEndMessage())

        assert describe(effects) == ["say: INFERENCE_UNAVAILABLE", "say: NO_AUDIO_DATA"]

    def test_forgets_what_was_received_when_the_mode_changes(self) -> None:
        script = Script()

        effects = script.feed(HOLDING, FRAME, replace_mode(messages.Mode.HANDS_FREE), messages.AudioEndMessage())

        assert describe(effects)[-1] == "say: NO_AUDIO_DATA"


def replace_mode(mode: messages.Mode) -> messages.ConfigureMessage:
    return messages.ConfigureMessage(mode=mode)


class TestUpload:
    def upload(self, script: Script) -> events.Decode:
        script.feed(messages.AudioChunkMessage(b"RIFF"), messages.AudioChunkMessage(b"1234"))
        (decode,) = list_of(events.Decode, script.feed(messages.AudioEndMessage()))
        return decode

    def test_is_put_together_and_heard_as_one_utterance(self) -> None:
        script = Script()

        decode = self.upload(script)
        (fill,) = script.feed(events.UploadDecoded(decode, bytes(600_000)))

        assert (decode.data, decode.format) == (b"RIFF1234", AudioFormat.WAV)
        assert isinstance(fill, events.FillPlace)
        held, *pieces, end, listening = fill.items
        assert (held, end) == (replace(TranscriptionOptions(), endpointing=False), EndOfUtterance())
        assert [len(piece) for piece in pieces if isinstance(piece, bytes)] == [512_000, 88_000]
        assert listening == TranscriptionOptions()

    @pytest.mark.parametrize(
        ("failure", "code"),
        [
            (AudioTooLong(), ErrorCode.BUFFER_LIMIT_EXCEEDED),
            (AudioDecodingError("no audio"), ErrorCode.UNSUPPORTED_FORMAT),
            (TimeoutError(), ErrorCode.PROCESSING_ERROR),
        ],
    )
    def test_that_cannot_be_decoded_is_told(self, failure: Exception, code: ErrorCode) -> None:
        script = Script()

        effects = script.feed(events.UploadDecoded(self.upload(script), failure))

        assert describe(effects) == ["FillPlace", f"say: {code}", "say: listening"]

    def test_is_refused_when_a_reply_begins_meanwhile(self) -> None:
        script = Script()
        decode = self.upload(script)

        effects = script.say("你好")

        assert describe(effects)[:4] == ["say: speaking", "say: Transcription", "FillPlace", "say: ALREADY_PROCESSING"]
        assert script.feed(events.UploadDecoded(decode, b"12")) == []

    def test_is_given_up_when_the_user_types(self) -> None:
        script = Script()
        decode = self.upload(script)

        effects = script.feed(messages.TextMessage("你好"))

        assert describe(effects)[:2] == ["FillPlace", "feed: DiscardUtterance"]
        assert script.feed(events.UploadDecoded(decode, b"12")) == []

    @pytest.mark.parametrize(
        "chunk",
        [
            messages.AudioChunkMessage(b"12", format=AudioFormat.WEBM),
            messages.AudioChunkMessage(b"1", format=AudioFormat.PCM),
        ],
    )
    def test_of_another_format_is_refused_and_changes_nothing(self, chunk: messages.AudioChunkMessage) -> None:
        script = Script()
        script.feed(messages.AudioChunkMessage(b"RIFF"))

        with pytest.raises(ProtocolError, match="UNSUPPORTED_FORMAT"):
            script.feed(chunk)
        (decode,) = list_of(events.Decode, script.feed(messages.AudioEndMessage()))
        assert decode.data == b"RIFF"

    def test_of_half_a_sample_is_refused(self) -> None:
        with pytest.raises(ProtocolError, match="VALIDATION_ERROR"):
            Script().feed(messages.AudioChunkMessage(b"123", format=AudioFormat.PCM))


class TestLimits:
    def test_of_seconds_holds_at_its_edge(self) -> None:
        script = Script(max_utterance_s=2)
        script.feed(HOLDING)

        assert describe(script.feed(*[FRAME] * 100)) == ["FeedAudio"] * 100
        assert describe(script.feed(FRAME)) == [
            "feed: DiscardUtterance",
            "say: BUFFER_LIMIT_EXCEEDED",
            "say: listening",
        ]
        assert describe(script.feed(FRAME)) == ["FeedAudio"]

    def test_of_seconds_counts_only_speech_when_hands_free(self) -> None:
        script = Script(max_utterance_s=2)

        assert describe(script.feed(*[FRAME] * 500)) == ["FeedAudio"] * 500
        script.feed(events.SpeechBegan(300))
        assert "say: BUFFER_LIMIT_EXCEEDED" not in describe(script.feed(*[FRAME] * 85))
        assert "say: BUFFER_LIMIT_EXCEEDED" in describe(script.feed(FRAME))

    def test_of_bytes_counts_uploads(self) -> None:
        script = Script(max_utterance_bytes=1000)

        assert script.feed(messages.AudioChunkMessage(b"RIFF" + bytes(996))) == []
        assert "say: BUFFER_LIMIT_EXCEEDED" in describe(script.feed(messages.AudioChunkMessage(b"1")))

    def test_of_chunks_counts_messages(self) -> None:
        script = Script(max_utterance_chunks=2)
        script.feed(HOLDING)
        chunk = messages.AudioChunkMessage(bytes(640), format=AudioFormat.PCM)

        assert describe(script.feed(chunk, chunk)) == ["FeedAudio"] * 2
        assert "say: BUFFER_LIMIT_EXCEEDED" in describe(script.feed(chunk))


class TestTranscriptThatComesLate:
    def test_is_answered_and_said_to_be_late(self) -> None:
        script = Script()

        effects = script.say("你好", ended_at=script.now - 5.7, speech=make_tone(600), newer=make_silence(2000))

        assert "say: FELL_BEHIND" in describe(effects)
        assert "CommitReply" in describe(effects)

    def test_is_not_late_on_a_machine_that_is_merely_slow(self) -> None:
        script = Script(pause_ms=3000)

        effects = script.say("你好", ended_at=script.now - 7.9, speech=make_tone(600), newer=make_tone(2000))

        assert "say: FELL_BEHIND" not in describe(effects)

    def test_is_remembered_and_not_answered_when_the_user_says_something_new(self) -> None:
        script = Script()
        script.say("現在幾點", ended_at=script.now - 6.7, speech=make_tone(600), newer=make_tone(600))

        script.say("算了")

        assert [turn.text for turn in script.recorded if isinstance(turn, SaidTurn)] == ["現在幾點", "算了"]
        assert [message.content for message in script.read_prompt()] == ["現在幾點", "算了"]

    def test_of_a_key_that_was_held_counts_from_its_release(self) -> None:
        script = Script()
        script.feed(HOLDING, FRAME)
        script.now += 30
        script.feed(messages.AudioEndMessage())

        assert "say: FELL_BEHIND" not in describe(script.feed(script.transcribe("一", ended_at=script.now - 30)))
        script.end_reply()
        script.feed(FRAME, messages.AudioEndMessage())
        script.now += 6
        effects = script.feed(FRAME, script.transcribe("二"))
        assert "say: FELL_BEHIND" in describe(effects)
        assert "CommitReply" not in describe(effects)

    def test_is_not_taken_for_that_of_an_utterance_that_was_lost(self) -> None:
        script = Script()
        script.feed(HOLDING, FRAME, messages.AudioEndMessage(), events.RecognitionFailed(AWAY, is_news=True))
        script.now += 60
        script.feed(FRAME, messages.AudioEndMessage())

        assert "say: FELL_BEHIND" not in describe(script.feed(script.transcribe("你好")))


class TestTypedTurn:
    def test_is_answered_from_when_it_came(self) -> None:
        script = Script()

        script.feed(messages.TextMessage(" 你好 "))

        (commit,) = script.list_of(events.CommitReply)
        assert (commit.asked_at, commit.stt_ms) == (script.now, None)
        (said,) = script.recorded
        assert isinstance(said, SaidTurn)
        assert (said.text, said.pcm) == ("你好", b"")

    def test_of_blanks_is_refused(self) -> None:
        assert describe(Script().feed(messages.TextMessage("  "))) == ["say: VALIDATION_ERROR"]


class TestCorrecting:
    def test_puts_what_was_meant_in_the_place_of_what_was_heard(self) -> None:
        script = Script()
        for text in ("名天天氣", "謝謝"):
            script.say(text)
            script.end_reply()
        first = script.recorded[0].turn_id

        effects = script.feed(messages.CorrectMessage(first, " 明天天氣 "))

        assert describe(effects) == [
            *("feed: DiscardUtterance", "record: CorrectedTurn", "say: Corrected"),
            *("StopPrefill", "StartReply", "CommitReply"),
        ]
        assert script.recorded[-1] == CorrectedTurn(first, "明天天氣")
        assert [message.content for message in script.read_prompt()] == ["明天天氣"]
        assert script.list_of(events.StartReply)[-1].user_turn_id == first

    @pytest.mark.parametrize("text", ["x", "  "])
    def test_is_refused_for_what_the_avatar_said_and_for_blanks(self, text: str) -> None:
        script = Script()
        script.say("你好")
        script.end_reply()
        turn = script.recorded[0 if text == "  " else 1]

        assert describe(script.feed(messages.CorrectMessage(turn.turn_id, text))) == ["say: VALIDATION_ERROR"]

    def test_of_a_turn_that_is_not_remembered_looks_it_up(self) -> None:
        script, turn_id = Script(), uuid4()
        (lookup,) = script.feed(messages.CorrectMessage(turn_id, "明天"))
        assert isinstance(lookup, events.LookUpPast)
        assert describe(script.feed(messages.CorrectMessage(turn_id, "後天"))) == ["say: ALREADY_PROCESSING"]
        script.now += 1

        past = [PastTurn(uuid4(), Message("user", "早")), PastTurn(turn_id, Message("user", "名天"))]
        script.feed(events.PastFound(lookup, past))

        assert [message.content for message in script.read_prompt()] == ["早", "明天"]
        assert script.list_of(events.CommitReply)[0].asked_at == script.now - 1

    @pytest.mark.parametrize(
        ("outcome", "code"), [(None, ErrorCode.VALIDATION_ERROR), (OSError(), ErrorCode.PROCESSING_ERROR)]
    )
    def test_of_a_turn_that_cannot_be_found_is_told(self, outcome: Exception | None, code: ErrorCode) -> None:
        script = Script()
        (lookup,) = script.feed(messages.CorrectMessage(uuid4(), "明天"))
        assert isinstance(lookup, events.LookUpPast)

        assert describe(script.feed(events.PastFound(lookup, outcome))) == [f"say: {code}"]
        # And another one may be tried.
        assert describe(script.feed(messages.CorrectMessage(uuid4(), "明天"))) == ["LookUpPast"]

    def test_is_refused_when_a_reply_has_begun_meanwhile(self) -> None:
        script, turn_id = Script(), uuid4()
        (lookup,) = script.feed(messages.CorrectMessage(turn_id, "明天"))
        assert isinstance(lookup, events.LookUpPast)
        script.say("你好")

        effects = script.feed(events.PastFound(lookup, [PastTurn(turn_id, Message("user", "名天"))]))

        assert describe(effects) == ["say: ALREADY_PROCESSING"]


class TestChoosingAVoice:
    CHOICE = messages.ConfigureMessage(voice_profile_id=VOICE.profile_id)

    def test_speaks_in_it_once_it_is_found_and_begins_no_reply_before(self) -> None:
        script = Script()
        script.feed(events.SpeechBegan(300), ProvisionalTranscript("你好", "zh"))

        hold, lookup = script.feed(self.CHOICE)
        assert isinstance(lookup, events.LookUpVoice)
        effects = script.feed(events.VoiceFound(lookup, VOICE))

        assert hold == events.HoldSpeech(True)
        # What was prepared has been synthesised in the voice before.
        assert describe(effects) == ["CancelReply", "ChangeVoice", "HoldSpeech"]
        assert effects[-1] == events.HoldSpeech(False)
        script.feed(script.transcribe("你好"))
        assert script.list_of(events.StartReply)[-1].voice is VOICE

    @pytest.mark.parametrize(
        ("outcome", "code"),
        [
            (None, ErrorCode.VOICE_GONE),
            (VoiceUnreadable(), ErrorCode.PROCESSING_ERROR),
            (OSError(), ErrorCode.PROCESSING_ERROR),
        ],
    )
    def test_keeps_the_one_before_when_it_cannot_be_had(self, outcome: Exception | None, code: ErrorCode) -> None:
        script = Script()
        _, lookup = script.feed(self.CHOICE)
        assert isinstance(lookup, events.LookUpVoice)

        effects = script.feed(events.VoiceFound(lookup, outcome))

        assert describe(effects) == [f"say: {code}", "HoldSpeech"]
        script.say("你好")
        assert script.list_of(events.StartReply)[-1].voice == Voice()

    def test_counts_the_last_choice_only(self) -> None:
        script = Script()
        _, first = script.feed(self.CHOICE)
        _, second = script.feed(messages.ConfigureMessage(voice_profile_id=uuid4()))
        assert isinstance(first, events.LookUpVoice)
        assert isinstance(second, events.LookUpVoice)

        assert script.feed(events.VoiceFound(first, VOICE)) == []
        assert describe(script.feed(events.VoiceFound(second, VOICE))) == ["ChangeVoice", "HoldSpeech"]

    def test_back_to_the_one_in_use_looks_for_nothing(self) -> None:
        script = Script()
        script.feed(self.CHOICE)

        assert script.feed(messages.ConfigureMessage(voice_profile_id=None)) == [events.HoldSpeech(False)]
        assert script.feed(messages.ConfigureMessage(voice_profile_id=None)) == []


class TestVoiceThatChanges:
    def renew(self, script: Script) -> events.LookUpVoice:
        assert VOICE.profile_id is not None
        (lookup,) = script.feed(events.VoiceNotified(VOICE.profile_id))
        assert isinstance(lookup, events.LookUpVoice)
        return lookup

    def test_is_looked_up_only_when_it_is_in_use_or_chosen(self) -> None:
        script = Script(voice=VOICE)

        assert script.feed(events.VoiceNotified(uuid4())) == []
        assert describe(script.feed(events.VoiceNotified(VOICE.profile_id))) == ["LookUpVoice"]  # type: ignore[arg-type]

    def test_of_the_same_version_changes_nothing(self) -> None:
        script = Script(voice=VOICE)

        assert script.feed(events.VoiceFound(self.renew(script), replace(VOICE))) == []

    def test_sounds_as_it_was_remade_from_the_next_clause_on(self) -> None:
        script = Script(voice=VOICE)
        remade = replace(VOICE, style=bytes(1024), version=2)

        assert script.feed(events.VoiceFound(self.renew(script), remade)) == [events.ChangeVoice(remade)]

    def test_that_is_gone_is_left_and_told_and_not_forgotten_by_the_turn(self) -> None:
        script = Script(voice=VOICE)
        script.say("你好")

        effects = script.feed(events.VoiceFound(self.renew(script), None))
        script.feed(events.ReplyEnded(script.report(spoken_in=(VOICE.profile_id, None))))

        assert describe(effects) == ["ChangeVoice", "say: VOICE_GONE"]
        assert effects[0] == events.ChangeVoice(Voice())
        (error,) = script.list_sent(messages.ErrorMessage)
        assert error.voice_profile_id == VOICE.profile_id
        avatar = script.recorded[-1]
        assert isinstance(avatar, SaidTurn)
        assert avatar.voice_profile_id == VOICE.profile_id

    def test_that_cannot_be_read_now_is_looked_up_again_before_it_is_spoken_in(self) -> None:
        script = Script(voice=VOICE)

        assert script.feed(events.VoiceFound(self.renew(script), OSError("away"))) == []

        assert "LookUpVoice" in describe(script.say("你好"))
        (start,) = script.list_of(events.StartReply)
        assert "LookUpVoice" not in describe(script.feed(events.ClauseBegan(start.turn_id, "好", (None,))))

    def test_while_it_is_chosen_is_looked_up_again(self) -> None:
        script = Script()
        _, before = script.feed(messages.ConfigureMessage(voice_profile_id=VOICE.profile_id))
        assert isinstance(before, events.LookUpVoice)

        after = self.renew(script)

        assert after.is_choice
        assert script.feed(events.VoiceFound(before, VOICE)) == []
        assert describe(script.feed(events.VoiceFound(after, VOICE))) == ["ChangeVoice", "HoldSpeech"]


class TestConfiguring:
    def test_reaches_the_recogniser_and_the_next_reply(self) -> None:
        script = Script()

        effects = script.feed(
            messages.ConfigureMessage(pause_ms=300, language="en", sensitivity=0.7, speed=1.5, quality="high_quality")
        )
        script.say("hi")

        assert effects == [
            events.FeedRecogniser(replace(TranscriptionOptions(), pause_ms=300, language="en", sensitivity=0.7))
        ]
        (start,) = script.list_of(events.StartReply)
        assert (start.speed, start.quality) == (1.5, Quality.HIGH_QUALITY)

    def test_of_what_is_so_already_does_nothing(self) -> None:
        assert Script().feed(messages.ConfigureMessage(language="auto")) == []


class TestFailures:
    @pytest.mark.parametrize(
        ("failure", "code"),
        [(AWAY, ErrorCode.INFERENCE_UNAVAILABLE), (InferenceError("broken"), ErrorCode.PROCESSING_ERROR)],
    )
    def test_of_a_reply_are_told_with_its_turn(self, failure: InferenceError, code: ErrorCode) -> None:
        script = Script()
        script.say("你好")
        (start,) = script.list_of(events.StartReply)

        script.feed(events.ReplyFailed(start.turn_id, Stage.LLM, failure))

        (error,) = script.list_sent(messages.ErrorMessage)
        assert (error.code, error.turn_id) == (code, start.turn_id)

    def test_of_recognition_that_are_known_are_not_told_again(self) -> None:
        script = Script()

        effects = script.feed(*(events.RecognitionFailed(AWAY, is_news) for is_news in (True, False)))

        assert describe(effects) == ["say: INFERENCE_UNAVAILABLE", "say: listening", "say: listening"]


class TestReadingAhead:
    def test_happens_when_the_call_begins_and_after_each_reply(self) -> None:
        script = Script([PastTurn(uuid4(), Message("user", "嗨"))])

        first = script.feed(events.CallStarted())
        script.say("你好")
        script.end_reply()

        assert first == [events.Prefill((Message("user", "嗨"),))]
        last = script.list_of(events.Prefill)[-1]
        assert [message.content for message in last.history] == ["嗨", "你好", "好的。"]

    def test_stops_before_a_reply_begins(self) -> None:
        effects = Script().say("你好")

        names = describe(effects)
        assert names.index("StopPrefill") < names.index("StartReply")


def test_playback_reaches_the_committed_reply_only() -> None:
    script = Script()
    script.say("你好")
    (start,) = script.list_of(events.StartReply)

    effects = script.feed(
        messages.PlaybackMessage(uuid4(), 10), messages.PlaybackMessage(start.turn_id, 20, is_finished=True)
    )

    assert effects == [events.ReportPlayback(start.turn_id, 20, is_finished=True)]


def test_every_input_has_a_handler() -> None:
    handled = Script().machine._handlers

    missing = set(itertools.chain(*(list_members(each) for each in Input.__args__))) - set(handled)  # type: ignore[attr-defined]
    assert missing == {messages.PingMessage}


def list_members(union: Any) -> tuple[Any, ...]:
    return getattr(union, "__args__", (union,))


def test_discarding_makes_no_transcript_due() -> None:
    script = make_script(State.REPLYING)
    script.feed(HOLDING)

    effects = script.feed(FRAME, messages.AudioEndMessage(), FRAME)

    assert effects[1] == events.FeedRecogniser(DiscardUtterance())
    assert describe(effects) == ["FeedAudio", "feed: DiscardUtterance", "say: ALREADY_PROCESSING", "FeedAudio"]


def test_inputs_and_effects_are_frozen_and_slotted() -> None:
    kinds = [kind for kind in vars(events).values() if isinstance(kind, type) and kind.__module__ == events.__name__]

    assert len(kinds) > 30
    assert all(kind.__dataclass_params__.frozen and "__slots__" in vars(kind) for kind in kinds)  # type: ignore[attr-defined]
