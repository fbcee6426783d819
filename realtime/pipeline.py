"""
One call, from microphone to reply. Knows no Django, no Channels and no gRPC: engines, outlets and the clock go in.

Everything that happens goes through one inbox and is handled in order; `TurnMachine` says what follows from it. The
work itself (hearing, reading ahead, a reply) runs outside the inbox, in tasks that end with the call. So does what
others are asked for (voices, past turns, decoding): each has a deadline, and its result comes back through the inbox.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar
from uuid import UUID, uuid4

from inference.interfaces import (
    BYTES_PER_SAMPLE,
    DiscardUtterance,
    EndOfUtterance,
    FinalTranscript,
    GenerationOptions,
    InferenceError,
    InferenceUnavailable,
    LanguageModel,
    Message,
    PartialTranscript,
    ProvisionalTranscript,
    Quality,
    SpeechResumed,
    SpeechStarted,
    SpeechToText,
    SynthesisOptions,
    TextToSpeech,
    TranscriptEvent,
    TranscriptionInput,
    TranscriptionOptions,
)
from realtime import messages as protocol
from realtime import turns
from realtime.call.prompt import Scene, compose, find_wanted_language, is_chinese
from realtime.call.settings import CallSettings
from realtime.call.turns import BegunTurn, CorrectedTurn, DroppedTurn, PastTurn, SaidTurn
from realtime.call.utterance import AudioDecodingError, AudioTooLong
from realtime.call.voice import Voice, VoiceUnreadable
from realtime.hearing import (
    BYTES_PER_MS,
    MAX_ITEM_BYTES,
    Microphone,
    Place,
    RecogniserDeadline,
    UtteranceMeter,
    has_speech_like,
)
from realtime.messages import UNSET, AudioFormat, ErrorCode, Mode, ProtocolError, ServerMessage, Stage
from realtime.reply import Outlet, Reply
from realtime.turns import TurnMachine

logger = logging.getLogger(__name__)

Found = TypeVar("Found")

#: Kept of the user's audio before their speech was noticed to begin.
PRE_ROLL_MS = 200
POST_ROLL_MS = 200
#: Requests that wait to be handled. A client that sends more without waiting is cut off.
MAX_INBOX = 256
#: How often, at the end of the process, it is asked whether a sentence has been played.
SENTENCE_POLL_S = 0.05


class CallOverrun(Exception):
    """The client sends requests faster than they can be handled."""


# --- what goes into the inbox, besides transcript events and client messages ---------------------


@dataclass(frozen=True, slots=True)
class _HearingFailed:
    error: InferenceError
    is_news: bool


@dataclass(frozen=True, slots=True)
class _LimitExceeded:
    pass


@dataclass(frozen=True, slots=True)
class _AudioEnd:
    """
    The utterance is over: what was uploaded, or None when the audio has come as PCM.

    `place` is where the microphone's audio ended when this was received; None: there was no audio.
    """

    upload: tuple[bytes, AudioFormat] | None
    place: Place | None
    loss: InferenceError | None


@dataclass(frozen=True, slots=True)
class _Decoded:
    """An upload as PCM, or why there is none."""

    place: Place
    outcome: bytes | Exception


@dataclass(frozen=True, slots=True)
class _VoiceChosen:
    voice_profile_id: UUID | None


@dataclass(frozen=True, slots=True)
class _VoiceFound:
    """The voice that was chosen (None: there is none), or why it cannot be had now."""

    chosen: _VoiceChosen
    outcome: Voice | Exception | None


@dataclass(frozen=True, slots=True)
class _VoiceRenewed:
    """What has become of a voice; None: it is gone."""

    before: Voice
    after: Voice | None


@dataclass(frozen=True, slots=True)
class _Typed:
    text: str
    received_at: float


@dataclass(frozen=True, slots=True)
class _Correct:
    turn_id: UUID
    text: str
    received_at: float


@dataclass(frozen=True, slots=True)
class _PastFound:
    """What came before a turn that is to be corrected (None: no such turn), or why it cannot be read now."""

    correct: _Correct
    outcome: Sequence[PastTurn] | Exception | None


@dataclass(frozen=True, slots=True)
class _Interrupt:
    pass


@dataclass(frozen=True, slots=True)
class _Audible:
    reply: Reply


@dataclass(frozen=True, slots=True)
class _Ended:
    reply: Reply


_Item = (
    TranscriptEvent
    | _HearingFailed
    | _LimitExceeded
    | _AudioEnd
    | _Decoded
    | _VoiceChosen
    | _VoiceFound
    | _VoiceRenewed
    | _Typed
    | _Correct
    | _PastFound
    | _Interrupt
    | _Audible
    | _Ended
)

SendEvent = Callable[[ServerMessage], Awaitable[None]]
SendAudio = Callable[[bytes], Awaitable[None]]
#: Takes what is to be kept, at once: saving happens elsewhere.
Record = Callable[[SaidTurn | BegunTurn | DroppedTurn | CorrectedTurn], None]
#: Finds a turn of the user's that is not remembered any more: what came before it, and itself. None: no such turn.
FindPast = Callable[[UUID], Awaitable[Sequence[PastTurn] | None]]
#: Finds the voice of a profile that the user may use. None: there is none. Raises VoiceUnreadable.
FindVoice = Callable[[UUID | None], Awaitable[Voice | None]]
#: Looks whether a voice is still what it was: the same object, what it has become, or None if it is gone.
RenewVoice = Callable[[Voice], Awaitable[Voice | None]]
#: Turns an uploaded container into PCM16 mono at 16 kHz. Raises AudioDecodingError, AudioTooLong.
DecodeAudio = Callable[[bytes, AudioFormat, int], Awaitable[bytes]]


class VoicePipeline:
    """
    A call. `push_frame` and `push_message` take what the client sends and never wait; `run` is the call itself.

    Cancel `run` to hang up: no task and no engine call is left, and what had been heard of a reply is recorded.
    """

    def __init__(
        self,
        *,
        stt: SpeechToText,
        llm: LanguageModel,
        tts: TextToSpeech,
        send_event: SendEvent,
        send_audio: SendAudio,
        record: Record,
        history: Sequence[PastTurn],
        settings: CallSettings,
        find_voice: FindVoice,
        renew_voice: RenewVoice,
        find_past: FindPast,
        decode_audio: DecodeAudio,
        make_audio_url: Callable[[UUID], str | None],
        clock: Callable[[], float],
    ) -> None:
        self._stt = stt
        self._llm = llm
        self._tts = tts
        self._send_event = send_event
        self._record = record
        self._history = list(history)
        self._settings = settings
        self._find_voice = find_voice
        self._renew_voice = renew_voice
        self._find_past = find_past
        self._decode_audio = decode_audio
        self._clock = clock
        self._voice = settings.voice
        self._machine = TurnMachine()
        self._inbox: asyncio.Queue[_Item] = asyncio.Queue(MAX_INBOX)
        self._microphone = Microphone(
            max_queued_ms=self._max_queued_ms,
            kept_ms=settings.max_utterance_s * 1000 + PRE_ROLL_MS + POST_ROLL_MS + 3000,
            clock=clock,
        )
        self._meter = UtteranceMeter(
            max_bytes=settings.max_utterance_bytes,
            max_chunks=settings.max_utterance_chunks,
            max_ms=settings.max_utterance_s * 1000,
        )
        self._has_audio = False
        self._upload = bytearray()
        self._upload_format: AudioFormat | None = None
        self._outlet = Outlet(
            send_event=send_event,
            send_audio=send_audio,
            on_audible=self._notice_sound,
            on_failure=self._report_failure,
            before_clause=self._prepare_clause,
            on_sound=self._begin_keeping,
            make_audio_url=make_audio_url,
        )
        self._group: asyncio.TaskGroup | None = None
        self._user_turn_id = uuid4()
        #: A reply that has not been committed, and the one that has.
        self._speculation: tuple[Reply, asyncio.Task[None]] | None = None
        self._reply: tuple[Reply, asyncio.Task[None]] | None = None
        self._partial_text = ""
        #: What was kept last of the reply that is being spoken.
        self._begun: BegunTurn | None = None
        self._gone_voices: set[UUID | None] = set()
        self._voice_watch: asyncio.Task[None] | None = None
        #: The choice that is being looked up, and its task; set: none is.
        self._voice_choice: tuple[_VoiceChosen, asyncio.Task[None]] | None = None
        self._is_voice_settled = asyncio.Event()
        self._is_voice_settled.set()
        self._past_lookup: asyncio.Task[None] | None = None
        self._decoding: dict[Place, asyncio.Task[None]] = {}
        self._prefill: asyncio.Task[None] | None = None
        self._prefill_next: list[Message] | None = None
        self._transcript_timeout: asyncio.Timeout | None = None
        self._deadline = RecogniserDeadline(max_ms=settings.transcript_s * 1000)
        #: When the ends were said of utterances whose transcripts have not come yet.
        self._ends: deque[float] = deque()
        self._transcripts_due = 0
        self._is_outage_known = False
        #: Why the utterance that the client has not ended yet is gone.
        self._loss: InferenceError | None = None

    @property
    def _max_queued_ms(self) -> int:
        is_upload = self._settings.mode is Mode.HOLD_TO_TALK
        return self._settings.max_utterance_s * 1000 if is_upload else self._settings.max_queued_ms

    # --- what the client sends: handed over, without waiting ---

    def push_frame(self, pcm: bytes) -> None:
        """Take microphone audio. Its size has been checked by `protocol.check_frame`."""
        self._take_pcm(pcm, is_chunk=False)

    def push_message(self, message: protocol.ClientMessage) -> None:
        """Take a message. Raises ProtocolError for one that cannot be taken now, and CallOverrun."""
        match message:
            case protocol.AudioChunkMessage():
                self._take_chunk(message)
            case protocol.AudioEndMessage():
                self._take_audio_end(message)
            case protocol.ConfigureMessage():
                self._configure(message)
            case protocol.TextMessage(text=text):
                self._put(_Typed(text, self._clock()))
            case protocol.CorrectMessage(turn_id=turn_id, text=text):
                self._put(_Correct(turn_id, text, self._clock()))
            case protocol.InterruptMessage():
                self._put(_Interrupt())
            case protocol.PlaybackMessage():
                if self._reply and self._reply[0].turn_id == message.turn_id:
                    self._reply[0].report_playback(message.played_ms, is_finished=message.is_finished)
            case protocol.PingMessage():
                raise ValueError("a ping is answered by whoever holds the socket")

    def _put(self, item: _Item) -> None:
        try:
            self._inbox.put_nowait(item)
        except asyncio.QueueFull:
            raise CallOverrun(f"{MAX_INBOX} requests wait already") from None

    def _take_pcm(self, pcm: bytes, *, is_chunk: bool) -> None:
        if self._count(pcm, audio_ms=len(pcm) / BYTES_PER_MS, is_chunk=is_chunk):
            self._has_audio = True
            self._microphone.push(pcm)
            is_speaking = self._machine.state is turns.State.USER_SPEAKING
            is_due = self._settings.mode is Mode.HANDS_FREE and (is_speaking or self._microphone.is_dropping)
            if self._deadline.add(len(pcm) / BYTES_PER_MS, is_due=is_due):
                self._deadline.reset()
                self._reschedule_transcript(0.0)

    def _count(self, data: bytes, *, audio_ms: float, is_chunk: bool) -> bool:
        """Count towards the utterance's limits. Beyond them the utterance is dropped, and this is False."""
        is_open_ended = self._settings.mode is Mode.HANDS_FREE and not self._upload_format
        if is_open_ended and self._machine.state is not turns.State.USER_SPEAKING:
            return True
        if self._meter.add(len(data), audio_ms=audio_ms, is_chunk=is_chunk):
            return True
        self._forget_utterance()
        self._microphone.discard()
        self._put(_LimitExceeded())
        return False

    def _forget_utterance(self) -> None:
        self._meter.reset()
        self._has_audio = False
        self._upload.clear()
        self._upload_format = None

    def _take_chunk(self, message: protocol.AudioChunkMessage) -> None:
        kind = self._upload_format
        if kind is None:
            kind = message.format or protocol.sniff_format(message.data)
        elif message.format not in (None, kind):
            raise ProtocolError(ErrorCode.UNSUPPORTED_FORMAT, f"format: this utterance has begun as {kind}")
        if kind is AudioFormat.PCM:
            if len(message.data) % BYTES_PER_SAMPLE:
                raise ProtocolError(ErrorCode.VALIDATION_ERROR, "data: PCM16 has an even number of bytes")
            self._take_pcm(message.data, is_chunk=True)
            return
        self._upload_format = kind
        if self._count(message.data, audio_ms=0, is_chunk=True):
            self._has_audio = True
            self._upload += message.data

    def _take_audio_end(self, message: protocol.AudioEndMessage) -> None:
        upload = (bytes(self._upload), self._upload_format) if self._upload_format else None
        # First the voice: the reply to this very utterance is to have it.
        if message.voice_profile_id is not UNSET:
            self._put(_VoiceChosen(message.voice_profile_id))
        # In order of receipt: frames of the next utterance may come before this is handled.
        place = self._microphone.reserve() if self._has_audio else None
        self._put(_AudioEnd(upload, place, self._loss))
        self._loss = None
        self._forget_utterance()

    def _configure(self, message: protocol.ConfigureMessage) -> None:
        before = self._listening_options
        names = ("mode", "language", "pause_ms", "sensitivity", "speed")
        changes = {name: value for name in names if (value := getattr(message, name)) is not UNSET}
        if message.quality is not UNSET:
            changes["quality"] = Quality(message.quality)
        if changes.get("mode", self._settings.mode) is not self._settings.mode:
            self._forget_utterance()
        self._settings = replace(self._settings, **changes)
        self._microphone.max_queued_ms = self._max_queued_ms
        if self._listening_options != before:
            self._microphone.put(self._listening_options)
        if message.voice_profile_id is not UNSET:
            self._put(_VoiceChosen(message.voice_profile_id))

    @property
    def _listening_options(self) -> TranscriptionOptions:
        settings = self._settings
        return TranscriptionOptions(
            language=None if settings.language == "auto" else settings.language,
            endpointing=settings.mode is Mode.HANDS_FREE,
            pause_ms=settings.pause_ms,
            sensitivity=settings.sensitivity,
        )

    # --- the call ---

    async def run(self) -> None:
        """Hold the call until cancelled. What was not expected is raised, as an ExceptionGroup."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                group.create_task(self._listen())
                self._read_ahead(self._compose(""))
                while True:
                    await self._handle(await self._inbox.get())
        finally:
            self._microphone.clear()
            if self._reply is not None:
                # The client is gone in mid-reply.
                reply, _ = self._reply
                heard_ms = reply.read_heard_ms()
                was_cut = not reply.is_turn_end_sent or heard_ms < reply.audio_ms
                self._keep_reply(reply, was_interrupted=was_cut, heard_ms=heard_ms)

    async def finish_sentence(self) -> None:
        """Return when the sentence that is being heard has been played, or its reply is over; at once if none is."""
        if self._reply is None or not self._reply[0].audio:
            return
        reply = self._reply[0]
        began_ms = reply.read_heard_ms()
        while self._reply is not None and self._reply[0] is reply:
            end_ms = reply.playout.find_sentence_end_ms(began_ms)
            if end_ms is not None and reply.read_heard_ms() >= end_ms:
                return
            await asyncio.sleep(SENTENCE_POLL_S)

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        if self._group is None:
            raise RuntimeError("the call does not run")
        return self._group.create_task(work)

    async def _handle(self, item: _Item) -> None:
        match item:
            case SpeechStarted():
                await self._start_utterance(item)
            case PartialTranscript():
                await self._show_partial(item)
            case ProvisionalTranscript(text=text):
                await self._act(self._machine.take(turns.UserPaused(text.strip())))
            case SpeechResumed():
                await self._act(self._machine.take(turns.UserResumed()))
            case FinalTranscript():
                await self._finish_utterance(item)
            case _HearingFailed():
                await self._lose_hearing(item)
            case _LimitExceeded():
                await self._send_error(ErrorCode.BUFFER_LIMIT_EXCEEDED)
                await self._act(self._machine.take(turns.UtteranceLost()))
            case _AudioEnd():
                await self._end_audio(item)
            case _Decoded():
                await self._take_upload(item)
            case _VoiceChosen():
                self._choose_voice(item)
            case _VoiceFound():
                await self._take_voice(item)
            case _VoiceRenewed():
                await self._take_renewed(item)
            case _Typed():
                await self._take_typed(item)
            case _Correct():
                await self._take_correction(item)
            case _PastFound():
                await self._take_past(item)
            case _Interrupt():
                await self._act(self._machine.take(turns.InterruptRequested()))
            case _Audible(reply=reply):
                if self._reply and self._reply[0] is reply:
                    await self._act(self._machine.take(turns.ReplyAudible()))
            case _Ended(reply=reply):
                await self._end_reply(reply)

    async def _act(self, action: turns.Action | None) -> None:
        """Do what the machine says, where it needs nothing but the machine's own words."""
        match action:
            case turns.AnnounceSpeech():
                await self._send_event(protocol.Status(stage=Stage.LISTENING, is_speaking=True))
            case turns.BargeIn():
                await self._stop_reply()
                await self._send_event(protocol.Status(stage=Stage.LISTENING, is_speaking=True))
            case turns.StopReply():
                await self._stop_reply()
                await self._announce_listening()
                self._read_ahead(self._compose(""))
            case turns.Speculate(text=text):
                await self._speculate(text)
            case turns.DropSpeculation():
                await self._drop_speculation()
                if self._machine.state is turns.State.LISTENING:
                    await self._announce_listening()
            case turns.Refuse():
                await self._send_error(ErrorCode.ALREADY_PROCESSING)
            case turns.Listen():
                await self._announce_listening()
            case None:
                pass
            case _:
                raise RuntimeError(f"{action} needs more than the machine's words")

    async def _announce_listening(self) -> None:
        await self._send_event(protocol.Status(stage=Stage.LISTENING, is_speaking=False))

    async def _send_error(self, code: ErrorCode, *, turn_id: UUID | None = None, detail: str | None = None) -> None:
        # The sentence for the user is written where their language is known.
        await self._send_event(protocol.ErrorMessage(code=code, error="", turn_id=turn_id, detail=detail))

    # --- hearing ---

    async def _listen(self) -> None:
        """Keep a transcription open, and open it again after a failure once there is audio to hear."""
        retry_s = self._settings.first_retry_s
        while True:
            await self._microphone.wait()
            heard = False
            try:
                audio = self._microphone.open_stream()
                events = self._stt.transcribe(audio, self._listening_options)
                async with contextlib.aclosing(events), asyncio.timeout(None) as self._transcript_timeout:
                    self._deadline.reset()
                    if self._transcripts_due:
                        self._reschedule_transcript(self._settings.transcript_s)
                    async for event in events:
                        heard = True
                        self._is_outage_known = False
                        self._watch_transcript(event)
                        await self._inbox.put(event)
                raise InferenceUnavailable("the recogniser ended its stream")
            except TimeoutError:
                error: InferenceError = InferenceUnavailable("no transcript came in time")
            except InferenceError as failure:
                error = failure
            finally:
                self._transcript_timeout = None
                self._microphone.close_stream()
            retry_s = self._settings.first_retry_s if heard else min(retry_s * 2, self._settings.last_retry_s)
            is_news = not self._is_outage_known or self._transcripts_due > 0
            self._is_outage_known = True
            self._transcripts_due = 0
            self._ends.clear()
            self._loss = error if self._settings.mode is Mode.HOLD_TO_TALK and self._has_audio else None
            self._microphone.clear()
            self._forget_utterance()
            await self._inbox.put(_HearingFailed(error, is_news))
            await asyncio.sleep(retry_s)

    def _watch_transcript(self, event: TranscriptEvent) -> None:
        self._deadline.reset()
        if isinstance(event, FinalTranscript):
            self._transcripts_due = max(0, self._transcripts_due - 1)
            self._reschedule_transcript(self._settings.transcript_s if self._transcripts_due else None)

    def _expect_transcript(self) -> None:
        self._transcripts_due += 1
        self._reschedule_transcript(self._settings.transcript_s)

    def _reschedule_transcript(self, within_s: float | None) -> None:
        """Give up on the recogniser's stream after so many seconds; None: wait as long as it takes."""
        if self._transcript_timeout and not self._transcript_timeout.expired():
            now = asyncio.get_running_loop().time()
            self._transcript_timeout.reschedule(None if within_s is None else now + within_s)

    async def _lose_hearing(self, item: _HearingFailed) -> None:
        logger.warning("hearing failed: %s", item.error)
        if item.is_news:
            await self._report_failure(Stage.STT, item.error)
        await self._act(self._machine.take(turns.UtteranceLost()))

    async def _start_utterance(self, event: SpeechStarted) -> None:
        if self._settings.mode is Mode.HANDS_FREE and not self._upload_format:
            self._meter.reset(audio_ms=max(0, self._microphone.received_ms - event.speech_start_ms))
        may_interrupt = self._settings.mode is Mode.HANDS_FREE
        action = self._machine.take(turns.UserStarted(may_interrupt=may_interrupt))
        if action is not None:
            self._user_turn_id = uuid4()
            self._partial_text = ""
        await self._act(action)

    async def _show_partial(self, event: PartialTranscript) -> None:
        text = event.text.strip()
        if self._machine.is_replying or not text or text == self._partial_text:
            return
        self._partial_text = text
        await self._send_event(
            protocol.Transcription(turn_id=self._user_turn_id, text=text, is_final=False, language=event.language)
        )
        if self._speculation is None:
            self._read_ahead(self._compose(text))

    async def _end_audio(self, item: _AudioEnd) -> None:
        if item.place is None and item.loss is not None:
            await self._report_failure(Stage.STT, item.loss)
            return
        if item.place is None:
            await self._send_error(ErrorCode.NO_AUDIO_DATA)
            return
        action = self._machine.take(turns.EndRequested())
        if not isinstance(action, turns.FinishUtterance):
            self._microphone.settle(item.place, [DiscardUtterance()], is_audio_before_dropped=True)
            await self._act(action)
            return
        if item.upload is None:
            await self._end_utterance(item.place, [EndOfUtterance()])
        else:
            data, kind = item.upload
            self._decoding[item.place] = self._spawn(self._decode(item.place, data, kind))
        await self._send_event(protocol.Status(stage=Stage.STT))

    async def _end_utterance(self, place: Place, items: Sequence[TranscriptionInput]) -> None:
        if not self._microphone.settle(place, items):
            await self._report_failure(Stage.STT, InferenceUnavailable("what was said is gone"))
            return
        self._ends.append(place.received_at)
        self._expect_transcript()

    async def _decode(self, place: Place, data: bytes, kind: AudioFormat) -> None:
        work = self._decode_audio(data, kind, self._settings.max_utterance_s * 1000)
        await self._inbox.put(_Decoded(place, await _attempt(work, timeout_s=self._settings.decode_s)))

    async def _take_upload(self, item: _Decoded) -> None:
        """Have uploaded audio heard as one utterance, pauses and all."""
        if self._decoding.pop(item.place, None) is None:
            return
        if self._machine.is_replying:
            self._microphone.settle(item.place, [])
            await self._send_error(ErrorCode.ALREADY_PROCESSING)
            return
        if isinstance(pcm := item.outcome, Exception):
            self._microphone.settle(item.place, [])
            match pcm:
                case AudioTooLong():
                    await self._send_error(ErrorCode.BUFFER_LIMIT_EXCEEDED)
                case AudioDecodingError():
                    await self._send_error(ErrorCode.UNSUPPORTED_FORMAT, detail=str(pcm))
                case _:
                    await self._send_error(ErrorCode.PROCESSING_ERROR, detail="the audio could not be decoded now")
            await self._announce_listening()
            return
        pieces = [pcm[start : start + MAX_ITEM_BYTES] for start in range(0, len(pcm), MAX_ITEM_BYTES)]
        listening = self._listening_options
        await self._end_utterance(
            item.place, [replace(listening, endpointing=False), *pieces, EndOfUtterance(), listening]
        )

    def _give_up_utterance(self) -> None:
        """Forget what is being said: the user has typed instead."""
        self._forget_utterance()
        for place, task in self._decoding.items():
            task.cancel()
            self._microphone.settle(place, [])
        self._decoding.clear()
        self._ends.clear()
        self._microphone.discard()

    async def _finish_utterance(self, event: FinalTranscript) -> None:
        asked_at = self._microphone.find_received_at(event.received_ms)
        asked_at -= max(0, event.received_ms - event.speech_end_ms) / 1000
        is_late, is_overtaken = self._judge_lateness(event, asked_at)
        if self._settings.mode is Mode.HANDS_FREE:
            self._meter.reset()
            self._has_audio = False
        text = event.text.strip()
        action = self._machine.take(turns.UserFinished(text, is_overtaken=is_overtaken))
        if action is None:
            return
        stt_ms = round((self._clock() - asked_at) * 1000)
        final = protocol.Transcription(turn_id=self._user_turn_id, text=text, is_final=True, language=event.language)
        await self._send_event(final)
        pcm = self._microphone.read_audio(event.speech_start_ms - PRE_ROLL_MS, event.speech_end_ms + POST_ROLL_MS)
        if is_late and text:
            detail = f"{stt_ms} ms late; " + ("not answered: more is being said" if is_overtaken else "answered")
            await self._send_error(ErrorCode.FELL_BEHIND, detail=detail)
        if isinstance(action, turns.Answer):
            await self._answer(text, event.language, pcm, asked_at=asked_at, stt_ms=stt_ms)
        else:
            await self._drop_speculation()
            if isinstance(action, turns.LeaveUnanswered):
                self._history.append(PastTurn(self._user_turn_id, Message("user", text)))
                self._record(SaidTurn(self._user_turn_id, "user", text, event.language, pcm))
            await self._announce_listening()
        self._user_turn_id = uuid4()
        self._partial_text = ""

    def _judge_lateness(self, event: FinalTranscript, ended_at: float) -> tuple[bool, bool]:
        """
        Say whether a transcript is that of an overloaded machine, and whether the user is saying something new already.

        It is late after the end that the user said, or after the pause that ended it. What was received since is judged
        by its loudness: the recogniser has not heard it yet.
        """
        if self._settings.mode is Mode.HANDS_FREE:
            said_end_at = self._ends.popleft() if self._ends else None
            ended_at = ended_at + self._settings.pause_ms / 1000 if said_end_at is None else said_end_at
        elif self._ends:
            ended_at = self._ends.popleft()
        else:
            return False, False
        if self._clock() - ended_at <= self._settings.max_lateness_s:
            return False, False
        if self._settings.mode is Mode.HOLD_TO_TALK:
            return True, self._has_audio or bool(self._ends)
        newer = self._microphone.read_newer_audio(event.received_ms)
        return True, has_speech_like(newer, self._microphone.read_audio(event.speech_start_ms, event.speech_end_ms))

    # --- typing and choosing ---

    async def _take_typed(self, item: _Typed) -> None:
        text = item.text.strip()
        if not text:
            await self._send_error(ErrorCode.VALIDATION_ERROR, detail="text: nothing but blanks")
            return
        action = self._machine.take(turns.UserTyped(text))
        if not isinstance(action, turns.AnswerTyped):
            await self._act(action)
            return
        self._give_up_utterance()
        await self._drop_speculation()
        self._user_turn_id = uuid4()
        language = "zh" if is_chinese(text) else "en"
        await self._send_event(
            protocol.Transcription(turn_id=self._user_turn_id, text=text, is_final=True, language=language)
        )
        await self._answer(text, language, b"", asked_at=item.received_at, stt_ms=None)
        self._user_turn_id = uuid4()

    async def _take_correction(self, item: _Correct) -> None:
        text = item.text.strip()
        if not text:
            await self._send_error(ErrorCode.VALIDATION_ERROR, detail="text: nothing but blanks")
            return
        if self._machine.is_replying or (self._past_lookup is not None and not self._past_lookup.done()):
            await self._send_error(ErrorCode.ALREADY_PROCESSING)
            return
        for place, past in enumerate(self._history):
            if past.turn_id == item.turn_id:
                is_users = past.message.role == "user"
                await self._take_past(_PastFound(item, self._history[: place + 1] if is_users else None))
                return
        self._past_lookup = self._spawn(self._look_up_past(item))

    async def _look_up_past(self, item: _Correct) -> None:
        found = await _attempt(self._find_past(item.turn_id), timeout_s=self._settings.lookup_s)
        await self._inbox.put(_PastFound(item, found))

    async def _take_past(self, found: _PastFound) -> None:
        """Answer a corrected turn, now that it is known what came before it: that turn comes last in it."""
        item, past = found.correct, found.outcome
        text = item.text.strip()
        if isinstance(past, Exception):
            await self._send_error(ErrorCode.PROCESSING_ERROR, detail="turn_id: cannot be read now")
            return
        if not past:
            await self._send_error(ErrorCode.VALIDATION_ERROR, detail="turn_id: no turn that can be corrected")
            return
        action = self._machine.take(turns.UserTyped(text))
        if not isinstance(action, turns.AnswerTyped):
            await self._act(action)
            return
        self._give_up_utterance()
        await self._drop_speculation()
        self._history = list(past[:-1])
        self._record(CorrectedTurn(item.turn_id, text))
        language = "zh" if is_chinese(text) else "en"
        await self._send_event(protocol.Corrected(turn_id=item.turn_id, text=text, language=language))
        self._user_turn_id = item.turn_id
        await self._start_answer(text, asked_at=item.received_at, stt_ms=None)
        self._user_turn_id = uuid4()

    def _choose_voice(self, item: _VoiceChosen) -> None:
        """Look for a voice. Until it is found, the running reply keeps the previous one, and no reply begins."""
        if self._voice_choice is not None:
            _, task = self._voice_choice
            task.cancel()
            self._settle_voice()
        if item.voice_profile_id != self._voice.profile_id:
            self._is_voice_settled.clear()
            self._voice_choice = item, self._spawn(self._look_up_voice(item))

    async def _look_up_voice(self, item: _VoiceChosen) -> None:
        found = await _attempt(self._find_voice(item.voice_profile_id), timeout_s=self._settings.lookup_s)
        await self._inbox.put(_VoiceFound(item, found))

    def _settle_voice(self) -> None:
        self._voice_choice = None
        self._is_voice_settled.set()

    async def _take_voice(self, found: _VoiceFound) -> None:
        if self._voice_choice is None or self._voice_choice[0] is not found.chosen:
            return
        if isinstance(found.outcome, Exception):
            await self._send_error(ErrorCode.PROCESSING_ERROR, detail="voice_profile_id: cannot be read now")
        elif found.outcome is None:
            await self._send_gone(found.chosen.voice_profile_id)
        else:
            # What was prepared has been synthesised in the previous voice; the running reply continues in the new one.
            await self._drop_speculation()
            self._change_voice(found.outcome)
        self._settle_voice()

    async def _prepare_clause(self, is_first: bool) -> None:
        """Wait, before a reply begins, for the voice that was chosen before it. One being spoken does not pause."""
        self._watch_voice()
        if is_first:
            await self._is_voice_settled.wait()

    def _change_voice(self, voice: Voice) -> None:
        self._voice = voice
        for made in (self._speculation, self._reply):
            if made is not None:
                made[0].change_voice(voice)

    def _watch_voice(self) -> None:
        """
        Look, beside all else, whether the voice is still there and what it was. Somebody may just have deleted it.

        Asked when a reply begins to be thought and before each of its clauses: it changes from the next clause on.
        """
        if self._voice.profile_id is not None and (self._voice_watch is None or self._voice_watch.done()):
            self._voice_watch = self._spawn(self._renew(self._voice))

    async def _renew(self, before: Voice) -> None:
        after = await _attempt(self._renew_voice(before), timeout_s=self._settings.lookup_s)
        # One that cannot be looked up now stays as it is, and the next clause asks again.
        if after is not before and not isinstance(after, Exception):
            await self._inbox.put(_VoiceRenewed(before, after))

    async def _take_renewed(self, item: _VoiceRenewed) -> None:
        if item.before is not self._voice:
            return
        self._change_voice(item.after or Voice())
        if item.after is None:
            self._gone_voices.add(item.before.profile_id)
            await self._drop_speculation()
            await self._send_gone(item.before.profile_id)

    async def _send_gone(self, voice_profile_id: UUID | None) -> None:
        error = protocol.ErrorMessage(code=ErrorCode.VOICE_GONE, error="", voice_profile_id=voice_profile_id)
        await self._send_event(error)

    # --- answering ---

    def _compose(self, user_text: str) -> list[Message]:
        """Return what the language model is to read: the system prompt, the conversation, and the user's words."""
        settings = self._settings
        most = settings.max_history_messages
        history = [past.message for past in self._history[-most:]] if most else []
        scene = Scene(settings.system_prompt, settings.examples, settings.place, settings.read_time)
        return compose(scene, history, user_text)

    def _make_reply(self, text: str) -> tuple[Reply, asyncio.Task[None]]:
        settings = self._settings
        self._watch_voice()
        reply = Reply(
            user_turn_id=self._user_turn_id,
            user_text=text,
            messages=self._compose(text),
            llm=self._llm,
            tts=self._tts,
            generation=GenerationOptions(
                max_tokens=settings.max_reply_tokens,
                temperature=settings.temperature,
                repeat_penalty=settings.repeat_penalty,
            ),
            language=find_wanted_language(text) if is_chinese(settings.system_prompt) else None,
            synthesis=SynthesisOptions(quality=settings.quality, speed=settings.speed),
            voice=self._voice,
            limits=settings.reply,
            outlet=self._outlet,
            clock=self._clock,
        )
        return reply, self._spawn(self._run_reply(reply))

    async def _run_reply(self, reply: Reply) -> None:
        await reply.run()
        await self._inbox.put(_Ended(reply))

    async def _speculate(self, text: str) -> None:
        if self._speculation is not None and self._speculation[0].user_text == text:
            return
        await self._drop_speculation()
        await self._stop_reading_ahead()
        self._speculation = self._make_reply(text)

    async def _drop_speculation(self) -> None:
        if self._speculation is not None:
            _, task = self._speculation
            self._speculation = None
            await _cancel(task)

    async def _answer(self, text: str, language: str, pcm: bytes, *, asked_at: float, stt_ms: int | None) -> None:
        """Keep what the user said, and answer it."""
        await self._start_answer(text, asked_at=asked_at, stt_ms=stt_ms)
        self._record(SaidTurn(self._user_turn_id, "user", text, language, pcm))

    async def _start_answer(self, text: str, *, asked_at: float, stt_ms: int | None) -> None:
        """Answer aloud, with the reply that was prepared if it answers the same text."""
        prepared = self._speculation
        if prepared is None or prepared[0].user_text != text or prepared[0].has_failed:
            await self._drop_speculation()
            await self._stop_reading_ahead()
            prepared = self._make_reply(text)
        self._speculation = None
        self._reply = prepared
        self._reply[0].commit(asked_at=asked_at, stt_ms=stt_ms)
        self._history.append(PastTurn(self._reply[0].user_turn_id, Message("user", text)))

    def _notice_sound(self) -> None:
        if self._reply is not None and not self._inbox.full():
            self._inbox.put_nowait(_Audible(self._reply[0]))

    async def _report_failure(self, stage: Stage, error: InferenceError) -> None:
        is_away = isinstance(error, InferenceUnavailable) or stage is Stage.STT
        code = ErrorCode.INFERENCE_UNAVAILABLE if is_away else ErrorCode.PROCESSING_ERROR
        reply = self._reply[0] if self._reply and stage is not Stage.STT else None
        logger.warning("%s failed: %s", stage, error)
        await self._send_error(code, turn_id=reply.turn_id if reply else None, detail=f"{stage}: {error}")

    async def _stop_reply(self) -> None:
        """Cancel, announce, wait: in that order, and nothing of the reply follows its announcement."""
        if self._reply is None:
            return
        reply, task = self._reply
        self._reply = None
        task.cancel()
        reply.stop()
        heard_ms = reply.read_heard_ms()
        await self._send_event(protocol.Interrupted(turn_id=reply.turn_id, heard_ms=heard_ms))
        await _cancel(task)
        await self._send_event(
            protocol.LlmResponse(
                turn_id=reply.turn_id,
                user_turn_id=reply.user_turn_id,
                text=reply.read_heard_text(heard_ms),
                is_final=True,
                was_interrupted=True,
            )
        )
        if not reply.is_turn_end_sent:
            await self._send_event(reply.make_turn_end(was_interrupted=True))
        self._keep_reply(reply, was_interrupted=True, heard_ms=heard_ms)

    async def _end_reply(self, reply: Reply) -> None:
        if self._reply is None or self._reply[0] is not reply:
            return
        self._reply = None
        self._keep_reply(reply, was_interrupted=False, heard_ms=reply.audio_ms)
        await self._act(self._machine.take(turns.ReplyEnded()))
        self._read_ahead(self._compose(""))

    def _begin_keeping(self) -> None:
        """Keep the clauses whose sound goes out, so that a process which is killed leaves what was heard behind."""
        if self._reply is None:
            return
        reply = self._reply[0]
        text = reply.playout.read_heard(math.inf)
        begun = BegunTurn(reply.turn_id, text, "zh" if is_chinese(text) else "en", self._find_speaker(reply))
        if text and begun != self._begun:
            self._begun = begun
            self._record(begun)

    def _keep_reply(self, reply: Reply, *, was_interrupted: bool, heard_ms: int) -> None:
        begun, self._begun = self._begun, None
        text = reply.read_heard_text(heard_ms) if was_interrupted else reply.text.strip()
        if not text:
            if begun is not None:
                self._record(DroppedTurn(reply.turn_id))
            return
        self._history.append(PastTurn(reply.turn_id, Message("assistant", text)))
        self._record(
            SaidTurn(
                turn_id=reply.turn_id,
                speaker="avatar",
                text=text,
                language="zh" if is_chinese(text) else "en",
                pcm=reply.read_heard_audio(heard_ms) if was_interrupted else bytes(reply.audio),
                sample_rate_hz=reply.sample_rate_hz or protocol.REPLY_SAMPLE_RATE_HZ,
                was_interrupted=was_interrupted,
                voice_profile_id=self._find_speaker(reply),
                quality=reply.quality if reply.audio else None,
                latency=reply.describe_latency(),
            )
        )

    def _find_speaker(self, reply: Reply) -> UUID | None:
        """Whose voice the turn was spoken in: the last, but one that is gone above all, which must not be forgotten."""
        gone = [each for each in reply.spoken_in if each in self._gone_voices]
        return gone[-1] if gone else reply.voice.profile_id

    # --- reading ahead: the language model reads what it will be asked, while nobody waits for it ---

    def _read_ahead(self, messages: list[Message]) -> None:
        """Have `messages` read, after what is being read now. Only the last of those that wait is kept."""
        if self._prefill is not None and not self._prefill.done():
            self._prefill_next = messages
        else:
            self._prefill = self._spawn(self._run_prefill(messages))

    async def _run_prefill(self, messages: list[Message] | None) -> None:
        while messages is not None:
            try:
                async with asyncio.timeout(self._settings.prefill_s):
                    await self._llm.prefill(messages)
            except (InferenceError, TimeoutError) as error:
                logger.debug("could not read ahead: %s", error)
            messages, self._prefill_next = self._prefill_next, None

    async def _stop_reading_ahead(self) -> None:
        self._prefill_next = None
        if self._prefill is not None:
            await _cancel(self._prefill)
            self._prefill = None


async def _attempt(work: Awaitable[Found], *, timeout_s: float) -> Found | Exception:
    """Await work of another part, with a deadline. Return its result or its exception: no failure ends the call."""
    try:
        async with asyncio.timeout(timeout_s):
            return await work
    except (AudioDecodingError, AudioTooLong, VoiceUnreadable) as error:
        return error
    except TimeoutError as error:
        logger.warning("%s took more than %g s", getattr(work, "__qualname__", work), timeout_s)
        return error
    except Exception as error:
        logger.exception("%s failed", getattr(work, "__qualname__", work))
        return error


async def _cancel(task: asyncio.Task[None]) -> None:
    """Cancel a task of this call and wait until it has ended. Its failure is its group's business, not ours."""
    task.cancel()
    await asyncio.wait([task])
