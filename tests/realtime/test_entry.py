from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest
from channels.db import database_sync_to_async
from django.contrib.auth.models import AnonymousUser, User

from conversations.models import Conversation
from inference.interfaces import Message, Quality
from realtime import messages
from realtime.admission import Admission
from realtime.call_table import call_table
from realtime.entry import (
    TAKEOVER_TIMEOUT_S,
    CallRequest,
    Refusal,
    Start,
    Waiting,
    enter,
    enter_from_list,
    make_call_settings,
    read_request,
)
from realtime.logins import read_login
from realtime.loop_lag import READINGS, LoopLag
from realtime.messages import ErrorCode
from realtime.models import CallState, LiveCall
from tests import factories
from voices.services import choose_default, choose_quality, disable

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def allowed_host(settings: Any) -> None:
    settings.ALLOWED_HOSTS = ["testserver"]


def make_scope(user: Any, *, query: str = "", scheme: str = "ws", **headers: str) -> dict[str, Any]:
    sent = {"host": "testserver", "origin": "http://testserver"} | headers
    return {
        "user": user,
        "session": None,
        "scheme": scheme,
        "query_string": query.encode(),
        "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in sent.items() if value],
    }


def read_close_code(scope: dict[str, Any]) -> int | None:
    """Return what the handshake is refused with, or None."""
    try:
        read_request(scope)
    except Refusal as refusal:
        return refusal.close_code
    return None


class TestReadRequest:
    def test_is_of_the_login_and_keeps_what_is_said(self, alice: User) -> None:
        assert read_request(make_scope(alice)) == CallRequest(
            user=alice, login=read_login(alice, None), wanted_id=None, is_kept=True
        )

    @pytest.mark.parametrize("user", [None, AnonymousUser()])
    def test_refuses_without_a_login(self, user: Any) -> None:
        assert read_close_code(make_scope(user)) == messages.CLOSE_NOT_LOGGED_IN

    @pytest.mark.parametrize(
        "headers",
        [
            {"origin": "http://elsewhere.example"},
            {"origin": "http://testserver.elsewhere.example"},
            {"origin": "https://testserver"},
            {"origin": "null"},
            {"origin": "http://elsewhere.example", "host": "elsewhere.example"},
        ],
        ids=lambda headers: " ".join(headers.values()),
    )
    def test_refuses_pages_of_other_sites(self, alice: User, headers: dict[str, str]) -> None:
        assert read_close_code(make_scope(alice, **headers)) == messages.CLOSE_WRONG_ORIGIN

    def test_refuses_them_before_it_says_whether_there_is_a_login(self) -> None:
        scope = make_scope(None, origin="http://elsewhere.example")

        assert read_close_code(scope) == messages.CLOSE_WRONG_ORIGIN

    def test_accepts_programs_and_origins_that_the_operator_trusts(self, alice: User, settings: Any) -> None:
        settings.CSRF_TRUSTED_ORIGINS = ["https://portal.example"]

        assert read_close_code(make_scope(alice, origin="")) is None
        assert read_close_code(make_scope(alice, origin="https://portal.example")) is None

    def test_believes_a_proxy_about_the_scheme_only_where_there_is_one(self, alice: User, settings: Any) -> None:
        scope = make_scope(alice, origin="https://testserver", x_forwarded_proto="https")
        assert read_close_code(scope) == messages.CLOSE_WRONG_ORIGIN

        settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
        assert read_close_code(scope) is None

    @pytest.mark.parametrize("query", ["keep=no", "keep=", "keep=No", "keep=no&keep=yes"])
    def test_keeps_nothing_where_anything_but_yes_is_asked_for(self, alice: User, query: str) -> None:
        assert read_request(make_scope(alice, query=query)).is_kept is False

    @pytest.mark.parametrize("wanted", ["", "7", "../7"])
    def test_refuses_a_conversation_that_cannot_be(self, alice: User, wanted: str) -> None:
        scope = make_scope(alice, query=f"conversation={wanted}")

        assert read_close_code(scope) == messages.CLOSE_UNKNOWN_CONVERSATION


class Call:
    """A call as others see it. Its turns are saved once the test says so, or at once."""

    def __init__(self, user: User, conversation_id: UUID | None = None, *, is_unbegun: bool = False) -> None:
        self.session_id = uuid4()
        self.user_id = user.pk
        self.conversation_id = conversation_id
        self.is_conversation_unbegun = is_unbegun
        self.ended: list[int] = []
        self.may_be_saved = asyncio.Event()
        self.may_be_saved.set()
        #: Said in its last moment, and saved by its end.
        self.last_words = ""

    async def finish_sentence(self) -> None:
        pass

    async def end(self, close_code: int) -> None:
        self.ended.append(close_code)
        await self.may_be_saved.wait()
        if self.last_words:
            save = database_sync_to_async(factories.create_turn)
            await save(await Conversation.objects.aget(pk=self.conversation_id), text=self.last_words)


def ask(user: User, wanted_id: UUID | None = None, *, is_kept: bool = True) -> CallRequest:
    return CallRequest(user=user, login=read_login(user, None), wanted_id=wanted_id, is_kept=is_kept)


async def enter_as(user: User, request: CallRequest, admission: Admission) -> Start:
    entered = await enter(Call(user, request.wanted_id), request, admission, call_table)
    assert isinstance(entered, Start)
    return entered


async def create_conversation(owner: User, *texts: str) -> UUID:
    conversation = await database_sync_to_async(factories.create_conversation)(owner)
    for text in texts:
        await database_sync_to_async(factories.create_turn)(conversation, text=text)
    conversation_id: UUID = conversation.pk
    return conversation_id


class TestEntering:
    @pytest.mark.parametrize("is_kept", [True, False])
    async def test_begins_a_conversation_of_its_own_if_it_is_kept(self, alice: User, is_kept: bool) -> None:
        first, second = [await enter_as(alice, ask(alice, is_kept=is_kept), Admission()) for _ in range(2)]

        assert (first.is_new, first.history) == (True, [])
        if is_kept:
            assert first.conversation_id != second.conversation_id
        assert (first.conversation_id is not None) is is_kept

    async def test_goes_on_with_a_conversation_and_knows_what_was_said(self, alice: User) -> None:
        conversation_id = await create_conversation(alice, "你好", "再見")

        start = await enter_as(alice, ask(alice, conversation_id), Admission())

        assert (start.conversation_id, start.is_new) == (conversation_id, False)
        assert [turn.message for turn in start.history] == [Message("user", "你好"), Message("user", "再見")]

    @pytest.mark.parametrize("whose", ["bob's", "nobody's"])
    async def test_refuses_a_conversation_that_is_not_the_persons_own(self, alice: User, bob: User, whose: str) -> None:
        conversation_id = await create_conversation(bob, "秘密") if whose == "bob's" else uuid4()

        with pytest.raises(Refusal) as refused:
            await enter_as(alice, ask(alice, conversation_id), Admission())

        assert refused.value.close_code == messages.CLOSE_UNKNOWN_CONVERSATION

    async def test_says_why_there_is_no_place(self, alice: User, bob: User, settings: Any) -> None:
        settings.AVATAR_MAX_SESSIONS, settings.AVATAR_MAX_CALLS_PER_PERSON, settings.AVATAR_MAX_WAITING = 2, 2, 0
        admission = Admission()
        await enter_as(alice, ask(alice), admission)
        await enter_as(alice, ask(alice), admission)
        with pytest.raises(Refusal) as too_many:
            await enter_as(alice, ask(alice), admission)
        with pytest.raises(Refusal) as full:
            await enter_as(bob, ask(bob), admission)
        await admission.drain()
        with pytest.raises(Refusal) as draining:
            await enter_as(bob, ask(bob), admission)

        refusals = [(each.value.close_code, each.value.code) for each in (too_many, full, draining)]
        assert refusals == [
            (messages.CLOSE_TOO_MANY_CALLS, ErrorCode.TOO_MANY_CALLS),
            (messages.CLOSE_SERVER_FULL, ErrorCode.SERVER_FULL),
            (messages.CLOSE_RESTARTING, None),
        ]

    async def test_begins_with_the_voice_and_the_quality_that_the_person_prefers(self, alice: User) -> None:
        profile = await database_sync_to_async(factories.create_voice_profile)(alice, engine_voice="zm_yunxi")
        await database_sync_to_async(choose_default)(user=alice, profile=profile)
        await database_sync_to_async(choose_quality)(user=alice, quality=Quality.HIGH_QUALITY.value)

        start = await enter_as(alice, ask(alice), Admission())
        await database_sync_to_async(disable)(profile=profile)
        without = await enter_as(alice, ask(alice), Admission())

        assert (start.voice.profile_id, start.voice.engine_voice) == (profile.pk, "zm_yunxi")
        assert start.quality == without.quality == Quality.HIGH_QUALITY
        assert without.voice.profile_id is None


class TestWaiting:
    @pytest.fixture(autouse=True)
    def _full(self, settings: Any, bob: User) -> None:
        settings.AVATAR_MAX_SESSIONS = 1
        self.taken = factories.create_live_call(bob)

    async def leave(self) -> None:
        await self.taken.adelete()

    @pytest.mark.parametrize("is_kept", [True, False])
    async def test_begins_the_conversation_of_its_row_once_it_has_a_place(self, alice: User, is_kept: bool) -> None:
        admission, call, request = Admission(), Call(alice), ask(alice, is_kept=is_kept)

        waiting = await enter(call, request, admission, call_table)
        row = await LiveCall.objects.aget(pk=call.session_id)
        assert isinstance(waiting, Waiting)
        assert (row.state, row.conversation_id, admission.active) == (CallState.WAITING, waiting.new_id, 0)
        start = await enter_from_list(call, request, waiting, admission)

        assert (start.conversation_id, start.is_new) == (waiting.new_id, True)
        assert (waiting.new_id is not None) is is_kept
        assert admission.active == 1

    async def test_goes_on_with_a_conversation(self, alice: User) -> None:
        request = ask(alice, await create_conversation(alice, "你好"))
        admission, call = Admission(), Call(alice, request.wanted_id)

        waiting = await enter(call, request, admission, call_table)
        assert isinstance(waiting, Waiting)
        start = await enter_from_list(call, request, waiting, admission)

        assert (start.conversation_id, start.is_new) == (request.wanted_id, False)
        assert [turn.message.content for turn in start.history] == ["你好"]

    async def test_is_not_for_a_conversation_that_there_is_not(self, alice: User) -> None:
        with pytest.raises(Refusal) as refused:
            await enter(Call(alice), ask(alice, uuid4()), Admission(), call_table)

        assert refused.value.close_code == messages.CLOSE_UNKNOWN_CONVERSATION

    async def test_ends_without_a_call_where_the_login_is_over_or_the_process_stops(self, alice: User) -> None:
        admission, request = Admission(), ask(alice)
        waiting = await enter(Call(alice), request, admission, call_table)
        assert isinstance(waiting, Waiting)

        await User.objects.filter(pk=alice.pk).aupdate(is_active=False)
        with pytest.raises(Refusal) as logged_out:
            await enter_from_list(Call(alice), request, waiting, admission)
        await admission.drain()
        with pytest.raises(Refusal) as draining:
            await enter_from_list(Call(alice), request, waiting, admission)

        codes = [each.value.close_code for each in (logged_out, draining)]
        assert codes == [messages.CLOSE_NOT_LOGGED_IN, messages.CLOSE_RESTARTING]

    async def test_is_passed_by_a_call_that_comes_back_when_there_are_more_than_may_be(
        self, alice: User, settings: Any
    ) -> None:
        conversation_id = await create_conversation(alice, "你好")
        settings.AVATAR_MAX_SESSIONS = 3
        admission, lost = Admission(), Call(alice, conversation_id)
        for call in (lost, Call(alice)):
            await enter(call, ask(alice, conversation_id if call is lost else None), admission, call_table)
        settings.AVATAR_MAX_SESSIONS = 1

        await enter_as(alice, ask(alice, conversation_id), admission)

        assert lost.ended == [messages.CLOSE_REPLACED]

    async def test_is_not_for_whom_an_overloaded_process_refuses(
        self, alice: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("realtime.entry.loop_lag", make_late())

        with pytest.raises(Refusal) as refused:
            await enter(Call(alice), ask(alice), Admission(), call_table)

        assert refused.value.code == ErrorCode.OVERLOADED


def make_late() -> LoopLag:
    late = LoopLag()
    for _ in range(READINGS):
        late.note(0.15)
    return late


class TestOverload:
    @pytest.fixture(autouse=True)
    def _late(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("realtime.entry.loop_lag", make_late())

    async def test_refuses_a_new_call(self, alice: User) -> None:
        admission = Admission()

        with pytest.raises(Refusal) as refused:
            await enter_as(alice, ask(alice), admission)

        assert (refused.value.close_code, refused.value.code) == (4431, ErrorCode.OVERLOADED)
        assert admission.active == 0

    async def test_lets_a_connection_that_was_lost_come_back(self, alice: User) -> None:
        conversation_id = await create_conversation(alice, "你好")
        admission, lost = Admission(), Call(alice, conversation_id)
        admission.enter(lost, limit=5, limit_per_person=2)

        await enter_as(alice, ask(alice, conversation_id), admission)

        assert lost.ended == [messages.CLOSE_REPLACED]


class TestOtherProcesses:
    async def test_share_the_limit(self, alice: User, bob: User, settings: Any) -> None:
        settings.AVATAR_MAX_SESSIONS, settings.AVATAR_MAX_WAITING = 1, 0
        await database_sync_to_async(factories.create_live_call)(bob)

        with pytest.raises(Refusal) as refused:
            await enter_as(alice, ask(alice), Admission())

        assert refused.value.close_code == messages.CLOSE_SERVER_FULL

    async def test_give_a_conversation_up_once_its_turns_are_saved(self, alice: User, settings: Any) -> None:
        settings.AVATAR_MAX_SESSIONS = 1
        conversation_id = await create_conversation(alice, "你好")
        other = await database_sync_to_async(factories.create_live_call)(alice, conversation_id=conversation_id)

        entering = asyncio.create_task(enter_as(alice, ask(alice, conversation_id), Admission()))
        async with asyncio.timeout(5):
            while (await LiveCall.objects.aget(pk=other.pk)).state != CallState.REPLACED:  # noqa: ASYNC110
                await asyncio.sleep(0)
        save = database_sync_to_async(factories.create_turn)
        await save(await Conversation.objects.aget(pk=conversation_id), text="再見")
        await other.adelete()
        start = await entering

        assert [turn.message.content for turn in start.history] == ["你好", "再見"]


class TestTakingOver:
    @pytest.fixture(autouse=True)
    def _one_place(self, settings: Any) -> None:
        settings.AVATAR_MAX_SESSIONS = settings.AVATAR_MAX_CALLS_PER_PERSON = 1

    async def test_reads_the_conversation_once_the_lost_call_has_saved_it(self, alice: User) -> None:
        conversation_id = await create_conversation(alice, "你好")
        admission, lost = Admission(), Call(alice, conversation_id)
        lost.last_words = "再見"
        await enter(lost, ask(alice, conversation_id), admission, call_table)

        start = await enter_as(alice, ask(alice, conversation_id), admission)

        assert lost.ended == [messages.CLOSE_REPLACED]
        assert [turn.message.content for turn in start.history] == ["你好", "再見"]
        assert admission.active == 1

    @pytest.mark.virtual_clock
    async def test_does_not_wait_without_end_for_a_call_that_hangs(
        self, alice: User, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # On a virtual clock no deadline waits for a thread.
        monkeypatch.setattr("realtime.call_table.TIMEOUT_S", 0.0)
        conversation_id = await create_conversation(alice, "你好")
        admission, hanging = Admission(), Call(alice, conversation_id)
        await enter(hanging, ask(alice, conversation_id), admission, call_table)
        hanging.may_be_saved.clear()
        began_at = asyncio.get_running_loop().time()

        start = await enter_as(alice, ask(alice, conversation_id), admission)

        assert asyncio.get_running_loop().time() - began_at == pytest.approx(TAKEOVER_TIMEOUT_S, abs=0.1)
        assert [turn.message.content for turn in start.history] == ["你好"]
        assert f"session {hanging.session_id} are saved too late" in caplog.text

    @pytest.mark.parametrize("is_unbegun", [True, False])
    async def test_has_the_same_id_where_nothing_was_kept_yet_and_does_not_bring_back_what_was_deleted(
        self, alice: User, is_unbegun: bool
    ) -> None:
        conversation_id = uuid4()
        admission, lost = Admission(), Call(alice, conversation_id, is_unbegun=is_unbegun)
        admission.enter(lost, limit=1, limit_per_person=1)
        request = ask(alice, conversation_id)

        if is_unbegun:
            start = await enter_as(alice, request, admission)
            assert (start.conversation_id, start.is_new, start.history) == (conversation_id, True, [])
        else:
            with pytest.raises(Refusal):
                await enter_as(alice, request, admission)

    async def test_leaves_another_persons_call_alone(self, alice: User, bob: User, settings: Any) -> None:
        settings.AVATAR_MAX_SESSIONS = 2
        conversation_id = await create_conversation(alice, "秘密")
        admission, alices = Admission(), Call(alice, conversation_id)
        await enter(alices, ask(alice, conversation_id), admission, call_table)

        with pytest.raises(Refusal):
            await enter_as(bob, ask(bob, conversation_id), admission)

        assert alices.ended == []


class TestMakeCallSettings:
    def test_is_what_the_operator_set(self, settings: Any) -> None:
        settings.AVATAR_SYSTEM_PROMPT = "請簡短。"
        settings.AVATAR_EXAMPLES = False
        settings.AVATAR_PAUSE_MS = 450
        settings.AVATAR_SENSITIVITY = 0.7
        settings.AVATAR_MAX_REPLY_TOKENS = 99
        settings.AVATAR_LANGUAGE_MODEL_HISTORY_TURNS = 7
        settings.AVATAR_MAX_UTTERANCE_S = 33

        made = make_call_settings()

        assert (
            replace(
                made,
                system_prompt="請簡短。",
                examples=(),
                pause_ms=450,
                sensitivity=0.7,
                max_reply_tokens=99,
                max_history_messages=7,
                max_utterance_s=33,
            )
            == made
        )
