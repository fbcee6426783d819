import datetime as dt
import logging
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.storage import FileSystemStorage
from django.core.management import call_command
from django.utils import timezone

from avatar_site.lib import stored_files
from conversations import call_store, retention
from conversations.models import Conversation, RetentionChoice, RetentionRun, Turn, TurnSearch
from conversations.retention import Limits, combine, purge_expired
from tests import factories
from tests.files import list_files

FLAC = factories.make_flac()
NOW = timezone.now()


def say(owner: User, *, days_ago: int, conversation: Conversation | None = None, text: str = "你好。") -> Turn:
    """A turn with audio, of so many days ago."""
    conversation = conversation or factories.create_conversation(owner)
    turn = factories.create_turn(conversation, text=text, audio=FLAC)
    Turn.objects.filter(pk=turn.pk).update(created_at=NOW - dt.timedelta(days=days_ago))
    return turn


@pytest.fixture
def thirty_days(settings: Any) -> None:
    """The site keeps audio for 30 days, text for 90."""
    settings.AVATAR_RETENTION_AUDIO_DAYS = 30
    settings.AVATAR_RETENTION_TEXT_DAYS = 90


class TestCombine:
    @pytest.mark.parametrize(
        ("site", "chosen", "effective"),
        [
            (Limits(), Limits(), Limits()),
            (Limits(30, None), Limits(), Limits(30, None)),
            (Limits(30, 90), Limits(7, 100), Limits(7, 90)),
            (Limits(), Limits(7, 8), Limits(7, 8)),
        ],
    )
    def test_takes_the_shorter(self, site: Limits, chosen: Limits, effective: Limits) -> None:
        assert combine(site, chosen) == effective


class TestPurgeExpired:
    def test_keeps_everything_by_default(self, alice: User, media_root: Path) -> None:
        say(alice, days_ago=10_000)

        assert purge_expired(now=NOW) == retention.Expired()
        assert len(list_files(media_root)) == 1

    @pytest.mark.usefixtures("thirty_days")
    def test_removes_audio_and_then_text_as_time_goes_by(self, alice: User, media_root: Path) -> None:
        turn = say(alice, days_ago=0)

        counts = {}
        for days in (29, 31, 32, 89, 91, 92):
            expired = purge_expired(now=NOW + dt.timedelta(days=days))
            left = Turn.objects.filter(pk=turn.pk).first()
            counts[days] = (expired.audio_files, expired.turns, expired.conversations, bool(left and left.audio))

        assert counts == {
            29: (0, 0, 0, True),
            31: (1, 0, 0, False),
            32: (0, 0, 0, False),
            89: (0, 0, 0, False),
            91: (0, 1, 1, False),
            92: (0, 0, 0, False),
        }
        assert list_files(media_root) == []
        assert not TurnSearch.objects.exists()
        assert not (media_root / "conversations").exists() or list((media_root / "conversations").iterdir()) == []

    @pytest.mark.usefixtures("thirty_days")
    def test_counts_bytes_and_keeps_the_run(self, alice: User, caplog: pytest.LogCaptureFixture) -> None:
        say(alice, days_ago=31)
        say(alice, days_ago=100)
        with caplog.at_level(logging.INFO):
            purge_expired(now=NOW)

        run = RetentionRun.objects.get()
        assert (run.audio_files, run.audio_bytes, run.turns, run.conversations) == (2, 2 * len(FLAC), 1, 1)
        assert run.finished_at is not None
        assert f"2 audio files ({2 * len(FLAC)} bytes), 1 turns, 1 conversations" in caplog.text

    @pytest.mark.usefixtures("thirty_days")
    def test_says_in_a_dry_run_what_it_would_do(self, alice: User, bob: User, media_root: Path) -> None:
        RetentionChoice.objects.create(user=bob, audio_days=5)
        for owner, days_ago in ((alice, 10), (alice, 31), (alice, 100), (bob, 10), (bob, 100)):
            say(owner, days_ago=days_ago)
        say(alice, days_ago=100, conversation=say(alice, days_ago=1).conversation)

        told = purge_expired(now=NOW, is_dry_run=True)

        assert (Turn.objects.count(), len(list_files(media_root))) == (7, 7)
        assert not RetentionRun.objects.exists()
        assert told == purge_expired(now=NOW)
        assert (told.audio_files, told.turns, told.conversations) == (5, 3, 2)
        assert (Turn.objects.count(), len(list_files(media_root))) == (4, 2)

    @pytest.mark.usefixtures("thirty_days")
    def test_leaves_pinned_conversations_alone(self, alice: User, media_root: Path) -> None:
        turn = say(alice, days_ago=1000)
        Conversation.objects.update(is_pinned=True)

        assert purge_expired(now=NOW) == retention.Expired()
        assert list(Turn.objects.all()) == [turn]
        assert len(list_files(media_root)) == 1

    def test_does_for_each_what_they_chose(self, alice: User, bob: User) -> None:
        RetentionChoice.objects.create(user=alice, text_days=5)
        say(alice, days_ago=6)
        kept = say(bob, days_ago=6)

        purge_expired(now=NOW)

        assert list(Turn.objects.all()) == [kept]

    @pytest.mark.usefixtures("thirty_days")
    def test_takes_what_was_said_out_of_the_title(self, alice: User) -> None:
        old = say(alice, days_ago=100, text="祕密")
        say(alice, days_ago=1, conversation=old.conversation, text="天氣")

        purge_expired(now=NOW)

        assert Conversation.objects.get().title == "天氣"

    @pytest.mark.usefixtures("thirty_days")
    def test_keeps_the_row_of_a_file_that_cannot_be_removed(self, alice: User, monkeypatch: pytest.MonkeyPatch) -> None:
        turn = say(alice, days_ago=100)

        def fail(storage: FileSystemStorage, name: str) -> None:
            raise PermissionError(name)

        with monkeypatch.context() as patch:
            patch.setattr(FileSystemStorage, "delete", fail)
            assert purge_expired(now=NOW).turns == 0
        assert Turn.objects.filter(pk=turn.pk).exclude(audio="").exists()
        assert purge_expired(now=NOW).turns == 1

    @pytest.mark.usefixtures("thirty_days")
    def test_ends_when_the_storage_is_away_and_goes_on_another_day(
        self, alice: User, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        for _ in range(5):
            say(alice, days_ago=100)
        asked: list[str] = []

        def fail(storage: FileSystemStorage, name: str) -> None:
            asked.append(name)
            raise OSError("away")

        with monkeypatch.context() as patch:
            patch.setattr(FileSystemStorage, "delete", fail)
            assert purge_expired(now=NOW).turns == 0
        assert len(asked) == stored_files.MAX_FAILURES
        assert RetentionRun.objects.get().finished_at is None
        assert "the storage is away" in caplog.text
        assert purge_expired(now=NOW).turns == 5

    def test_removes_calls_in_which_nothing_was_said(self, alice: User) -> None:
        factories.create_conversation(alice)

        assert purge_expired(now=NOW + dt.timedelta(hours=23)).conversations == 0
        assert purge_expired(now=NOW + dt.timedelta(hours=25)).conversations == 1

    @pytest.mark.usefixtures("thirty_days")
    def test_leaves_a_conversation_to_the_call_that_goes_on_with_it(self, alice: User) -> None:
        conversation = say(alice, days_ago=100).conversation
        call_store.resume_conversation(conversation_id=conversation.pk, limit=10)

        told = purge_expired(now=NOW, is_dry_run=True)
        assert told == purge_expired(now=NOW)
        assert (told.turns, told.conversations) == (1, 0)
        assert not Conversation.objects.with_turns().exists()
        factories.create_turn(conversation, text="我回來了")

        assert Conversation.objects.with_turns().get().title == "我回來了"

    @pytest.mark.usefixtures("thirty_days")
    def test_removes_it_when_nothing_more_was_said_in_that_call(self, alice: User) -> None:
        conversation = say(alice, days_ago=100).conversation
        call_store.resume_conversation(conversation_id=conversation.pk, limit=10)
        purge_expired(now=NOW)

        assert purge_expired(now=NOW + dt.timedelta(hours=23)).conversations == 0
        assert purge_expired(now=NOW + dt.timedelta(hours=25)).conversations == 1

    def test_leaves_an_old_call_alone_that_was_just_resumed(self, alice: User) -> None:
        conversation = factories.create_conversation(alice)
        Conversation.objects.update(created_at=NOW - dt.timedelta(days=3))
        call_store.resume_conversation(conversation_id=conversation.pk, limit=10)

        assert purge_expired(now=NOW).conversations == 0

    @pytest.mark.usefixtures("thirty_days")
    def test_is_a_command(self, alice: User) -> None:
        say(alice, days_ago=100)
        told = StringIO()
        call_command("purge_expired", "--dry-run", stdout=told)
        call_command("purge_expired", stdout=told)

        assert "Would remove 1 audio files" in told.getvalue()
        assert "\nRemoved 1 audio files" in told.getvalue()
        assert not Turn.objects.exists()
