from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import av
import jsonschema
import numpy as np
import pytest
import soundfile
from asgiref.sync import sync_to_async
from channels.routing import URLRouter
from channels.testing import WebsocketCommunicator
from django.contrib.auth.models import AnonymousUser, User
from django.core.files.base import ContentFile
from django.utils import translation

from conversations.models import Conversation, Turn
from inference.interfaces import Message, Quality, VoiceReference
from realtime import consumers, protocol
from realtime.consumers import admission
from realtime.reply import Voice, VoiceUnreadable
from realtime.routing import websocket_urlpatterns
from realtime.wording import find_language
from tests import factories
from tests.fakes import (
    SPEECH,
    UTTERANCE,
    FakeInference,
    cut_frames,
    make_inference,
    make_silence,
    make_tone,
)
from voices import decoding
from voices.models import VoiceProfile
from voices.services import choose_default, choose_quality, delete_voice_profile

pytestmark = pytest.mark.django_db(transaction=True)

REPLY = "今天的天氣很好，我們可以一起出去走一走。晚上再回來看一部電影，你覺得好不好？"
VALIDATOR = jsonschema.Draft202012Validator(
    protocol.build_schema() | {"oneOf": [{"$ref": "#/$defs/ServerMessage"}]},
    format_checker=jsonschema.FormatChecker(),
)


class Client:
    """The browser's end of a socket."""

    def __init__(
        self, user: Any, inference: FakeInference, *, query: str = "", headers: dict[str, str] | None = None
    ) -> None:
        router = URLRouter(websocket_urlpatterns(inference))

        async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
            await router({**scope, "user": user}, receive, send)

        sent = {"host": "testserver", "origin": "http://testserver", "accept-language": "en"} | (headers or {})
        self.socket = WebsocketCommunicator(
            application,
            f"/ws/chat{query}",
            headers=[(name.encode(), value.encode()) for name, value in sent.items() if value],
        )
        self.received: list[dict[str, Any] | bytes] = []

    async def receive(self) -> dict[str, Any] | bytes:
        """Return the next message; one that closes the socket comes as {"type": "close"}."""
        output = await self.socket.receive_output(timeout=5)
        message: dict[str, Any] | bytes
        if output["type"] == "websocket.close":
            message = {"type": "close", "code": output.get("code")}
        elif "bytes" in output:
            message = output["bytes"]
        else:
            message = json.loads(output["text"])
            VALIDATOR.validate(message)
        self.received.append(message)
        return message

    async def wait_for(self, kind: str, **fields: Any) -> dict[str, Any]:
        while True:
            message = await self.receive()
            if not isinstance(message, dict):
                continue
            if message["type"] == kind and all(message[name] == value for name, value in fields.items()):
                return message
            assert message["type"] != "close", f"closed with {message['code']} while waiting for {kind}"

    async def wait_for_audio(self) -> bytes:
        while not isinstance(message := await self.receive(), bytes):
            pass
        return message

    async def send(self, **message: Any) -> None:
        await self.socket.send_to(text_data=json.dumps(message))

    async def send_text(self, text: str) -> None:
        await self.socket.send_to(text_data=text)

    async def speak(self, pcm: bytes) -> None:
        for frame in cut_frames(pcm):
            await self.socket.send_to(bytes_data=frame)

    async def connect(self) -> None:
        accepted, _ = await self.socket.connect(timeout=5)
        assert accepted

    async def disconnect(self) -> None:
        await self.socket.disconnect(timeout=10)


@asynccontextmanager
async def call(user: Any, inference: FakeInference, **options: Any) -> AsyncIterator[tuple[Client, dict[str, Any]]]:
    """A call that has begun; at its end, nothing of it may be left."""
    client = Client(user, inference, **options)
    await client.connect()
    ready = await client.wait_for("status", stage="ready")
    try:
        yield client, ready
    finally:
        with contextlib.suppress(asyncio.CancelledError):
            await client.disconnect()
    assert inference.active_calls == 0


async def connect_in_vain(user: Any, **options: Any) -> tuple[list[dict[str, Any] | bytes], int]:
    """Connect where a call is refused; return what came before the socket was closed, and the close code."""
    client = Client(user, make_inference(), **options)
    await client.connect()
    while (message := await client.receive()) and not (isinstance(message, dict) and message["type"] == "close"):
        pass
    await client.disconnect()
    assert isinstance(message, dict)
    return client.received[:-1], message["code"]


@pytest.fixture(autouse=True)
def allowed_host(settings: Any) -> None:
    settings.ALLOWED_HOSTS = ["testserver"]


@pytest.fixture(autouse=True)
def _nobody_is_left() -> Iterator[None]:
    yield
    assert admission.active == 0


async def list_turns(conversation_id: str) -> list[Turn]:
    return [turn async for turn in Turn.objects.filter(conversation_id=conversation_id).order_by("sequence")]


def read_file(turn: Turn) -> bytes:
    return Path(turn.audio.path).read_bytes()


def list_said(request: Sequence[Message]) -> list[str]:
    """The conversation of a request, without what stands before every one."""
    return [message.content for message in request if message.role != "system" and not message.is_shared]


class TestConnecting:
    async def test_tells_what_the_call_is(self, alice: User) -> None:
        async with call(alice, make_inference()) as (_, ready):
            pass

        assert ready["limits"]["max_utterance_bytes"] == 10_000_000
        assert ready["limits"]["max_utterance_chunks"] == 1000
        assert ready["limits"]["max_utterance_s"] == 60
        assert ready["sample_rate"] == 16_000
        assert ready["is_resumed"] is False
        assert await Conversation.objects.owned_by(alice).filter(pk=ready["conversation_id"]).aexists()

    async def test_without_login_is_refused(self) -> None:
        assert await connect_in_vain(AnonymousUser()) == ([], 4401)

    @pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://testserver:8001"])
    async def test_from_elsewhere_is_refused(self, alice: User, origin: str) -> None:
        assert await connect_in_vain(alice, headers={"origin": origin}) == ([], 4403)

    async def test_under_a_foreign_name_is_refused(self, alice: User) -> None:
        headers = {"origin": "http://evil.example", "host": "evil.example"}

        assert await connect_in_vain(alice, headers=headers) == ([], 4403)

    async def test_without_an_origin_is_no_browser_and_fine(self, alice: User) -> None:
        async with call(alice, make_inference(), headers={"origin": ""}):
            pass

    @pytest.mark.parametrize("wanted", ["", "nonsense", "6292de9e-b55e-4a77-ab46-dd4378394838"])
    async def test_to_an_unknown_conversation_is_refused(self, alice: User, wanted: str) -> None:
        assert await connect_in_vain(alice, query=f"?conversation={wanted}") == ([], 4404)

    async def test_to_somebody_elses_conversation_is_refused(self, alice: User, bob: User) -> None:
        conversation = await sync_to_async(factories.create_conversation)(alice)

        assert await connect_in_vain(bob, query=f"?conversation={conversation.pk}") == ([], 4404)

    async def test_again_goes_on_with_the_conversation(self, alice: User) -> None:
        conversation = await sync_to_async(factories.create_conversation)(alice)
        await sync_to_async(factories.create_turn)(conversation, text="我叫小明。")
        await sync_to_async(factories.create_turn)(conversation, speaker="avatar", text="你好，小明。")
        inference = make_inference(replies=["你叫小明。"])
        async with call(alice, inference, query=f"?conversation={conversation.pk}") as (client, ready):
            await client.send(type="text", text="我叫什麼？")
            await client.wait_for("status", stage="listening")

        assert ready["is_resumed"] is True
        assert list_said(inference.llm.requests[0]) == ["我叫小明。", "你好，小明。", "我叫什麼？"]
        assert [turn.sequence for turn in await list_turns(str(conversation.pk))] == [1, 2, 3, 4]
        # Nothing deletes it under the call.
        await conversation.arefresh_from_db()
        assert conversation.opened_at is not None


class TestAdmission:
    async def test_holds_five_calls_whose_answers_never_mix(self, alice: User) -> None:
        async with contextlib.AsyncExitStack() as stack:
            calls = []
            for name in "甲乙丙丁戊":
                inference = make_inference(f"我是{name}號")
                calls.append((name, *await stack.enter_async_context(call(alice, inference))))
            refused, code = await connect_in_vain(alice)

            async def converse(client: Client) -> dict[str, Any]:
                await client.speak(UTTERANCE)
                answer = await client.wait_for("llm_response", is_final=True)
                await client.wait_for("status", stage="listening", is_speaking=False)
                return answer

            answers = await asyncio.gather(*(converse(client) for _, client, _ in calls))

        assert [(m["code"], m["is_fatal"]) for m in refused if isinstance(m, dict)] == [("SERVER_FULL", True)]
        assert code == 4429
        for (name, client, ready), answer in zip(calls, answers, strict=True):
            assert f"我是{name}號" in answer["text"]
            sessions = {m["session_id"] for m in client.received if isinstance(m, dict) and "session_id" in m}
            assert sessions == {ready["session_id"]}
            user, avatar = await list_turns(ready["conversation_id"])
            assert (user.text, avatar.text) == (f"我是{name}號", answer["text"])

    async def test_gives_a_place_back(self, alice: User, settings: Any) -> None:
        settings.AVATAR_MAX_SESSIONS = 1
        for _ in range(3):
            async with call(alice, make_inference()):
                assert admission.active == 1
            assert admission.active == 0


class TestConversing:
    async def test_answers_speech_and_keeps_both_sides(self, alice: User, settings: Any) -> None:
        settings.AVATAR_AUDIO_FORMAT = "flac"
        inference = make_inference("今天天氣如何", replies=[REPLY])
        async with call(alice, inference) as (client, ready):
            await client.speak(make_silence(300) + UTTERANCE)
            transcript = await client.wait_for("transcription", is_final=True)
            announcement = await client.wait_for("tts_ready")
            end = await client.wait_for("turn_end")
            await client.wait_for("status", stage="listening", is_speaking=False)

        user, avatar = await list_turns(ready["conversation_id"])
        assert (str(user.pk), user.speaker, user.text) == (transcript["turn_id"], "user", "今天天氣如何")
        assert (str(avatar.pk), avatar.speaker, avatar.text) == (end["turn_id"], "avatar", REPLY)
        assert avatar.latency == end["latency_ms"]
        assert avatar.audio_duration_ms == end["audio_ms"]
        assert announcement["audio_url"].endswith(f"/turns/{avatar.pk}/audio")
        heard = b"".join(m for m in client.received if isinstance(m, bytes))
        kept, rate = await sync_to_async(soundfile.read)(avatar.audio.path, dtype="int16")
        assert rate == 24_000
        assert kept.tobytes() == heard

    async def test_takes_pcm_in_messages(self, alice: User) -> None:
        async with call(alice, make_inference("你好")) as (client, _):
            await client.send(type="configure", mode="hold_to_talk")
            for piece in cut_frames(SPEECH, 6400):
                await client.send(type="audio_chunk", data=base64.b64encode(piece).decode())
            await client.send(type="audio_end", voice_profile_id=None)
            transcript = await client.wait_for("transcription", is_final=True)

        assert transcript["text"] == "你好"

    @pytest.mark.parametrize("make", ["wav", "webm"])
    @pytest.mark.parametrize("is_named", [True, False])
    async def test_takes_recordings(self, alice: User, make: str, is_named: bool) -> None:
        data = make_wav(SPEECH) if make == "wav" else make_webm(SPEECH)
        async with call(alice, make_inference("你好")) as (client, ready):
            for piece in cut_frames(data, 5000):
                named = {"format": make} if is_named else {}
                await client.send(type="audio_chunk", data=base64.b64encode(piece).decode(), **named)
            await client.send(type="audio_end")
            transcript = await client.wait_for("transcription", is_final=True)
            await client.wait_for("turn_end")

        assert transcript["text"] == "你好"
        user, _ = await list_turns(ready["conversation_id"])
        assert 500 <= user.audio_duration_ms <= 1000

    async def test_visits_the_database_thread_for_no_message(
        self, alice: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        visits = []

        async def visit() -> None:
            visits.append(1)

        monkeypatch.setattr("channels.consumer.aclose_old_connections", visit)
        async with call(alice, make_inference()) as (client, _):
            at_the_beginning = len(visits)
            await client.speak(make_silence(200))
            await client.send(type="ping")
            await client.wait_for("pong")

            assert len(visits) == at_the_beginning == 1

    async def test_answers_pings(self, alice: User) -> None:
        async with call(alice, make_inference()) as (client, _):
            await client.send(type="ping", nonce="abc")

            assert (await client.wait_for("pong"))["nonce"] == "abc"

    async def test_speaks_in_the_voice_that_was_chosen(self, alice: User) -> None:
        profile = await sync_to_async(factories.create_voice_profile)(owner=alice, engine_voice="zm_yunxi")
        inference = make_inference(replies=["好。"])
        async with call(alice, inference) as (client, ready):
            await client.send(type="configure", voice_profile_id=str(profile.pk))
            await client.send(type="text", text="你好")
            await client.wait_for("status", stage="listening")

        assert inference.tts.requests[0][1].voice == "zm_yunxi"
        assert (await list_turns(ready["conversation_id"]))[1].voice_profile_id == profile.pk

    async def test_begins_with_the_voice_and_the_quality_that_were_chosen_before(self, alice: User) -> None:
        profile = await sync_to_async(factories.create_voice_profile)(owner=alice, engine_voice="zm_yunxi")
        await sync_to_async(choose_default)(user=alice, profile=profile)
        await sync_to_async(choose_quality)(user=alice, quality="high_quality")
        inference = make_inference(replies=["好。"])
        async with call(alice, inference) as (client, ready):
            await client.send(type="text", text="你好")
            await client.wait_for("status", stage="listening")

        assert ready["voice_profile_id"] == str(profile.pk)
        ((_, options),) = inference.tts.requests
        assert (options.voice, options.quality) == ("zm_yunxi", Quality.HIGH_QUALITY)
        profile = await VoiceProfile.objects.aget(pk=profile.pk)
        assert profile.last_used_at is not None

    async def test_passes_over_a_chosen_voice_that_cannot_be_had(self, alice: User) -> None:
        profile = await sync_to_async(factories.create_voice_profile)(owner=alice, state="disabled")
        await sync_to_async(choose_default)(user=alice, profile=profile)
        async with call(alice, make_inference()) as (_, ready):
            assert ready["voice_profile_id"] is None

    async def test_speaks_like_the_recording_where_the_engine_clones(self, alice: User) -> None:
        profile = await sync_to_async(factories.create_voice_profile)(
            owner=alice, kind="cloned", engine_voice="", clip_transcript="今天天氣很好。"
        )
        flac = decoding.encode_flac(decoding.from_pcm(SPEECH), 24_000)
        await sync_to_async(profile.clip.save)("clip.flac", ContentFile(flac))
        inference = make_inference(replies=["好。"])
        async with call(alice, inference) as (client, _):
            await client.send(type="configure", voice_profile_id=str(profile.pk))
            await client.send(type="text", text="你好")
            await client.wait_for("status", stage="listening")

        ((_, options),) = inference.tts.requests
        assert options.reference == VoiceReference(SPEECH, 24_000, "今天天氣很好。")

    async def test_marks_what_is_kept_of_its_own_voice_as_synthetic(self, alice: User) -> None:
        async with call(alice, make_inference("你好", replies=["好。"])) as (client, ready):
            await client.speak(UTTERANCE)
            await client.wait_for("status", stage="listening", is_speaking=False)

        asked, answered = await list_turns(ready["conversation_id"])
        assert b"Synthetic" in read_file(answered)
        assert b"Synthetic" not in read_file(asked)
        assert answered.quality == "fast"

    async def test_never_speaks_in_somebody_elses_voice(self, alice: User, bob: User) -> None:
        profile = await sync_to_async(factories.create_voice_profile)(owner=bob)
        async with call(alice, make_inference()) as (client, _):
            await client.send(type="configure", voice_profile_id=str(profile.pk))

            assert (await client.wait_for("error"))["code"] == "VOICE_GONE"

    async def test_leaves_a_voice_that_is_deleted_meanwhile(self, alice: User) -> None:
        profile = await sync_to_async(factories.create_voice_profile)(owner=alice, engine_voice="zm_yunxi")
        await sync_to_async(choose_default)(user=alice, profile=profile)
        inference = make_inference(replies=["好。", "再見。"])
        inference.llm.first_token_s = 0.2
        async with call(alice, inference) as (client, _):
            await client.send(type="text", text="你好")
            first = await client.wait_for("turn_end")
            await client.send(type="playback", turn_id=first["turn_id"], played_ms=first["audio_ms"], is_finished=True)
            await sync_to_async(delete_voice_profile)(profile=profile)
            await client.send(type="text", text="再見")
            error = await client.wait_for("error")
            await client.wait_for("turn_end")

        assert error["code"] == "VOICE_GONE"
        assert [options.voice for _, options in inference.tts.requests] == ["zm_yunxi", ""]


@pytest.mark.django_db(transaction=True)
class TestRenewingAVoice:
    @pytest.fixture
    def profile(self, alice: User) -> VoiceProfile:
        return factories.create_voice_profile(owner=alice, engine_voice="zm_yunxi")

    def test_is_the_same_when_nothing_changed(self, alice: User, profile: VoiceProfile) -> None:
        voice = consumers.find_voice(alice, profile.pk)

        assert voice is not None
        assert consumers.renew_voice(alice, voice) is voice
        assert consumers.renew_voice(alice, automatic := Voice()) is automatic

    def test_is_read_anew_when_it_was_remade(self, alice: User, profile: VoiceProfile) -> None:
        voice = consumers.find_voice(alice, profile.pk)
        assert voice is not None
        VoiceProfile.objects.filter(pk=profile.pk).update(version=2, style=bytes(1024))

        renewed = consumers.renew_voice(alice, voice)

        assert renewed is not None
        assert (renewed.version, renewed.style) == (2, bytes(1024))

    def test_is_none_when_it_is_deleted_disabled_or_not_shared_any_more(
        self, alice: User, bob: User, profile: VoiceProfile
    ) -> None:
        profiles = VoiceProfile.objects.filter(pk=profile.pk)
        profiles.update(is_shared=True)
        voice = consumers.find_voice(bob, profile.pk)
        assert voice is not None
        assert consumers.renew_voice(bob, voice) is voice

        profiles.update(is_shared=False)
        assert consumers.renew_voice(bob, voice) is None
        assert consumers.renew_voice(alice, voice) is voice
        profiles.update(state="disabled")
        assert consumers.renew_voice(alice, voice) is None
        profiles.delete()
        assert consumers.renew_voice(alice, voice) is None

    def test_goes_on_as_it_was_when_its_clip_cannot_be_read(self, alice: User, profile: VoiceProfile) -> None:
        voice = consumers.find_voice(alice, profile.pk)
        assert voice is not None
        for content in (None, b"no FLAC at all"):
            profile.clip.save("clip.flac", ContentFile(content or b""), save=False)
            VoiceProfile.objects.filter(pk=profile.pk).update(kind="cloned", version=2, clip=profile.clip.name)
            if content is None:
                profile.clip.storage.delete(profile.clip.name)

            assert consumers.renew_voice(alice, voice) is voice
            with pytest.raises(VoiceUnreadable):
                consumers.find_voice(alice, profile.pk)


class TestBargeIn:
    async def test_is_announced_and_no_sound_of_the_reply_follows(self, alice: User) -> None:
        inference = make_inference("你好", "停", replies=[REPLY, "好。"], ms_per_character=100)
        async with call(alice, inference) as (client, ready):
            await client.speak(UTTERANCE)
            announcement = await client.wait_for("tts_ready")
            await client.wait_for_audio()
            await client.send(type="playback", turn_id=announcement["turn_id"], played_ms=200)
            await client.speak(SPEECH)
            interrupted = await client.wait_for("interrupted")
            begin = len(client.received)
            end = await client.wait_for("turn_end", turn_id=interrupted["turn_id"])
            between = client.received[begin:]
            await client.speak(make_silence(700))
            await client.wait_for("turn_end")

        assert interrupted["turn_id"] == announcement["turn_id"]
        assert end["was_interrupted"] is True
        assert not any(isinstance(m, bytes) for m in between)
        turns = await list_turns(ready["conversation_id"])
        stopped = next(turn for turn in turns if str(turn.pk) == interrupted["turn_id"])
        assert stopped.was_interrupted
        assert stopped.audio_duration_ms == interrupted["heard_ms"]
        assert REPLY.startswith(stopped.text)
        assert stopped.text != REPLY


class TestErrors:
    @pytest.mark.parametrize(
        ("text", "code"),
        [
            ("{", "JSON_DECODE_ERROR"),
            ("[]", "VALIDATION_ERROR"),
            ('{"type": "dance"}', "UNKNOWN_MESSAGE_TYPE"),
            ('{"type": "text"}', "VALIDATION_ERROR"),
            ('{"type": "interrupt", "now": true}', "VALIDATION_ERROR"),
            ('{"type": "audio_end"}', "NO_AUDIO_DATA"),
            ('{"type": "audio_chunk", "data": "AAA="}', None),
            ('{"type": "audio_chunk", "data": "AA=="}', "VALIDATION_ERROR"),
            ('{"type": "audio_chunk", "data": "T2dnUw=="}', "UNSUPPORTED_FORMAT"),
            ('{"type": "audio_chunk", "data": "AAAA", "format": "mp3"}', "VALIDATION_ERROR"),
        ],
    )
    async def test_are_told_and_the_session_lives(self, alice: User, text: str, code: str | None) -> None:
        async with call(alice, make_inference()) as (client, _):
            await client.send_text(text)
            await client.send(type="ping", nonce="still there")
            while (message := await client.receive()) and not isinstance(message, dict):
                pass
            if code:
                assert message["type"] == "error"
                assert message["code"] == code
                assert message["error"]
                assert message["is_fatal"] is False
                await client.wait_for("pong", nonce="still there") if code != "NO_AUDIO_DATA" else None
            else:
                assert message["type"] == "pong"

    @pytest.mark.parametrize("size", [1, 3, 64_001, 64_002])
    async def test_tell_of_frames_of_the_wrong_size(self, alice: User, size: int) -> None:
        async with call(alice, make_inference()) as (client, _):
            await client.socket.send_to(bytes_data=bytes(size))

            assert (await client.wait_for("error"))["code"] == "VALIDATION_ERROR"

    async def test_tell_of_a_recording_that_is_none(self, alice: User) -> None:
        async with call(alice, make_inference()) as (client, _):
            await client.send(type="audio_chunk", data=base64.b64encode(b"RIFF" + bytes(500)).decode())
            await client.send(type="audio_end")

            assert (await client.wait_for("error"))["code"] == "UNSUPPORTED_FORMAT"

    async def test_tell_of_a_recording_that_is_too_long(self, alice: User, settings: Any) -> None:
        settings.AVATAR_MAX_UTTERANCE_S = 1
        async with call(alice, make_inference()) as (client, _):
            await client.send(type="audio_chunk", data=base64.b64encode(make_wav(make_tone(1100))).decode())
            await client.send(type="audio_end")

            assert (await client.wait_for("error"))["code"] == "BUFFER_LIMIT_EXCEEDED"

    async def test_tell_of_the_limit_of_messages_at_its_edge(self, alice: User) -> None:
        async with call(alice, make_inference("你好")) as (client, _):
            await client.send(type="configure", mode="hold_to_talk")
            data = base64.b64encode(make_tone(20)).decode()
            for _ in range(1000):
                await client.send(type="audio_chunk", data=data)
            await client.send(type="ping", nonce="a thousand")
            await client.wait_for("pong")
            assert not [m for m in client.received if isinstance(m, dict) and m["type"] == "error"]
            await client.send(type="audio_chunk", data=data)

            assert (await client.wait_for("error"))["code"] == "BUFFER_LIMIT_EXCEEDED"

    async def test_tell_of_the_limit_of_bytes_at_its_edge(self, alice: User, settings: Any) -> None:
        settings.AVATAR_MAX_UTTERANCE_BYTES = 2000
        async with call(alice, make_inference("你好")) as (client, _):
            await client.send(type="audio_chunk", data=base64.b64encode(b"RIFF" + bytes(1996)).decode())
            await client.send(type="ping")
            await client.wait_for("pong")
            assert not [m for m in client.received if isinstance(m, dict) and m["type"] == "error"]
            await client.send(type="audio_chunk", data="AA==")

            assert (await client.wait_for("error"))["code"] == "BUFFER_LIMIT_EXCEEDED"

    async def test_tell_that_inference_is_away_and_it_may_come_back(self, alice: User) -> None:
        inference = make_inference("你好", replies=[REPLY])
        inference.start_outage()
        async with call(alice, inference) as (client, _):
            await client.speak(make_silence(100))
            error = await client.wait_for("error")
            inference.end_outage()
            await client.send(type="text", text="你好")
            await client.wait_for("turn_end")

        assert error["code"] == "INFERENCE_UNAVAILABLE"

    async def test_tell_that_a_reply_is_being_made(self, alice: User) -> None:
        inference = make_inference(replies=[REPLY])
        inference.llm.hold_after(1)
        async with call(alice, inference) as (client, _):
            await client.send(type="text", text="你好")
            await client.send(type="text", text="喂")

            assert (await client.wait_for("error"))["code"] == "ALREADY_PROCESSING"

    async def test_nobody_expected_end_the_call(self, alice: User) -> None:
        inference = make_inference()
        inference.llm.fail_next(ZeroDivisionError())
        client = Client(alice, inference)
        await client.connect()
        await client.send(type="text", text="你好")
        error = await client.wait_for("error")
        closed = await client.receive()
        await client.disconnect()

        assert (error["code"], error["is_fatal"]) == ("FATAL_ERROR", True)
        assert closed == {"type": "close", "code": 4500}
        assert inference.active_calls == 0

    async def test_are_told_in_the_users_language(self, alice: User) -> None:
        async with call(alice, make_inference(), headers={"accept-language": "en"}) as (client, _):
            await client.send_text("{")
            error = await client.wait_for("error")

        assert error["error"] == "The browser sent something that could not be read."


class TestLeaving:
    async def test_in_mid_reply_leaves_no_work_and_keeps_what_was_said(self, alice: User) -> None:
        inference = make_inference("你好", replies=[REPLY], ms_per_character=100)
        inference.llm.tokens_per_s = 50
        async with call(alice, inference) as (client, ready):
            await client.speak(UTTERANCE)
            announcement = await client.wait_for("tts_ready")
            for _ in range(4):
                await client.wait_for_audio()
            await client.send(type="playback", turn_id=announcement["turn_id"], played_ms=700)
            assert inference.active_calls > 0

        assert inference.active_calls == 0
        assert not [task for task in asyncio.all_tasks() if task.get_name().startswith(("call", "recorder"))]
        user, avatar = await list_turns(ready["conversation_id"])
        assert user.text == "你好"
        assert avatar.was_interrupted

    async def test_by_being_cancelled_leaves_no_work(self, alice: User) -> None:
        inference = make_inference("你好", replies=[REPLY], ms_per_character=100)
        client = Client(alice, inference)
        await client.connect()
        await client.speak(UTTERANCE)
        await client.wait_for_audio()
        client.socket.future.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await client.socket.future

        assert inference.active_calls == 0


class TestSlowClient:
    async def test_that_stops_reading_is_cut_off(self, alice: User, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(consumers, "SEND_TIMEOUT_S", 0.1)
        inference = make_inference("你好", replies=[REPLY])
        router = URLRouter(websocket_urlpatterns(inference))
        inputs: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        accepted, closed = asyncio.Event(), asyncio.Event()

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "websocket.accept":
                accepted.set()
            elif message["type"] == "websocket.close":
                closed.set()
            else:
                await asyncio.Event().wait()

        headers = [(b"host", b"testserver"), (b"accept-language", b"en")]
        scope = {"type": "websocket", "path": "/ws/chat", "query_string": b"", "headers": headers, "user": alice}
        task = asyncio.create_task(router(scope, inputs.get, send))
        inputs.put_nowait({"type": "websocket.connect"})
        await asyncio.wait_for(accepted.wait(), 5)
        await asyncio.wait_for(closed.wait(), 5)
        inputs.put_nowait({"type": "websocket.disconnect", "code": 1006})
        await asyncio.wait_for(task, 5)

        assert inference.active_calls == 0


class TestLanguage:
    @pytest.mark.parametrize(
        ("headers", "language"),
        [
            ([(b"accept-language", b"en-GB,en;q=0.9")], "en"),
            ([(b"accept-language", b"zh-TW,zh;q=0.9")], "zh-hant"),
            ([(b"accept-language", b"en"), (b"cookie", b"django_language=zh-hant")], "zh-hant"),
            ([], "zh-hant"),
        ],
    )
    def test_is_the_cookies_or_the_browsers(self, headers: list[tuple[bytes, bytes]], language: str) -> None:
        assert find_language(headers) == language
        assert translation.get_language() == "zh-hant"


def make_wav(pcm: bytes) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.frombuffer(pcm, dtype="<i2"), 16_000, format="WAV")
    return file.getvalue()


def make_webm(pcm: bytes) -> bytes:
    """What a browser's MediaRecorder makes: Opus in WebM."""
    file = io.BytesIO()
    with av.open(file, "w", format="webm") as container:
        stream = container.add_stream("libopus", rate=48_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.frombuffer(pcm, dtype="<i2")[None], format="s16", layout="mono")
        frame.sample_rate = 16_000
        resampler = av.AudioResampler(format="s16", layout="mono", rate=48_000, frame_size=960)
        for resampled in [*resampler.resample(frame), *resampler.resample(None)]:
            for packet in stream.encode(resampled):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    return file.getvalue()


class TestCorrecting:
    async def test_answers_anew_and_keeps_both(self, alice: User) -> None:
        inference = make_inference(replies=["我不懂", "明天晴天", "不客氣"])
        async with call(alice, inference) as (client, ready):
            await client.send(type="text", text="名天天氣")
            first = await client.wait_for("turn_end")
            await client.wait_for("status", stage="listening", is_speaking=False)
            await client.send(type="correct", turn_id=first["user_turn_id"], text="明天天氣")
            corrected = await client.wait_for("corrected")
            second = await client.wait_for("turn_end")
            await client.wait_for("status", stage="listening", is_speaking=False)
            await client.send(type="text", text="謝謝")
            await client.wait_for("turn_end")
            await client.wait_for("status", stage="listening", is_speaking=False)

        assert (corrected["turn_id"], corrected["text"]) == (first["user_turn_id"], "明天天氣")
        assert second["user_turn_id"] == first["user_turn_id"]
        assert list_said(inference.llm.requests[-1]) == ["明天天氣", "明天晴天", "謝謝"]
        turns = await list_turns(ready["conversation_id"])
        assert [(turn.text, turn.heard_text, turn.is_superseded) for turn in turns] == [
            ("明天天氣", "名天天氣", False),
            ("我不懂", "", True),
            ("明天晴天", "", False),
            ("謝謝", "", False),
            ("不客氣", "", False),
        ]

    async def test_reaches_turns_that_are_not_remembered_any_more(self, alice: User, settings: Any) -> None:
        settings.AVATAR_LANGUAGE_MODEL_HISTORY_TURNS = 2
        conversation = await sync_to_async(factories.create_conversation)(alice)
        for number, text in enumerate(("早安", "早", "名天", "什麼", "算了", "好")):
            speaker = ("user", "avatar")[number % 2]
            await sync_to_async(factories.create_turn)(conversation, speaker=speaker, text=text)
        old = (await list_turns(str(conversation.pk)))[2]
        inference = make_inference(replies=["晴天"])
        async with call(alice, inference, query=f"?conversation={conversation.pk}") as (client, _):
            await client.send(type="correct", turn_id=str(old.pk), text="明天")
            await client.wait_for("status", stage="listening", is_speaking=False)

        assert list_said(inference.llm.requests[-1]) == ["早安", "早", "明天"]
        turns = await list_turns(str(conversation.pk))
        assert [turn.is_superseded for turn in turns] == [False, False, False, True, True, True, False]

    async def test_is_for_turns_of_this_conversation_alone(self, alice: User) -> None:
        elsewhere = await sync_to_async(factories.create_turn)(
            await sync_to_async(factories.create_conversation)(alice)
        )
        async with call(alice, make_inference()) as (client, _):
            await client.send(type="correct", turn_id=str(elsewhere.pk), text="別的")
            error = await client.wait_for("error")

        assert (error["code"], error["is_fatal"]) == ("VALIDATION_ERROR", False)
        await elsewhere.arefresh_from_db()
        assert elsewhere.text == "你好。"


class TestKeepingNothing:
    @pytest.mark.parametrize("query", ["?keep=no", "?keep=false", "?keep="])
    async def test_leaves_no_row_and_no_file(self, alice: User, media_root: Path, query: str) -> None:
        inference = make_inference("你好", replies=["你好", "再見"])
        async with call(alice, inference, query=query) as (client, ready):
            await client.speak(UTTERANCE)
            announced = await client.wait_for("tts_ready")
            end = await client.wait_for("turn_end")
            await client.wait_for("status", stage="listening", is_speaking=False)
            await client.send(type="correct", turn_id=end["user_turn_id"], text="您好")
            await client.wait_for("turn_end")
            await client.wait_for("status", stage="listening", is_speaking=False)

        assert (ready["conversation_id"], announced["audio_url"]) == (None, None)
        assert list_said(inference.llm.requests[-1]) == ["您好"]
        assert not await Conversation.objects.aexists()
        assert not await Turn.objects.aexists()
        assert not await sync_to_async(media_root.exists)()

    async def test_reads_a_conversation_and_adds_nothing(self, alice: User) -> None:
        conversation = await sync_to_async(factories.create_conversation)(alice)
        await sync_to_async(factories.create_turn)(conversation, text="我叫小明。")
        inference = make_inference(replies=["你叫小明。"])
        query = f"?conversation={conversation.pk}&keep=no"
        async with call(alice, inference, query=query) as (client, ready):
            await client.send(type="text", text="我叫什麼？")
            await client.wait_for("status", stage="listening", is_speaking=False)

        assert ready["conversation_id"] is None
        assert "我叫小明。" in list_said(inference.llm.requests[0])[0]
        assert len(await list_turns(str(conversation.pk))) == 1

    async def test_is_only_by_request(self, alice: User) -> None:
        async with call(alice, make_inference(), query="?keep=yes") as (_, ready):
            pass

        assert ready["conversation_id"]
