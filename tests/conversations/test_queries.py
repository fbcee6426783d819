from __future__ import annotations

import uuid

import pytest

from conversations.queries import read_messages_up_to, read_recent_messages
from conversations.services import correct_turn
from tests import factories


@pytest.mark.django_db
class TestRecentMessages:
    def test_are_the_last_ones_oldest_first(self) -> None:
        conversation = factories.create_conversation()
        for number in range(4):
            factories.create_turn(conversation, speaker=("user", "avatar")[number % 2], text=f"turn {number}")
        factories.create_turn(text="of somebody else")

        assert [said[1:] for said in read_recent_messages(conversation_id=conversation.pk, limit=3)] == [
            ("avatar", "turn 1"),
            ("user", "turn 2"),
            ("avatar", "turn 3"),
        ]

    def test_leave_out_turns_without_words(self) -> None:
        conversation = factories.create_conversation()
        turn = factories.create_turn(conversation, text="words")
        factories.create_turn(conversation, speaker="avatar", text="")

        assert read_recent_messages(conversation_id=conversation.pk, limit=1) == [(turn.pk, "user", "words")]

    def test_leave_out_what_a_correction_has_replaced(self) -> None:
        conversation = factories.create_conversation()
        said, _, later = (
            factories.create_turn(conversation, speaker=speaker, text=text)
            for speaker, text in (("user", "名天"), ("avatar", "什麼"), ("user", "算了"))
        )
        correct_turn(conversation_id=conversation.pk, turn_id=said.pk, text="明天", supersede=True)
        answer = factories.create_turn(conversation, speaker="avatar", text="晴天")

        remembered = [(said.pk, "user", "明天"), (answer.pk, "avatar", "晴天")]
        assert read_recent_messages(conversation_id=conversation.pk, limit=10) == remembered
        assert read_messages_up_to(conversation_id=conversation.pk, turn_id=said.pk, limit=10) == remembered[:1]
        for turn in (later, answer):
            assert read_messages_up_to(conversation_id=conversation.pk, turn_id=turn.pk, limit=10) is None

    def test_are_none_of_a_new_conversation(self) -> None:
        assert read_recent_messages(conversation_id=uuid.uuid4(), limit=10) == []
