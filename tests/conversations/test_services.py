import datetime as dt
import io
import threading
import uuid
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import DatabaseError, connection
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoCaptureOnCommitCallbacks, Settings

from conversations import deletion, retention, services
from conversations.archive import write_archive
from conversations.models import Conversation, Turn
from conversations.queries import read_recent_messages
from conversations.services import TurnOfAnotherConversation, append_turn, begin_turn, correct_turn, drop_turn
from tests import factories
from tests.files import list_files
from voices.services import delete_voice_profile

FLAC = factories.make_flac()


def append(conversation_id: uuid.UUID, *, audio: bytes | None, begun_by: int | None) -> Turn:
    return append_turn(
        conversation_id=conversation_id,
        turn_id=uuid.uuid4(),
        speaker="user",
        text="你好。",
        language="zh",
        audio=audio,
        audio_duration_ms=100,
        was_interrupted=False,
        voice_profile_id=None,
        latency=None,
        begun_by=begun_by,
    )


@pytest.mark.django_db
class TestAppendTurn:
    def test_keeps_everything_under_the_id_of_the_call(self, alice: User, media_root: Path) -> None:
        conversation = factories.create_conversation(alice)
        voice = factories.create_voice_profile(owner=alice)
        turn_id = uuid.uuid4()

        append_turn(
            conversation_id=conversation.pk,
            turn_id=turn_id,
            speaker="avatar",
            text="你好,我是 AVATAR。",
            language="zh",
            audio=FLAC,
            audio_duration_ms=100,
            was_interrupted=True,
            voice_profile_id=voice.pk,
            latency={"stt": 300, "ttfa": 1200},
        )

        turn = Turn.objects.get(pk=turn_id)
        assert (turn.conversation, turn.sequence, turn.speaker) == (conversation, 1, "avatar")
        assert (turn.text, turn.language, turn.was_interrupted) == ("你好,我是 AVATAR。", "zh", True)
        assert (turn.voice_profile, turn.latency, turn.audio_duration_ms) == (voice, {"stt": 300, "ttfa": 1200}, 100)
        assert turn.audio.name == f"conversations/{alice.pk}/{conversation.pk}/{turn_id}.flac"
        assert (media_root / turn.audio.name).read_bytes() == FLAC

    def test_begins_the_conversation_with_its_first_turn_alone(self, alice: User, media_root: Path) -> None:
        conversation_id = uuid.uuid4()
        first = append(conversation_id, audio=FLAC, begun_by=alice.pk)
        second = append(conversation_id, audio=None, begun_by=alice.pk)

        conversation = Conversation.objects.get(pk=conversation_id)
        assert (conversation.owner, first.sequence, second.sequence) == (alice, 1, 2)
        assert conversation.opened_at is not None
        assert first.audio.name == f"conversations/{alice.pk}/{conversation_id}/{first.pk}.flac"

    def test_makes_no_conversation_that_was_deleted_or_of_somebody_who_was(self, alice: User, media_root: Path) -> None:
        gone_id = alice.pk
        alice.delete()

        for begun_by in (None, gone_id):
            with pytest.raises(Conversation.DoesNotExist):
                append(uuid.uuid4(), audio=FLAC, begun_by=begun_by)

        assert not Conversation.objects.exists()
        assert not list_files(media_root)

    def test_leaves_no_conversation_where_its_first_turn_cannot_be_kept(
        self, alice: User, media_root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*args: object, **kwargs: object) -> None:
            raise DatabaseError("away")

        monkeypatch.setattr("conversations.services._index", fail)

        with pytest.raises(DatabaseError):
            append(uuid.uuid4(), audio=FLAC, begun_by=alice.pk)

        assert not Conversation.objects.exists()
        assert not list_files(media_root)

    def test_remembers_that_a_voice_was_deleted(self, alice: User) -> None:
        voice = factories.create_voice_profile(owner=alice)
        turn = factories.create_turn(speaker="avatar", voice_profile_id=voice.pk)
        automatic = factories.create_turn(speaker="avatar")
        gone = factories.create_turn(speaker="avatar", voice_profile_id=uuid.uuid4())

        assert (turn.voice_was_deleted, automatic.voice_was_deleted, gone.voice_was_deleted) == (False, False, True)
        delete_voice_profile(profile=voice)
        turn.refresh_from_db()
        assert turn.voice_was_deleted

    def test_notes_when_a_voice_was_last_used(self, alice: User) -> None:
        voice = factories.create_voice_profile(owner=alice)

        factories.create_turn(speaker="avatar", voice_profile_id=voice.pk)

        voice.refresh_from_db()
        assert voice.last_used_at is not None

    @pytest.mark.parametrize(
        ("is_wanted", "quality", "count"), [(True, "fast", 1), (True, "high_quality", 0), (False, "fast", 0)]
    )
    def test_has_a_fast_answer_spoken_beautifully_later_if_that_is_wanted(
        self,
        settings: Settings,
        django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
        is_wanted: bool,
        quality: str,
        count: int,
    ) -> None:
        settings.AVATAR_BEAUTIFUL_LATER = is_wanted

        with django_capture_on_commit_callbacks() as callbacks:
            factories.create_turn(speaker="avatar", audio=FLAC, quality=quality)

        # Besides those of other apps, which look at every write.
        assert [callback.__module__ for callback in callbacks].count("avatar_site.lib.handover") == count

    def test_takes_the_next_place(self) -> None:
        conversation = factories.create_conversation()
        other = factories.create_turn()

        turns = [factories.create_turn(conversation) for _ in range(3)]

        assert [turn.sequence for turn in turns] == [1, 2, 3]
        assert other.sequence == 1

    def test_goes_on_after_the_last_place_when_a_turn_was_removed(self) -> None:
        conversation = factories.create_conversation()
        first, _, _ = (factories.create_turn(conversation) for _ in range(3))
        first.delete()

        assert factories.create_turn(conversation).sequence == 4

    def test_changes_nothing_the_second_time(self, media_root: Path) -> None:
        first = factories.create_turn(text="first", audio=FLAC)

        second = factories.create_turn(first.conversation, turn_id=first.pk, text="second", audio=b"other")

        assert (second.pk, second.text) == (first.pk, "first")
        assert Turn.objects.count() == 1
        assert [path.read_bytes() for path in list_files(media_root)] == [FLAC]

    def test_refuses_the_id_of_a_turn_of_another_conversation(self) -> None:
        turn = factories.create_turn()

        with pytest.raises(TurnOfAnotherConversation):
            factories.create_turn(factories.create_conversation(), turn_id=turn.pk)

    def test_refuses_an_unknown_conversation_and_leaves_no_file(self, media_root: Path) -> None:
        with pytest.raises(Conversation.DoesNotExist):
            factories.create_turn(Conversation(pk=uuid.uuid4(), owner_id=1), audio=FLAC)

        assert list_files(media_root) == []

    def test_refuses_an_unknown_speaker(self) -> None:
        with pytest.raises(ValueError, match="narrator"):
            factories.create_turn(speaker="narrator")

    def test_leaves_no_file_when_the_row_cannot_be_written(
        self, media_root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(turn: Turn, **kwargs: Any) -> Turn:
            raise RuntimeError("disk full")

        monkeypatch.setattr(services, "_place", fail)

        with pytest.raises(RuntimeError, match="disk full"):
            factories.create_turn(audio=FLAC)

        assert list_files(media_root) == []

    def test_replaces_a_file_that_was_left_without_a_row(self, media_root: Path, alice: User) -> None:
        conversation = factories.create_conversation(alice)
        turn_id = uuid.uuid4()
        left = media_root / f"conversations/{alice.pk}/{conversation.pk}/{turn_id}.flac"
        left.parent.mkdir(parents=True)
        left.write_bytes(b"half")

        factories.create_turn(conversation, turn_id=turn_id, audio=FLAC)

        assert list_files(media_root) == [left]
        assert left.read_bytes() == FLAC

    def test_writes_no_file_without_audio(self, media_root: Path) -> None:
        assert not factories.create_turn(audio=None).audio
        assert list_files(media_root) == []

    def test_leaves_out_a_voice_that_was_deleted(self) -> None:
        assert factories.create_turn(voice_profile_id=uuid.uuid4()).voice_profile is None

    def test_moves_the_conversations_time(self) -> None:
        conversation = factories.create_conversation()

        factories.create_turn(conversation)

        conversation.refresh_from_db()
        assert conversation.last_turn_at is not None

    @pytest.mark.parametrize(
        ("text", "title"),
        [
            ("今天天氣\n 好嗎?", "今天天氣 好嗎?"),
            ("很" * 80, "很" * 80),
            ("很" * 81, "很" * 79 + "…"),
        ],
    )
    def test_makes_the_users_first_words_the_title(self, text: str, title: str) -> None:
        conversation = factories.create_conversation()

        factories.create_turn(conversation, speaker="avatar", text="歡迎。")
        factories.create_turn(conversation, speaker="user", text=text)
        factories.create_turn(conversation, speaker="user", text="later")

        conversation.refresh_from_db()
        assert conversation.title == title

    def test_keeps_a_title_that_is_there(self) -> None:
        conversation = factories.create_conversation(title="Travel")

        factories.create_turn(conversation, text="words")

        conversation.refresh_from_db()
        assert conversation.title == "Travel"


def in_threads(count: int, work: Callable[[int], object]) -> list[BaseException]:
    """Run `work(0)` … `work(count - 1)` at once, each with a connection of its own. Return what was raised."""
    raised: list[BaseException] = []
    ready = threading.Barrier(count)

    def run(number: int) -> None:
        ready.wait(10)
        try:
            work(number)
        except Exception as error:
            raised.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return raised


@pytest.mark.django_db(transaction=True)
class TestAppendTurnAtOnce:
    def test_gives_each_its_own_place(self) -> None:
        conversation = factories.create_conversation()

        raised = in_threads(8, lambda number: [factories.create_turn(conversation) for _ in range(5)])

        assert raised == []
        assert list(conversation.turns.in_order().values_list("sequence", flat=True)) == list(range(1, 41))

    def test_keeps_a_turn_once_however_often_it_is_saved(self, media_root: Path) -> None:
        conversation = factories.create_conversation()
        turn_id = uuid.uuid4()

        raised = in_threads(8, lambda number: factories.create_turn(conversation, turn_id=turn_id))

        assert raised == []
        assert conversation.turns.count() == 1


def begin(conversation: Conversation, text: str = "從前，", **fields: Any) -> Turn:
    defaults: dict[str, Any] = {"turn_id": uuid.uuid4(), "language": "zh", "voice_profile_id": None}
    return begin_turn(conversation_id=conversation.pk, text=text, **(defaults | fields))


@pytest.mark.django_db
class TestTurnInProgress:
    def test_follows_its_clauses_until_it_is_finished(self, alice: User, settings: Settings) -> None:
        settings.AVATAR_BEAUTIFUL_LATER = False
        conversation = factories.create_conversation(alice)
        said = factories.create_turn(conversation, text="說故事")
        begun = begin(conversation)
        later = factories.create_turn(conversation, text="等一下")
        begin(conversation, "從前，有一隻貓，", turn_id=begun.pk)

        grown = Turn.objects.get(pk=begun.pk)
        assert (grown.text, grown.sequence, grown.is_in_progress) == ("從前，有一隻貓，", 2, True)

        # Stopped before its second clause was heard.
        finish = {"turn_id": begun.pk, "speaker": "avatar", "text": "從前，有", "audio": FLAC, "was_interrupted": True}
        factories.create_turn(conversation, **finish)
        begin(conversation, "太晚了", turn_id=begun.pk)
        turns = list(conversation.turns.in_order())
        assert [turn.pk for turn in turns] == [said.pk, begun.pk, later.pk]
        assert (turns[1].text, turns[1].is_in_progress, bool(turns[1].audio)) == ("從前，有", False, True)
        assert not Conversation.objects.matching("貓", owner=alice).exists()
        assert Conversation.objects.matching("從前", owner=alice).exists()

    def test_is_found_remembered_exported_and_shown(self, alice: User, alices_client: Client) -> None:
        conversation = factories.create_conversation(alice)
        said = factories.create_turn(conversation, text="說故事")
        begun = begin(conversation)
        address = f"/api/conversations/{conversation.pk}"

        assert Conversation.objects.matching("從前", owner=alice).exists()
        remembered = read_recent_messages(conversation_id=conversation.pk, limit=5)
        assert remembered[-1] == (begun.pk, "avatar", "從前，")
        turns = alices_client.get(f"{address}/turns").json()
        assert "從前" in str(turns)
        assert "從前，" in alices_client.get(f"/history/{conversation.pk}/").content.decode()
        assert alices_client.get(f"{address}/turns/{begun.pk}/audio").status_code == 404
        with zipfile.ZipFile(io.BytesIO(b"".join(write_archive([conversation.pk])))) as exported:
            assert "從前，" in "".join(exported.read(name).decode() for name in exported.namelist())

        correct_turn(conversation_id=conversation.pk, turn_id=said.pk, text="說笑話", supersede=True)
        finish = {"turn_id": begun.pk, "speaker": "avatar", "text": "從前，有"}
        factories.create_turn(conversation, **finish)
        assert Turn.objects.get(pk=begun.pk).is_superseded

    def test_is_taken_back_but_never_when_it_is_finished(self, alice: User) -> None:
        conversation = factories.create_conversation(alice)
        begun, finished = begin(conversation), factories.create_turn(conversation, speaker="avatar")

        for turn in (begun, finished):
            drop_turn(conversation_id=conversation.pk, turn_id=turn.pk)

        assert list(conversation.turns.all()) == [finished]
        assert not Conversation.objects.matching("從前", owner=alice).exists()

    def test_keeps_the_voice_that_was_deleted_in_its_midst(self, alice: User) -> None:
        conversation = factories.create_conversation(alice)
        voice = factories.create_voice_profile(owner=alice)
        begun = begin(conversation, voice_profile_id=voice.pk)
        delete_voice_profile(profile=voice)

        finish = {"turn_id": begun.pk, "speaker": "avatar", "voice_profile_id": voice.pk}
        factories.create_turn(conversation, **finish)

        assert Turn.objects.get(pk=begun.pk).voice_was_deleted

    def test_expires_and_is_deleted_as_others_are(self, alice: User, settings: Settings) -> None:
        settings.AVATAR_RETENTION_TEXT_DAYS = 30
        conversation = factories.create_conversation(alice)
        long_ago = timezone.now() - dt.timedelta(days=31)
        begin(conversation, said_at=long_ago)

        assert retention.purge_expired(now=timezone.now()).turns == 1
        begin(factories.create_conversation(alice))
        deletion.delete_conversations(conversations=Conversation.objects.all())
        assert not Turn.objects.exists()


@pytest.mark.django_db
class TestDeleteTurns:
    def test_takes_what_belongs_to_them(
        self, alice: User, media_root: Path, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
    ) -> None:
        conversation = factories.create_conversation(alice)
        first = factories.create_turn(conversation, text="a secret", audio=FLAC)
        second = factories.create_turn(conversation, text="the weather", audio=FLAC)

        with django_capture_on_commit_callbacks(execute=True):
            assert services.delete_turns(turns=Turn.objects.filter(pk=first.pk)) == 1

        assert list_files(media_root) == [media_root / second.audio_name]
        conversation.refresh_from_db()
        assert conversation.title == "the weather"
        assert conversation.last_turn_at == second.created_at
        assert not Conversation.objects.matching("secret", owner=alice).exists()

    def test_leaves_a_conversation_without_turns_to_the_retention(self, alice: User) -> None:
        turn = factories.create_turn(factories.create_conversation(alice))

        services.delete_turns(turns=Turn.objects.filter(pk=turn.pk))

        later = timezone.now() + retention.EMPTY_FOR
        assert list(Conversation.objects.without_turns_since(later)) == [turn.conversation]


@pytest.mark.django_db
class TestIndexAgain:
    def test_finds_the_text_that_the_turn_has_now(self, alice: User) -> None:
        turn = factories.create_turn(factories.create_conversation(alice, title="x"), text="before")
        Turn.objects.filter(pk=turn.pk).update(text="after")

        services.index_again(turn_id=turn.pk)

        found = [Conversation.objects.matching(text, owner=alice).count() for text in ("before", "after")]
        assert found == [0, 1]
