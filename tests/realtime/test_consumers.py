from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import jsonschema
import pytest
import soundfile
from asgiref.sync import sync_to_async
from autobahn.exception import Disconnected
from channels.auth import AuthMiddlewareStack
from channels.db import database_sync_to_async
from channels.routing import URLRouter
from channels.testing import WebsocketCommunicator
from django.contrib.auth.models import AnonymousUser, User
from django.core.files.base import ContentFile
from django.db import DatabaseError, InterfaceError, OperationalError
from django.test import Client as DjangoClient
from django.urls import path
from django.utils import timezone

from avatar_site.lib import live_calls, metrics
from avatar_site.web.server import DRAIN_S
from conversations import call_store, services, spool
from conversations.models import Conversation, Turn
from inference.audio.encode import encode_flac, encode_wav
from inference.audio.pcm import float_from_pcm
from inference.interfaces import Message, Quality, VoiceReference
from realtime import call_conversation, consumers, entry, messages, outbox, voice_lookup, watch
from realtime.admission import FINISH_SENTENCE_S, Admission
from realtime.call.voice import Voice
from realtime.consumers import VoiceConsumer, admission
from realtime.models import CallState, LiveCall
from realtime.recorder import HURRIED_PATIENCE_S
from realtime.routing import websocket_urlpatterns
from realtime.runner import CallOverrun
from realtime.services import end_calls
from realtime.ui_strings import translate_error
from realtime.waiting_list import waiting_list
from tests import factories, sounds
from tests.clock import Clock
from tests.fakes import (
    SPEECH,
    UTTERANCE,
    FakeInference,
    cut_frames,
    make_inference,
    make_silence,
    make_tone,
)
from voices.models import VoiceProfile
from voices.services import choose_default, choose_quality, delete_voice_profile, disable, unshare

pytestmark = pytest.mark.django_db(transaction=True)

REPLY = "今天的天氣很好，我們可以一起出去走一走。晚上再回來看一部電影，你覺得好不好？"
VALIDATOR = jsonschema.Draft202012Validator(
    messages.build_schema() | {"oneOf": [{"$ref": "#/$defs/ServerMessage"}]},
    format_checker=jsonschema.FormatChecker(),
)


class Client:
    """The browser's end of a socket. Instead of a user it may have the Django client of one who has logged in."""

    def __init__(
        self,
        user: Any,
        inference: FakeInference,
        *,
        query: str = "",
        headers: dict[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        router = URLRouter([path("ws/chat", VoiceConsumer.as_asgi(inference=inference, clock=clock))])
        logged_in = AuthMiddlewareStack(router)
        if isinstance(user, DjangoClient):
            headers = {"cookie": f"sessionid={user.cookies['sessionid'].value}"} | (headers or {})

        async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
            if isinstance(user, DjangoClient):
                await logged_in(scope, receive, send)
            else:
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


@asynccontextmanager
async def open_socket(
    user: Any, inference: FakeInference, **options: Any
) -> AsyncIterator[tuple[Client, dict[str, Any]]]:
    """A call that has begun and that the server may end."""
    client = Client(user, inference, **options)
    await client.connect()
    ready = await client.wait_for("status", stage="ready")
    try:
        yield client, ready
    finally:
        with contextlib.suppress(asyncio.CancelledError):
            await client.disconnect()


async def converse(client: Client, text: str = "你好") -> dict[str, Any]:
    """Type, and hear the answer to its end."""
    await client.send(type="text", text=text)
    end = await client.wait_for("turn_end")
    await client.wait_for("status", stage="listening", is_speaking=False)
    return end


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


def lose_login(user: User, event: str) -> None:
    match event:
        case "password":
            user.set_password("something else entirely")
            user.save()
        case "deactivation":
            user.is_active = False
            user.save()
        case "deletion":
            user.delete()


async def follow_all() -> None:
    """Return when every call hears what is said of logins: nothing of it waits for anything but its turn."""
    for _ in range(10):
        await asyncio.sleep(0)


def replace_turn(change: spool.Change) -> spool.Change:
    return spool.Change(change.verb, change.fields | {"turn_id": uuid4()})


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
        assert ready["conversation_id"] is not None

    async def test_without_login_is_refused(self) -> None:
        assert await connect_in_vain(AnonymousUser()) == ([], 4401)

    @pytest.mark.parametrize(
        ("origin", "forwarded", "is_taken"),
        [
            ("https://testserver", "https", True),
            ("http://testserver", "https", False),
            ("https://testserver", "http", False),
            ("https://testserver", "", False),
            ("http://testserver", "", True),
        ],
    )
    async def test_compares_the_scheme_with_that_of_the_page(
        self, alice: User, settings: Any, origin: str, forwarded: str, is_taken: bool
    ) -> None:
        settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
        headers = {"origin": origin, "x-forwarded-proto": forwarded}
        if is_taken:
            async with call(alice, make_inference(), headers=headers):
                pass
        else:
            assert await connect_in_vain(alice, headers=headers) == ([], 4403)

    async def test_believes_a_proxy_only_where_there_is_one(self, alice: User) -> None:
        headers = {"origin": "https://testserver", "x-forwarded-proto": "https"}

        assert await connect_in_vain(alice, headers=headers) == ([], 4403)

    async def test_may_say_which_language_it_wants(self, alice: User) -> None:
        async with call(alice, make_inference(), query="?language=zh-hant", headers={"accept-language": "en"}) as (
            client,
            _,
        ):
            await client.send_text("{")

            assert (await client.wait_for("error"))["error"] == "瀏覽器送出的內容無法讀取。"

    @pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://testserver:8001", "https://testserver"])
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

    async def test_to_a_conversation_that_is_in_the_spool_takes_it_in(self, alice: User, bob: User) -> None:
        conversation_id = uuid4()
        fields = {"turn_id": uuid4(), "text": "從前，", "language": "zh", "voice_profile_id": None}
        change = spool.Change("begin_turn", fields | {"said_at": timezone.now(), "begun_by": alice.pk})
        call_store.spool_change(conversation_id=conversation_id, change=change)
        query = f"?conversation={conversation_id}"

        assert await connect_in_vain(bob, query=query) == ([], 4404)
        call_store.spool_change(conversation_id=(other_id := uuid4()), change=replace_turn(change))
        for wanted in (conversation_id, other_id):
            async with call(alice, make_inference(), query=f"?conversation={wanted}") as (_, ready):
                assert ready["is_resumed"]

        assert await Conversation.objects.owned_by(alice).acount() == 2

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
    async def test_holds_five_calls_whose_answers_never_mix(self, alice: User, settings: Any) -> None:
        settings.AVATAR_MAX_CALLS_PER_PERSON, settings.AVATAR_MAX_WAITING = 6, 0
        async with contextlib.AsyncExitStack() as stack:
            calls = []
            for name in "甲乙丙丁戊":
                inference = make_inference(f"我是{name}號")
                calls.append((name, *await stack.enter_async_context(call(alice, inference))))
            metrics.take_minute()
            refused, code = await connect_in_vain(alice)
            counts = metrics.take_minute().counts

            async def converse(client: Client) -> dict[str, Any]:
                await client.speak(UTTERANCE)
                answer = await client.wait_for("llm_response", is_final=True)
                await client.wait_for("status", stage="listening", is_speaking=False)
                return answer

            answers = await asyncio.gather(*(converse(client) for _, client, _ in calls))

        assert [(m["code"], m["is_fatal"]) for m in refused if isinstance(m, dict)] == [("SERVER_FULL", True)]
        assert code == 4429
        assert (counts["refused.server_full"], counts["errors.SERVER_FULL"]) == (1, 1)
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

    async def test_is_in_the_table_of_live_calls_from_its_beginning_to_its_end(self, alice: User) -> None:
        async with call(alice, make_inference()) as (_, ready):
            row = await LiveCall.objects.aget(pk=ready["session_id"])

        assert (row.user_id, str(row.conversation_id)) == (alice.pk, ready["conversation_id"])
        assert not await LiveCall.objects.aexists()

    async def test_is_ended_by_an_operator_with_its_turns_kept(self, alice: User) -> None:
        async with open_socket(alice, make_inference()) as (client, ready):
            await converse(client)
            await database_sync_to_async(end_calls)(session_ids=[UUID(ready["session_id"])])
            while (message := await client.receive()) != {"type": "close", "code": 4411}:
                assert isinstance(message, bytes) or message["type"] != "close"

        assert len(await list_turns(ready["conversation_id"])) == 2
        assert admission.active == 0

    async def test_lets_one_person_have_two_calls(self, alice: User, bob: User) -> None:
        async with call(alice, make_inference()), call(alice, make_inference()):
            refused, code = await connect_in_vain(alice)
            async with call(bob, make_inference()):
                assert admission.active == 3
            # Refused, nothing is held: neither a place nor what was counted.
            assert admission.active == 2
        async with call(alice, make_inference()):
            pass

        assert [(m["code"], m["is_fatal"]) for m in refused if isinstance(m, dict)] == [("TOO_MANY_CALLS", True)]
        assert code == 4430

    async def test_gives_the_place_back_when_the_conversation_is_unknown(self, alice: User) -> None:
        client = Client(alice, make_inference(), query=f"?conversation={uuid4()}")
        await client.connect()
        while (await client.receive()) != {"type": "close", "code": 4404}:
            pass

        assert admission.active == 0
        await client.disconnect()


class TestIdling:
    @pytest.fixture(autouse=True)
    def _looks_often(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(watch, "RECHECK_S", 0.01)

    async def test_is_warned_of_and_then_ends_the_call(self, alice: User) -> None:
        clock = Clock()
        async with open_socket(alice, make_inference(), clock=clock) as (client, _):
            clock.now += 540
            warning = await client.wait_for("idle_warning")
            clock.now += 60
            closed = await client.receive()

        assert warning["ends_in_s"] == 60
        assert warning["notice"] == "Nobody has said anything for a while. The call ends soon unless you go on."
        assert closed == {"type": "close", "code": 4410}
        assert [m["type"] for m in client.received if isinstance(m, dict)] == ["status", "idle_warning", "close"]

    @pytest.mark.parametrize("how", ["typing", "speaking"])
    async def test_begins_again_by_saying_something(self, alice: User, how: str) -> None:
        clock = Clock()
        async with call(alice, make_inference("你好", replies=["好。"]), clock=clock) as (client, _):
            clock.now += 590
            await client.wait_for("idle_warning")
            if how == "typing":
                await client.send(type="text", text="你好")
            else:
                await client.speak(UTTERANCE)
            end = await client.wait_for("turn_end")
            await client.send(type="playback", turn_id=end["turn_id"], played_ms=end["audio_ms"], is_finished=True)
            clock.now += 530
            await client.send(type="ping", nonce="still there")
            await client.wait_for("pong")
            assert len([m for m in client.received if isinstance(m, dict) and m["type"] == "idle_warning"]) == 1
            clock.now += 20
            await client.wait_for("idle_warning")

    async def test_is_not_put_off_by_what_no_person_does(self, alice: User) -> None:
        clock = Clock()
        async with open_socket(alice, make_inference(), clock=clock) as (client, _):
            clock.now += 540
            await client.wait_for("idle_warning")
            clock.now += 59
            await client.speak(make_silence(300))
            await client.send(type="configure", speed=1.1)
            await client.send(type="ping")
            await client.wait_for("pong")
            clock.now += 1
            closed = await client.receive()

        assert closed == {"type": "close", "code": 4410}


class TestLosingTheLogin:
    @pytest.fixture
    def hears_only_signals(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A call that does not look for itself before long."""
        monkeypatch.setattr(watch, "RECHECK_S", 3600)

    @pytest.fixture
    def looks_for_itself(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """As in a process that no signal reaches."""
        monkeypatch.setattr(watch, "RECHECK_S", 0.01)
        monkeypatch.setattr(live_calls, "get_channel_layer", lambda: None)

    @pytest.mark.usefixtures("hears_only_signals")
    async def test_by_logging_out_ends_the_calls_of_that_session(self, alice: User) -> None:
        here, elsewhere = DjangoClient(), DjangoClient()
        for client in (here, elsewhere):
            await sync_to_async(client.force_login)(alice)
        async with (
            open_socket(here, make_inference()) as (ended, _),
            call(elsewhere, make_inference(replies=["好。"])) as (goes_on, _),
        ):
            await follow_all()
            await sync_to_async(here.post)("/accounts/logout/")
            closed = await ended.receive()
            end = await converse(goes_on)

        assert closed == {"type": "close", "code": 4401}
        assert end["was_interrupted"] is False

    @pytest.mark.usefixtures("hears_only_signals")
    @pytest.mark.parametrize("event", ["password", "deactivation", "deletion"])
    async def test_ends_all_calls_of_the_person_at_once(self, alice: User, bob: User, event: str) -> None:
        alices, bobs = DjangoClient(), DjangoClient()
        await sync_to_async(alices.force_login)(alice)
        await sync_to_async(bobs.force_login)(bob)
        async with (
            open_socket(alices, make_inference()) as (first, _),
            open_socket(alices, make_inference()) as (second, _),
            call(bobs, make_inference(replies=["好。"])) as (other, _),
        ):
            await follow_all()
            await sync_to_async(lose_login)(alice, event)
            closed = [await first.receive(), await second.receive()]
            await converse(other)

        assert closed == [{"type": "close", "code": 4401}] * 2

    @pytest.mark.usefixtures("looks_for_itself")
    @pytest.mark.parametrize("event", ["password", "deactivation", "deletion", "logout"])
    async def test_is_noticed_where_no_signal_comes(self, alice: User, event: str) -> None:
        alices = DjangoClient()
        await sync_to_async(alices.force_login)(alice)
        async with open_socket(alices, make_inference()) as (client, _):
            if event == "logout":
                await sync_to_async(alices.logout)()
            else:
                await sync_to_async(lose_login)(alice, event)

            assert await client.receive() == {"type": "close", "code": 4401}

    async def test_is_looked_for_at_each_turn(self, alice: User, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(watch, "RECHECK_S", 3600)
        monkeypatch.setattr(live_calls, "get_channel_layer", lambda: None)
        async with open_socket(alice, make_inference(replies=["好。"])) as (client, _):
            await sync_to_async(User.objects.filter(pk=alice.pk).update)(is_active=False)
            await client.send(type="text", text="你好")
            while (message := await client.receive()) != {"type": "close", "code": 4401}:
                assert isinstance(message, bytes) or message["type"] != "close"

    @pytest.mark.parametrize("error", [DatabaseError, InterfaceError])
    async def test_is_not_assumed_while_the_database_is_away(
        self, alice: User, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
    ) -> None:
        looked = asyncio.Event()
        loop = asyncio.get_running_loop()

        def look(*arguments: Any) -> watch.Check:
            loop.call_soon_threadsafe(looked.set)
            raise error("away")

        monkeypatch.setattr(watch, "RECHECK_S", 0.01)
        monkeypatch.setattr(watch, "check", look)
        async with call(alice, make_inference(replies=["好。"])) as (client, _):
            await asyncio.wait_for(looked.wait(), 5)
            await converse(client)

    @pytest.mark.usefixtures("hears_only_signals")
    async def test_is_nothing_that_a_new_login_brings(self, alice: User) -> None:
        alices = DjangoClient()
        await sync_to_async(alices.force_login)(alice)
        async with call(alices, make_inference(replies=["好。"])) as (client, _):
            await follow_all()
            await sync_to_async(DjangoClient().force_login)(alice)
            await converse(client)


@asynccontextmanager
async def queue_up(user: Any, inference: FakeInference, **options: Any) -> AsyncIterator[tuple[Client, dict[str, Any]]]:
    """A call that waits, and that the server may end."""
    client = Client(user, inference, **options)
    await client.connect()
    waiting = await client.wait_for("waiting")
    try:
        yield client, waiting
    finally:
        with contextlib.suppress(asyncio.CancelledError):
            await client.disconnect()


class TestWaiting:
    """One place, for calls of Bob."""

    @pytest.fixture(autouse=True)
    async def _polled(self, settings: Any) -> AsyncIterator[None]:
        settings.AVATAR_MAX_SESSIONS = 1
        polling = asyncio.create_task(waiting_list.run())
        yield
        polling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await polling
        assert not await LiveCall.objects.aexists()

    async def test_goes_on_with_a_call_as_soon_as_there_is_a_place(self, alice: User, bob: User) -> None:
        inference = make_inference("你好", replies=["好。"])
        async with contextlib.AsyncExitStack() as stack:
            async with call(bob, make_inference()):
                client, waiting = await stack.enter_async_context(queue_up(alice, inference))
                await client.speak(UTTERANCE)
                await client.send(type="text", text="還沒輪到我")
                await client.send(type="ping", nonce="still there")
                await client.wait_for("pong", nonce="still there")
                assert (admission.active, inference.active_calls) == (1, 0)
            ready = await client.wait_for("status", stage="ready")
            await converse(client, "你好")
            row = await LiveCall.objects.aget()

        assert (waiting["place"], waiting["count"]) == (1, 1)
        assert ready["answer_within_s"] == 20
        assert (row.state, str(row.conversation_id)) == (CallState.ACTIVE, ready["conversation_id"])
        assert [list_said(request) for request in inference.llm.requests] == [["你好"]]

    async def test_has_no_deadline_for_a_call_that_did_not_wait(self, bob: User) -> None:
        async with call(bob, make_inference()) as (_, ready):
            pass

        assert ready["answer_within_s"] is None

    async def test_moves_up_when_one_before_it_leaves(self, alice: User, bob: User) -> None:
        async with call(bob, make_inference()), contextlib.AsyncExitStack() as stack:
            first, _ = await stack.enter_async_context(queue_up(alice, make_inference()))
            async with queue_up(bob, make_inference()) as (second, waiting):
                assert (waiting["place"], waiting["count"]) == (2, 2)
                await first.disconnect()
                moved = await second.wait_for("waiting")
                assert (moved["place"], moved["count"]) == (1, 1)

    async def test_gives_the_place_to_the_next_where_nobody_answers(
        self, alice: User, bob: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(consumers, "ANSWER_S", 1.0)
        carol = await sync_to_async(factories.create_user)("carol")
        async with contextlib.AsyncExitStack() as stack:
            async with call(bob, make_inference()):
                absent, _ = await stack.enter_async_context(queue_up(alice, make_inference()))
                present, _ = await stack.enter_async_context(queue_up(carol, make_inference(replies=["好。"])))
            await absent.wait_for("status", stage="ready")
            await absent.send(type="ping")  # of a page that nobody looks at
            await absent.wait_for("pong")
            monkeypatch.setattr(consumers, "ANSWER_S", 20.0)
            assert await absent.receive() == {"type": "close", "code": 4412}
            await present.wait_for("status", stage="ready")
            await converse(present)
            # Who has answered has no deadline any more.
            assert not [task for task in asyncio.all_tasks() if "_expect_answer" in repr(task.get_coro())]

    async def test_is_ended_by_an_operator(self, alice: User, bob: User) -> None:
        async with call(bob, make_inference()), queue_up(alice, make_inference()) as (client, waiting):
            await database_sync_to_async(end_calls)(session_ids=[UUID(waiting["session_id"])])
            assert await client.receive() == {"type": "close", "code": 4411}

    async def test_is_ended_from_another_process(self, alice: User, bob: User, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(live_calls, "get_channel_layer", lambda: None)
        async with call(bob, make_inference()), queue_up(alice, make_inference()) as (client, waiting):
            await LiveCall.objects.filter(pk=waiting["session_id"]).aupdate(state=CallState.ENDING)
            assert await client.receive() == {"type": "close", "code": 4411}

    async def test_ends_with_its_login(self, alice: User, bob: User) -> None:
        alices = DjangoClient()
        await sync_to_async(alices.force_login)(alice)
        async with call(bob, make_inference()), queue_up(alices, make_inference()) as (client, _):
            await follow_all()
            await sync_to_async(alices.logout)()
            assert await client.receive() == {"type": "close", "code": 4401}

    async def test_is_no_call_of_a_login_that_is_over(
        self, alice: User, bob: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(live_calls, "get_channel_layer", lambda: None)
        async with contextlib.AsyncExitStack() as stack:
            async with call(bob, make_inference()):
                client, _ = await stack.enter_async_context(queue_up(alice, make_inference()))
                await sync_to_async(User.objects.filter(pk=alice.pk).update)(is_active=False)
            assert await client.receive() == {"type": "close", "code": 4401}

    async def test_ends_when_the_process_stops(self, alice: User, bob: User, monkeypatch: pytest.MonkeyPatch) -> None:
        calls = Admission()
        monkeypatch.setattr(consumers, "admission", calls)
        async with open_socket(bob, make_inference()), queue_up(alice, make_inference()) as (client, _):
            await calls.drain()
            assert await client.receive() == {"type": "close", "code": 1012}

    async def test_is_taken_over_by_another_socket_for_the_conversation_with_its_place(
        self, alice: User, bob: User
    ) -> None:
        query = f"?conversation={(await sync_to_async(factories.create_conversation)(alice)).pk}"
        async with call(bob, make_inference()), contextlib.AsyncExitStack() as stack:
            lost, _ = await stack.enter_async_context(queue_up(alice, make_inference(), query=query))
            await stack.enter_async_context(queue_up(bob, make_inference()))
            _, waiting = await stack.enter_async_context(queue_up(alice, make_inference(), query=query))
            assert (waiting["place"], waiting["count"]) == (1, 2)
            while (await lost.receive()) != {"type": "close", "code": 4409}:
                pass

    async def test_is_refused_where_the_list_is_full(self, alice: User, bob: User, settings: Any) -> None:
        settings.AVATAR_MAX_WAITING = 1
        async with call(bob, make_inference()), queue_up(alice, make_inference()):
            refused, code = await connect_in_vain(bob)

        assert [(m["code"], m["is_fatal"]) for m in refused if isinstance(m, dict)] == [("SERVER_FULL", True)]
        assert code == 4429


class TestTakingOver:
    async def test_ends_the_old_socket_and_loses_and_doubles_nothing(self, alice: User, settings: Any) -> None:
        settings.AVATAR_MAX_SESSIONS = settings.AVATAR_MAX_CALLS_PER_PERSON = 1
        inference = make_inference("你好", replies=[REPLY, "再見。"], ms_per_character=100)
        async with open_socket(alice, inference) as (lost, ready):
            await lost.speak(UTTERANCE)
            announcement = await lost.wait_for("tts_ready")
            for _ in range(4):
                await lost.wait_for_audio()
            await lost.send(type="playback", turn_id=announcement["turn_id"], played_ms=700)
            await lost.send(type="ping")
            await lost.wait_for("pong")
            query = f"?conversation={ready['conversation_id']}"
            async with call(alice, inference, query=query) as (back, resumed):
                while (message := await lost.receive()) != {"type": "close", "code": 4409}:
                    assert isinstance(message, bytes) or message["type"] != "close"
                kept = await list_turns(ready["conversation_id"])
                assert admission.active == 1
                await converse(back, "再見")

        assert resumed["is_resumed"] is True
        assert resumed["conversation_id"] == ready["conversation_id"]
        assert [(turn.speaker, turn.was_interrupted) for turn in kept] == [("user", False), ("avatar", True)]
        # What was said last in the old socket is remembered in the new one.
        assert list_said(inference.llm.requests[-1]) == ["你好", kept[1].text, "再見"]
        turns = await list_turns(ready["conversation_id"])
        assert [turn.speaker for turn in turns] == ["user", "avatar", "user", "avatar"]
        assert len({turn.pk for turn in turns}) == 4

    async def test_goes_on_where_nothing_was_said_yet(self, alice: User) -> None:
        async with open_socket(alice, make_inference()) as (lost, ready):
            query = f"?conversation={ready['conversation_id']}"
            async with call(alice, make_inference(replies=["好。"]), query=query) as (back, resumed):
                assert await lost.receive() == {"type": "close", "code": 4409}
                await converse(back)

        assert resumed["conversation_id"] == ready["conversation_id"]
        assert len(await list_turns(ready["conversation_id"])) == 2

    async def test_is_for_the_same_person_alone(self, alice: User, bob: User) -> None:
        async with call(alice, make_inference(replies=["好。"])) as (client, ready):
            await converse(client)
            _, code = await connect_in_vain(bob, query=f"?conversation={ready['conversation_id']}")
            await client.send(type="ping", nonce="still there")
            await client.wait_for("pong")

        assert code == 4404

    async def test_does_not_bring_back_what_was_deleted(self, alice: User) -> None:
        async with open_socket(alice, make_inference(replies=["好。"])) as (client, ready):
            await converse(client)
            await Conversation.objects.filter(pk=ready["conversation_id"]).adelete()
            _, code = await connect_in_vain(alice, query=f"?conversation={ready['conversation_id']}")

        assert code == 4404
        assert not await Conversation.objects.aexists()


class TestBeginningAConversation:
    async def test_leaves_nothing_where_nothing_was_said(self, alice: User) -> None:
        async with call(alice, make_inference()) as (client, ready):
            await client.speak(make_silence(300))
            await client.send(type="ping")
            await client.wait_for("pong")

        assert ready["conversation_id"] is not None
        assert not await Conversation.objects.aexists()

    async def test_makes_its_row_with_the_first_turn(self, alice: User) -> None:
        async with call(alice, make_inference(replies=["好。"])) as (client, ready):
            await converse(client, "我叫小明。")
        async with call(
            alice, make_inference(replies=["小明。"]), query=f"?conversation={ready['conversation_id']}"
        ) as (client, resumed):
            await converse(client, "我叫什麼？")

        conversation = await Conversation.objects.owned_by(alice).aget()
        assert (str(conversation.pk), conversation.title) == (ready["conversation_id"], "我叫小明。")
        assert conversation.opened_at is not None
        assert resumed["is_resumed"] is True
        assert len(await list_turns(ready["conversation_id"])) == 4

    @pytest.mark.parametrize("is_resumed", [False, True])
    async def test_does_not_make_again_what_was_deleted(self, alice: User, is_resumed: bool) -> None:
        query = ""
        if is_resumed:
            query = f"?conversation={(await sync_to_async(factories.create_conversation)(alice)).pk}"
        async with call(alice, make_inference(replies=["好。", "是。"]), query=query) as (client, ready):
            if not is_resumed:
                await converse(client)
            await Conversation.objects.filter(pk=ready["conversation_id"]).adelete()
            await client.send(type="text", text="再說一次")
            error = await client.wait_for("error")

        assert error["code"] == "CONVERSATION_GONE"
        assert not await Conversation.objects.aexists()


class TestDraining:
    @pytest.fixture
    def calls(self, monkeypatch: pytest.MonkeyPatch) -> Admission:
        calls = Admission()
        monkeypatch.setattr(consumers, "admission", calls)
        return calls

    async def test_ends_the_sentence_and_then_the_call(self, alice: User, calls: Admission) -> None:
        reply = "第一句話說完了。第二句話永遠不會說完，因為它實在是太長太長了，長到沒有人聽得完。"
        clock = Clock()
        inference = make_inference(replies=[reply], ms_per_character=100)
        async with open_socket(alice, inference, clock=clock) as (client, ready):
            await client.send(type="text", text="你好")
            announcement = await client.wait_for("tts_ready")
            await client.wait_for_audio()
            await client.send(type="playback", turn_id=announcement["turn_id"], played_ms=300)
            await client.send(type="ping")
            await client.wait_for("pong")
            draining = asyncio.create_task(calls.drain())
            await client.send(type="ping")
            await client.wait_for("pong")
            assert not draining.done()
            # The first sentence lasts 800 ms.
            await client.send(type="playback", turn_id=announcement["turn_id"], played_ms=850)
            await draining
            while (message := await client.receive()) != {"type": "close", "code": 1012}:
                assert isinstance(message, bytes) or message["type"] != "close"

        _, avatar = await list_turns(ready["conversation_id"])
        assert avatar.was_interrupted
        assert avatar.text.startswith("第一句話說完了。")
        assert avatar.text != reply

    async def test_ends_quiet_calls_at_once_and_refuses_new_ones(self, alice: User, calls: Admission) -> None:
        async with open_socket(alice, make_inference()) as (client, _):
            await calls.drain()
            assert await client.receive() == {"type": "close", "code": 1012}

            assert await connect_in_vain(alice) == ([], 1012)
        assert calls.active == 0

    @pytest.mark.parametrize("does_hang", [True, False])
    async def test_spools_what_the_database_does_not_take(
        self, alice: User, calls: Admission, monkeypatch: pytest.MonkeyPatch, does_hang: bool
    ) -> None:
        is_asked, is_back = asyncio.Event(), threading.Event()
        loop = asyncio.get_running_loop()

        def hang(*arguments: Any, **fields: Any) -> Turn:
            loop.call_soon_threadsafe(is_asked.set)
            if does_hang:
                is_back.wait(20)
            raise OperationalError("the database is locked")

        monkeypatch.setattr(services, "_place", hang)
        monkeypatch.setattr(call_conversation, "HURRIED_PATIENCE_S", 0.05)
        async with open_socket(alice, make_inference(replies=["好。"])) as (client, ready):
            await client.send(type="text", text="你好")
            await asyncio.wait_for(is_asked.wait(), 5)
            if not does_hang:
                # It has no place any more, and is being saved.
                await client.socket.send_input({"type": "websocket.disconnect", "code": 1001})
                async with asyncio.timeout(5):
                    while calls.active:  # noqa: ASYNC110 — a call says nobody when it has left
                        await asyncio.sleep(0.001)
            try:
                await asyncio.wait_for(calls.drain(finish_sentence_s=0.05), 5)
                spooled = spool.list_conversations()
            finally:
                is_back.set()
                # Behind what hangs in the database's thread.
                await database_sync_to_async(list)()

        assert [str(each) for each in spooled] == [ready["conversation_id"]]

    def test_is_over_before_the_web_process_ends(self) -> None:
        # What is left, to write the spool.
        assert FINISH_SENTENCE_S + HURRIED_PATIENCE_S + 5 < DRAIN_S
        assert HURRIED_PATIENCE_S + 5 < entry.TAKEOVER_TIMEOUT_S

    async def test_waits_for_no_sentence_longer_than_it_may(self, alice: User, calls: Admission) -> None:
        inference = make_inference(replies=[REPLY], ms_per_character=100)
        async with open_socket(alice, inference, clock=Clock()) as (client, _):
            await client.send(type="text", text="你好")
            await client.wait_for_audio()

            await asyncio.wait_for(calls.drain(finish_sentence_s=0.05), 5)


class TestFloods:
    async def test_of_messages_are_cut_off(self, alice: User) -> None:
        async with open_socket(alice, make_inference(), clock=Clock()) as (client, _):
            for _ in range(201):
                await client.send(type="playback", turn_id=str(uuid4()), played_ms=1)

            assert await client.receive() == {"type": "close", "code": 4408}

    async def test_of_errors_are_cut_off(self, alice: User) -> None:
        async with open_socket(alice, make_inference(), clock=Clock()) as (client, _):
            for _ in range(21):
                await client.send_text("{")
            for _ in range(20):
                assert (await client.wait_for("error"))["code"] == "JSON_DECODE_ERROR"

            assert await client.receive() == {"type": "close", "code": 4408}

    async def test_of_audio_are_cut_off(self, alice: User) -> None:
        async with open_socket(alice, make_inference(), clock=Clock()) as (client, _):
            for _ in range(36):
                await client.socket.send_to(bytes_data=bytes(64_000))

            while (message := await client.receive()) != {"type": "close", "code": 4408}:
                assert isinstance(message, dict)
                assert message["type"] != "close"

    async def test_are_nothing_that_lasts(self, alice: User) -> None:
        clock = Clock()
        async with call(alice, make_inference(), clock=clock) as (client, _):
            for _ in range(5):
                for _ in range(190):
                    await client.send(type="playback", turn_id=str(uuid4()), played_ms=1)
                await client.send(type="ping")
                await client.wait_for("pong")
                clock.now += 2


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
        profile = await sync_to_async(factories.create_voice_profile)(owner=alice, availability="disabled")
        await sync_to_async(choose_default)(user=alice, profile=profile)
        async with call(alice, make_inference()) as (_, ready):
            assert ready["voice_profile_id"] is None

    async def test_speaks_like_the_recording_where_the_engine_clones(self, alice: User) -> None:
        profile = await sync_to_async(factories.create_voice_profile)(
            owner=alice, kind="cloned", engine_voice="", clip_transcript="今天天氣很好。"
        )
        flac = encode_flac(SPEECH, 24_000)
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


class BrokenLayer:
    """A channel layer whose Redis is away."""

    async def new_channel(self) -> str:
        raise ConnectionError("away")

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        raise ConnectionError("away")


class Counted:
    """A function that keeps what it was called with."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.arguments: list[tuple[Any, ...]] = []

    def __call__(self, *arguments: Any) -> Any:
        self.arguments.append(arguments)
        return self._function(*arguments)


class TestChangingTheVoiceInUse:
    """A voice that is deleted, disabled, unshared or remade during a call."""

    @pytest.fixture
    def profile(self, alice: User) -> VoiceProfile:
        profile = factories.create_voice_profile(owner=alice, engine_voice="zm_yunxi", is_shared=True)
        choose_default(user=alice, profile=profile)
        return profile

    @pytest.fixture
    def hears_only_messages(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A call that polls nothing before long."""
        monkeypatch.setattr(watch, "RECHECK_S", 3600)

    @pytest.fixture
    def polls_only(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """As in a process that no message reaches."""
        monkeypatch.setattr(watch, "RECHECK_S", 0.01)
        monkeypatch.setattr(live_calls, "get_channel_layer", lambda: None)

    @pytest.mark.usefixtures("hears_only_messages")
    @pytest.mark.parametrize("change", [delete_voice_profile, disable])
    async def test_reaches_the_reply_within_a_clause(
        self, alice: User, profile: VoiceProfile, change: Callable[..., None]
    ) -> None:
        inference = make_inference(replies=[REPLY])
        inference.llm.hold_after(20)
        async with call(alice, inference) as (client, _):
            await client.send(type="text", text="你好")
            await client.wait_for_audio()
            await sync_to_async(change)(profile=profile)
            error = await client.wait_for("error")
            before = len(inference.tts.requests)
            inference.llm.release()
            await client.wait_for("turn_end")

        spoken_in = [options.voice for _, options in inference.tts.requests]
        assert (error["code"], error["voice_profile_id"]) == ("VOICE_GONE", str(profile.pk))
        assert set(spoken_in[:before]) == {"zm_yunxi"}
        assert set(spoken_in[before:]) == {""}

    @pytest.mark.usefixtures("hears_only_messages")
    async def test_by_unsharing_it_concerns_those_it_was_shared_with(
        self, alice: User, bob: User, profile: VoiceProfile
    ) -> None:
        await sync_to_async(choose_default)(user=bob, profile=profile)
        alices, bobs = make_inference(replies=["好。"]), make_inference(replies=["好。"])
        async with call(alice, alices) as (hers, _), call(bob, bobs) as (his, _):
            await follow_all()
            await sync_to_async(unshare)(profile=profile)
            error = await his.wait_for("error")
            await converse(hers)
            await converse(his)

        assert error["code"] == "VOICE_GONE"
        assert [options.voice for _, options in alices.tts.requests] == ["zm_yunxi"]
        assert [options.voice for _, options in bobs.tts.requests] == [""]
        assert not [m for m in hers.received if isinstance(m, dict) and m["type"] == "error"]

    @pytest.mark.usefixtures("polls_only")
    async def test_by_a_worker_is_noticed_by_polling(
        self, alice: User, profile: VoiceProfile, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        has_changed = asyncio.Event()
        find = voice_lookup.find_voice

        async def find_and_tell(*arguments: Any) -> Voice | None:
            voice = await find(*arguments)
            has_changed.set()
            return voice

        monkeypatch.setattr(voice_lookup, "find_voice", find_and_tell)
        inference = make_inference(replies=["好。", "再見。"])
        async with call(alice, inference) as (client, _):
            voices = VoiceProfile.objects.filter(pk=profile.pk)
            await converse(client)
            has_changed.clear()
            await voices.aupdate(version=2, style=bytes(1024))
            await asyncio.wait_for(has_changed.wait(), 5)
            await converse(client)
            await voices.aupdate(availability="disabled")
            error = await client.wait_for("error")

        assert [options.style for _, options in inference.tts.requests] == [b"", bytes(1024)]
        assert error["code"] == "VOICE_GONE"

    @pytest.mark.usefixtures("hears_only_messages")
    async def test_costs_no_query_per_clause(
        self, alice: User, profile: VoiceProfile, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read, checked = Counted(voice_lookup.read_voice), Counted(watch.check)
        monkeypatch.setattr(voice_lookup, "read_voice", read)
        monkeypatch.setattr(watch, "check", checked)
        inference = make_inference(replies=[REPLY * 2])
        async with call(alice, inference) as (client, _):
            await converse(client)

        assert len(inference.tts.requests) > 3
        # The preferred voice, when the call begins; then once a turn, of the user and of the avatar.
        assert len(read.arguments) == 1
        assert len(checked.arguments) <= 2

    async def test_goes_on_without_redis(
        self, alice: User, profile: VoiceProfile, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(watch, "RECHECK_S", 0.01)
        monkeypatch.setattr(live_calls, "get_channel_layer", BrokenLayer)
        async with call(alice, make_inference()) as (client, _):
            await sync_to_async(delete_voice_profile)(profile=profile)
            error = await client.wait_for("error")

        assert error["code"] == "VOICE_GONE"
        assert not await VoiceProfile.objects.filter(pk=profile.pk).aexists()
        assert "voice.changed was not sent to calls" in caplog.text


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

    async def test_of_a_client_that_reads_no_answers_end_the_call_as_too_slow(self, alice: User) -> None:
        inference = make_inference()
        inference.llm.fail_next(CallOverrun("answers wait to be read"))
        client = Client(alice, inference)
        await client.connect()
        await client.send(type="text", text="你好")
        while (message := await client.receive())["type"] != "close":
            assert message["type"] != "error"
        await client.disconnect()

        assert message["code"] == 4408

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

    async def test_are_told_in_the_language_that_the_page_changes_to(self, alice: User) -> None:
        async with call(alice, make_inference(), headers={"accept-language": "en"}) as (client, _):
            await client.send(type="configure", page_language="zh-hant")
            await client.send(type="audio_end")

            error = await client.wait_for("error")

        assert error["error"] == translate_error(messages.ErrorCode.NO_AUDIO_DATA, "zh-hant")

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

    @pytest.mark.parametrize("error", [Disconnected("gone"), BrokenPipeError("gone")])
    async def test_while_a_reply_is_written_is_no_failure(
        self, alice: User, caplog: pytest.LogCaptureFixture, error: Exception
    ) -> None:
        """The server knows that the socket is closed before it says so."""
        inference = make_inference("你好", replies=[REPLY])
        inputs: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        refused = asyncio.Event()

        async def send(message: dict[str, Any]) -> None:
            if "bytes" in message or message["type"] == "websocket.close":
                refused.set()
                raise error

        headers = [(b"host", b"testserver")]
        scope = {"type": "websocket", "path": "/ws/chat", "query_string": b"", "headers": headers, "user": alice}
        task = asyncio.create_task(URLRouter(websocket_urlpatterns(inference))(scope, inputs.get, send))
        inputs.put_nowait({"type": "websocket.connect"})
        inputs.put_nowait({"type": "websocket.receive", "text": '{"type": "text", "text": "你好"}'})
        await asyncio.wait_for(refused.wait(), 5)
        inputs.put_nowait({"type": "websocket.disconnect", "code": 1001})
        await asyncio.wait_for(task, 5)

        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
        assert inference.active_calls == 0
        assert [turn.text async for turn in Turn.objects.filter(speaker="user")] == ["你好"]

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
        monkeypatch.setattr(outbox, "SEND_TIMEOUT_S", 0.1)
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


def make_wav(pcm: bytes) -> bytes:
    return encode_wav(pcm, 16_000)


def make_webm(pcm: bytes) -> bytes:
    """What a browser's MediaRecorder makes: Opus in WebM."""
    return sounds.encode(float_from_pcm(pcm), "webm", rate_hz=16_000)


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
        assert list_said(inference.llm.requests[-1]) == [
            "明天天氣\n（提示：你查不到天氣，請對方看氣象預報）",
            "明天晴天",
            "謝謝",
        ]
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
