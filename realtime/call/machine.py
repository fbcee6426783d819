"""
The state machine of a call. Pure: imports no event loop, no engine, no Django, Channels or gRPC; reads no clock.

`CallMachine.receive` gets every input in one order and returns the effects to perform.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

from inference.interfaces import (
    BYTES_PER_SAMPLE,
    DiscardUtterance,
    EndOfUtterance,
    PartialTranscript,
    ProvisionalTranscript,
    Quality,
    SpeechResumed,
    TranscriptionInput,
    TranscriptionOptions,
)
from realtime import messages
from realtime.call.events import (
    CallEnded,
    CallStarted,
    ClauseBegan,
    Decode,
    Effect,
    FeedAudio,
    FeedRecogniser,
    FillPlace,
    FrameReceived,
    Input,
    LookUpPast,
    PastFound,
    RecognitionFailed,
    Record,
    ReplyEnded,
    ReplyFailed,
    ReplySent,
    ReplyStopped,
    SendEvent,
    SpeechBegan,
    TranscriptReceived,
    UploadDecoded,
    VoiceFound,
    VoiceNotified,
)
from realtime.call.history import History
from realtime.call.replies import Replies, guess_language, make_failure
from realtime.call.settings import CallSettings
from realtime.call.turn_state import Action, Cue, TurnState
from realtime.call.turns import CorrectedTurn, PastTurn, SaidTurn
from realtime.call.utterance import MAX_ITEM_BYTES, AudioDecodingError, AudioTooLong, UtteranceTracker
from realtime.call.voice_selection import VoiceSelection
from realtime.messages import UNSET, AudioFormat, ErrorCode, ErrorMessage, Mode, ProtocolError, Stage

#: What a frame costs that is within the limits: one list for all of them.
_FEED_AUDIO: list[Effect] = [FeedAudio()]


class CallMachine:
    """
    One call: turns, the utterance that is being received, replies, history, voice and limits.

    Callers must not change the lists that `receive` returns.
    """

    def __init__(
        self, *, settings: CallSettings, history: Sequence[PastTurn], make_id: Callable[[], UUID] = uuid4
    ) -> None:
        self._settings = settings
        self._make_id = make_id
        self._now = 0.0
        self._turn = TurnState()
        self._utterance = UtteranceTracker(settings)
        self._history = History(history, max_messages=settings.max_history_messages)
        self.voice = VoiceSelection(settings.voice)
        self._replies = Replies(history=self._history, voice=self.voice, make_id=make_id)
        self._user_turn_id = make_id()
        self._partial_text = ""
        self._past_lookup: LookUpPast | None = None
        self._handlers: dict[type, Callable[[Any], list[Effect]]] = {
            FrameReceived: self._handle_frame,
            messages.AudioChunkMessage: self._handle_chunk,
            messages.AudioEndMessage: self._handle_audio_end,
            messages.ConfigureMessage: self._configure,
            messages.TextMessage: self._handle_text,
            messages.CorrectMessage: self._handle_correction,
            messages.InterruptMessage: lambda _: self._act(Cue.INTERRUPT_REQUESTED),
            messages.PlaybackMessage: self._replies.report_playback,
            CallStarted: lambda _: self._replies.read_ahead(),
            SpeechBegan: self._begin_utterance,
            PartialTranscript: self._show_partial,
            ProvisionalTranscript: self._handle_pause,
            SpeechResumed: lambda _: self._act(Cue.RESUMED),
            TranscriptReceived: self._finish_utterance,
            RecognitionFailed: self._handle_recognition_failed,
            UploadDecoded: self._handle_upload,
            VoiceNotified: lambda notified: self.voice.renew(notified.voice_profile_id),
            VoiceFound: self._handle_voice,
            PastFound: self._handle_past,
            ClauseBegan: self._replies.handle_clause,
            ReplyFailed: self._replies.handle_failed,
            ReplySent: lambda sent: self._replies.handle_sent(sent.report),
            ReplyEnded: self._end_reply,
            ReplyStopped: self._handle_stopped,
            CallEnded: lambda ended: self._replies.end_call(ended.report),
        }

    @property
    def listening_options(self) -> TranscriptionOptions:
        settings = self._settings
        return TranscriptionOptions(
            language=None if settings.language == "auto" else settings.language,
            endpointing=settings.mode is Mode.HANDS_FREE,
            pause_ms=settings.pause_ms,
            sensitivity=settings.sensitivity,
        )

    def receive(self, event: Input, now: float) -> list[Effect]:
        """
        Handle one event at a time of a clock that never goes back.

        Raises ProtocolError for a message that cannot be handled in this state; it has then changed nothing.
        """
        self._now = now
        return self._handlers[type(event)](event)

    def _act(self, cue: Cue) -> list[Effect]:
        """Do what follows from a cue, where the cue says it all."""
        match self._turn.advance(cue):
            case None:
                return []
            case Action.ANNOUNCE_SPEECH:
                return [_announce(is_speaking=True)]
            case Action.BARGE_IN | Action.STOP_REPLY:
                return self._replies.cancel()
            case Action.DROP_SPECULATION:
                return self._replies.drop_speculation()
            case Action.LISTEN_AGAIN:
                return [*self._replies.drop_speculation(), _announce(is_speaking=False)]
            case Action.LISTEN:
                return [_announce(is_speaking=False)]
            case action:
                raise ValueError(f"{action} needs more than its cue")

    # --- what the client sends ---

    def _handle_frame(self, event: FrameReceived) -> list[Effect]:
        return self._handle_pcm(event.size_bytes, is_chunk=False)

    def _handle_pcm(self, size_bytes: int, *, is_chunk: bool) -> list[Effect]:
        utterance = self._utterance
        # Hands-free, silence is without end: only speech counts.
        is_open_ended = self._settings.mode is Mode.HANDS_FREE and utterance.upload_format is None
        is_counted = not is_open_ended or self._turn.is_user_speaking
        if utterance.add_pcm(size_bytes, is_counted=is_counted, is_chunk=is_chunk):
            return _FEED_AUDIO
        return self._exceed_limit()

    def _exceed_limit(self) -> list[Effect]:
        self._utterance.forget()
        too_long = _make_error(ErrorCode.BUFFER_LIMIT_EXCEEDED)
        return [FeedRecogniser(DiscardUtterance()), too_long, *self._act(Cue.LOST)]

    def _handle_chunk(self, message: messages.AudioChunkMessage) -> list[Effect]:
        kind = self._utterance.upload_format
        if kind is None:
            kind = message.format or messages.sniff_format(message.data)
        elif message.format not in (None, kind):
            raise ProtocolError(ErrorCode.UNSUPPORTED_FORMAT, f"format: this utterance has begun as {kind}")
        if kind is AudioFormat.PCM:
            if len(message.data) % BYTES_PER_SAMPLE:
                raise ProtocolError(ErrorCode.VALIDATION_ERROR, "data: PCM16 has an even number of bytes")
            return self._handle_pcm(len(message.data), is_chunk=True)
        return [] if self._utterance.add_upload(message.data, kind) else self._exceed_limit()

    def _handle_audio_end(self, message: messages.AudioEndMessage) -> list[Effect]:
        # First the voice: the reply to this very utterance is to have it.
        effects = [] if message.voice_profile_id is UNSET else self.voice.choose(message.voice_profile_id)
        had_audio = self._utterance.has_audio
        upload, loss = self._utterance.end()
        if not had_audio:
            error = _make_error(ErrorCode.NO_AUDIO_DATA) if loss is None else SendEvent(make_failure(Stage.STT, loss))
            return [*effects, error]
        if self._turn.advance(Cue.END_REQUESTED) is Action.REFUSE:
            return [*effects, FeedRecogniser(DiscardUtterance()), _make_error(ErrorCode.ALREADY_PROCESSING)]
        if upload is None:
            self._utterance.note_end(self._now)
            effects.append(FeedRecogniser(EndOfUtterance()))
        else:
            max_ms = self._settings.max_utterance_s * 1000
            number = self._utterance.begin_decoding()
            effects.append(Decode(number, upload.data, upload.format, max_ms, self._now))
        return [*effects, SendEvent(messages.Status(stage=Stage.STT))]

    def _configure(self, message: messages.ConfigureMessage) -> list[Effect]:
        before = self.listening_options
        names = ("mode", "language", "pause_ms", "sensitivity", "speed")
        changes = {name: value for name in names if (value := getattr(message, name)) is not UNSET}
        if message.quality is not UNSET:
            changes["quality"] = Quality(message.quality)
        if changes.get("mode", self._settings.mode) is not self._settings.mode:
            self._utterance.forget()
        self._settings = replace(self._settings, **changes)
        effects: list[Effect] = []
        if self.listening_options != before:
            effects.append(FeedRecogniser(self.listening_options))
        if message.voice_profile_id is not UNSET:
            effects += self.voice.choose(message.voice_profile_id)
        return effects

    def _handle_text(self, message: messages.TextMessage) -> list[Effect]:
        text = message.text.strip()
        if not text:
            return [_make_error(ErrorCode.VALIDATION_ERROR, detail="text: nothing but blanks")]
        if self._turn.advance(Cue.TYPED) is Action.REFUSE:
            return [_make_error(ErrorCode.ALREADY_PROCESSING)]
        discarded = self._discard_utterance()
        turn_id, language = self._make_id(), guess_language(text)
        said = messages.Transcription(turn_id=turn_id, text=text, is_final=True, language=language)
        answer = self._replies.answer(
            text, user_turn_id=turn_id, settings=self._settings, asked_at=self._now, stt_ms=None
        )
        self._begin_turn()
        return [*discarded, SendEvent(said), *answer, Record(SaidTurn(turn_id, "user", text, language))]

    def _discard_utterance(self) -> list[Effect]:
        """Discard the utterance that is being received: the user has typed instead."""
        self._utterance.forget()
        self._utterance.forget_ends()
        places = [FillPlace(number) for number in self._utterance.give_up_decoding()]
        return [*places, FeedRecogniser(DiscardUtterance()), *self._replies.drop_speculation()]

    def _begin_turn(self) -> None:
        """Begin the user's next turn."""
        self._user_turn_id = self._make_id()
        self._partial_text = ""

    def _handle_correction(self, message: messages.CorrectMessage) -> list[Effect]:
        text = message.text.strip()
        if not text:
            return [_make_error(ErrorCode.VALIDATION_ERROR, detail="text: nothing but blanks")]
        if self._turn.is_replying or self._past_lookup is not None:
            return [_make_error(ErrorCode.ALREADY_PROCESSING)]
        lookup = LookUpPast(message.turn_id, text, self._now)
        past = self._history.find(message.turn_id)
        if past is None:
            self._past_lookup = lookup
            return [lookup]
        is_users = past.message.role == "user"
        return self._correct(lookup, self._history.list_up_to(message.turn_id) if is_users else None)

    def _handle_past(self, found: PastFound) -> list[Effect]:
        if found.lookup is not self._past_lookup:
            return []
        self._past_lookup = None
        if isinstance(found.outcome, Exception):
            return [_make_error(ErrorCode.PROCESSING_ERROR, detail="turn_id: cannot be read now")]
        return self._correct(found.lookup, found.outcome)

    def _correct(self, lookup: LookUpPast, past: Sequence[PastTurn] | None) -> list[Effect]:
        """Answer a corrected turn, now that it is known what came before it: that turn comes last in it."""
        if not past:
            return [_make_error(ErrorCode.VALIDATION_ERROR, detail="turn_id: no turn that can be corrected")]
        if self._turn.advance(Cue.TYPED) is Action.REFUSE:
            return [_make_error(ErrorCode.ALREADY_PROCESSING)]
        discarded = self._discard_utterance()
        self._history.replace(past[:-1])
        turn_id, text = lookup.turn_id, lookup.text
        corrected = messages.Corrected(turn_id=turn_id, text=text, language=guess_language(text))
        answer = self._replies.answer(
            text, user_turn_id=turn_id, settings=self._settings, asked_at=lookup.received_at, stt_ms=None
        )
        self._begin_turn()
        return [*discarded, Record(CorrectedTurn(turn_id, text)), SendEvent(corrected), *answer]

    # --- what the recogniser hears ---

    def _begin_utterance(self, event: SpeechBegan) -> list[Effect]:
        is_hands_free = self._settings.mode is Mode.HANDS_FREE
        if is_hands_free and self._utterance.upload_format is None:
            self._utterance.restart(audio_ms=event.received_ms)
        if is_hands_free or not self._turn.is_replying:
            self._begin_turn()
        return self._act(Cue.SPEECH_BEGAN if is_hands_free else Cue.HELD_SPEECH_BEGAN)

    def _show_partial(self, event: PartialTranscript) -> list[Effect]:
        text = event.text.strip()
        if self._turn.is_replying or not text or text == self._partial_text:
            return []
        self._partial_text = text
        shown = messages.Transcription(turn_id=self._user_turn_id, text=text, is_final=False, language=event.language)
        return [SendEvent(shown), *self._replies.read_ahead(text)]

    def _handle_pause(self, event: ProvisionalTranscript) -> list[Effect]:
        text = event.text.strip()
        if not text or self._turn.advance(Cue.PAUSED) is not Action.SPECULATE:
            return []
        return self._replies.speculate(text, user_turn_id=self._user_turn_id, settings=self._settings)

    def _finish_utterance(self, event: TranscriptReceived) -> list[Effect]:
        settings, now = self._settings, self._now
        lateness = self._utterance.judge_lateness(event, now, mode=settings.mode, pause_ms=settings.pause_ms)
        if settings.mode is Mode.HANDS_FREE:
            self._utterance.finish()
        text = event.text.strip()
        cue = Cue.FINISHED_OVERTAKEN if lateness.is_overtaken else Cue.FINISHED
        action = self._turn.advance(cue if text else Cue.FINISHED_EMPTY)
        if action is None:
            return []
        turn_id = self._user_turn_id
        self._begin_turn()
        stt_ms = round((now - event.ended_at) * 1000)
        final = messages.Transcription(turn_id=turn_id, text=text, is_final=True, language=event.language)
        effects: list[Effect] = [SendEvent(final)]
        if lateness.is_late and text:
            detail = f"{stt_ms} ms late; {'not answered: more is being said' if lateness.is_overtaken else 'answered'}"
            effects.append(_make_error(ErrorCode.FELL_BEHIND, detail=detail))
        if action is Action.ANSWER:
            # An upload would be refused once it is decoded, and the user could not barge in until then.
            for number in self._utterance.give_up_decoding():
                effects += [FillPlace(number), _make_error(ErrorCode.ALREADY_PROCESSING)]
            effects += self._replies.answer(
                text,
                user_turn_id=turn_id,
                settings=settings,
                asked_at=event.ended_at,
                stt_ms=stt_ms,
                endpoint_s=event.endpoint_s,
            )
        else:
            effects += self._replies.drop_speculation()
        if action is not Action.REPORT_NOTHING_HEARD:
            effects.append(Record(SaidTurn(turn_id, "user", text, event.language, event.pcm)))
        if action is Action.LEAVE_UNANSWERED:
            self._history.append(turn_id, "user", text)
        return effects if action is Action.ANSWER else [*effects, _announce(is_speaking=False)]

    def _handle_recognition_failed(self, event: RecognitionFailed) -> list[Effect]:
        self._utterance.lose(event.error, is_held=self._settings.mode is Mode.HOLD_TO_TALK)
        told: list[Effect] = [SendEvent(make_failure(Stage.STT, event.error))] if event.is_news else []
        return [*told, *self._act(Cue.LOST)]

    def _handle_upload(self, event: UploadDecoded) -> list[Effect]:
        """Have uploaded audio heard as one utterance, pauses and all."""
        number = event.decode.number
        if not self._utterance.end_decoding(number):
            return []
        if isinstance(event.outcome, Exception):
            return [FillPlace(number), _explain_upload(event.outcome), _announce(is_speaking=False)]
        pcm, listening = event.outcome, self.listening_options
        pieces = [pcm[start : start + MAX_ITEM_BYTES] for start in range(0, len(pcm), MAX_ITEM_BYTES)]
        self._utterance.note_end(event.decode.ended_at)
        items: list[TranscriptionInput] = [replace(listening, endpointing=False), *pieces, EndOfUtterance(), listening]
        return [FillPlace(number, items)]

    # --- what was looked up, and what replies report ---

    def _handle_voice(self, found: VoiceFound) -> list[Effect]:
        before = self.voice.current.profile_id
        effects = self.voice.handle_found(found)
        if self.voice.current.profile_id != before:
            # What was prepared has been synthesised in the previous voice.
            return [*self._replies.drop_speculation(), *effects]
        return effects

    def _handle_stopped(self, event: ReplyStopped) -> list[Effect]:
        effects = self._replies.handle_stopped(event.report)
        if effects is None:
            return []
        if self._turn.is_user_speaking:
            return [*effects, _announce(is_speaking=True)]
        return [*effects, _announce(is_speaking=False), *self._replies.read_ahead()]

    def _end_reply(self, event: ReplyEnded) -> list[Effect]:
        effects = self._replies.handle_ended(event.report)
        if effects is None:
            return []
        return [*effects, *self._act(Cue.REPLY_ENDED), *self._replies.read_ahead()]


def _announce(*, is_speaking: bool) -> SendEvent:
    return SendEvent(messages.Status(stage=Stage.LISTENING, is_speaking=is_speaking))


def _make_error(code: ErrorCode, *, detail: str | None = None) -> SendEvent:
    # The sentence for the user is written where their language is known.
    return SendEvent(ErrorMessage(code=code, error="", detail=detail))


def _explain_upload(failure: Exception) -> SendEvent:
    match failure:
        case AudioTooLong():
            return _make_error(ErrorCode.BUFFER_LIMIT_EXCEEDED)
        case AudioDecodingError():
            return _make_error(ErrorCode.UNSUPPORTED_FORMAT, detail=str(failure))
        case _:
            return _make_error(ErrorCode.PROCESSING_ERROR, detail="the audio could not be decoded now")
