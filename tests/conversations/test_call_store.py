"""What a live call asks and saves of its conversation, and the replay of its spool."""

from __future__ import annotations

import datetime as dt
import errno
import uuid
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.storage import FileSystemStorage
from django.utils import timezone

from avatar_site.operations import tasks
from conversations import call_store, spool
from conversations.call_store import has_conversation
from conversations.models import Conversation, Turn
from conversations.spool import Change
from tests import factories
from tests.conversations.spooled import list_texts, make_change

AUDIO = factories.make_flac()


class TestHasConversation:
    def test_is_true_for_its_owner_alone(self, alice: User, bob: User) -> None:
        conversation_id = factories.create_conversation(alice).pk

        assert has_conversation(conversation_id=conversation_id, owner_id=alice.pk)
        assert not has_conversation(conversation_id=conversation_id, owner_id=bob.pk)
        assert not has_conversation(conversation_id=uuid.uuid4(), owner_id=alice.pk)


@pytest.mark.django_db(transaction=True)
class TestReplay:
    def test_by_beat_saves_what_waits(self, conversation: Conversation) -> None:
        said_at = timezone.now() - dt.timedelta(hours=2)
        spool.append(conversation.pk, [make_change(audio=AUDIO, said_at=said_at)])

        tasks.replay_spooled_turns.delay()

        turn = Turn.objects.get()
        assert (turn.created_at, turn.audio_bytes) == (said_at, len(AUDIO))
        conversation.refresh_from_db()
        assert (conversation.title, conversation.last_turn_at) == ("你好", said_at)

    def test_never_doubles_a_turn(self, conversation: Conversation, spool_path: Path) -> None:
        said, answer = make_change("名天"), make_change("什麼？", speaker="avatar")
        corrected = Change("correct_turn", {"turn_id": said.turn_id, "text": "明天", "supersede": True})
        spool.append(conversation.pk, [said, answer, corrected, make_change("晴天", speaker="avatar")])
        kept = spool_path.read_bytes()
        call_store.replay_spooled_turns(conversation_id=conversation.pk)
        # Killed after the last change and before its note: it is made once more.
        spool_path.write_bytes(kept + b'{"taken": 3}\n')

        call_store.replay_spooled_turns(conversation_id=conversation.pk)

        turns = Turn.objects.in_order().values_list("text", "is_superseded")
        assert list(turns) == [("明天", False), ("什麼？", True), ("晴天", False)]

    def test_passes_over_what_can_never_be_saved(self, conversation: Conversation) -> None:
        spool.append(conversation.pk, [make_change("一", speaker="nobody"), make_change("二")])

        call_store.replay_all_spooled_turns()

        assert list_texts() == ["二"]
        assert spool.list_conversations() == []

    def test_leaves_it_while_the_storage_is_away(
        self, conversation: Conversation, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*arguments: Any, **options: Any) -> None:
            raise OSError(errno.EIO, "away")

        spool.append(conversation.pk, [make_change("一", audio=AUDIO), make_change("二")])
        with monkeypatch.context() as patch:
            patch.setattr(FileSystemStorage, "_save", fail)
            assert call_store.replay_all_spooled_turns() == 0
        assert list_texts() == []

        assert call_store.replay_all_spooled_turns() == 2
        assert [bool(turn.audio) for turn in Turn.objects.in_order()] == [True, False]

    def test_onto_a_full_disk_keeps_the_words(
        self, conversation: Conversation, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*arguments: Any, **options: Any) -> None:
            raise OSError(errno.ENOSPC, "no space left on device")

        spool.append(conversation.pk, [make_change("一", audio=AUDIO)])
        monkeypatch.setattr(FileSystemStorage, "_save", fail)

        assert call_store.replay_all_spooled_turns() == 1
        assert not Turn.objects.get().audio

    def test_makes_the_conversation_that_begins_with_it(self, alice: User) -> None:
        conversation_id = uuid.uuid4()
        spool.append(conversation_id, [make_change("一", begun_by=alice.pk), make_change("二")])

        assert call_store.replay_all_spooled_turns() == 2
        assert Conversation.objects.get(pk=conversation_id).owner == alice

    def test_comes_before_a_conversation_is_resumed(self, conversation: Conversation) -> None:
        spool.append(conversation.pk, [make_change("一")])

        remembered = call_store.resume_conversation(conversation_id=conversation.pk, limit=10)

        assert [text for _, _, text in remembered] == ["一"]
