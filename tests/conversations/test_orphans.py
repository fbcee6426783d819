from __future__ import annotations

import datetime as dt
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.utils import timezone

from avatar_site.lib.stored_files import Sweep
from conversations import orphans
from conversations.models import StorageCheck, Turn
from tests import factories
from tests.files import list_files

FLAC = factories.make_flac()


def create_turn_with_audio(owner: User) -> Turn:
    return factories.create_turn(factories.create_conversation(owner), audio=FLAC)


class TestRemoveOrphans:
    LATER = dt.timedelta(hours=2)

    def test_finds_files_without_rows_and_rows_without_files(self, alice: User, media_root: Path) -> None:
        whole, lost = create_turn_with_audio(alice), create_turn_with_audio(alice)
        (media_root / lost.audio_name).unlink()
        orphan = media_root / f"conversations/{alice.pk}/gone/gone.ogg"
        orphan.parent.mkdir()
        orphan.write_bytes(b"OggS")

        told = orphans.remove_orphans(now=timezone.now() + self.LATER, is_dry_run=True)
        assert (len(told.sweep.files), told.sweep.file_bytes, list(told.turns)) == (1, 4, [lost.pk])
        assert orphan.exists()

        assert orphans.remove_orphans(now=timezone.now() + self.LATER) == told
        assert list_files(media_root) == [media_root / whole.audio_name]
        assert not orphan.parent.exists()
        lost.refresh_from_db()
        assert (lost.audio_name, lost.audio_bytes) == ("", 0)
        assert orphans.remove_orphans(now=timezone.now() + self.LATER) == orphans.Orphans(
            Sweep(file_count=1), row_count=1
        )

    @pytest.mark.django_db
    def test_leaves_a_file_that_may_be_about_to_get_its_row(self, media_root: Path) -> None:
        young = media_root / "conversations/1/young.ogg"
        young.parent.mkdir(parents=True)
        young.write_bytes(b"OggS")

        now = timezone.now()
        assert orphans.remove_orphans(now=now + dt.timedelta(minutes=59)).sweep.files == []
        assert orphans.remove_orphans(now=now + dt.timedelta(minutes=61)).sweep.files == ["conversations/1/young.ogg"]

    def test_is_a_command(self, alice: User, media_root: Path) -> None:
        create_turn_with_audio(alice)
        turn = create_turn_with_audio(alice)
        (media_root / turn.audio_name).unlink()
        told = StringIO()
        call_command("remove_orphans", "--dry-run", stdout=told)
        call_command("remove_orphans", stdout=told)

        assert "Found 0 files without a turn (0 bytes); 1 turns whose file is gone." in told.getvalue()
        assert "Removed 0 files without a turn (0 bytes); 1 turns whose file is gone." in told.getvalue()

    def test_costs_nothing_when_the_storage_is_away_for_a_night(
        self, alice: User, media_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        for _ in range(3):
            create_turn_with_audio(alice)
        kept = list_files(media_root)

        media_root.rename(tmp_path / "away")
        with pytest.raises(orphans.DoubtfulOrphans):
            orphans.remove_orphans(now=timezone.now())
        (tmp_path / "away").rename(media_root)
        orphans.remove_orphans(now=timezone.now() + self.LATER)

        assert list_files(media_root) == kept
        assert Turn.objects.exclude(audio="").count() == 3
        assert "3 of 3 files that turns name are missing" in caplog.text
        checks = StorageCheck.objects.order_by("pk").values_list("was_refused", "turns_without_file", "files")
        assert list(checks) == [(True, 3, 0), (False, 0, 3)]

    @pytest.mark.parametrize(("missing", "is_refused"), [(10, False), (11, False), (12, True)])
    def test_refuses_when_more_than_a_tenth_is_missing(
        self, alice: User, media_root: Path, missing: int, is_refused: bool
    ) -> None:
        conversation = factories.create_conversation(alice)
        turns = [factories.create_turn(conversation, audio=b"OggS") for _ in range(110)]
        for turn in turns[:missing]:
            (media_root / turn.audio_name).unlink()

        if is_refused:
            with pytest.raises(CommandError, match=r"12 of 110 .* --force"):
                call_command("remove_orphans", stdout=StringIO())
            assert Turn.objects.filter(audio="").count() == 0
            call_command("remove_orphans", "--force", stdout=StringIO())
        else:
            call_command("remove_orphans", stdout=StringIO())
        assert Turn.objects.filter(audio="").count() == missing

    def test_refuses_when_the_database_is_another_one(self, alice: User, media_root: Path) -> None:
        conversation = factories.create_conversation(alice)
        for _ in range(11):
            factories.create_turn(conversation, audio=b"OggS")
        # Restored as it was before anything was said.
        Turn.objects.all().delete()

        with pytest.raises(orphans.DoubtfulOrphans, match="11 of 11 files belong to no turn"):
            orphans.remove_orphans(now=timezone.now() + self.LATER)
        assert len(list_files(media_root)) == 11
        told = orphans.remove_orphans(now=timezone.now() + self.LATER, is_dry_run=True)
        assert (len(told.sweep.files), len(list_files(media_root))) == (11, 11)
        orphans.remove_orphans(now=timezone.now() + self.LATER, is_forced=True)
        assert list_files(media_root) == []

    def test_leaves_audio_that_was_replaced_while_it_looked(
        self, alice: User, media_root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        create_turn_with_audio(alice)
        turn = create_turn_with_audio(alice)
        (media_root / turn.audio_name).unlink()
        find = orphans.find_orphans

        def find_and_replace(**kwargs: Any) -> orphans.Orphans:
            orphans = find(**kwargs)
            Turn.objects.filter(pk=turn.pk).update(audio="conversations/1/better.ogg")
            return orphans

        monkeypatch.setattr(orphans, "find_orphans", find_and_replace)
        orphans.remove_orphans(now=timezone.now() + self.LATER)

        turn.refresh_from_db()
        assert turn.audio_name == "conversations/1/better.ogg"

    def test_has_nothing_to_do_without_a_folder(self, alice: User) -> None:
        assert orphans.remove_orphans(now=timezone.now()) == orphans.Orphans()
