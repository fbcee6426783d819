from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
from django.apps import apps
from django.core.files.storage import default_storage
from django.db.models import FileField

from avatar_site.operations.backups import audio, database, snapshot
from conversations.models import Turn
from tests import factories
from tests.databases import as_default
from voices.models import Preview, Recording, VoiceProfile

pytestmark = pytest.mark.django_db


class TestAudioNames:
    def test_are_those_of_every_file_field(self) -> None:
        assert snapshot.list_audio_columns() == sorted(
            [
                (Turn._meta.db_table, "audio"),
                (Recording._meta.db_table, "audio"),
                (VoiceProfile._meta.db_table, "clip"),
                (Preview._meta.db_table, "audio"),
            ]
        )

    def test_fit_into_what_merging_makes(self) -> None:
        fields = [field for model in apps.get_models() for field in model._meta.local_concrete_fields]

        limits = {field.max_length for field in fields if isinstance(field, FileField)}

        assert limits == {audio.MAX_NAME_LENGTH}

    def test_are_listed_and_found_among_others(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(database, "BATCH", 2)
        turns = [factories.create_turn(audio=factories.make_flac()).audio_name for _ in range(3)]
        profile = factories.upload_voice(factories.create_user())
        recording = profile.recordings.get().audio.name
        factories.create_turn(text="without audio")

        assert database.list_audio_names() == tuple(sorted([*turns, recording]))
        assert database.list_audio_names_alive(["a", turns[0], "b", recording, ""]) == {turns[0], recording}

    def test_are_changed_in_the_rows_that_have_them(self) -> None:
        turn, other = (factories.create_turn(audio=factories.make_flac()) for _ in range(2))

        changed = database.rename_audio({turn.audio_name: "conversations/1/new.flac", "none": "nothing"})

        assert changed == 1
        assert sorted(Turn.objects.values_list("audio", flat=True)) == sorted(
            ["conversations/1/new.flac", other.audio_name]
        )
        # Files are the storage's, and are not touched.
        assert default_storage.exists(turn.audio_name)


class TestTables:
    def test_that_are_in_no_backup_hold_what_is_not_the_sites(self) -> None:
        assert snapshot.list_tables_left_out() == [
            "cache",
            "django_session",
            "operations_tombstone",
            "realtime_livecall",
        ]

    def test_are_counted_but_for_those(self) -> None:
        factories.create_turn()

        counts = database.count_rows()

        assert (counts["conversations_turn"], counts["auth_user"]) == (1, 1)
        assert not counts.keys() & set(snapshot.list_tables_left_out())


class TestContent:
    def test_is_there_once_it_was_migrated(self) -> None:
        assert database.has_content()

    def test_is_looked_for_without_making_a_database(self, tmp_path: Path) -> None:
        with as_default(f"sqlite:///{tmp_path}/avatar.sqlite3"):
            assert not database.has_content()

        assert list(tmp_path.iterdir()) == []


def test_a_backup_of_postgresql_does_not_replace_sqlite() -> None:
    with pytest.raises(database.SwapRefused, match="is of PostgreSQL, and this installation uses SQLite"):
        database.check_replaceable(vendor="postgresql")


def test_a_database_in_memory_is_not_backed_up(tmp_path: Path) -> None:
    with as_default("sqlite://:memory:"), pytest.raises(database.SnapshotFailed, match="is not a file of its own"):
        database.take_snapshot(tmp_path)


def test_time_is_in_utc(tmp_path: Path) -> None:
    taken = database.take_snapshot(tmp_path / "copy")

    assert taken.taken_at.tzinfo == dt.UTC
