from __future__ import annotations

import datetime as dt
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import SuspiciousFileOperation
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.test import Client
from django.utils import timezone

from avatar_site import folder
from avatar_site.lib.stored_files import get_site_storage
from conversations import orphans
from tests import factories


def list_names(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


class TestFolder:
    def test_has_a_file_under_its_name_only_when_it_is_whole(
        self, media_root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[list[str]] = []
        fsync = os.fsync

        def look(file: int) -> None:
            seen.append(list_names(media_root))
            fsync(file)

        monkeypatch.setattr(os, "fsync", look)
        name = default_storage.save("a/b.ogg", ContentFile(b"whole"))

        assert name == "a/b.ogg"
        # The file's own, before it has its name, and its folder's.
        [temporary], named = seen
        assert temporary.endswith(folder.TEMPORARY_SUFFIX)
        assert named == list_names(media_root) == ["a/b.ogg"]
        assert stat.S_IMODE((media_root / name).stat().st_mode) == 0o600

    def test_overwrites_nothing(self, media_root: Path) -> None:
        first = default_storage.save("a/b.ogg", ContentFile(b"first"))
        second = default_storage.save("a/b.ogg", ContentFile(b"second"))

        assert (media_root / first).read_bytes() == b"first"
        assert (media_root / second).read_bytes() == b"second"

    def test_evades_a_name_that_is_taken_while_it_writes(
        self, media_root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fsync = os.fsync

        def take_name(file: int) -> None:
            monkeypatch.setattr(os, "fsync", fsync)
            (media_root / "a/b.ogg").write_bytes(b"first")
            fsync(file)

        monkeypatch.setattr(os, "fsync", take_name)
        name = default_storage.save("a/b.ogg", ContentFile(b"second"))

        assert name != "a/b.ogg"
        assert (media_root / "a/b.ogg").read_bytes() == b"first"
        assert (media_root / name).read_bytes() == b"second"

    def test_leaves_nothing_of_what_the_disk_did_not_take(self, media_root: Path) -> None:
        class Full(ContentFile):
            def chunks(self, chunk_size: int | None = None) -> Iterator[bytes]:
                yield b"a part"
                raise OSError(errno.ENOSPC, "no space left on device")

        with pytest.raises(OSError, match="no space"):
            default_storage.save("a/b.ogg", Full(b""))

        assert list_names(media_root) == []

    def test_does_without_hard_links(self, media_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(source: Path, target: Path) -> None:
            raise OSError(errno.EPERM, "operation not permitted")

        monkeypatch.setattr(os, "link", refuse)
        default_storage.save("a/b.ogg", ContentFile(b"first"))
        second = default_storage.save("a/b.ogg", ContentFile(b"second"))

        assert list_names(media_root) == sorted(["a/b.ogg", second])
        assert (media_root / "a/b.ogg").read_bytes() == b"first"


class TestListing:
    def test_names_all_files_and_tells_another_content(self, media_root: Path) -> None:
        for name in ("a/b/c.ogg", "a/d.ogg", "e/f.ogg"):
            default_storage.save(name, ContentFile(b"1234"))
        before = {entry.name: entry for entry in get_site_storage().list_entries()}

        default_storage.delete("a/d.ogg")
        default_storage.save("a/d.ogg", ContentFile(b"4321"))
        after = {entry.name: entry for entry in get_site_storage().list_entries()}

        assert sorted(after) == ["a/b/c.ogg", "a/d.ogg", "e/f.ogg"]
        assert {entry.size_bytes for entry in after.values()} == {4}
        assert [name for name in after if after[name] != before[name]] == ["a/d.ogg"]

    def test_is_of_one_folder_if_that_is_asked(self) -> None:
        for name in ("a/b/c.ogg", "ab/d.ogg"):
            default_storage.save(name, ContentFile(b"1"))

        assert [entry.name for entry in get_site_storage().list_entries("a")] == ["a/b/c.ogg"]
        assert list(get_site_storage().list_entries("none")) == []

    def test_leaves_out_what_is_being_written(self, media_root: Path) -> None:
        default_storage.save("a/b.ogg", ContentFile(b"1"))
        (media_root / "a" / f".0123{folder.TEMPORARY_SUFFIX}").write_bytes(b"part")

        assert [entry.name for entry in get_site_storage().list_entries()] == ["a/b.ogg"]

    def test_of_no_folder_is_empty(self, media_root: Path) -> None:
        assert not media_root.exists()
        assert list(get_site_storage().list_entries()) == []


class TestAdding:
    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        path = tmp_path / "source"
        path.write_bytes(b"added")
        path.chmod(0o644)
        return path

    def test_links_a_file(self, source: Path, media_root: Path) -> None:
        get_site_storage().add_file("a/b/c.ogg", source)

        assert (media_root / "a/b/c.ogg").samefile(source)
        assert stat.S_IMODE(source.stat().st_mode) == 0o600
        assert list_names(media_root) == ["a/b/c.ogg"]

    @pytest.mark.parametrize("code", [errno.EXDEV, errno.EPERM], ids=["another disk", "no links"])
    def test_copies_a_file_that_cannot_be_linked(
        self, source: Path, media_root: Path, monkeypatch: pytest.MonkeyPatch, code: int
    ) -> None:
        link = os.link

        def refuse(file: Path, target: Path) -> None:
            # Within the folder a disk without links has none either.
            if file == source or code == errno.EPERM:
                raise OSError(code, "no")
            link(file, target)

        monkeypatch.setattr(os, "link", refuse)

        get_site_storage().add_file("a/b.ogg", source)

        assert (media_root / "a/b.ogg").read_bytes() == b"added"
        assert not (media_root / "a/b.ogg").samefile(source)
        assert list_names(media_root) == ["a/b.ogg"]

    def test_overwrites_nothing(self, source: Path, media_root: Path) -> None:
        default_storage.save("a/b.ogg", ContentFile(b"first"))

        with pytest.raises(FileExistsError):
            get_site_storage().add_file("a/b.ogg", source)

        assert (media_root / "a/b.ogg").read_bytes() == b"first"
        assert list_names(media_root) == ["a/b.ogg"]

    def test_leads_nowhere_else(self, source: Path, media_root: Path) -> None:
        with pytest.raises(SuspiciousFileOperation):
            get_site_storage().add_file("../b.ogg", source)


@pytest.mark.django_db(transaction=True)
class TestTemporaryFiles:
    """Of a process that was killed while it wrote."""

    def leave_one(self, turn_file: Path) -> Path:
        left = turn_file.with_name(f".0123{folder.TEMPORARY_SUFFIX}")
        left.write_bytes(b"a part of a voice")
        return left

    def test_go_with_their_conversation(self, alice: User, alices_client: Client, media_root: Path) -> None:
        turn = factories.create_turn(factories.create_conversation(alice), audio=factories.make_flac())
        left = self.leave_one(media_root / turn.audio_name)

        alices_client.delete(f"/api/conversations/{turn.conversation_id}")

        assert not left.exists()
        assert list_names(media_root) == []

    def test_go_with_their_person(self, alice: User, media_root: Path) -> None:
        turn = factories.create_turn(factories.create_conversation(alice), audio=factories.make_flac())
        self.leave_one(media_root / turn.audio_name)

        alice.delete()

        assert list_names(media_root) == []

    def test_go_as_orphans(self, alice: User, media_root: Path) -> None:
        turn = factories.create_turn(factories.create_conversation(alice), audio=factories.make_flac())
        left = self.leave_one(media_root / turn.audio_name)

        orphans.remove_orphans(now=timezone.now() + dt.timedelta(hours=2))

        assert not left.exists()
        assert list_names(media_root) == [turn.audio_name]
