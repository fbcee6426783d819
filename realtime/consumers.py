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

import soundfile
from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from django.conf import settings
from django.db import DatabaseError
from django.http.request import split_domain_port, validate_host
from django.urls import reverse

from conversations.models import Conversation
from conversations.services import find_memory_of, resume_conversation, start_conversation
from inference.interfaces import Inference, Message, Quality
from realtime import protocol
from realtime.audio_input import decode_audio
from realtime.pipeline import (
    BegunTurn,
    CallOverrun,
    CallSettings,
    CorrectedTurn,
    DroppedTurn,
    PastTurn,
    SaidTurn,
    VoicePipeline,
)
from realtime.protocol import ErrorCode, ProtocolError, ServerMessage
from realtime.recorder import Recorder, Trouble
from realtime.reply import Voice, VoiceUnreadable
from realtime.wording import find_language, word_error
from voices.models import VoiceProfile
from voices.services import read_preference
from voices.sound import read_sound

if TYPE_CHECKING:
    from django.contrib.auth.models import User

logger = logging.getLogger(__name__)

#: Messages that wait to be written. Audio runs at most two seconds ahead, so more than this is a client that has
#: stopped reading: nothing is dropped, the sender waits, and after `SEND_TIMEOUT_S` the call is over.
MAX_OUTBOX = 256
SEND_TIMEOUT_S = 10.0


class Admission:
    """Counts the calls of this process."""

    def __init__(self) -> None:
        self.active = 0

    def enter(self, limit: int) -> bool:
        """Take a place, if there is one."""
        if self.active >= limit:
            return False
        self.active += 1
        return True

    def leave(self) -> None:
        self.active -= 1


admission = Admission()


class ClientTooSlow(Exception):
    """The client has stopped reading."""


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

    # Calls talk to nobody else: without a layer there is no second stream of messages to wait for.
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
        self.is_admitted = False
        self.is_closed = False
        #: Whether what is said is kept. Decided before the call begins, for all of it.
        self.is_kept = True
        #: It was deleted while it goes on.
        self.is_conversation_gone = False

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
        self.language = find_language(self.scope["headers"])
        # First accept: a browser sees a close code only of a socket that was open.
        await self.accept()
        try:
            self._check_origin()
            conversation, is_resumed = await self._find_conversation()
            self.is_kept = self._read_query("keep") in (None, "yes")
            if not admission.enter(settings.AVATAR_MAX_SESSIONS):
                raise Refusal(protocol.CLOSE_SERVER_FULL, ErrorCode.SERVER_FULL)
            self.is_admitted = True
            if conversation is None and self.is_kept:
                conversation = await database_sync_to_async(start_conversation)(owner=self.scope["user"])
            history = await self._read_history(conversation) if conversation and is_resumed else []
            voice, quality = await self._find_preferred_voice()
        except Refusal as refusal:
            if refusal.code is not None:
                await self._write(protocol.ErrorMessage(code=refusal.code, error="", is_fatal=True))
            await self._hang_up(refusal.close_code)
            return
        call_settings = replace(make_call_settings(), voice=voice, quality=quality)
        self._start_call(conversation, history, call_settings, is_resumed=is_resumed)

    def _check_origin(self) -> None:
        headers = {name.lower(): value.decode("latin-1") for name, value in self.scope["headers"]}
        origin = headers.get(b"origin")
        # Browsers always send an origin; other programs bring no cookies that somebody else could ride on.
        if origin is None or origin in settings.CSRF_TRUSTED_ORIGINS:
            return
        host = headers.get(b"host", "")
        name, _ = split_domain_port(host)
        allowed = settings.ALLOWED_HOSTS or ([".localhost", "127.0.0.1", "[::1]"] if settings.DEBUG else [])
        if urlsplit(origin).netloc.lower() != host.lower() or not validate_host(name, allowed):
            raise Refusal(protocol.CLOSE_WRONG_ORIGIN)

    async def _find_conversation(self) -> tuple[Conversation | None, bool]:
        user = self.scope.get("user")
        if user is None or not user.is_authenticated:
            raise Refusal(protocol.CLOSE_NOT_LOGGED_IN)
        wanted = self._read_query("conversation")
        if wanted is None:
            return None, False
        try:
            conversation_id = UUID(wanted)
        except ValueError:
            raise Refusal(protocol.CLOSE_UNKNOWN_CONVERSATION) from None
        conversation = await Conversation.objects.owned_by(user).filter(pk=conversation_id).afirst()
        if conversation is None:
            raise Refusal(protocol.CLOSE_UNKNOWN_CONVERSATION)
        return conversation, True

    def _read_query(self, name: str) -> str | None:
        values = parse_qs(self.scope["query_string"].decode("latin-1"), keep_blank_values=True).get(name)
        return values[0] if values else None

    async def _read_history(self, conversation: Conversation) -> list[PastTurn]:
        said = await database_sync_to_async(resume_conversation)(
            conversation_id=conversation.pk, limit=settings.AVATAR_LANGUAGE_MODEL_HISTORY_TURNS
        )
        return [_make_past_turn(*turn) for turn in said]

    def _start_call(
        self,
        conversation: Conversation | None,
        history: list[PastTurn],
        call_settings: CallSettings,
        *,
        is_resumed: bool,
    ) -> None:
        """Without a conversation, or when it is not to be kept, nothing is written anywhere."""
        conversation_id = conversation.pk if conversation and self.is_kept else None
        if conversation_id is not None:
            self.recorder = Recorder(conversation_id=conversation_id, on_trouble=self._report_trouble)

        async def find_past(turn_id: UUID) -> list[PastTurn] | None:
            if conversation is None:
                return None
            said = await database_sync_to_async(find_memory_of)(
                conversation_id=conversation.pk, turn_id=turn_id, limit=call_settings.max_history_messages
            )
            return None if said is None else [_make_past_turn(*turn) for turn in said]

        def make_audio_url(turn_id: UUID) -> str | None:
            if conversation_id is None or self.is_conversation_gone:
                return None
            return reverse("conversations_api:turn-audio", args=[conversation_id, turn_id])

        self.pipeline = VoicePipeline(
            stt=self.inference.stt,
            llm=self.inference.llm,
            tts=self.inference.tts,
            send_event=self._put,
            send_audio=self._put,
            record=self.recorder.record if self.recorder else _forget,
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
            protocol.ReadyStatus(
                conversation_id=conversation_id,
                voice_profile_id=call_settings.voice.profile_id,
                is_resumed=is_resumed,
                limits=protocol.Limits(
                    max_utterance_bytes=call_settings.max_utterance_bytes,
                    max_utterance_chunks=call_settings.max_utterance_chunks,
                    max_utterance_s=call_settings.max_utterance_s,
                ),
            )
        )
        self.call = asyncio.create_task(self._hold_call(self.pipeline), name=f"call {self.session_id}")

    def _report_trouble(self, trouble: Trouble) -> None:
        if trouble is Trouble.GONE:
            self.is_conversation_gone = True
        told_apart = {Trouble.GONE: ErrorCode.CONVERSATION_GONE, Trouble.RECOVERED: ErrorCode.KEPT_AGAIN}
        code = told_apart.get(trouble, ErrorCode.NOT_KEPT)
        self._answer_at_once(protocol.ErrorMessage(code=code, error="", detail=trouble.value))

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
        try:
            if bytes_data is not None:
                protocol.check_frame(bytes_data)
                self.pipeline.push_frame(bytes_data)
                return
            message = protocol.parse(text_data or "")
            if isinstance(message, protocol.PingMessage):
                self.outbox.put_nowait(protocol.Pong(nonce=message.nonce))
            else:
                self.pipeline.push_message(message)
        except ProtocolError as error:
            self._answer_at_once(protocol.ErrorMessage(code=error.code, error="", detail=error.detail))
        except (CallOverrun, asyncio.QueueFull) as error:
            logger.warning("session %s: %s", self.session_id, error or "answers wait to be read")
            await self._hang_up(protocol.CLOSE_TOO_SLOW)

    def _answer_at_once(self, message: ServerMessage) -> None:
        """Answer without waiting. Answers to a client that reads none are left out."""
        with contextlib.suppress(asyncio.QueueFull):
            self.outbox.put_nowait(message)

    # --- what the client is sent ---

    async def _put(self, message: ServerMessage | bytes) -> None:
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
        if isinstance(message, bytes):
            await self.send(bytes_data=message)
            return
        if isinstance(message, protocol.ErrorMessage):
            message = replace(message, error=word_error(message.code, self.language))
        await self.send(text_data=protocol.serialise(message, session_id=self.session_id))

    # --- the call and its end ---

    async def _hold_call(self, pipeline: VoicePipeline) -> None:
        """Nobody awaits this task: whatever ends it closes the socket."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._write_all())
                group.create_task(pipeline.run())
        except* ClientTooSlow:
            logger.warning("session %s: the client has stopped reading", self.session_id)
            await self._hang_up(protocol.CLOSE_TOO_SLOW)
        except* Exception:
            logger.exception("session %s failed", self.session_id)
            with contextlib.suppress(TimeoutError, OSError):
                async with asyncio.timeout(SEND_TIMEOUT_S):
                    await self._write(protocol.ErrorMessage(code=ErrorCode.FATAL_ERROR, error="", is_fatal=True))
            await self._hang_up(protocol.CLOSE_FATAL_ERROR)

    async def _hang_up(self, close_code: int) -> None:
        """Close the socket, once. Nothing is read from it or written to it afterwards."""
        if self.is_closed:
            return
        self.is_closed = True
        with contextlib.suppress(TimeoutError, OSError):
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await self.close(close_code)
        self._end_call()

    def _end_call(self) -> None:
        if self.call is not None and self.call is not asyncio.current_task():
            self.call.cancel()

    async def _clean_up(self) -> None:
        """End the call's work, give its place back, and have saved what was said."""
        self.is_closed = True
        try:
            if self.call is not None:
                self.call.cancel()
                await asyncio.wait([self.call])
        finally:
            if self.is_admitted:
                self.is_admitted = False
                admission.leave()
            if self.recorder is not None:
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
        sound = read_sound(profile)
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
    except (DatabaseError, VoiceUnreadable):
        # It goes on as it was, and the next clause asks again: no call is to end of it.
        logger.exception("cannot look after voice %s", voice.profile_id)
        return voice


def _make_past_turn(turn_id: UUID, speaker: str, text: str) -> PastTurn:
    return PastTurn(turn_id, Message("user" if speaker == "user" else "assistant", text))


def _forget(turn: SaidTurn | BegunTurn | DroppedTurn | CorrectedTurn) -> None:
    """Keep nothing, as was asked for."""


def make_call_settings() -> CallSettings:
    """Read the operator's choices."""
    return CallSettings(
        system_prompt=settings.AVATAR_SYSTEM_PROMPT,
        pause_ms=settings.AVATAR_PAUSE_MS,
        sensitivity=settings.AVATAR_SENSITIVITY,
        max_reply_tokens=settings.AVATAR_MAX_REPLY_TOKENS,
        temperature=settings.AVATAR_TEMPERATURE,
        max_history_messages=settings.AVATAR_LANGUAGE_MODEL_HISTORY_TURNS,
        max_utterance_bytes=settings.AVATAR_MAX_UTTERANCE_BYTES,
        max_utterance_chunks=settings.AVATAR_MAX_UTTERANCE_CHUNKS,
        max_utterance_s=settings.AVATAR_MAX_UTTERANCE_S,
    )
