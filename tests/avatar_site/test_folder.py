from __future__ import annotations

import datetime as dt
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.test import Client
from django.utils import timezone

from avatar_site import folder
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
