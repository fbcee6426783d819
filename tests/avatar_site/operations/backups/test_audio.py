"""Audio in backups: real files in a real folder and in a bucket over HTTP, copied, fetched and merged."""

from __future__ import annotations

import datetime as dt
import errno
import gzip
import itertools
import os
import re
import stat
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from pyrage.x25519 import Identity
from pytest_django import Settings

from avatar_site.lib.stored_files import StorageUnavailable, get_site_storage
from avatar_site.operations.backups import audio, catalogue, packing
from avatar_site.operations.backups.audio_cache import AudioCache
from avatar_site.operations.backups.manifest import (
    BadManifest,
    IndexedFile,
    Manifest,
    VerificationRecord,
    encode,
    make_name,
)
from avatar_site.operations.backups.targets import FolderTarget, TargetError
from conversations.models import Turn
from tests import factories, sounds
from tests.s3 import BUCKET, S3Server

pytestmark = [
    pytest.mark.django_db,
    # Python 3.12 on says so of any fork; the child only runs the tested code, and ends.
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]

_seconds = itertools.count()


class Backups:
    """Backups of audio in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "target"
        self.target = FolderTarget(self.folder)
        self.scratch = folder / "scratch"
        self.scratch.mkdir()

    def copy(self, names: list[str], *, identity: Identity | None = None, **options: Any) -> Manifest:
        """Make a backup of these files, encrypted to an identity, and return its manifest."""
        taken_at = dt.datetime(2026, 11, 26, tzinfo=dt.UTC) + dt.timedelta(seconds=next(_seconds))
        name = make_name(taken_at)
        recipients = [str(identity.to_public())] if identity else []
        copied = audio.copy_audio(
            names, name=name, target=self.target, scratch=self.scratch, recipients=recipients, **options
        )
        self.stored_bytes = copied.stored_bytes
        manifest = Manifest(
            name=name,
            taken_at=taken_at,
            reason="manual",
            version="1",
            build="",
            schema={},
            vendor="sqlite",
            row_counts={},
            audio=copied.part,
            recipients=tuple(recipients),
        )
        catalogue.write_manifest(self.target, manifest)
        assert list(self.scratch.iterdir()) == [], "left in the scratch folder"
        return manifest

    def list_objects(self) -> dict[str, int]:
        """Return the objects, each with the inode that it has: another one if it was written again."""
        objects = self.folder / "audio" / "objects"
        return {
            path.relative_to(objects).as_posix(): path.stat().st_ino for path in objects.rglob("*") if path.is_file()
        }

    def fetch(self, manifest: Manifest, folder: Path, *identities: Identity, **options: Any) -> audio.FetchedAudio:
        return audio.fetch_audio(manifest, target=self.target, folder=folder, identities=identities, **options)

    def find_object(self, manifest: Manifest, content_sha256: str) -> Path:
        (stored,) = [
            each for each in catalogue.read_objects(self.target, manifest) if each.content_sha256 == content_sha256
        ]
        return self.folder / stored.key


@pytest.fixture
def data_dir(settings: Settings, tmp_path: Path) -> Path:
    settings.AVATAR_DATA_DIR = tmp_path / "data"
    settings.AVATAR_DATA_DIR.mkdir()
    return Path(settings.AVATAR_DATA_DIR)


@pytest.fixture
def backups(tmp_path: Path, data_dir: Path) -> Backups:
    return Backups(tmp_path)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of files that are read from the storage."""
    names: list[str] = []
    open_file = type(default_storage._wrapped)._open  # type: ignore[attr-defined]  # of Django's lazy object

    def note(storage: Any, name: str, mode: str = "rb") -> Any:
        names.append(name)
        return open_file(storage, name, mode)

    default_storage.exists("set up")
    monkeypatch.setattr(type(default_storage._wrapped), "_open", note)
    return names


def say(count: int = 1) -> list[str]:
    """Make turns with audio, each another, and return the files' names."""
    conversation = factories.create_conversation()
    return [
        factories.create_turn(conversation, audio=factories.make_flac(duration_ms=100 + 20 * number)).audio_name
        for number in range(count)
    ]


def read_tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class TestCopying:
    def test_has_every_file(self, backups: Backups, media_root: Path, tmp_path: Path) -> None:
        names = say(3)

        manifest = backups.copy(names)
        fetched = backups.fetch(manifest, tmp_path / "copy")

        assert manifest.audio is not None
        assert (manifest.audio.file_count, manifest.audio.missing) == (3, ())
        assert manifest.audio.content_bytes == sum(len(content) for content in read_tree(media_root).values())
        assert [file.name for file in fetched.files] == sorted(names)
        assert read_tree(tmp_path / "copy" / "media") == read_tree(media_root)

    def test_reads_and_writes_only_what_is_new(self, backups: Backups, opened: list[str]) -> None:
        names = say(3)
        backups.copy(names)
        assert sorted(opened) == sorted(names)
        before = backups.list_objects()
        opened.clear()

        (new,) = say()
        backups.copy([*names, new])

        assert opened == [new]
        after = backups.list_objects()
        assert before.items() <= after.items()
        # The new turn is as long as the first: its content is there.
        assert len(after) == 3

    def test_stores_a_content_once(self, backups: Backups) -> None:
        flac = factories.make_flac()
        names = [factories.create_turn(audio=flac).audio_name for _ in range(8)]

        manifest = backups.copy(names)

        assert manifest.audio is not None
        assert (manifest.audio.file_count, len(backups.list_objects())) == (8, 1)

    def test_stores_a_content_once_that_two_threads_read_at_once(
        self, backups: Backups, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The list of objects has one of them; encrypted, the other would be another file."""
        flac = factories.make_flac()
        names = [factories.create_turn(audio=flac).audio_name for _ in range(2)]
        have_both_read = threading.Barrier(2, timeout=20)
        read_file, write = audio._read_file, backups.target.write
        written: list[str] = []

        def read_together(name: str, path: Path) -> tuple[int, str]:
            result = read_file(name, path)
            have_both_read.wait()
            return result

        def note(key: str, source: Path) -> None:
            written.append(key)
            write(key, source)

        monkeypatch.setattr(audio, "_read_file", read_together)
        monkeypatch.setattr(backups.target, "write", note)

        backups.copy(names, identity=Identity.generate())

        assert len([key for key in written if key.startswith("audio/objects/")]) == 1

    def test_compresses_what_gets_smaller(self, backups: Backups, tmp_path: Path) -> None:
        speech = sounds.make_speech(2.0)
        contents = {
            "voices/1/a/tone.wav": sounds.encode(speech, "wav"),
            "voices/1/a/noise.wav": os.urandom(50_000),
            "voices/1/a/speech.flac": sounds.encode(speech, "flac"),
            # Compressible content that its file type exempts from compression.
            "voices/1/a/like.ogg": b"OggS" + bytes(50_000),
            "voices/1/a/empty.wav": b"",
        }
        for name, content in contents.items():
            default_storage.save(name, ContentFile(content))

        manifest = backups.copy(list(contents))

        digests = {file.name: file.content_sha256 for file in catalogue.read_index(backups.target, manifest, ())}
        keys = {name: backups.find_object(manifest, digest).name for name, digest in digests.items()}
        assert [name.rpartition("/")[2] for name, key in keys.items() if key.endswith(".gz")] == ["tone.wav"]
        backups.fetch(manifest, tmp_path / "copy")
        assert read_tree(tmp_path / "copy" / "media") == contents

    def test_misses_a_file_only_if_its_row_still_lives(self, backups: Backups, media_root: Path) -> None:
        kept, lost, deleted = say(3)
        for name in (lost, deleted):
            (media_root / name).unlink()
        Turn.objects.filter(audio=deleted).delete()

        manifest = backups.copy([kept, lost, deleted])

        assert manifest.audio is not None
        assert (manifest.audio.file_count, manifest.audio.missing) == (1, (lost,))

    @pytest.mark.parametrize("strange", ["../secret_key", "/etc/hostname", "a//b.flac", "a\\b.flac", "a/./b.flac"])
    def test_reads_no_name_that_leads_elsewhere(
        self, backups: Backups, data_dir: Path, tmp_path: Path, strange: str
    ) -> None:
        """A row written by hand has such a name, and the file exists."""
        (data_dir / "secret_key").write_text("secret")
        (kept,) = say()
        default_storage.save("a/b.flac", ContentFile(b"fLaC"))
        turn = factories.create_turn(audio=factories.make_flac())
        Turn.objects.filter(pk=turn.pk).update(audio=strange)

        manifest = backups.copy([kept, strange])

        assert manifest.audio is not None
        assert manifest.audio.missing == (strange,)
        assert [file.name for file in backups.fetch(manifest, tmp_path / "copy").files] == [kept]

    def test_finds_a_file_that_the_listing_did_not_have(
        self, backups: Backups, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        names = say(2)
        storage = type(default_storage._wrapped)  # type: ignore[attr-defined]  # of Django's lazy object
        listed = [entry for entry in get_site_storage().list_entries() if entry.name != names[1]]
        monkeypatch.setattr(storage, "list_entries", lambda self, prefix="": iter(listed))

        manifest = backups.copy(names)

        assert manifest.audio is not None
        assert (manifest.audio.file_count, manifest.audio.missing) == (2, ())

    def test_goes_on_without_a_file_that_cannot_be_read(
        self, backups: Backups, media_root: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        names = say(3)
        # Listed as a file, and not to be read as one.
        unreadable(media_root / names[1])

        manifest = backups.copy(names)

        assert manifest.audio is not None
        assert (manifest.audio.file_count, manifest.audio.missing) == (2, (names[1],))
        assert f"{names[1]} cannot be read, and is not in the backup" in caplog.text

    def test_gives_up_when_the_storage_is_away(self, backups: Backups, media_root: Path) -> None:
        names = say(5)
        for name in names:
            unreadable(media_root / name)

        with pytest.raises(StorageUnavailable):
            backups.copy(names)

    def test_does_not_take_its_own_missing_folder_for_missing_files(self, backups: Backups) -> None:
        names = say(2)
        backups.scratch.rmdir()

        with pytest.raises(FileNotFoundError):
            backups.copy(names)

    def test_shows_its_progress(self, backups: Backups) -> None:
        names = say(4)
        seen: list[tuple[int, int, int]] = []

        manifest = backups.copy(names, progress=lambda *now: seen.append(now))

        assert manifest.audio is not None
        assert [(done, count) for done, count, _ in seen] == [(1, 4), (2, 4), (3, 4), (4, 4)]
        assert seen[-1][2] == manifest.audio.content_bytes

    def test_without_files_is_a_backup(self, backups: Backups, tmp_path: Path) -> None:
        assert backups.fetch(backups.copy([]), tmp_path / "copy").files == []

    def test_says_that_the_target_is_full(self, backups: Backups, monkeypatch: pytest.MonkeyPatch) -> None:
        names = say(3)
        first = backups.copy(names[:1])

        def refuse(key: str, source: Path) -> None:
            raise TargetError(errno.ENOSPC, "the disk is full")

        with monkeypatch.context() as full:
            full.setattr(backups.target, "write", refuse)
            with pytest.raises(TargetError, match="the disk is full"):
                backups.copy(names)

        assert catalogue.list_backups(backups.target)[0].name == first.name
        assert list(backups.scratch.iterdir()) == []
        backups.copy(names)

    def test_is_done_by_the_second_attempt_after_the_first_was_killed(
        self,
        backups: Backups,
        data_dir: Path,
        monkeypatch: pytest.MonkeyPatch,
        opened: list[str],
        tmp_path: Path,
    ) -> None:
        names = say(12)
        first = backups.copy(names[:2])
        opened.clear()
        monkeypatch.setattr(audio, "FILES_BETWEEN_WRITES", 2)
        write, write_cache = backups.target.write, AudioCache.write
        writes, cache_writes = itertools.count(1), itertools.count(1)
        has_remembered = threading.Event()

        def write_some(key: str, source: Path) -> None:
            if next(writes) > 6:
                has_remembered.wait(20)
                os._exit(9)
            write(key, source)

        def remember(cache: AudioCache) -> None:
            write_cache(cache)
            # The first time, the files of the first backup.
            if next(cache_writes) == 2:
                has_remembered.set()

        with monkeypatch.context() as deadly:
            deadly.setattr(backups.target, "write", write_some)
            deadly.setattr(AudioCache, "write", remember)
            assert run_in_fork(lambda: backups.copy(names, threads=2)) == 9
        killed = backups.list_objects()
        assert 2 < len(killed) < 12
        remembered = gzip.decompress((data_dir / audio.CACHE).read_bytes()).decode()
        for path in backups.scratch.iterdir():
            path.unlink()

        second = backups.copy(names)

        # Files in the first attempt's cache are neither read nor written again.
        assert sorted(opened) == sorted(name for name in names if name not in remembered)
        assert len(opened) <= 8
        assert {key for key in killed if key in remembered} <= {
            key for key, inode in backups.list_objects().items() if killed.get(key) == inode
        }
        for number, manifest in enumerate((first, second)):
            backups.fetch(manifest, tmp_path / str(number))
        assert sorted(read_tree(tmp_path / "1" / "media")) == sorted(names)


class TestCache:
    def test_is_private_and_has_only_names_of_files_that_live(self, backups: Backups, data_dir: Path) -> None:
        kept, deleted = say(2)
        backups.copy([kept, deleted])

        backups.copy([kept])

        path = data_dir / audio.CACHE
        content = gzip.decompress(path.read_bytes()).decode()
        assert kept in content
        assert deleted not in content
        assert len(set(re.findall(r"audio/objects/\w+/\w+", content))) == 1
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    @pytest.mark.parametrize("damage", ["gone", "empty", "cut", "other", "folder"])
    def test_may_be_lost_or_damaged(
        self, backups: Backups, data_dir: Path, opened: list[str], damage: str, tmp_path: Path
    ) -> None:
        names = say(3)
        identity = Identity.generate()
        first = backups.copy(names, identity=identity)
        objects = backups.list_objects()
        opened.clear()
        path = data_dir / audio.CACHE
        content = path.read_bytes()
        path.unlink()
        match damage:
            case "empty":
                path.write_bytes(b"")
            case "cut":
                path.write_bytes(content[: len(content) // 2])
            case "other":
                path.write_bytes(gzip.compress(b'{"files": {"a": 1}}'))
            case "folder":
                path.mkdir()

        second = backups.copy(names, identity=identity)

        assert sorted(opened) == sorted(names)
        # An encrypted object that was written again would be another one than the first backup's list has.
        assert backups.list_objects() == objects
        for number, manifest in enumerate((first, second)):
            backups.fetch(manifest, tmp_path / str(number), identity)

    def test_does_not_hide_that_a_file_was_replaced(self, backups: Backups, media_root: Path, tmp_path: Path) -> None:
        (name,) = say()
        backups.copy([name])
        path = media_root / name
        content = path.read_bytes()
        default_storage.delete(name)
        default_storage.save(name, ContentFile(content[::-1]))

        backups.fetch(backups.copy([name]), tmp_path / "copy")

        assert (tmp_path / "copy" / "media" / name).read_bytes() == content[::-1]

    def test_does_not_hide_that_an_object_was_pruned(self, backups: Backups, tmp_path: Path) -> None:
        names = say(2)
        manifest = backups.copy(names)
        file = catalogue.read_index(backups.target, manifest, ())[0]
        backups.find_object(manifest, file.content_sha256).unlink()

        backups.fetch(backups.copy(names), tmp_path / "copy")

    def test_is_of_each_target(self, backups: Backups, tmp_path: Path, opened: list[str]) -> None:
        names = say(2)
        backups.copy(names)
        (tmp_path / "other").mkdir()
        other = Backups(tmp_path / "other")
        other.copy(names)
        opened.clear()

        backups.copy(names)
        other.copy(names)

        assert opened == []


class TestEncryption:
    def test_uses_again_what_the_same_keys_open(self, backups: Backups, tmp_path: Path) -> None:
        names = say(3)
        identity, first_run, second_run = (Identity.generate() for _ in range(3))
        backups.copy(names[:2], identity=identity, also_to=[first_run.to_public()])
        objects = backups.list_objects()

        manifest = backups.copy(names, identity=identity, also_to=[second_run.to_public()])

        assert objects.items() < backups.list_objects().items()
        assert all(key.endswith(".age") for key in backups.list_objects())
        assert len(backups.fetch(manifest, tmp_path / "owner", identity).files) == 3
        # The run reads its own objects, and compares checksums of earlier ones.
        fetched = backups.fetch(manifest, tmp_path / "run", second_run, may_compare=True)
        assert [file.name for file in fetched.files] == [names[2]]
        assert fetched.compared == sorted(names[:2])

    def test_to_another_key_leaves_the_objects_of_the_old_one(self, backups: Backups, tmp_path: Path) -> None:
        names = say(2)
        old, new = Identity.generate(), Identity.generate()
        manifests = {identity: backups.copy(names, identity=identity) for identity in (None, old, new)}

        assert len(backups.list_objects()) == 6
        for number, (identity, manifest) in enumerate(manifests.items()):
            keys = [identity] if identity else []
            assert len(backups.fetch(manifest, tmp_path / str(number), *keys).files) == 2
        with pytest.raises(packing.NoKey):
            backups.fetch(manifests[new], tmp_path / "wrong", old)

    def test_writes_no_name_and_no_content_in_the_clear(self, backups: Backups) -> None:
        names = say(2)

        backups.copy(names, identity=Identity.generate())

        stored = read_tree(backups.folder)
        readable = [key for key, content in stored.items() if not content.startswith(b"age-encryption.org/")]
        assert all(re.fullmatch(r"manifests/.*|audio/[^/]+\.objects\.json\.gz", key) for key in readable)
        clear = b"".join(gzip.decompress(stored[key]) if key.endswith(".gz") else stored[key] for key in readable)
        assert not [name for name in names if name.encode() in clear]


class TestDamage:
    @pytest.fixture
    def names(self) -> list[str]:
        return say(3)

    def damage(self, backups: Backups, manifest: Manifest, number: int, *identities: Identity) -> str:
        """Flip a bit in the content of the n-th file; return its name."""
        file = catalogue.read_index(backups.target, manifest, identities)[number]
        path = backups.find_object(manifest, file.content_sha256)
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        return file.name

    def test_is_found_and_counted(self, backups: Backups, names: list[str], tmp_path: Path) -> None:
        manifest = backups.copy(names)
        damaged = [self.damage(backups, manifest, number) for number in (0, 2)]

        with pytest.raises(packing.Damaged, match="2 of 3 audio files") as caught:
            backups.fetch(manifest, tmp_path / "copy")

        assert all(name in str(caught.value) for name in damaged)
        # The third is there, and nothing of the others.
        assert len(read_tree(tmp_path / "copy" / "media")) == 1

    def test_is_found_without_the_key(self, backups: Backups, names: list[str], tmp_path: Path) -> None:
        owner, first_run, second_run = (Identity.generate() for _ in range(3))
        backups.copy(names, identity=owner, also_to=[first_run.to_public()])
        manifest = backups.copy(names, identity=owner, also_to=[second_run.to_public()])
        path = next(backups.folder.joinpath("audio", "objects").rglob("*.age"))
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))

        with pytest.raises(packing.Damaged, match="1 of 3 audio files"):
            backups.fetch(manifest, tmp_path / "copy", second_run, may_compare=True)

    @pytest.mark.parametrize("identity", [None, Identity.generate()], ids=["readable", "encrypted"])
    def test_is_repaired_by_the_backup_after_the_verification_that_found_it(
        self,
        backups: Backups,
        names: list[str],
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
        identity: Identity | None,
    ) -> None:
        keys = [identity] if identity else []
        first = backups.copy(names, identity=identity)
        self.damage(backups, first, 1, *keys)
        # A run that trusts its cache would keep using a damaged object.
        second = backups.copy(names, identity=identity)
        with pytest.raises(packing.Damaged):
            backups.fetch(second, tmp_path / "trusting", *keys)
        objects = backups.list_objects()

        for manifest, hour, problem in ((first, 1, ""), (second, 2, "1 of 3 audio files")):
            verified_at = dt.datetime(2026, 11, 27, hour, tzinfo=dt.UTC)
            record = VerificationRecord(name=manifest.name, verified_at=verified_at, took_s=1.0, problem=problem)
            catalogue.write_record(backups.target, record)
        third = backups.copy(names, identity=identity)

        assert "an object is damaged, and written again" in caplog.text
        assert len(backups.fetch(third, tmp_path / "copy", *keys).files) == 3
        # Only that one: the others are as the lists of the earlier backups say.
        assert len(objects.items() & backups.list_objects().items()) == 2

    def test_of_a_size_is_repaired_without_being_asked(
        self, backups: Backups, names: list[str], tmp_path: Path
    ) -> None:
        manifest = backups.copy(names)
        file = catalogue.read_index(backups.target, manifest, ())[0]
        path = backups.find_object(manifest, file.content_sha256)
        path.write_bytes(path.read_bytes()[:-1])

        assert len(backups.fetch(backups.copy(names), tmp_path / "copy").files) == 3

    def test_of_a_missing_object_is_named(self, backups: Backups, names: list[str], tmp_path: Path) -> None:
        manifest = backups.copy(names)
        file = catalogue.read_index(backups.target, manifest, ())[0]
        backups.find_object(manifest, file.content_sha256).unlink()

        with pytest.raises(packing.Damaged, match=f"it is missing .{file.name}"):
            backups.fetch(manifest, tmp_path / "copy")

    @pytest.mark.parametrize("name", ["../outside", "a/../../outside", "/outside", "a//b", ""])
    def test_of_a_name_leads_nowhere(self, backups: Backups, names: list[str], tmp_path: Path, name: str) -> None:
        manifest = backups.copy(names)
        assert manifest.audio is not None
        file = catalogue.read_index(backups.target, manifest, ())[0]
        path = tmp_path / "index"
        path.write_bytes(encode([IndexedFile(name, file.content_bytes, file.content_sha256)]))
        packed = packing.pack(path, tmp_path / "packed", compress=True, recipients=())
        backups.target.write(manifest.audio.index.key, tmp_path / "packed")
        part = audio.AudioPart(
            packed.as_member(manifest.audio.index.key), manifest.audio.objects, 1, file.content_bytes
        )

        with pytest.raises(BadManifest):
            backups.fetch(replace(manifest, audio=part), tmp_path / "copy")

        assert not list(tmp_path.rglob("outside"))

    def test_by_a_full_disk_is_foreseen(
        self, backups: Backups, names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        manifest = backups.copy(names)
        monkeypatch.setattr(audio, "SPARE_BYTES", 1 << 60)

        with pytest.raises(OSError, match="are free") as caught:
            backups.fetch(manifest, tmp_path / "copy")

        assert caught.value.errno == errno.ENOSPC
        assert read_tree(tmp_path / "copy") == {}


class TestMerging:
    @pytest.fixture
    def fetched(self, backups: Backups, tmp_path: Path) -> audio.FetchedAudio:
        """Three files, in the storage and in a folder."""
        return backups.fetch(backups.copy(say(3)), tmp_path / "copy")

    def test_adds_what_is_not_there_and_leaves_what_is(
        self, fetched: audio.FetchedAudio, media_root: Path, tmp_path: Path
    ) -> None:
        before = read_tree(media_root)
        names = [file.name for file in fetched.files]
        kept = (media_root / names[1]).stat().st_ino
        for name in (names[0], names[2]):
            default_storage.delete(name)

        merged = audio.merge_audio(tmp_path / "copy" / "media", names)

        assert merged == audio.MergedAudio(added=2, identical=1, renamed={})
        assert read_tree(media_root) == before
        assert (media_root / names[1]).stat().st_ino == kept
        assert stat.S_IMODE((media_root / names[0]).stat().st_mode) == 0o600
        # Nothing is copied on one disk.
        assert (media_root / names[0]).samefile(tmp_path / "copy" / "media" / names[0])

    @pytest.mark.parametrize("other", [b"another content", None], ids=["another size", "the same size"])
    def test_gives_a_new_name_to_another_content(
        self, fetched: audio.FetchedAudio, media_root: Path, tmp_path: Path, other: bytes | None
    ) -> None:
        name = fetched.files[0].name
        original = (media_root / name).read_bytes()
        content = other or original[::-1]
        default_storage.delete(name)
        default_storage.save(name, ContentFile(content))

        merged = audio.merge_audio(tmp_path / "copy" / "media", [name], files=fetched.files)

        new_name = merged.renamed[name]
        assert (merged.added, merged.identical) == (1, 0)
        assert (media_root / name).read_bytes() == content
        assert (media_root / new_name).read_bytes() == original
        assert Path(new_name).parent == Path(name).parent

    def test_of_missing_files_only_leaves_another_content(
        self, fetched: audio.FetchedAudio, media_root: Path, tmp_path: Path
    ) -> None:
        names = [file.name for file in fetched.files]
        default_storage.delete(names[0])
        default_storage.save(names[0], ContentFile(b"another content"))
        default_storage.delete(names[1])

        merged = audio.merge_audio(tmp_path / "copy" / "media", names, is_missing_only=True)

        assert (merged.added, merged.renamed) == (1, {})
        assert (media_root / names[0]).read_bytes() == b"another content"

    def test_reads_nothing_that_the_last_backup_knew(
        self, fetched: audio.FetchedAudio, tmp_path: Path, opened: list[str]
    ) -> None:
        names = [file.name for file in fetched.files]

        assert audio.merge_audio(tmp_path / "copy" / "media", names, files=fetched.files).identical == 3
        assert opened == []
        assert audio.merge_audio(tmp_path / "copy" / "media", names).identical == 3
        assert sorted(opened) == sorted(names)

    def test_is_done_by_the_second_attempt(
        self, fetched: audio.FetchedAudio, media_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = read_tree(media_root)
        names = [file.name for file in fetched.files]
        for name in names:
            default_storage.delete(name)
        add = type(get_site_storage()._wrapped).add_file  # type: ignore[attr-defined]  # of Django's lazy object

        def add_one(self: Any, name: str, source: Path) -> None:
            if name == names[1]:
                raise OSError(errno.EIO, "broken")
            add(self, name, source)

        with monkeypatch.context() as broken:
            broken.setattr(type(default_storage._wrapped), "add_file", add_one)  # type: ignore[attr-defined]  # as above
            with pytest.raises(OSError, match="broken"):
                audio.merge_audio(tmp_path / "copy" / "media", names, threads=1)

        merged = audio.merge_audio(tmp_path / "copy" / "media", names)
        assert merged.identical >= 1
        assert (merged.added + merged.identical, merged.renamed) == (3, {})
        assert read_tree(media_root) == before

    def test_ignores_names_that_the_backup_does_not_have(self, fetched: audio.FetchedAudio, tmp_path: Path) -> None:
        assert audio.merge_audio(tmp_path / "copy" / "media", ["conversations/1/none.ogg"]) == audio.MergedAudio()

    def test_counts_what_is_missing(self, fetched: audio.FetchedAudio) -> None:
        names = [file.name for file in fetched.files]
        default_storage.delete(names[0])

        assert audio.count_missing(names) == 1


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("s3") / "log"


@pytest.fixture(scope="module")
def server(log: Path) -> Iterator[S3Server]:
    server = S3Server(log)
    yield server
    server.stop()


class TestBucket:
    @pytest.fixture
    def bucket(self, server: S3Server, settings: Settings, media_root: Path) -> Iterator[S3Server]:
        server.empty()
        settings.STORAGES = settings.STORAGES | {"default": server.as_storage()}
        yield server
        assert not media_root.exists(), "a file went to the disk"

    @pytest.fixture
    def requests(self, log: Path, bucket: S3Server) -> Callable[[], list[str]]:
        """Return the requests that the server has answered since the last call: method and path."""
        position = 0

        def read() -> list[str]:
            nonlocal position
            lines = log.read_text(errors="replace")[position:]
            position += len(lines)
            return re.findall(r'"([A-Z]+ /avatar-test[^ ?]*)', lines)

        return read

    def test_is_listed_and_asked_for_no_file_that_is_known(
        self, backups: Backups, bucket: S3Server, requests: Callable[[], list[str]], tmp_path: Path
    ) -> None:
        names = say(4)
        requests()

        manifest = backups.copy(names)
        assert sorted(requests()) == sorted([f"GET /{BUCKET}", *(f"GET /{BUCKET}/site/{name}" for name in names)])
        backups.copy(names)
        assert requests() == [f"GET /{BUCKET}"]

        backups.fetch(manifest, tmp_path / "copy")
        for name in names:
            assert (tmp_path / "copy" / "media" / name).read_bytes() == bucket.read(f"site/{name}")

    def test_is_given_what_it_lacks(
        self, backups: Backups, bucket: S3Server, requests: Callable[[], list[str]], tmp_path: Path
    ) -> None:
        names = sorted(say(4))
        fetched = backups.fetch(backups.copy(names), tmp_path / "copy")
        before = {name: bucket.read(f"site/{name}") for name in names}
        bucket.client.delete_object(Bucket=BUCKET, Key=f"site/{names[0]}")
        bucket.client.put_object(Bucket=BUCKET, Key=f"site/{names[1]}", Body=b"another content")
        requests()

        merged = audio.merge_audio(tmp_path / "copy" / "media", names, files=fetched.files)

        assert (merged.added, merged.identical, list(merged.renamed)) == (2, 2, [names[1]])
        new_name = merged.renamed[names[1]]
        assert bucket.read(f"site/{names[0]}") == before[names[0]]
        assert bucket.read(f"site/{names[1]}") == b"another content"
        assert bucket.read(f"site/{new_name}") == before[names[1]]
        asked = requests()
        assert [each for each in asked if each.startswith("PUT") and "site" in each] == sorted(
            [f"PUT /{BUCKET}/site/{names[0]}", f"PUT /{BUCKET}/site/{new_name}"], key=asked.index
        )
        # Only of the name that is taken is it asked which one is free.
        assert all(names[1] in each or new_name in each for each in asked if each.startswith("HEAD"))

    def test_that_is_away_is_said_to_be(self, backups: Backups, bucket: S3Server, settings: Settings) -> None:
        names = say(1)
        settings.STORAGES = settings.STORAGES | {"default": bucket.as_storage(bucket_name="no-such-bucket")}

        with pytest.raises(StorageUnavailable, match="NoSuchBucket"):
            backups.copy(names)


def replace(manifest: Manifest, **changes: Any) -> Manifest:
    return msgspec.structs.replace(manifest, **changes)


def unreadable(path: Path) -> None:
    """Let a file be listed, and fail when it is read."""
    path.unlink()
    # Of our own process: reading it is an input/output error.
    path.symlink_to("/proc/self/mem")


def run_in_fork(action: Callable[[], object]) -> int:
    """Run an action in a copy of this process, and return its exit code."""
    child = os.fork()
    if child == 0:
        try:
            action()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
