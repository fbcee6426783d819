"""The socket of a call: checks who calls, translates messages, and decides nothing about the conversation."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID, uuid4

import msgspec
import soundfile
from autobahn.exception import Disconnected
from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from django.conf import settings
from django.db import Error as AnyDatabaseError
from django.http.request import split_domain_port, validate_host
from django.urls import reverse
from django.utils import timezone

from conversations.services import find_memory_of, has_conversation, resume_conversation
from inference.interfaces import Inference, Message, Quality
from realtime import messages
from realtime.admission import Entry, admission
from realtime.audio_input import decode_audio
from realtime.call.prompt import EXAMPLES
from realtime.call.settings import CallSettings
from realtime.call.turns import PastTurn
from realtime.call.voice import Voice, VoiceUnreadable
from realtime.limits import BudgetExceeded, Idleness, IdleWatch, SocketBudget
from realtime.logins import RECHECK_S, Login, follow_changes, is_valid, read_login
from realtime.messages import ErrorCode, ProtocolError, ServerMessage
from realtime.pipeline import CallOverrun, VoicePipeline
from realtime.recorder import HURRIED_PATIENCE_S, Item, Recorder, Trouble
from realtime.wording import find_language, word_error, word_idle_warning
from voices.models import VoiceProfile
from voices.services import read_preference
from voices.voice_spec import read_voice_spec

if TYPE_CHECKING:
    from django.contrib.auth.models import User

logger = logging.getLogger(__name__)

#: Messages that wait to be written. Audio runs at most two seconds ahead, so more than this is a client that has
#: stopped reading: nothing is dropped, the sender waits, and after `SEND_TIMEOUT_S` the call is over.
MAX_OUTBOX = 256
SEND_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 2.0
#: How long a call that takes over from another waits until the other's turns are saved.
TAKEOVER_TIMEOUT_S = 10.0
#: What servers raise when they are to write to a client that has left: ASGI's, and Daphne's (autobahn's) own.
SOCKET_CLOSED = (OSError, Disconnected)
_REFUSALS = {
    Entry.FULL: (messages.CLOSE_SERVER_FULL, ErrorCode.SERVER_FULL),
    Entry.TOO_MANY: (messages.CLOSE_TOO_MANY_CALLS, ErrorCode.TOO_MANY_CALLS),
    Entry.DRAINING: (messages.CLOSE_RESTARTING, None),
}


class ClientTooSlow(Exception):
    """The client has stopped reading."""


class ClientLeft(Exception):
    """The client is gone: nothing can be sent any more. The socket's end follows."""


class Refusal(Exception):
    """The call cannot be held. The socket is closed with `close_code`, after an error message if there is a `code`."""

    def __init__(self, close_code: int, code: ErrorCode | None = None) -> None:
        super().__init__(close_code)
        self.close_code = close_code
        self.code = code


class VoiceConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]  # Channels publishes no types
    """
    One socket. `inference` goes in through `as_asgi`.

    Receiving only hands over: the call and the writing are tasks of their own, and end in `__call__`'s `finally`.
    """

    # Channels would wait for the layer and for every audio frame together. What is said of logins is heard in a task of
    # the call instead.
    channel_layer_alias = None

    def __init__(self, *, inference: Inference, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self.inference = inference
        self.clock = clock
        self.session_id = uuid4()
        self.language = settings.LANGUAGE_CODE
        self.pipeline: VoicePipeline | None = None
        self.recorder: Recorder | None = None
        self.outbox: asyncio.Queue[ServerMessage | bytes] = asyncio.Queue(MAX_OUTBOX)
        self.call: asyncio.Task[None] | None = None
        self.cleaning: asyncio.Task[None] | None = None
        self.is_closed = False
        #: Whether what is said is kept. Decided before the call begins, for all of it.
        self.is_kept = True
        #: It was deleted while it goes on.
        self.is_conversation_gone = False
        # As others see the call; set before it takes a place.
        self.user_id = 0
        self.conversation_id: UUID | None = None
        #: Its conversation gets a row with its first turn.
        self.is_new = False
        self.login: Login | None = None
        #: The login is to be looked at now, or is known to be over.
        self.is_recheck_due = asyncio.Event()
        self.is_logged_out = False
        now = clock()
        self.idle_watch = IdleWatch(limit_s=settings.AVATAR_IDLE_TIMEOUT_S, now=now)
        self.budget = SocketBudget(
            max_utterance_bytes=settings.AVATAR_MAX_UTTERANCE_BYTES,
            max_utterance_chunks=settings.AVATAR_MAX_UTTERANCE_CHUNKS,
            max_utterance_s=settings.AVATAR_MAX_UTTERANCE_S,
            now=now,
        )

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._clean_up()

    async def dispatch(self, message: dict[str, Any]) -> None:
        # Channels visits the process-wide database thread before every handler. What a client says during a call needs
        # no database, and fifty frames a second must not queue behind other people's queries.
        if message["type"] == "websocket.receive":
            await self.websocket_receive(message)
        else:
            await super().dispatch(message)

    # --- the beginning ---

    async def connect(self) -> None:
        self.language = find_language(self.scope["headers"], wanted=self._read_query("language"))
        # First accept: a browser sees a close code only of a socket that was open.
        await self.accept()
        try:
            self._check_origin()
            self._check_login()
            wanted = self._read_wanted_conversation()
            self.is_kept = self._read_query("keep") in (None, "yes")
            replaced = await self._take_place(wanted)
            history = await self._find_history(wanted, replaced)
            voice, quality = await self._find_preferred_voice()
        except Refusal as refusal:
            admission.leave(self)
            if refusal.code is not None:
                with contextlib.suppress(ClientLeft):
                    await self._write(messages.ErrorMessage(code=refusal.code, error="", is_fatal=True))
            await self._hang_up(refusal.close_code)
            return
        if self.is_closed:
            return  # ended from outside in the meantime: it was replaced, or the process ends
        call_settings = replace(make_call_settings(), voice=voice, quality=quality)
        self._start_call(history, call_settings, is_resumed=wanted is not None)

    def _check_origin(self) -> None:
        headers = {name.lower(): value.decode("latin-1") for name, value in self.scope["headers"]}
        origin = headers.get(b"origin")
        # Browsers always send an origin; other programs bring no cookies that somebody else could ride on.
        if origin is None or origin in settings.CSRF_TRUSTED_ORIGINS:
            return
        host = headers.get(b"host", "")
        name, _ = split_domain_port(host)
        allowed = settings.ALLOWED_HOSTS or ([".localhost", "127.0.0.1", "[::1]"] if settings.DEBUG else [])
        expected = (self._find_scheme(headers), host.lower())
        if urlsplit(origin)[:2] != expected or not validate_host(name, allowed):
            raise Refusal(messages.CLOSE_WRONG_ORIGIN)

    def _find_scheme(self, headers: dict[bytes, str]) -> str:
        """Return what a page of this site is called with, as Django's `HttpRequest.scheme` does."""
        if settings.SECURE_PROXY_SSL_HEADER:
            header, secure_value = settings.SECURE_PROXY_SSL_HEADER
            sent = headers.get(header.removeprefix("HTTP_").replace("_", "-").lower().encode())
            if sent is not None:
                return "https" if sent.split(",")[0].strip() == secure_value else "http"
        return "https" if self.scope.get("scheme") == "wss" else "http"

    def _check_login(self) -> None:
        user = self.scope.get("user")
        if user is None or not user.is_authenticated:
            raise Refusal(messages.CLOSE_NOT_LOGGED_IN)
        self.login = read_login(user, self.scope.get("session"))
        self.user_id = user.pk

    def _read_wanted_conversation(self) -> UUID | None:
        wanted = self._read_query("conversation")
        try:
            return UUID(wanted) if wanted is not None else None
        except ValueError:
            raise Refusal(messages.CLOSE_UNKNOWN_CONVERSATION) from None

    async def _take_place(self, wanted: UUID | None) -> VoiceConsumer | None:
        """
        Take a place, or that of the person's own call which holds the wanted conversation: return it, ended and saved.

        A connection that was lost is held for up to a minute, until its ping is missed; so is its place.
        """
        self.conversation_id = wanted
        replaced = admission.find(user_id=self.user_id, conversation_id=wanted) if wanted else None
        entry = admission.enter(
            self,
            limit=settings.AVATAR_MAX_SESSIONS,
            limit_per_person=settings.AVATAR_MAX_CALLS_PER_PERSON,
            replaced=replaced,
        )
        if entry in _REFUSALS:
            raise Refusal(*_REFUSALS[entry])
        if not isinstance(replaced, VoiceConsumer):
            return None
        try:
            async with asyncio.timeout(TAKEOVER_TIMEOUT_S):
                # Before the conversation is read: what was said last is then in it, once.
                await replaced.end(messages.CLOSE_REPLACED)
        except TimeoutError:
            logger.warning("session %s: what session %s has not saved comes late", self.session_id, replaced.session_id)
        return replaced

    async def _find_history(self, wanted: UUID | None, replaced: VoiceConsumer | None) -> list[PastTurn]:
        """Return what is remembered of the wanted conversation; without one, a new one begins with its first turn."""
        if wanted is None:
            self.conversation_id = uuid4() if self.is_kept else None
            self.is_new = True
            return []
        if await database_sync_to_async(has_conversation)(conversation_id=wanted, owner_id=self.user_id):
            return await self._read_history(wanted)
        if replaced is not None and replaced.is_new and not (replaced.recorder and replaced.recorder.is_begun):
            # The connection was lost before anything was kept: the id still stands for nothing.
            self.is_new = True
            return []
        raise Refusal(messages.CLOSE_UNKNOWN_CONVERSATION)

    def _read_query(self, name: str) -> str | None:
        values = parse_qs(self.scope["query_string"].decode("latin-1"), keep_blank_values=True).get(name)
        return values[0] if values else None

    async def _read_history(self, conversation_id: UUID) -> list[PastTurn]:
        said = await database_sync_to_async(resume_conversation)(
            conversation_id=conversation_id, limit=settings.AVATAR_LANGUAGE_MODEL_HISTORY_TURNS
        )
        return [_make_past_turn(*turn) for turn in said]

    def _start_call(self, history: list[PastTurn], call_settings: CallSettings, *, is_resumed: bool) -> None:
        """What is not to be kept is written nowhere: there is no recorder."""
        conversation_id = self.conversation_id
        kept_id = conversation_id if self.is_kept else None
        if kept_id is not None:
            begun_by = self.user_id if self.is_new else None
            self.recorder = Recorder(conversation_id=kept_id, on_trouble=self._report_trouble, begun_by=begun_by)

        async def find_past(turn_id: UUID) -> list[PastTurn] | None:
            if conversation_id is None:
                return None
            said = await database_sync_to_async(find_memory_of)(
                conversation_id=conversation_id, turn_id=turn_id, limit=call_settings.max_history_messages
            )
            return None if said is None else [_make_past_turn(*turn) for turn in said]

        def make_audio_url(turn_id: UUID) -> str | None:
            if kept_id is None or self.is_conversation_gone:
                return None
            return reverse("conversations_api:turn-audio", args=[kept_id, turn_id])

        self.pipeline = VoicePipeline(
            stt=self.inference.stt,
            llm=self.inference.llm,
            tts=self.inference.tts,
            send_event=self._put,
            send_audio=self._put,
            record=self._record,
            history=history,
            settings=call_settings,
            find_voice=self._find_voice,
            renew_voice=self._renew_voice,
            find_past=find_past,
            decode_audio=decode_audio,
            make_audio_url=make_audio_url,
            clock=self.clock,
        )
        self.outbox.put_nowait(
            messages.ReadyStatus(
                conversation_id=kept_id,
                voice_profile_id=call_settings.voice.profile_id,
                is_resumed=is_resumed,
                limits=messages.Limits(
                    max_utterance_bytes=call_settings.max_utterance_bytes,
                    max_utterance_chunks=call_settings.max_utterance_chunks,
                    max_utterance_s=call_settings.max_utterance_s,
                ),
            )
        )
        assert self.login is not None  # noqa: S101 — for the type checker: `connect` has looked
        self.idle_watch.note(self.clock())
        self.call = asyncio.create_task(self._hold_call(self.pipeline, self.login), name=f"call {self.session_id}")

    def _record(self, item: Item) -> None:
        """Keep a turn, and look whether the login still holds."""
        self.is_recheck_due.set()
        if self.recorder is not None:
            self.recorder.record(item)

    def _report_trouble(self, trouble: Trouble) -> None:
        if trouble is Trouble.GONE:
            self.is_conversation_gone = True
        told_apart = {Trouble.GONE: ErrorCode.CONVERSATION_GONE, Trouble.RECOVERED: ErrorCode.KEPT_AGAIN}
        code = told_apart.get(trouble, ErrorCode.NOT_KEPT)
        self._answer_at_once(messages.ErrorMessage(code=code, error="", detail=trouble.value))

    async def _find_voice(self, voice_profile_id: UUID | None) -> Voice | None:
        if voice_profile_id is None:
            return Voice()
        voice: Voice | None = await database_sync_to_async(find_voice)(self.scope["user"], voice_profile_id)
        return voice

    async def _renew_voice(self, voice: Voice) -> Voice | None:
        renewed: Voice | None = await database_sync_to_async(renew_voice)(self.scope["user"], voice)
        return renewed

    async def _find_preferred_voice(self) -> tuple[Voice, Quality]:
        """The voice and the quality that the user chose before. A voice that cannot be had now is passed over."""
        preference = await database_sync_to_async(read_preference)(user=self.scope["user"])
        try:
            voice = await self._find_voice(preference.profile_id)
        except VoiceUnreadable:
            voice = None
        return voice or Voice(), Quality(preference.quality)

    # --- what the client sends ---

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if self.pipeline is None or self.is_closed:
            return
        now = self.clock()
        try:
            if bytes_data is not None:
                self.budget.take_frame(len(bytes_data), now)
                messages.check_frame(bytes_data)
                self.pipeline.push_frame(bytes_data)
            else:
                self._take_text(text_data or "", now)
        except ProtocolError as error:
            await self._answer_error(error, now)
        except (BudgetExceeded, CallOverrun, asyncio.QueueFull) as error:
            await self._cut_off(str(error) or "answers wait to be read")

    def _take_text(self, text: str, now: float) -> None:
        assert self.pipeline is not None  # noqa: S101 — for the type checker: `receive` has looked
        self.budget.take_text(len(text), now)
        try:
            message = messages.parse(text)
        except ProtocolError:
            self.budget.take_message(now, is_chunk=False)
            raise
        self.budget.take_message(now, is_chunk=isinstance(message, messages.AudioChunkMessage))
        if isinstance(message, messages.PingMessage):
            self.outbox.put_nowait(messages.Pong(nonce=message.nonce))
            return
        if isinstance(message, messages.ConfigureMessage) and message.page_language is not messages.UNSET:
            self.language = message.page_language
        self.pipeline.push_message(message)

    async def _answer_error(self, error: ProtocolError, now: float) -> None:
        try:
            self.budget.take_error(now)
        except BudgetExceeded as exceeded:
            await self._cut_off(str(exceeded))
        else:
            self._answer_at_once(messages.ErrorMessage(code=error.code, error="", detail=error.detail))

    async def _cut_off(self, why: str) -> None:
        logger.warning("session %s is cut off: %s", self.session_id, why)
        await self._hang_up(messages.CLOSE_TOO_SLOW)

    def _answer_at_once(self, message: ServerMessage) -> None:
        """Answer without waiting. Answers to a client that reads none are left out."""
        with contextlib.suppress(asyncio.QueueFull):
            self.outbox.put_nowait(message)

    # --- what the client is sent ---

    async def _put(self, message: ServerMessage | bytes) -> None:
        if _is_conversation(message):
            self.idle_watch.note(self.clock())
        try:
            self.outbox.put_nowait(message)
        except asyncio.QueueFull:
            try:
                async with asyncio.timeout(SEND_TIMEOUT_S):
                    await self.outbox.put(message)
            except TimeoutError:
                raise ClientTooSlow from None

    async def _write_all(self) -> None:
        while True:
            message = await self.outbox.get()
            try:
                async with asyncio.timeout(SEND_TIMEOUT_S):
                    await self._write(message)
            except TimeoutError:
                raise ClientTooSlow from None

    async def _write(self, message: ServerMessage | bytes) -> None:
        """Write one message. Raises ClientLeft."""
        try:
            if isinstance(message, bytes):
                await self.send(bytes_data=message)
                return
            if isinstance(message, messages.ErrorMessage):
                message = msgspec.structs.replace(message, error=word_error(message.code, self.language))
            await self.send(text_data=messages.serialise(message, session_id=self.session_id))
        except SOCKET_CLOSED as error:
            raise ClientLeft from error

    # --- what may end the call ---

    async def _watch(self, login: Login) -> None:
        """End the call when its login is over, or when it is idle."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RECHECK_S):
                    await self.is_recheck_due.wait()
            self.is_recheck_due.clear()
            if self.is_logged_out or not await self._is_login_valid(login):
                logger.info("session %s ends with its login", self.session_id)
                await self._hang_up(messages.CLOSE_NOT_LOGGED_IN)
                return
            now = self.clock()
            match self.idle_watch.check(now):
                case Idleness.WARN:
                    ends_in_s = round(self.idle_watch.find_rest_s(now))
                    notice = word_idle_warning(self.language)
                    self._answer_at_once(messages.IdleWarning(ends_in_s=ends_in_s, notice=notice))
                case Idleness.OVER:
                    logger.info("session %s ends: nobody has said anything", self.session_id)
                    await self._hang_up(messages.CLOSE_IDLE)
                    return

    async def _is_login_valid(self, login: Login) -> bool:
        try:
            holds: bool = await database_sync_to_async(is_valid)(login)
        except AnyDatabaseError as error:
            # A database that restarts ends no call; the next look is soon.
            logger.warning("session %s: whether its login holds is not known: %s", self.session_id, error)
            return True
        return holds

    def _notice_logout(self) -> None:
        self.is_logged_out = True
        self.is_recheck_due.set()

    # --- the call and its end ---

    async def _hold_call(self, pipeline: VoicePipeline, login: Login) -> None:
        """Nobody awaits this task: whatever ends it closes the socket."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._write_all())
                group.create_task(pipeline.run())
                group.create_task(self._watch(login))
                group.create_task(
                    follow_changes(login, on_change=self.is_recheck_due.set, on_logout=self._notice_logout)
                )
        except* ClientLeft:
            logger.info("session %s: the client has left", self.session_id)
            await self._hang_up(messages.CLOSE_TOO_SLOW)
        except* ClientTooSlow:
            logger.warning("session %s: the client has stopped reading", self.session_id)
            await self._hang_up(messages.CLOSE_TOO_SLOW)
        except* Exception:
            logger.exception("session %s failed", self.session_id)
            with contextlib.suppress(TimeoutError, ClientLeft):
                async with asyncio.timeout(SEND_TIMEOUT_S):
                    await self._write(messages.ErrorMessage(code=ErrorCode.FATAL_ERROR, error="", is_fatal=True))
            await self._hang_up(messages.CLOSE_FATAL_ERROR)

    async def finish_sentence(self) -> None:
        if self.pipeline is not None:
            await self.pipeline.finish_sentence()

    async def end(self, close_code: int) -> None:
        if self.recorder is not None:
            self.recorder.limit_patience(HURRIED_PATIENCE_S)
        # At once: the other end may be dead, and what was said is to be saved in any case.
        await asyncio.gather(self._hang_up(close_code), self._clean_up())

    async def _hang_up(self, close_code: int) -> None:
        """Close the socket, once. Nothing is read from it or written to it afterwards."""
        if self.is_closed:
            return
        self.is_closed = True
        with contextlib.suppress(TimeoutError, *SOCKET_CLOSED):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self.close(close_code)
        self._end_call()

    def _end_call(self) -> None:
        if self.call is not None and self.call is not asyncio.current_task():
            self.call.cancel()

    async def _clean_up(self) -> None:
        """End the call's work, give its place back, and have saved what was said. Idempotent."""
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
            if self.recorder is not None:
                with admission.saving(self):
                    await self.recorder.close()


def find_voice(user: User, voice_profile_id: UUID) -> Voice | None:
    """
    Read a voice that the user may be answered in now; None if there is none. Slow: it may read a file.

    Raises VoiceUnreadable when there is one and it cannot be read.
    """
    profile = VoiceProfile.objects.usable_by(user).filter(pk=voice_profile_id).first()
    if profile is None:
        return None
    try:
        sound = read_voice_spec(profile)
    except (OSError, soundfile.LibsndfileError) as error:
        logger.exception("the clip of voice %s cannot be read", voice_profile_id)
        raise VoiceUnreadable(str(voice_profile_id)) from error
    return Voice(profile.pk, sound.engine_voice, sound.style, sound.reference, profile.version)


def renew_voice(user: User, voice: Voice) -> Voice | None:
    """Return `voice` itself if it is what it was, what has become of it, or None if the user may not have it now."""
    if voice.profile_id is None:
        return voice
    profiles = VoiceProfile.objects.usable_by(user).filter(pk=voice.profile_id)
    try:
        version = profiles.values_list("version", flat=True).first()
        if version is None:
            return None
        return voice if version == voice.version else find_voice(user, voice.profile_id)
    except (AnyDatabaseError, VoiceUnreadable):
        # It goes on as it was, and the next clause asks again: no call is to end of it.
        logger.exception("cannot look after voice %s", voice.profile_id)
        return voice


def _make_past_turn(turn_id: UUID, speaker: str, text: str) -> PastTurn:
    return PastTurn(turn_id, Message("user" if speaker == "user" else "assistant", text))


def _is_conversation(message: ServerMessage | bytes) -> bool:
    """Whether a message to the client shows activity: the user speaks, types or is answered."""
    match message:
        case bytes() | messages.LlmResponse() | messages.Status(is_speaking=True):
            return True
        case messages.Transcription(text=text):
            return bool(text)
        case _:
            return False


def make_call_settings() -> CallSettings:
    """Read the operator's choices."""
    return CallSettings(
        system_prompt=settings.AVATAR_SYSTEM_PROMPT,
        examples=EXAMPLES if settings.AVATAR_EXAMPLES else (),
        place=settings.AVATAR_PLACE,
        read_time=timezone.localtime,
        pause_ms=settings.AVATAR_PAUSE_MS,
        sensitivity=settings.AVATAR_SENSITIVITY,
        max_reply_tokens=settings.AVATAR_MAX_REPLY_TOKENS,
        temperature=settings.AVATAR_TEMPERATURE,
        repeat_penalty=settings.AVATAR_REPEAT_PENALTY,
        max_history_messages=settings.AVATAR_LANGUAGE_MODEL_HISTORY_TURNS,
        max_utterance_bytes=settings.AVATAR_MAX_UTTERANCE_BYTES,
        max_utterance_chunks=settings.AVATAR_MAX_UTTERANCE_CHUNKS,
        max_utterance_s=settings.AVATAR_MAX_UTTERANCE_S,
    )
