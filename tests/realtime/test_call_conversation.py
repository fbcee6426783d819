from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import pytest
from channels.db import database_sync_to_async
from django.contrib.auth.models import User

from conversations import spool
from conversations.models import Conversation, Turn
from inference.interfaces import Message
from realtime.call.turns import PastTurn, SaidTurn
from realtime.call_conversation import CallConversation, read_history
from realtime.recorder import HURRIED_PATIENCE_S, PATIENCE_S, Trouble
from tests import factories

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def conversation(alice: User) -> Conversation:
    return factories.create_conversation(alice)


def make_turn(text: str = "你好") -> SaidTurn:
    return SaidTurn(uuid4(), "user", text, "zh")


@asynccontextmanager
async def open_conversation(
    conversation_id: UUID | None, *, is_kept: bool = True, begun_by: int | None = None, troubles: list[Trouble]
) -> AsyncGenerator[CallConversation]:
    of_call = CallConversation(conversation_id, is_kept=is_kept, begun_by=begun_by, on_trouble=troubles.append)
    try:
        yield of_call
    finally:
        await of_call.close()


@pytest.fixture
def troubles() -> list[Trouble]:
    return []


async def list_texts() -> list[str]:
    return [turn.text async for turn in Turn.objects.order_by("sequence")]


class TestCallConversation:
    async def test_has_every_turn_in_the_database_when_it_is_closed(
        self, conversation: Conversation, troubles: list[Trouble]
    ) -> None:
        async with open_conversation(conversation.pk, troubles=troubles) as of_call:
            of_call.record(make_turn("第一句"))
            of_call.record(make_turn("第二句"))

        assert await list_texts() == ["第一句", "第二句"]
        assert troubles == []

    async def test_begins_with_its_first_turn(self, alice: User, troubles: list[Trouble]) -> None:
        conversation_id = uuid4()
        async with open_conversation(conversation_id, begun_by=alice.pk, troubles=troubles) as of_call:
            assert of_call.is_unbegun
            assert not await Conversation.objects.aexists()
            of_call.record(make_turn())

        assert not of_call.is_unbegun
        assert (await Conversation.objects.aget()).pk == conversation_id

    async def test_that_goes_on_is_begun(self, conversation: Conversation, troubles: list[Trouble]) -> None:
        async with open_conversation(conversation.pk, troubles=troubles) as of_call:
            assert not of_call.is_unbegun

    async def test_promises_no_sound_once_it_was_deleted(
        self, conversation: Conversation, troubles: list[Trouble]
    ) -> None:
        turn_id = uuid4()
        async with open_conversation(conversation.pk, troubles=troubles) as of_call:
            assert of_call.make_audio_url(turn_id) == f"/api/conversations/{conversation.pk}/turns/{turn_id}/audio"
            await Conversation.objects.all().adelete()
            of_call.record(make_turn())

        assert troubles == [Trouble.GONE]
        assert of_call.make_audio_url(turn_id) is None

    @pytest.mark.virtual_clock
    @pytest.mark.parametrize("is_hurried", [True, False])
    async def test_waits_only_briefly_for_a_database_that_hangs_when_it_is_hurried(
        self, conversation: Conversation, troubles: list[Trouble], is_hurried: bool
    ) -> None:
        is_back = threading.Event()
        # All queries share one thread.
        hanging = asyncio.create_task(database_sync_to_async(is_back.wait)(60))
        await asyncio.sleep(0)
        began_at = asyncio.get_running_loop().time()
        async with open_conversation(conversation.pk, troubles=troubles) as of_call:
            of_call.record(make_turn())
            if is_hurried:
                of_call.hurry()

        took_s = asyncio.get_running_loop().time() - began_at
        spooled = spool.list_conversations()
        is_back.set()
        await hanging
        assert took_s == pytest.approx(HURRIED_PATIENCE_S if is_hurried else PATIENCE_S, abs=0.1)
        assert spooled == [conversation.pk]


class TestKeepingNothing:
    @pytest.mark.parametrize("goes_on", [True, False])
    async def test_writes_nothing_and_promises_no_sound(
        self, conversation: Conversation, troubles: list[Trouble], goes_on: bool
    ) -> None:
        conversation_id = conversation.pk if goes_on else None
        async with open_conversation(conversation_id, is_kept=False, troubles=troubles) as of_call:
            of_call.record(make_turn())
            of_call.hurry()

            assert of_call.kept_id is None
            assert of_call.make_audio_url(uuid4()) is None
        assert await list_texts() == []

    async def test_still_knows_what_was_said_before(self, conversation: Conversation, troubles: list[Trouble]) -> None:
        said = await database_sync_to_async(factories.create_turn)(conversation, text="之前說的")
        async with open_conversation(conversation.pk, is_kept=False, troubles=troubles) as of_call:
            assert await of_call.find_past(said.pk) == [PastTurn(said.pk, Message("user", "之前說的"))]


class TestFindingThePast:
    async def test_is_of_this_conversation_alone(
        self, conversation: Conversation, alice: User, bob: User, troubles: list[Trouble]
    ) -> None:
        elsewhere = await database_sync_to_async(factories.create_conversation)(bob)
        bobs = await database_sync_to_async(factories.create_turn)(elsewhere)
        async with open_conversation(conversation.pk, troubles=troubles) as of_call:
            assert await of_call.find_past(bobs.pk) is None
        async with open_conversation(None, is_kept=False, troubles=troubles) as of_call:
            assert await of_call.find_past(bobs.pk) is None

    async def test_is_the_turn_and_as_many_before_it_as_the_model_is_given(
        self, conversation: Conversation, settings: Any, troubles: list[Trouble]
    ) -> None:
        settings.AVATAR_LANGUAGE_MODEL_HISTORY_TURNS = 2
        for text in ("一", "二", "三", "四"):
            said = await database_sync_to_async(factories.create_turn)(conversation, text=text)
        async with open_conversation(conversation.pk, troubles=troubles) as of_call:
            past = await of_call.find_past(said.pk)

        assert [turn.message.content for turn in past or []] == ["二", "三", "四"]


class TestReadHistory:
    async def test_is_who_said_what_and_notes_that_the_conversation_was_opened(
        self, conversation: Conversation
    ) -> None:
        before = conversation.opened_at
        for speaker, text in (("user", "你好"), ("avatar", "嗨，你好。")):
            await database_sync_to_async(factories.create_turn)(conversation, speaker=speaker, text=text)

        history = await read_history(conversation.pk)

        assert [turn.message for turn in history] == [Message("user", "你好"), Message("assistant", "嗨，你好。")]
        await conversation.arefresh_from_db()
        assert conversation.opened_at is not None
        assert conversation.opened_at != before
