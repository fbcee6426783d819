from __future__ import annotations

import datetime as dt
from io import StringIO
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.utils import timezone

from avatar_site.lib.stored_files import SweepRefused
from avatar_site.operations.models import Restore
from conversations import orphans
from conversations.models import StorageCheck
from tests import factories
from voices.services import delete_orphans

pytestmark = pytest.mark.django_db

LATER = dt.timedelta(hours=2)


@pytest.fixture
def newer_audio(media_root: Path) -> list[Path]:
    """Of a conversation and a voice that came after the backup: no row names it."""
    paths = [media_root / "conversations/1/2/3.ogg", media_root / "voices/1/2/3.flac"]
    for path in paths:
        path.parent.mkdir(parents=True)
        path.write_bytes(b"OggS")
    return paths


@pytest.fixture
def restored() -> Restore:
    return Restore.objects.create(
        name="20261126T120000Z-0000", restored_at=dt.datetime(2026, 11, 27, 8, 30, tzinfo=dt.UTC)
    )


def exist(paths: list[Path]) -> list[bool]:
    return [path.exists() for path in paths]


class TestUnconfirmedRestore:
    @pytest.mark.parametrize("is_forced", [False, True])
    def test_refuses_to_remove_audio_without_rows(
        self, restored: Restore, newer_audio: list[Path], is_forced: bool
    ) -> None:
        now = timezone.now() + LATER

        with pytest.raises(SweepRefused, match="2026-11-27 at 08:30"):
            orphans.remove_orphans(now=now, is_forced=is_forced)
        with pytest.raises(SweepRefused, match="confirm_restore"):
            delete_orphans(now=now, is_forced=is_forced)

        assert exist(newer_audio) == [True, True]
        assert not StorageCheck.objects.exists()

    def test_refuses_to_forget_files_of_turns(self, restored: Restore, alice: User, media_root: Path) -> None:
        """Audio may be restored after the database."""
        turn = factories.create_turn(factories.create_conversation(alice), audio=factories.make_flac())
        (media_root / turn.audio_name).unlink()

        with pytest.raises(SweepRefused):
            orphans.remove_orphans(now=timezone.now() + LATER, is_forced=True)

        turn.refresh_from_db()
        assert turn.audio_name

    def test_lets_a_dry_run_look(self, restored: Restore, newer_audio: list[Path]) -> None:
        found = orphans.remove_orphans(now=timezone.now() + LATER, is_dry_run=True)

        assert found.sweep.files == ["conversations/1/2/3.ogg"]

    def test_stops_the_command_with_what_to_do(self, restored: Restore, newer_audio: list[Path]) -> None:
        with pytest.raises(CommandError, match=r"Nothing was removed\. .*`manage\.py confirm_restore`"):
            call_command("remove_orphans", "--force", stdout=StringIO())

    def test_once_confirmed_refuses_nothing(self, restored: Restore, newer_audio: list[Path]) -> None:
        Restore.objects.update(confirmed_at=timezone.now())

        orphans.remove_orphans(now=timezone.now() + LATER)
        delete_orphans(now=timezone.now() + LATER)

        assert exist(newer_audio) == [False, False]

    def test_that_is_older_than_a_confirmed_one_still_refuses(self, restored: Restore) -> None:
        Restore.objects.create(name="x", restored_at=timezone.now(), confirmed_at=timezone.now())

        with pytest.raises(SweepRefused):
            delete_orphans(now=timezone.now())
