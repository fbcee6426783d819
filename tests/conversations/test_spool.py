"""What waits on the disk while the database is away."""

from __future__ import annotations

import errno
import os
import stat
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.db import OperationalError
from django.test import Client

from conversations import call_store, deletion, spool
from conversations.models import Conversation
from conversations.spool import Change
from tests import factories
from tests.conversations.spooled import list_texts, make_change

AUDIO = factories.make_flac()


@pytest.mark.django_db(transaction=True)
class TestSpool:
    def test_gives_back_what_went_in(self, conversation: Conversation) -> None:
        voice = uuid.uuid4()
        changes = [
            make_change(audio=AUDIO, voice_profile_id=voice, latency={"stt": 5}),
            Change("drop_turn", {"turn_id": uuid.uuid4()}),
        ]
        taken: list[Change] = []

        spool.append(conversation.pk, changes)

        assert spool.replay(conversation.pk, taken.append) == 2
        assert taken == changes
        assert spool.list_conversations() == []

    def test_is_for_its_owner_alone(self, conversation: Conversation, spool_path: Path) -> None:
        before = os.umask(0)
        try:
            spool.append(conversation.pk, [make_change()])
        finally:
            os.umask(before)

        assert stat.S_IMODE(spool_path.stat().st_mode) == 0o600
        assert stat.S_IMODE(spool_path.parent.stat().st_mode) == 0o700

    def test_goes_on_where_it_was_interrupted(self, conversation: Conversation) -> None:
        spool.append(conversation.pk, [make_change(text) for text in ("一", "二", "三")])
        taken: list[str] = []

        def take_one(change: Change) -> None:
            if taken:
                raise OperationalError("away again")
            taken.append(change.fields["text"])

        with pytest.raises(OperationalError):
            spool.replay(conversation.pk, take_one)
        spool.append(conversation.pk, [make_change("四")])

        assert spool.replay(conversation.pk, lambda change: taken.append(change.fields["text"])) == 3
        assert taken == ["一", "二", "三", "四"]

    def test_takes_changes_while_a_database_that_hangs_takes_others_in(self, conversation: Conversation) -> None:
        applied: list[str] = []
        began, released = threading.Event(), threading.Event()

        def hang(change: Change) -> None:
            began.set()
            assert released.wait(30)
            applied.append(change.fields["text"])

        spool.append(conversation.pk, [make_change("之前")])
        with ThreadPoolExecutor(2) as pool:
            taking = pool.submit(spool.replay, conversation.pk, hang)
            assert began.wait(30)
            try:
                pool.submit(spool.append, conversation.pk, [make_change("之後")]).result(timeout=5)
            finally:
                released.set()

            assert taking.result(timeout=30) == 2
        assert applied == ["之前", "之後"]
        assert spool.list_conversations() == []

    def test_does_not_count_what_came_after_a_deletion_as_taken_in(self, conversation: Conversation) -> None:
        applied: list[str] = []

        def delete_meanwhile(change: Change) -> None:
            applied.append(change.fields["text"])
            if change.fields["text"] == "之前":
                spool.remove([conversation.pk])
                spool.append(conversation.pk, [make_change("之後")])

        spool.append(conversation.pk, [make_change("之前")])
        spool.replay(conversation.pk, delete_meanwhile)

        assert applied == ["之前", "之後"]

    def test_reads_past_a_line_that_a_killed_process_did_not_end(
        self, conversation: Conversation, spool_path: Path
    ) -> None:
        spool.append(conversation.pk, [make_change("一")])
        with spool_path.open("ab") as file:
            file.write('{"verb": "append_turn", "fields": {"text": "沒'.encode())
        spool.append(conversation.pk, [make_change("二")])

        assert call_store.replay_spooled_turns(conversation_id=conversation.pk) == 2
        assert list_texts() == ["一", "二"]

    def test_has_nothing_of_a_change_that_the_disk_did_not_take(
        self, conversation: Conversation, spool_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        spool.append(conversation.pk, [make_change("一")])
        before = spool_path.read_bytes()
        write = os.write

        def write_a_part(file: int, data: bytes) -> int:
            write(file, bytes(data[:10]))
            raise OSError(errno.ENOSPC, "no space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(spool.os, "write", write_a_part)
            with pytest.raises(OSError, match="no space"):
                spool.append(conversation.pk, [make_change("二")])

        assert spool_path.read_bytes() == before


@pytest.mark.django_db(transaction=True)
class TestDeleting:
    def test_a_conversation_takes_its_spool_along(
        self, conversation: Conversation, spool_dir: Path, alices_client: Client
    ) -> None:
        other = factories.create_conversation(conversation.owner)
        for each in (conversation, other):
            spool.append(each.pk, [make_change("鳳梨酥")])

        alices_client.delete(f"/api/conversations/{conversation.pk}")

        assert [path.stem for path in spool_dir.glob("*.jsonl")] == [str(other.pk)]

    def test_by_an_operator_does_so_too(
        self, conversation: Conversation, spool_path: Path, admin_client: Client
    ) -> None:
        spool.append(conversation.pk, [make_change("鳳梨酥")])

        admin_client.post(f"/admin/conversations/conversation/{conversation.pk}/delete/", {"post": "yes"})

        assert not spool_path.exists()

    def test_a_person_takes_theirs_along(self, conversation: Conversation, spool_path: Path) -> None:
        spool.append(conversation.pk, [make_change("鳳梨酥")])

        conversation.owner.delete()

        assert not spool_path.exists()

    def test_is_not_undone_by_what_a_call_spools_afterwards(self, conversation: Conversation, spool_path: Path) -> None:
        deletion.delete_conversations(conversations=Conversation.objects.all())
        spool.append(conversation.pk, [make_change("鳳梨酥", audio=AUDIO)])

        assert call_store.replay_all_spooled_turns() == 0
        assert not spool_path.exists()
        assert not Conversation.objects.exists()

    def test_of_a_person_ends_what_they_were_about_to_begin(self, alice: User, spool_dir: Path) -> None:
        spool.append(uuid.uuid4(), [make_change("鳳梨酥", begun_by=alice.pk)])
        alice.delete()

        assert call_store.replay_all_spooled_turns() == 0
        assert list(spool_dir.glob("*.jsonl")) == []
