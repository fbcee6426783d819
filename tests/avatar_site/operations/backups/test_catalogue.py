from __future__ import annotations

import datetime as dt
import hashlib
import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pyrage.x25519 import Identity
from pytest_django import Settings

from avatar_site.operations.backups import catalogue, manifest, packing
from avatar_site.operations.backups.catalogue import Choice, ListedBackup, NoSuchBackup, list_backups, prune
from avatar_site.operations.backups.manifest import (
    AudioPart,
    BadManifest,
    IndexedFile,
    Manifest,
    Member,
    StoredObject,
    VerificationRecord,
)
from avatar_site.operations.backups.packing import Damaged, NoKey
from avatar_site.operations.backups.targets import FolderTarget, TargetError, open_target
from tests.seaweed import OWNER, SeaweedServer

NOW = dt.datetime(2026, 11, 27, 3, 30, tzinfo=dt.UTC)
KEY = Identity.generate()
DAY = dt.timedelta(days=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "backups"


@pytest.fixture
def target(folder: Path) -> FolderTarget:
    return FolderTarget(folder)


class Maker:
    """Puts backups into a target, in the layout of `manifest`."""

    def __init__(self, folder: Path, scratch: Path) -> None:
        self.folder = folder
        self.target = FolderTarget(folder)
        self._scratch = scratch

    def store(self, key: str, content: bytes, *, encrypt: bool = False) -> Member:
        key = packing.make_key(key, is_compressed=True, is_encrypted=encrypt)
        source, packed_path = self._scratch / "source", self._scratch / "packed"
        source.write_bytes(content)
        packed = packing.pack(source, packed_path, compress=True, recipients=[KEY.to_public()] if encrypt else [])
        self.target.write(key, packed_path)
        return packed.as_member(key)

    def store_object(self, content: bytes, *, age: dt.timedelta = 2 * DAY, encrypt: bool = False) -> StoredObject:
        digest = hashlib.sha256(content).hexdigest()
        mark = ".0123abcd" if encrypt else ""
        member = self.store(f"audio/objects/{digest[:2]}/{digest}{mark}", content, encrypt=encrypt)
        self.set_age(member.key, age)
        return StoredObject(member.key, member.size_bytes, member.sha256, digest)

    def make(
        self,
        *,
        age: dt.timedelta = dt.timedelta(0),
        parts: Collection[str] = ("database", "audio"),
        files: Collection[bytes] = (b"hello",),
        verified: bool | None = None,
        encrypt: bool = False,
        **changes: Any,
    ) -> str:
        taken_at = NOW - age
        name = manifest.make_name(taken_at)
        database = self.store(f"db/{name}.sqlite3", b"SQLite", encrypt=encrypt) if "database" in parts else None
        audio = None
        if "audio" in parts:
            objects = [self.store_object(content, encrypt=encrypt) for content in files]
            indexed = [
                IndexedFile(f"conversations/{number}.opus", len(content), hashlib.sha256(content).hexdigest())
                for number, content in enumerate(files)
            ]
            audio = AudioPart(
                index=self.store(f"audio/{name}.index.json", manifest.encode(indexed), encrypt=encrypt),
                objects=self.store(f"audio/{name}.objects.json", manifest.encode(objects)),
                file_count=len(indexed),
                content_bytes=sum(map(len, files)),
            )
        fields: dict[str, Any] = {
            "name": name,
            "taken_at": taken_at,
            "reason": "nightly",
            "version": "1.2",
            "build": "abc",
            "schema": {},
            "vendor": "sqlite",
            "row_counts": {"auth_user": 1},
            "database": database,
            "audio": audio,
            "recipients": (str(KEY.to_public()),) if encrypt else (),
        }
        catalogue.write_manifest(self.target, Manifest(**fields | changes))
        if verified is not None:
            self.verify(name, problem="" if verified else "broken")
        return name

    def verify(self, name: str, problem: str = "", **changes: Any) -> None:
        record = VerificationRecord(name=name, verified_at=NOW, took_s=1.0, problem=problem, **changes)
        catalogue.write_record(self.target, record)

    def set_age(self, key: str, age: dt.timedelta) -> None:
        at = (NOW - age).timestamp()
        os.utime(self.folder / key, (at, at))

    def list_keys(self) -> set[str]:
        return {entry.key for entry in self.target.list("")}

    def read(self, name: str) -> Manifest:
        return catalogue.read_manifest(self.target, name)

    def flip_a_bit(self, key: str) -> None:
        path = self.folder / key
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)


@pytest.fixture
def maker(folder: Path, tmp_path: Path) -> Maker:
    return Maker(folder, tmp_path)


class TestListing:
    def test_has_the_newest_first_with_their_verifications(self, maker: Maker) -> None:
        old = maker.make(age=2 * DAY, verified=True)
        new = maker.make(age=DAY)
        damaged = maker.make(age=3 * DAY, verified=False)

        backups = list_backups(maker.target)

        assert [backup.name for backup in backups] == [new, old, damaged]
        assert [backup.is_verified for backup in backups] == [False, True, False]
        assert [backup.problem for backup in backups] == ["", "", ""]
        assert backups[1].manifest == maker.read(old)
        assert backups[1].taken_at == NOW - 2 * DAY

    def test_is_empty_without_a_target(self, target: FolderTarget) -> None:
        assert list_backups(target) == []

    def test_counts_a_backups_own_files(self, maker: Maker) -> None:
        name = maker.make()

        (backup,) = list_backups(maker.target)

        own = [entry.size_bytes for entry in maker.target.list("") if f"/{name}." in entry.key]
        assert backup.stored_bytes == sum(own) - (maker.folder / f"manifests/{name}.json").stat().st_size

    @pytest.mark.parametrize(
        ("content", "problem"),
        [
            (b"", "truncated"),
            (b'{"format": 99}', "newer AVATAR"),
            (b"\x00\xff", "cannot be read"),
            (b"{}", "missing required field"),
        ],
    )
    def test_shows_one_whose_manifest_cannot_be_read(self, maker: Maker, content: bytes, problem: str) -> None:
        name = maker.make(age=DAY, verified=True)
        (maker.folder / f"manifests/{name}.json").write_bytes(content)

        (backup,) = list_backups(maker.target)

        assert problem in backup.problem
        assert not backup.is_verified
        assert not backup.has_database
        assert backup.taken_at == NOW - DAY

    def test_shows_one_that_claims_to_be_another(self, maker: Maker) -> None:
        name, other = maker.make(), maker.make(age=DAY)
        (maker.folder / f"manifests/{name}.json").write_bytes((maker.folder / f"manifests/{other}.json").read_bytes())

        assert {backup.name: backup.problem for backup in list_backups(maker.target)} == {
            name: f"its manifest cannot be read: it is of backup {other}",
            other: "",
        }

    @pytest.mark.parametrize("content", [b"", b"SQL"])
    def test_shows_one_whose_database_is_gone_or_cut_off(self, maker: Maker, content: bytes) -> None:
        name = maker.make(verified=True)
        path = maker.folder / f"db/{name}.sqlite3.gz"
        path.write_bytes(content) if content else path.unlink()

        (backup,) = list_backups(maker.target)

        assert "its database" in backup.problem
        assert not backup.is_verified

    @pytest.mark.parametrize("content", [b"", b"{}", b"nonsense", b'{"name": 5}'])
    def test_counts_a_record_that_cannot_be_read_as_none(self, maker: Maker, content: bytes) -> None:
        name = maker.make(verified=True)
        (maker.folder / f"manifests/{name}.verified.json").write_bytes(content)

        (backup,) = list_backups(maker.target)

        assert backup.record is None
        assert not backup.is_verified

    def test_does_not_take_another_backups_record(self, maker: Maker) -> None:
        name, other = maker.make(), maker.make(age=DAY, verified=True)
        record = maker.folder / f"manifests/{other}.verified.json"
        record.rename(maker.folder / f"manifests/{name}.verified.json")

        assert not any(backup.is_verified for backup in list_backups(maker.target))

    def test_ignores_what_is_not_of_a_backup(self, maker: Maker) -> None:
        (maker.folder / "manifests").mkdir(parents=True)
        for stranger in ("notes.txt", "old.json", "20261127T033000Z-abcd.json.bak"):
            (maker.folder / "manifests" / stranger).write_text("{}")

        assert list_backups(maker.target) == []

    def test_does_not_read_a_manifest_of_any_size(self, maker: Maker) -> None:
        name = maker.make()
        with (maker.folder / f"manifests/{name}.json").open("r+b") as file:
            file.truncate(catalogue.MAX_MANIFEST_BYTES + 1)

        (backup,) = list_backups(maker.target)

        assert "more than" in backup.problem


class TestFindingTheNewest:
    def test_takes_it_whatever_its_state(self, maker: Maker) -> None:
        maker.make(age=DAY, verified=True)
        newest = maker.make(verified=False)
        (maker.folder / f"manifests/{newest}.json").write_text("{")

        assert catalogue.find_newest(maker.target) == newest

    def test_says_where_there_is_none(self, maker: Maker) -> None:
        with pytest.raises(NoSuchBackup, match=re.escape(str(maker.folder))):
            catalogue.find_newest(maker.target)


class TestReadingAManifest:
    @pytest.mark.parametrize("name", ["20260101T000000Z-0000", "../../etc/passwd", "", "latest"])
    def test_of_no_backup_says_so(self, target: FolderTarget, name: str) -> None:
        with pytest.raises(NoSuchBackup):
            catalogue.read_manifest(target, name)

    @pytest.mark.parametrize("key", ["../secret_key", "db/../../secret_key", "/etc/passwd", "db/other.sqlite3"])
    def test_refuses_files_that_are_not_the_backups(self, maker: Maker, key: str) -> None:
        name = maker.make()
        path = maker.folder / f"manifests/{name}.json"
        content = msgspec.json.decode(path.read_bytes())
        content["database"]["key"] = key
        path.write_bytes(msgspec.json.encode(content))

        with pytest.raises(BadManifest, match="is not a file of backup"):
            maker.read(name)


class TestReadingLists:
    @pytest.mark.parametrize("encrypt", [False, True])
    def test_gives_files_and_objects(self, maker: Maker, encrypt: bool) -> None:
        name = maker.make(files=[b"one", b"two"], encrypt=encrypt)

        index = catalogue.read_index(maker.target, maker.read(name), [KEY])
        objects = catalogue.read_objects(maker.target, maker.read(name))

        assert [file.name for file in index] == ["conversations/0.opus", "conversations/1.opus"]
        assert [file.content_sha256 for file in index] == [each.content_sha256 for each in objects]

    def test_needs_no_key_for_objects(self, maker: Maker) -> None:
        name = maker.make(encrypt=True)

        assert len(catalogue.read_objects(maker.target, maker.read(name))) == 1
        with pytest.raises(NoKey, match="index"):
            catalogue.read_index(maker.target, maker.read(name), [])

    def test_gives_nothing_without_audio(self, maker: Maker) -> None:
        found = maker.read(maker.make(parts=["database"]))

        assert catalogue.read_index(maker.target, found, []) == catalogue.read_objects(maker.target, found) == []

    def test_refuses_names_that_lead_out_of_the_storage(self, maker: Maker) -> None:
        name = maker.make()
        evil = [IndexedFile("../avatar.sqlite3", 1, "0" * 64)]
        index = maker.store(f"audio/{name}.index.json", manifest.encode(evil))
        audio = maker.read(name).audio
        assert audio
        changed = msgspec.structs.replace(maker.read(name), audio=msgspec.structs.replace(audio, index=index))

        with pytest.raises(BadManifest, match="not the name of a stored file"):
            catalogue.read_index(maker.target, changed, [])

    def test_refuses_a_list_that_would_fill_the_memory(self, maker: Maker) -> None:
        found = maker.read(maker.make())
        assert found.audio
        large = msgspec.structs.replace(found.audio.objects, content_bytes=catalogue.MAX_LIST_BYTES + 1)
        changed = msgspec.structs.replace(found, audio=msgspec.structs.replace(found.audio, objects=large))

        with pytest.raises(BadManifest, match="too large"):
            catalogue.read_objects(maker.target, changed)

    def test_finds_damage(self, maker: Maker) -> None:
        name = maker.make()
        maker.flip_a_bit(f"audio/{name}.objects.json.gz")

        with pytest.raises(Damaged, match="SHA-256"):
            catalogue.read_objects(maker.target, maker.read(name))


class TestFetchingAMember:
    @pytest.mark.parametrize("encrypt", [False, True])
    def test_unpacks_it_and_leaves_nothing_else(self, maker: Maker, tmp_path: Path, encrypt: bool) -> None:
        member = maker.store("db/a.sqlite3", b"SQLite" * 1000, encrypt=encrypt)
        destination = tmp_path / "scratch" / "avatar.sqlite3"
        destination.parent.mkdir()

        catalogue.fetch_member(maker.target, member, destination, identities=[KEY])

        assert destination.read_bytes() == b"SQLite" * 1000
        assert destination.stat().st_mode & 0o777 == 0o600
        assert list(destination.parent.iterdir()) == [destination]

    @pytest.mark.parametrize("damage", ["flip", "truncate", "extend", "delete"])
    def test_finds_damage_and_leaves_nothing(self, maker: Maker, tmp_path: Path, damage: str) -> None:
        member = maker.store("db/a.sqlite3", b"SQLite" * 1000, encrypt=True)
        stored = maker.folder / member.key
        match damage:
            case "flip":
                maker.flip_a_bit(member.key)
            case "truncate":
                os.truncate(stored, member.size_bytes - 1)
            case "extend":
                os.truncate(stored, member.size_bytes + 1)
            case "delete":
                stored.unlink()
        scratch = tmp_path / "scratch"
        scratch.mkdir()

        with pytest.raises(Damaged, match=r"db/a\.sqlite3\.gz\.age: it"):
            catalogue.fetch_member(maker.target, member, scratch / "a", identities=[KEY])
        with pytest.raises(Damaged, match=r"db/a\.sqlite3\.gz\.age: it"):
            catalogue.check_stored(maker.target, member)

        assert list(scratch.iterdir()) == []

    def test_checks_what_is_stored_without_a_key(self, maker: Maker) -> None:
        member = maker.store("db/a.sqlite3", b"SQLite", encrypt=True)

        catalogue.check_stored(maker.target, member)


def listed(
    name: str,
    *,
    days: float,
    parts: Collection[str] = ("database", "audio"),
    verified: bool | None = None,
    **state: Any,
) -> ListedBackup:
    member = Member("db/x", 1, "", 1, "")
    found = Manifest(
        name=name,
        taken_at=NOW - days * DAY,
        reason="nightly",
        version="1",
        build="",
        schema={},
        vendor="sqlite",
        row_counts={},
        database=member if "database" in parts else None,
        audio=AudioPart(member, member, 1, 1) if "audio" in parts else None,
    )
    record = None
    if verified is not None:
        record = VerificationRecord(name=name, verified_at=NOW, took_s=1, problem="" if verified else "broken")
    return ListedBackup(name, found, record, **state)


def choose(*backups: ListedBackup, database_days: int = 7, audio_days: int = 30) -> Choice:
    return catalogue.choose_to_prune(backups, now=NOW, database_days=database_days, audio_days=audio_days)


class TestChoosing:
    def test_keeps_all_that_are_young(self) -> None:
        assert choose(listed("a", days=0, verified=True), listed("b", days=7, verified=True)) == Choice()

    def test_takes_the_database_after_its_days_and_the_rest_after_those_of_audio(self) -> None:
        young = listed("a", days=1, verified=True)

        chosen = choose(young, *(listed(f"{days}", days=days, verified=True) for days in (7, 7.1, 30, 30.1)))

        assert chosen == Choice(backups=("30.1",), databases=("7.1", "30"))

    def test_takes_the_audio_first_if_it_has_fewer_days(self) -> None:
        young = listed("a", days=1, verified=True)

        chosen = choose(young, listed("b", days=5, verified=True), listed("c", days=8, verified=True), audio_days=3)

        assert chosen == Choice(backups=("c",), audio=("b",))

    def test_never_takes_the_last_verified_one(self) -> None:
        chosen = choose(listed("a", days=100, verified=True), listed("b", days=200, verified=True))

        assert chosen == Choice(backups=("b",))

    @pytest.mark.parametrize("newer", [None, False], ids=["not-verified", "damaged"])
    def test_does_not_count_one_that_is_newer_and_not_proven(self, newer: bool | None) -> None:
        chosen = choose(
            listed("new", days=0, verified=newer),
            listed("a", days=40, verified=newer),
            listed("b", days=50, verified=True),
        )

        assert chosen == Choice(backups=("a",))

    def test_does_not_count_one_whose_database_is_missing(self) -> None:
        gone = listed("a", days=1, verified=True, problem="its database is missing")

        assert choose(gone, listed("b", days=50, verified=True)) == Choice()

    def test_keeps_the_last_verified_one_of_each_part(self) -> None:
        chosen = choose(
            listed("database", days=1, parts=["database"], verified=True),
            listed("full", days=40, verified=True),
            listed("older", days=50, verified=True),
        )

        # Of "full", only the audio is the last; of its database there is a newer one.
        assert chosen == Choice(backups=("older",), databases=("full",))

    def test_keeps_the_audio_of_the_last_verified_database(self) -> None:
        chosen = choose(listed("audio", days=1, parts=["audio"], verified=True), listed("full", days=40, verified=True))

        assert chosen == Choice()

    def test_keeps_the_newest_one_if_none_is_verified(self) -> None:
        assert choose(listed("a", days=40), listed("b", days=50, verified=False)) == Choice(backups=("b",))

    def test_takes_an_unreadable_one_after_the_longer_of_both(self) -> None:
        names = [manifest.make_name(NOW - days * DAY) for days in (8, 30, 31)]

        chosen = choose(listed("a", days=0, verified=True), *(ListedBackup(name, None, None, "bad") for name in names))

        assert chosen == Choice(backups=(names[2],))

    def test_keeps_one_from_the_future(self) -> None:
        assert choose(listed("a", days=0, verified=True), listed("b", days=-400)) == Choice()

    def test_does_not_depend_on_the_order(self) -> None:
        backups = [listed(f"{days}", days=days, verified=days % 3 == 0) for days in range(0, 60, 5)]

        assert choose(*backups) == choose(*reversed(backups))


class TestPruning:
    def prune(self, maker: Maker, **options: Any) -> catalogue.Pruned:
        return prune(maker.target, **{"now": NOW, "database_days": 7, "audio_days": 30} | options)

    @pytest.mark.parametrize("encrypt", [False, True])
    def test_removes_a_backup_with_its_files_and_what_only_it_needs(self, maker: Maker, encrypt: bool) -> None:
        maker.make(verified=True, files=[b"shared"])
        before = maker.list_keys()
        old = maker.make(age=31 * DAY, verified=True, files=[b"only old"], encrypt=encrypt)

        pruned = self.prune(maker)

        assert pruned.choice == Choice(backups=(old,))
        assert (pruned.file_count, pruned.object_count, pruned.problem) == (3, 1, "")
        assert pruned.freed_bytes > 0
        assert maker.list_keys() == before

    def test_takes_the_database_and_leaves_the_audio(self, maker: Maker) -> None:
        maker.make(verified=True)
        old = maker.make(age=8 * DAY, verified=True, files=[b"only old"])
        before = maker.read(old)

        pruned = self.prune(maker)

        assert pruned.choice == Choice(databases=(old,))
        assert maker.read(old) == msgspec.structs.replace(before, database=None)
        assert not any(key.startswith(f"db/{old}") for key in maker.list_keys())
        assert len(catalogue.read_index(maker.target, maker.read(old), [])) == 1
        (listed_again,) = (backup for backup in list_backups(maker.target) if backup.name == old)
        assert listed_again.is_verified
        for each in catalogue.read_objects(maker.target, maker.read(old)):
            catalogue.check_stored(maker.target, each)

    def test_takes_the_audio_and_leaves_the_database(self, maker: Maker) -> None:
        maker.make(verified=True)
        old = maker.make(age=8 * DAY, verified=True, files=[b"only old"])

        pruned = self.prune(maker, database_days=30, audio_days=7)

        assert (pruned.choice, pruned.object_count) == (Choice(audio=(old,)), 1)
        assert maker.read(old).audio is None
        assert maker.read(old).database is not None
        assert not any(key.startswith(f"audio/{old}") for key in maker.list_keys())

    def test_does_nothing_the_second_time(self, maker: Maker) -> None:
        maker.make(verified=True)
        for days in (8, 31, 50):
            maker.make(age=days * DAY, verified=True, files=[str(days).encode()])
        self.prune(maker)
        before = maker.list_keys()

        pruned = self.prune(maker)

        assert (pruned.choice, pruned.file_count, pruned.object_count) == (Choice(), 0, 0)
        assert maker.list_keys() == before

    def test_spares_what_may_belong_to_a_backup_in_progress(self, maker: Maker) -> None:
        maker.make(verified=True)
        young = [
            maker.store_object(b"young", age=DAY / 2).key,
            maker.store("db/20261127T020000Z-abcd.sqlite3", b"").key,
        ]
        maker.set_age(young[1], DAY / 2)
        old = [maker.store_object(b"old", age=DAY * 2).key, maker.store("db/20261124T020000Z-abcd.sqlite3", b"").key]
        maker.set_age(old[1], DAY * 2)

        pruned = self.prune(maker)

        assert (pruned.file_count, pruned.object_count) == (1, 1)
        assert set(young) <= maker.list_keys()
        assert not set(old) & maker.list_keys()

    def test_leaves_what_is_not_ours(self, maker: Maker) -> None:
        maker.make(verified=True)
        strangers = {"notes.txt", "db/notes.txt", "audio/objects/README", "tombstones/x/1.jsonl", "manifests/x.json"}
        for key in strangers:
            path = maker.folder / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("mine")
            maker.set_age(key, 400 * DAY)

        self.prune(maker)

        assert strangers <= maker.list_keys()

    def test_removes_what_interrupted_writes_left(self, maker: Maker) -> None:
        maker.make(verified=True)
        for age, name in ((DAY / 2, "young"), (2 * DAY, "old")):
            (maker.folder / f"db/.{name}.0123456789abcdef.part").write_bytes(b"half")
            maker.set_age(f"db/.{name}.0123456789abcdef.part", age)

        self.prune(maker)

        assert [path.name for path in maker.folder.glob("db/.*")] == [".young.0123456789abcdef.part"]

    def test_is_done_though_a_key_may_not_look_for_interrupted_uploads(
        self, maker: Maker, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A policy of a bucket may allow to list, read, write and delete, and nothing else."""
        maker.make(verified=True)
        old = maker.make(age=31 * DAY)

        pruned = prune(_MayNotLookForUploads(maker.folder), now=NOW, database_days=7, audio_days=30)

        assert pruned.choice == Choice(backups=(old,))
        assert "AccessDenied" in caplog.text

    @pytest.mark.parametrize("damage", ["manifest", "objects", "objects missing"])
    def test_removes_no_audio_while_it_cannot_say_what_is_needed(self, maker: Maker, damage: str) -> None:
        maker.make(verified=True)
        unreadable = maker.make(age=DAY, files=[b"only there"])
        maker.make(age=31 * DAY, files=[b"only old"])
        match damage:
            case "manifest":
                (maker.folder / f"manifests/{unreadable}.json").write_text("{")
            case "objects":
                maker.flip_a_bit(f"audio/{unreadable}.objects.json.gz")
            case "objects missing":
                (maker.folder / f"audio/{unreadable}.objects.json.gz").unlink()
        objects = {key for key in maker.list_keys() if key.startswith("audio/objects/")}
        own = {key for key in maker.list_keys() if unreadable in key}
        for key in own:
            maker.set_age(key, 2 * DAY)

        pruned = self.prune(maker)

        assert pruned.object_count == 0
        assert unreadable in pruned.problem
        assert objects | own <= maker.list_keys()

    def test_that_is_interrupted_anywhere_leaves_whole_backups(self, maker: Maker) -> None:
        """Each change of the target in turn is the last one; the next run finishes the work."""
        kept = maker.make(verified=True)
        maker.make(age=8 * DAY, verified=True, files=[b"eight"])
        maker.make(age=31 * DAY, verified=True, files=[b"hello", b"old"])
        failing = _FailsAfter(maker.folder)
        interruptions = 0

        while True:
            failing.changes_left = 1
            try:
                prune(failing, now=NOW, database_days=7, audio_days=30)
            except TargetError:
                interruptions += 1
            else:
                break
            for backup in list_backups(maker.target):
                assert backup.manifest
                for member in catalogue.list_members(backup.manifest):
                    catalogue.check_stored(maker.target, member)
                for each in catalogue.read_objects(maker.target, backup.manifest):
                    catalogue.check_stored(maker.target, each)
            # Files that no manifest names are removed by the next run once they are old.
            for key in maker.list_keys():
                if kept not in key:
                    maker.set_age(key, 2 * DAY)

        assert interruptions >= 5
        assert list_backups(maker.target)[0].name == kept
        assert len([key for key in maker.list_keys() if key.startswith("db/")]) == 1
        assert len([key for key in maker.list_keys() if key.startswith("audio/objects/")]) == 2


class _FailsAfter(FolderTarget):
    """A target that goes away after some changes."""

    changes_left = 0

    def write(self, key: str, source: Path) -> None:
        self._count()
        super().write(key, source)

    def delete(self, key: str) -> None:
        self._count()
        super().delete(key)

    def _count(self) -> None:
        if self.changes_left == 0:
            raise TargetError("gone")
        self.changes_left -= 1


class TestInABucket:
    def test_backups_are_listed_fetched_and_pruned(self, bucket: str, maker: Maker, tmp_path: Path) -> None:
        target = open_target(f"s3://{bucket}/site")
        newest = maker.make(verified=True, files=[b"shared", b"new"], encrypt=True)
        middle = maker.make(age=8 * DAY, verified=True, files=[b"middle"])
        oldest = maker.make(age=40 * DAY, verified=True, files=[b"old"])
        for entry in list(maker.target.list("")):
            target.write(entry.key, maker.folder / entry.key)
        keys = {entry.key for entry in target.list("")}

        listed_names = [backup.name for backup in list_backups(target)]
        index = catalogue.read_index(target, catalogue.read_manifest(target, newest), [KEY])
        database = catalogue.read_manifest(target, newest).database
        assert database
        catalogue.fetch_member(target, database, tmp_path / "fetched", identities=[KEY])
        # The server says when objects were stored: now. So "now" has to be two days later for it.
        pruned = prune(target, now=NOW, database_days=7, audio_days=30)
        later = prune(target, now=dt.datetime.now(dt.UTC) + 2 * DAY, database_days=3650, audio_days=3650)

        assert listed_names == [newest, middle, oldest]
        assert [file.content_bytes for file in index] == [6, 3]
        assert (tmp_path / "fetched").read_bytes() == b"SQLite"
        assert pruned.choice == Choice(backups=(oldest,), databases=(middle,))
        assert later.object_count == 1
        left = {entry.key for entry in target.list("")}
        assert {key for key in keys - left if not key.startswith("audio/objects/")} == {
            key for key in keys if oldest in key or key.startswith(f"db/{middle}")
        }
        for name in (newest, middle):
            for each in catalogue.read_objects(target, catalogue.read_manifest(target, name)):
                catalogue.check_stored(target, each)

    def test_that_goes_away_is_not_read_as_one_without_backups(
        self, seaweed: SeaweedServer, bucket: str, settings: Settings
    ) -> None:
        settings.AVATAR_BACKUP_S3 = seaweed.make_settings((OWNER[0], "wrong"))
        target = open_target(f"s3://{bucket}")

        for call in (
            lambda: list_backups(target),
            lambda: catalogue.find_newest(target),
            lambda: catalogue.read_manifest(target, "20260101T000000Z-0000"),
            lambda: prune(target, now=NOW, database_days=7, audio_days=30),
        ):
            with pytest.raises(TargetError, match="SignatureDoesNotMatch"):
                call()


class _MayNotLookForUploads(FolderTarget):
    def remove_partial_writes(self, prefix: str, *, before: dt.datetime) -> int:
        raise TargetError("AccessDenied")
