"""
Runs one call: feeds every input, audio included, to `CallMachine` in order of receipt, and performs the effects.

Imports no Django, Channels or gRPC: engines, callbacks and the clock are passed in. An input is handled synchronously
in the task that brings it, and performing an effect never waits. Work that may wait is a task, with a timeout where it
depends on another process, and its result comes back as an input.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any
from uuid import UUID

from inference.interfaces import LanguageModel, SpeechToText, TextToSpeech
from realtime import messages
from realtime.call import events
from realtime.call.machine import CallMachine
from realtime.call.prompt import Scene, compose
from realtime.call.settings import CallSettings
from realtime.call.turns import PastTurn, RecordedTurn
from realtime.call.utterance import MAX_ITEM_BYTES
from realtime.call.voice import Voice
from realtime.call_metrics import CallMeter
from realtime.call_output import CallOutput, CallOverrun
from realtime.messages import AudioFormat, ProtocolError, ServerMessage
from realtime.read_ahead import ReadAhead
from realtime.recogniser import Place, Recogniser
from realtime.reply import Outlet
from realtime.reply_tasks import ReplyTasks
from realtime.streams import attempt

__all__ = ["CallOverrun", "CallRunner"]

#: Requests that wait until the call runs. A client that sends more is cut off.
MAX_INBOX = 256


class CallRunner:
    """
    A call. `push_frame`, `push_message` and `notify_voice` never wait; `run` is the call itself.

    Cancel `run` to hang up: no task and no engine call is left, and what had been heard of a reply is recorded.
    """

    def __init__(
        self,
        *,
        stt: SpeechToText,
        llm: LanguageModel,
        tts: TextToSpeech,
        send_event: Callable[[ServerMessage], Awaitable[None]],
        send_audio: Callable[[bytes], Awaitable[None]],
        #: Queues a change for the recorder; does not wait.
        record: Callable[[RecordedTurn], None],
        history: Sequence[PastTurn],
        settings: CallSettings,
        #: Finds the voice of a profile that the user may use. None: there is none. Raises VoiceUnreadable.
        find_voice: Callable[[UUID | None], Awaitable[Voice | None]],
        #: Finds a turn that is not remembered any more: what came before it, and itself. None: no such turn.
        find_past: Callable[[UUID], Awaitable[Sequence[PastTurn] | None]],
        #: Turns an uploaded container into PCM16 mono at 16 kHz. Raises AudioDecodingError, AudioTooLong.
        decode_audio: Callable[[bytes, AudioFormat, int], Awaitable[bytes]],
        make_audio_url: Callable[[UUID], str | None],
        clock: Callable[[], float],
    ) -> None:
        self._record = record
        self._settings = settings
        self._scene = Scene(settings.system_prompt, settings.examples, settings.place, settings.read_time)
        self._find_voice = find_voice
        self._find_past = find_past
        self._decode_audio = decode_audio
        self._clock = clock
        self._machine = CallMachine(settings=settings, history=history)
        self._meter = CallMeter()
        self._inbox: deque[tuple[events.Input, bytes]] = deque()
        self._is_open = False
        self._is_handling = False
        self._failure: Exception | None = None
        self._has_failed = asyncio.Event()
        self._group: asyncio.TaskGroup | None = None
        self._output = CallOutput(send_event=send_event, send_audio=send_audio, on_overrun=self._fail)
        options = self._machine.listening_options
        self._recogniser = Recogniser(stt=stt, options=options, settings=settings, report=self._put, clock=clock)
        self._read_ahead = ReadAhead(llm, timeout_s=settings.prefill_s, start=self._spawn, clock=clock)
        self._may_speak = asyncio.Event()
        self._may_speak.set()
        outlet = Outlet(self._output.put_of_reply, self._put, self._may_speak, make_audio_url)
        self._replies = ReplyTasks(
            llm=llm, tts=tts, scene=self._scene, settings=settings, outlet=outlet, clock=clock, start=self._spawn
        )
        self._lookups: dict[object, asyncio.Task[None]] = {}
        self._places: dict[int, Place] = {}

    def push_frame(self, pcm: bytes) -> None:
        """Take microphone audio: whole samples."""
        self._put(events.FrameReceived(len(pcm)), pcm)

    def push_message(self, message: messages.ClientMessage) -> None:
        """Take a message. Raises ProtocolError for one that cannot be taken now, and CallOverrun."""
        if isinstance(message, messages.PingMessage):
            raise ValueError("pings are answered by the consumer")
        self._put(message, message.data if isinstance(message, messages.AudioChunkMessage) else b"")

    def notify_voice(self, voice_profile_id: UUID) -> None:
        """Look a voice up again that was changed, disabled or deleted, if it is in use or chosen."""
        self._put(events.VoiceNotified(voice_profile_id))

    async def run(self) -> None:
        """Hold the call until cancelled. What was not expected is raised, as an ExceptionGroup."""
        self._inbox.appendleft((events.CallStarted(), b""))
        try:
            async with asyncio.TaskGroup() as self._group:
                self._spawn(self._recogniser.run())
                self._spawn(self._output.run())
                try:
                    await self._hold()
                finally:
                    # The group takes no more tasks.
                    self._is_open = False
        finally:
            ended = events.CallEnded(spoken.describe() if (spoken := self._replies.committed) else None)
            effects = self._machine.receive(ended, self._clock())
            for effect in effects:
                if isinstance(effect, events.Record):
                    self._record(effect.turn)
            self._meter.note(ended, effects)

    async def _hold(self) -> None:
        self._is_open = True
        while self._inbox:
            try:
                self._handle_all()
            except ProtocolError as error:
                self._output.put(messages.ErrorMessage(code=error.code, error="", detail=error.detail))
        await self._has_failed.wait()
        assert self._failure is not None  # noqa: S101 — for the type checker
        raise self._failure

    async def finish_sentence(self) -> None:
        """Return when the sentence that is being heard has been played, or its reply is over; at once if none is."""
        await self._replies.finish_sentence()

    @property
    def voice(self) -> Voice:
        """The voice in use."""
        return self._machine.voice.current

    def _put(self, event: events.Input, pcm: bytes = b"") -> None:
        """Handle an event now, or after the one that is being handled, or when the call begins."""
        if self._inbox and isinstance(event, events.FrameReceived):
            last, waiting = self._inbox[-1]
            if isinstance(last, events.FrameReceived) and len(waiting) < MAX_ITEM_BYTES:
                self._inbox.pop()
                pcm = waiting + pcm
                event = events.FrameReceived(len(pcm))
        if len(self._inbox) >= MAX_INBOX:
            raise CallOverrun(f"{MAX_INBOX} requests wait already")
        self._inbox.append((event, pcm))
        if self._is_open and not self._is_handling:
            self._handle_all()

    def _handle_all(self) -> None:
        self._is_handling = True
        try:
            while self._inbox:
                self._handle(*self._inbox.popleft())
        except (ProtocolError, CallOverrun):
            raise
        except Exception as error:
            # Not raised in the task that brought the event: `run` raises it, and the call ends.
            self._fail(error)
        finally:
            self._is_handling = False

    def _fail(self, error: Exception) -> None:
        self._failure = self._failure or error
        self._has_failed.set()

    def _handle(self, event: events.Input, pcm: bytes = b"") -> None:
        effects = self._machine.receive(event, self._clock())
        for effect in effects:
            self._perform(effect, pcm)
        self._meter.note(event, effects)

    def _perform(self, effect: events.Effect, pcm: bytes) -> None:
        match effect:
            case events.FeedAudio():
                self._recogniser.push(pcm)
            case events.FeedRecogniser(item=item):
                self._recogniser.put(item)
            case events.SendEvent(message=message):
                self._output.put(message)
            case events.Record(turn=turn):
                self._record(turn)
            case events.StartReply():
                self._replies.start(effect)
            case events.CommitReply():
                self._replies.commit(effect, prefills=self._read_ahead.take_times())
            case events.CancelReply(turn_id=turn_id):
                if (heard := self._replies.cancel(turn_id)) is not None:
                    self._handle(events.ReplyStopped(heard))
            case events.ReportPlayback():
                self._replies.report_playback(effect)
            case events.ChangeVoice(voice=voice):
                self._replies.change_voice(voice)
            case events.HoldSpeech(is_held=is_held):
                (self._may_speak.clear if is_held else self._may_speak.set)()
            case events.Prefill(history=history, text=text):
                self._read_ahead.request(lambda: compose(self._scene, history, text))
            case events.StopPrefill():
                self._replies.note_ending(self._read_ahead.stop())
            case events.LookUpVoice(voice_profile_id=profile_id, is_choice=is_choice):
                self._look_up(is_choice, lambda: self._find_voice(profile_id), effect, events.VoiceFound)
            case events.LookUpPast(turn_id=turn_id):
                self._look_up(events.LookUpPast, lambda: self._find_past(turn_id), effect, events.PastFound)
            case events.Decode(number=number, data=data, format=kind, max_ms=max_ms):
                self._places[number] = self._recogniser.reserve()
                self._look_up((number,), lambda: self._decode_audio(data, kind, max_ms), effect, events.UploadDecoded)
            case events.FillPlace(number=number, items=items):
                if (decoding := self._lookups.pop((number,), None)) is not None:
                    decoding.cancel()
                self._recogniser.fill(self._places.pop(number), items)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        assert self._group is not None  # noqa: S101 — for the type checker: events are handled while the call runs
        return self._group.create_task(work)

    def _look_up(
        self,
        key: object,
        find: Callable[[], Awaitable[Any]],
        effect: events.Effect,
        answer: Callable[[Any, Any], events.Input],
    ) -> None:
        """Have something found or decoded; it replaces what the same key stands for."""
        settings = self._settings
        timeout_s = settings.decode_s if isinstance(effect, events.Decode) else settings.lookup_s

        async def find_and_report() -> None:
            outcome = await attempt(find(), timeout_s=timeout_s)
            if self._lookups.get(key) is asyncio.current_task():
                del self._lookups[key]
                self._put(answer(effect, outcome))

        if (before := self._lookups.pop(key, None)) is not None:
            before.cancel()
        self._lookups[key] = self._spawn(find_and_report())
