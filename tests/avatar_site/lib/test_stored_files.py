from __future__ import annotations

import datetime as dt
from functools import partial
from pathlib import Path

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.utils import timezone

from avatar_site.lib import stored_files
from avatar_site.lib.stored_files import (
    RemovalAborted,
    SweepRefused,
    find_orphans,
    list_files,
    remove_empty_folders,
    remove_files,
    remove_folder,
    write_file,
)
from conversations.models import Conversation, Turn


def save(*names: str) -> list[str]:
    return [default_storage.save(name, ContentFile(b"x")) for name in names]


def read(name: str) -> bytes:
    with default_storage.open(name) as file:
        return bytes(file.read())


@pytest.fixture
def turn() -> Turn:
    """One that is not saved: its file has a name that is known before."""
    return Turn(conversation=Conversation(owner_id=7))


class TestWriteFile:
    def test_names_the_file_in_the_row(self, turn: Turn) -> None:
        write_file(turn.audio, b"fLaC", filename="turn.flac")

        assert turn.audio_name == f"{turn.conversation.audio_folder}/{turn.pk}.flac"
        assert read(turn.audio_name) == b"fLaC"

    def test_replaces_what_a_killed_process_left(self, turn: Turn) -> None:
        save(f"{turn.conversation.audio_folder}/{turn.pk}.flac")

        write_file(turn.audio, b"fLaC", filename="turn.flac")

        assert list(list_files("conversations")) == [turn.audio_name]
        assert read(turn.audio_name) == b"fLaC"

    def test_leaves_nothing_when_it_fails(self, turn: Turn, monkeypatch: pytest.MonkeyPatch) -> None:
        save_whole = default_storage.save

        def save_half(name: str, content: ContentFile[bytes], max_length: int | None = None) -> str:
            save_whole(name, ContentFile(b"f"))
            raise OSError("the storage is away")

        monkeypatch.setattr(default_storage, "save", save_half)

        with pytest.raises(OSError, match="away"):
            write_file(turn.audio, b"fLaC", filename="turn.flac")

        assert list(list_files("conversations")) == []
        assert turn.audio_name == ""


class TestRemoval:
    def test_takes_the_folders_that_are_empty_then_but_the_top_one(self, media_root: Path) -> None:
        names = save("conversations/1/a/x.ogg", "conversations/1/a/y.ogg", "conversations/1/b/z.ogg")

        assert remove_files(names[:2]) == names[:2]
        assert sorted(path.name for path in (media_root / "conversations/1").iterdir()) == ["b"]
        remove_folder("conversations/1/b")
        assert list((media_root / "conversations").iterdir()) == []
        remove_empty_folders("conversations")
        assert (media_root / "conversations").is_dir()

    def test_is_aborted_after_some_failures_in_a_row(self, monkeypatch: pytest.MonkeyPatch) -> None:
        names = save(*(f"conversations/1/a/{number}.ogg" for number in range(6)))
        delete = default_storage.delete
        asked: list[str] = []

        def fail_from_the_third_on(name: str) -> None:
            asked.append(name)
            if name in names[2:]:
                raise OSError("away")
            delete(name)

        monkeypatch.setattr(default_storage, "delete", fail_from_the_third_on)

        with pytest.raises(RemovalAborted) as caught:
            remove_files(names)

        assert caught.value.removed == names[:2]
        assert [name for name in asked if name in names] == names[:5]


class TestFindOrphans:
    def test_counts_all_and_passes_over_what_is_named_or_young(self) -> None:
        names = save("voices/1/a/named.flac", "voices/1/a/orphan.flac")
        now = timezone.now()

        def find_named(batch: list[str]) -> set[str]:
            return {names[0]} & set(batch)

        young = find_orphans("voices", find_named=find_named, now=now + dt.timedelta(minutes=59))
        old = find_orphans("voices", find_named=find_named, now=now + dt.timedelta(minutes=61))

        assert (young.files, young.file_count) == ([], 2)
        assert (old.files, old.file_bytes, old.file_count) == ([names[1]], 1, 2)


class TestGuards:
    @pytest.fixture(autouse=True)
    def _no_others(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(stored_files, "_guards", [])

    def test_say_why_no_sweep_may_remove_files(self) -> None:
        reasons = {"first": "", "second": ""}
        for name in reasons:
            stored_files.add_guard(partial(reasons.__getitem__, name))
        stored_files.check_guards()

        reasons["second"] = "the moon is full"

        with pytest.raises(SweepRefused, match="the moon is full"):
            stored_files.check_guards()

    def test_are_asked_once_however_often_they_are_added(self) -> None:
        asked: list[str] = []

        def guard() -> str:
            asked.append("")
            return ""

        for _ in range(2):
            stored_files.add_guard(guard)
        stored_files.check_guards()

        assert len(asked) == 1
