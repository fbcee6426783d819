"""
The socket of a call: accepts, receives, sends, closes. It decides nothing about the conversation.

The rest of a call: `entry.py` (who may enter), `runner.py` (the conversation), `outbox.py` (what is sent), `watch.py`
(what ends it from outside), `call_conversation.py` (what is kept).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import msgspec
from autobahn.exception import Disconnected
from channels.generic.websocket import AsyncWebsocketConsumer
from django.conf import settings

from avatar_site.lib import metrics
from inference.interfaces import Inference
from inference.telemetry import context
from realtime import entry, messages, voice_lookup
from realtime.admission import admission
from realtime.audio_input import decode_audio
from realtime.call.turns import RecordedTurn, SaidTurn
from realtime.call.voice import Voice
from realtime.call_conversation import CallConversation
from realtime.call_table import call_table
from realtime.entry import CallRequest, Refusal, Start, Waiting
from realtime.limits import BudgetExceeded, IdleWatch, SocketBudget
from realtime.messages import ErrorCode, ProtocolError, ServerMessage
from realtime.models import CallState
from realtime.outbox import SEND_TIMEOUT_S, ClientLeft, ClientTooSlow, Outbox, OutboxFull, Outgoing
from realtime.recorder import Trouble
from realtime.runner import CallOverrun, CallRunner
from realtime.ui_strings import negotiate_language, translate_error, translate_idle_warning
from realtime.waiting_list import waiting_list
from realtime.watch import CallWatch, EndedFromOutside, IdleOver, IdleSoon, LoginOver, WatchEvent

if TYPE_CHECKING:
    from django.contrib.auth.models import User

logger = logging.getLogger(__name__)

CLOSE_TIMEOUT_S = 2.0
#: How long the place of a call that has waited is held until its client sends something: time for the browser to ask
#: whether the page may use the microphone.
ANSWER_S = 20.0
#: What servers raise when they are to write to a client that has left: ASGI's, and Daphne's (autobahn's) own.
SOCKET_CLOSED = (OSError, Disconnected)
_TROUBLE_CODES = {Trouble.GONE: ErrorCode.CONVERSATION_GONE, Trouble.RECOVERED: ErrorCode.KEPT_AGAIN}


class VoiceConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]  # Channels publishes no types
    """
    One socket. `inference` goes in through `as_asgi`.

    Receiving only hands over: the call, the writing and the watch are tasks, and end in `__call__`'s `finally`.
    """

    # Channels would wait for the layer and for every audio frame together: `watch.py` follows the layer in a task.
    channel_layer_alias = None

    def __init__(self, *, inference: Inference, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self.inference = inference
        self.clock = clock
        self.language = settings.LANGUAGE_CODE
        # As other calls see this one; set before it takes a place.
        self.session_id = uuid4()
        self.user_id = 0
        self.conversation_id: UUID | None = None
        self.outbox = Outbox(self._write)
        self.budget = SocketBudget(
            max_utterance_bytes=settings.AVATAR_MAX_UTTERANCE_BYTES,
            max_utterance_chunks=settings.AVATAR_MAX_UTTERANCE_CHUNKS,
            max_utterance_s=settings.AVATAR_MAX_UTTERANCE_S,
            now=clock(),
        )
        # From here on: once the call has begun.
        self.conversation: CallConversation | None = None
        self.runner: CallRunner | None = None
        self.watch: CallWatch | None = None
        #: Set by the first message of a call that has waited; its place is held until then.
        self.has_answered = asyncio.Event()
        self.call: asyncio.Task[None] | None = None
        self.cleaning: asyncio.Task[None] | None = None
        self.is_closed = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._clean_up()

    async def dispatch(self, message: dict[str, Any]) -> None:
        # Channels visits the process-wide database thread before every handler. Messages during a call need no
        # database, and fifty frames a second must not queue behind other people's queries.
        if message["type"] == "websocket.receive":
            await self.websocket_receive(message)
        else:
            await super().dispatch(message)

    # --- entering ---

    async def connect(self) -> None:
        self.language = negotiate_language(self.scope["headers"], wanted=entry.read_query(self.scope, "language"))
        # First accept: a browser sees a close code only of a socket that was open.
        await self.accept()
        try:
            request = entry.read_request(self.scope)
            self.user_id, self.conversation_id = request.login.user_id, request.wanted_id
            # In the socket's task: the call's begin with a copy.
            context.bind(session_id=self.session_id, user_id=self.user_id)
            entered = await entry.enter(self, request, admission, call_table)
        except Refusal as refusal:
            await self._refuse(refusal)
            return
        if self.is_closed:
            # Ended from outside while it entered: it was replaced, or the process stops.
            admission.leave(self)
            await call_table.leave(self.session_id)
            return
        if isinstance(entered, Start):
            self._start_call(request, entered)
        self.call = asyncio.create_task(self._hold_call(request, entered), name=f"call {self.session_id}")

    async def _refuse(self, refusal: Refusal) -> None:
        admission.leave(self)
        metrics.count_refused_call(messages.name_close_code(refusal.close_code))
        await call_table.leave(self.session_id)
        if refusal.code is not None:
            with contextlib.suppress(ClientLeft):
                await self._write(messages.ErrorMessage(code=refusal.code, error="", is_fatal=True))
        await self._hang_up(refusal.close_code)

    def _start_call(self, request: CallRequest, start: Start, *, answer_within_s: int | None = None) -> None:
        self.conversation_id = start.conversation_id
        self.conversation = CallConversation(
            start.conversation_id,
            is_kept=request.is_kept,
            begun_by=self.user_id if start.is_new else None,
            on_trouble=self._report_trouble,
        )
        self.runner = runner = self._make_runner(start, self.conversation, request.user)
        self.watch = CallWatch(
            login=request.login,
            session_id=self.session_id,
            idle=IdleWatch(limit_s=settings.AVATAR_IDLE_TIMEOUT_S, now=self.clock()),
            clock=self.clock,
            read_voice=lambda: runner.voice,
            on_voice_changed=runner.notify_voice,
            handle=self._handle_watch_event,
        )
        self.outbox.put_nowait(
            messages.ReadyStatus(
                conversation_id=self.conversation.kept_id,
                voice_profile_id=start.voice.profile_id,
                is_resumed=request.wanted_id is not None,
                limits=messages.Limits(
                    max_utterance_bytes=settings.AVATAR_MAX_UTTERANCE_BYTES,
                    max_utterance_chunks=settings.AVATAR_MAX_UTTERANCE_CHUNKS,
                    max_utterance_s=settings.AVATAR_MAX_UTTERANCE_S,
                ),
                answer_within_s=answer_within_s,
            )
        )

    def _make_runner(self, start: Start, conversation: CallConversation, user: User) -> CallRunner:
        return CallRunner(
            stt=self.inference.stt,
            llm=self.inference.llm,
            tts=self.inference.tts,
            send_event=self._send_event,
            send_audio=self._send_event,
            record=self._record,
            history=start.history,
            settings=replace(entry.make_call_settings(), voice=start.voice, quality=start.quality),
            find_voice=partial(voice_lookup.find_voice, user),
            find_past=conversation.find_past,
            decode_audio=decode_audio,
            make_audio_url=conversation.make_audio_url,
            clock=self.clock,
        )

    # --- receiving ---

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if self.is_closed:
            return
        now = self.clock()
        try:
            if bytes_data is not None:
                self.budget.charge_frame(len(bytes_data), now)
                messages.check_frame(bytes_data)
                if self.runner is not None:
                    self.has_answered.set()
                    self.runner.push_frame(bytes_data)
            else:
                self._receive_text(text_data or "", now)
        except ProtocolError as error:
            await self._answer_error(error, now)
        except (BudgetExceeded, CallOverrun, OutboxFull) as error:
            await self._cut_off(error)

    def _receive_text(self, text: str, now: float) -> None:
        self.budget.charge_json(len(text), now)
        try:
            message = messages.parse(text)
        except ProtocolError:
            self.budget.charge_message(now, is_chunk=False)
            raise
        self.budget.charge_message(now, is_chunk=isinstance(message, messages.AudioChunkMessage))
        if isinstance(message, messages.PingMessage):
            self.outbox.put_nowait(messages.Pong(nonce=message.nonce))
            return
        if isinstance(message, messages.ConfigureMessage) and message.page_language is not messages.UNSET:
            self.language = message.page_language
        if self.runner is not None:  # while the call waits, nothing is done
            self.has_answered.set()
            self.runner.push_message(message)

    async def _answer_error(self, error: ProtocolError, now: float) -> None:
        try:
            self.budget.charge_error(now)
        except BudgetExceeded as exceeded:
            await self._cut_off(exceeded)
        else:
            self.outbox.offer(messages.ErrorMessage(code=error.code, error="", detail=error.detail))

    async def _cut_off(self, error: Exception) -> None:
        logger.warning("session %s is cut off: %s", self.session_id, str(error) or type(error).__name__)
        await self._hang_up(messages.CLOSE_TOO_SLOW)

    # --- sending ---

    async def _send_event(self, message: Outgoing) -> None:
        """Queue a message of the call; wait for room. Raises ClientTooSlow."""
        if self.watch is not None and _is_activity(message):
            self.watch.note_activity()
        await self.outbox.put(message)

    async def _write(self, message: Outgoing) -> None:
        """Write one message to the socket. Raises ClientLeft."""
        try:
            if isinstance(message, bytes):
                await self.send(bytes_data=message)
                return
            if isinstance(message, messages.ErrorMessage):
                metrics.count_error(message.code.value)
                message = msgspec.structs.replace(message, error=translate_error(message.code, self.language))
            await self.send(text_data=messages.serialise(message, session_id=self.session_id))
        except SOCKET_CLOSED as error:
            raise ClientLeft from error

    # --- what is kept, what ends the call from outside ---

    @property
    def is_conversation_unbegun(self) -> bool:
        return self.conversation is not None and self.conversation.is_unbegun

    def _record(self, turn: RecordedTurn) -> None:
        """Keep a turn, and have login and voice checked once it is complete: not with every clause."""
        if self.watch is not None and isinstance(turn, SaidTurn):
            self.watch.recheck()
        if self.conversation is not None:
            self.conversation.record(turn)

    def _report_trouble(self, trouble: Trouble) -> None:
        code = _TROUBLE_CODES.get(trouble, ErrorCode.NOT_KEPT)
        self.outbox.offer(messages.ErrorMessage(code=code, error="", detail=trouble.value))

    async def _handle_watch_event(self, event: WatchEvent) -> None:
        match event:
            case LoginOver():
                logger.info("session %s ends with its login", self.session_id)
                await self._hang_up(messages.CLOSE_NOT_LOGGED_IN)
            case EndedFromOutside(is_replaced):
                logger.info(
                    "session %s %s", self.session_id, "is replaced" if is_replaced else "is ended by an operator"
                )
                await self._hang_up(messages.CLOSE_REPLACED if is_replaced else messages.CLOSE_ENDED_BY_OPERATOR)
            case IdleSoon(ends_in_s):
                notice = translate_idle_warning(self.language)
                self.outbox.offer(messages.IdleWarning(ends_in_s=ends_in_s, notice=notice))
            case IdleOver():
                logger.info("session %s ends: idle", self.session_id)
                await self._hang_up(messages.CLOSE_IDLE)

    # --- the waiting list ---

    async def _wait_for_place(self, request: CallRequest) -> None:
        """Tell the client its place in the waiting list until the call has been given a place."""
        watch = CallWatch(
            login=request.login,
            session_id=self.session_id,
            idle=IdleWatch(limit_s=0, now=self.clock()),
            clock=self.clock,
            read_voice=Voice,
            on_voice_changed=lambda profile_id: None,
            handle=self._handle_watch_event,
        )
        began_at = self.clock()
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(watch.run())
            with waiting_list.joined(self.session_id) as spot:
                while (standing := await spot.read_next()).state is not CallState.ACTIVE:
                    if standing.state is CallState.WAITING:
                        await self.outbox.put(messages.Waiting(place=standing.place, count=standing.count))
                    else:
                        watch.recheck()  # an operator has ended it, or another socket has taken it over
            watching.cancel()
        logger.info("session %s has waited for %.0f s", self.session_id, self.clock() - began_at)

    async def _expect_answer(self) -> None:
        """End a call that has waited and is not answered, so that the next one gets its place."""
        try:
            async with asyncio.timeout(ANSWER_S):
                await self.has_answered.wait()
        except TimeoutError:
            logger.info("session %s does not answer: its place goes to the next", self.session_id)
            # Not only when the other end has closed the socket, too: it may be dead.
            admission.leave(self)
            call_table.release(self.session_id)
            waiting_list.nudge()
            await self._hang_up(messages.CLOSE_NO_ANSWER)

    # --- the call and its end ---

    async def _hold_call(self, request: CallRequest, entered: Start | Waiting) -> None:
        """Run the call's tasks. This one is not awaited: every failure in it closes the socket."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.outbox.run())
                if isinstance(entered, Waiting):
                    await self._wait_for_place(request)
                    start = await entry.enter_from_list(self, request, entered, admission)
                    self._start_call(request, start, answer_within_s=round(ANSWER_S))
                    group.create_task(self._expect_answer())
                for part in (self.runner, self.watch):
                    if part is not None:  # as both are, once the call has begun
                        group.create_task(part.run())
        except* Refusal as refused:
            for refusal in refused.exceptions:
                if isinstance(refusal, Refusal):
                    await self._refuse(refusal)
        except* ClientLeft:
            logger.info("session %s: the client has left", self.session_id)
            await self._hang_up(messages.CLOSE_TOO_SLOW)
        except* (ClientTooSlow, CallOverrun):
            logger.warning("session %s: the client has stopped reading", self.session_id)
            await self._hang_up(messages.CLOSE_TOO_SLOW)
        except* Exception:
            logger.exception("session %s failed", self.session_id)
            with contextlib.suppress(TimeoutError, ClientLeft):
                async with asyncio.timeout(SEND_TIMEOUT_S):
                    await self._write(messages.ErrorMessage(code=ErrorCode.FATAL_ERROR, error="", is_fatal=True))
            await self._hang_up(messages.CLOSE_FATAL_ERROR)

    async def finish_sentence(self) -> None:
        if self.runner is not None:
            await self.runner.finish_sentence()

    async def end(self, close_code: int) -> None:
        if self.conversation is not None:
            self.conversation.hurry()
        # At once: the other end may be dead, and the turns are to be saved in any case.
        await asyncio.gather(self._hang_up(close_code), self._clean_up())

    async def _hang_up(self, close_code: int) -> None:
        """Close the socket, once, and end the call. Nothing is read from it or written to it afterwards."""
        if self.is_closed:
            return
        self.is_closed = True
        with contextlib.suppress(TimeoutError, *SOCKET_CLOSED):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self.close(close_code)
        if self.call is not None and self.call is not asyncio.current_task():
            self.call.cancel()

    async def _clean_up(self) -> None:
        """End the call's work, give its place back, and save its turns. Idempotent."""
        self.is_closed = True
        if self.cleaning is None:
            self.cleaning = asyncio.create_task(self._release(), name=f"clean up {self.session_id}")
        await asyncio.shield(self.cleaning)

    async def _release(self) -> None:
        try:
            if self.call is not None:
                self.call.cancel()
                await asyncio.wait([self.call])
        finally:
            admission.leave(self)
            call_table.release(self.session_id)
            waiting_list.nudge()
            try:
                if self.conversation is not None:
                    with admission.saving(self):
                        await self.conversation.close()
            finally:
                await call_table.leave(self.session_id)


def _is_activity(message: ServerMessage | bytes) -> bool:
    """Whether a message to the client shows that the user speaks, types or is answered."""
    match message:
        case bytes() | messages.LlmResponse() | messages.Status(is_speaking=True):
            return True
        case messages.Transcription(text=text):
            return bool(text)
        case _:
            return False
