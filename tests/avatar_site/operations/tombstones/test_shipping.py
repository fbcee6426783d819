from __future__ import annotations

import datetime as dt
import gzip
from collections.abc import Iterator
from pathlib import Path

import pyrage
import pytest
from pyrage.x25519 import Identity
from pytest_django import Settings

from avatar_site.operations.backups.targets import FolderTarget, Target, TargetError, open_target
from avatar_site.operations.tombstones import log, shipping
from avatar_site.operations.tombstones.log import Entry
from avatar_site.operations.tombstones.shipping import UnreadableShipment
from tests.s3 import ACCESS, BUCKET, S3Server

NOON = dt.datetime(2026, 11, 26, 12, tzinfo=dt.UTC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "backups"


@pytest.fixture
def target(folder: Path) -> FolderTarget:
    return FolderTarget(folder)


@pytest.fixture
def identity() -> Identity:
    return Identity.generate()


def write_log(*keys: str) -> list[Entry]:
    """Append entries as a drain does, which counts on."""
    last = log.read_last_sequence()
    entries = [
        Entry(
            sequence=last + number,
            installation=log.read_installation(),
            at=NOON + dt.timedelta(seconds=last + number),
            table="voices_preview",
            key=key,
            is_deletion=True,
        )
        for number, key in enumerate(keys, 1)
    ]
    with log.find_log().open("ab") as file:
        file.writelines(map(log.encode_line, entries))
    return entries


def lose_disk(tombstones_dir: Path) -> None:
    for path in tombstones_dir.iterdir():
        path.unlink()


def read_keys(target: Target, *identities: Identity, is_forced: bool = False) -> list[str]:
    return [entry.key for entry in shipping.read_all(target, identities, is_forced=is_forced)]


class FullAfterOne(FolderTarget):
    """A disk that takes one file."""

    count = 0

    def write(self, key: str, source: Path) -> None:
        self.count += 1
        if self.count > 1:
            raise TargetError("full")
        super().write(key, source)


class TestShip:
    def test_takes_what_is_new(self, target: FolderTarget, folder: Path) -> None:
        first = write_log("1", "2")
        assert shipping.ship(target, []) == 2
        second = write_log("3")
        assert shipping.ship(target, []) == 1
        assert shipping.ship(target, []) == 0

        shipments = sorted(folder.rglob("*.jsonl.gz"), key=lambda path: path.stat().st_mtime_ns)
        assert [gzip.decompress(path.read_bytes()) for path in shipments] == [
            b"".join(map(log.encode_line, entries)) for entries in (first, second)
        ]
        assert {path.parent for path in shipments} == {folder / "tombstones" / log.read_installation()}

    def test_takes_nothing_where_there_is_nothing(self, target: FolderTarget, folder: Path) -> None:
        assert shipping.ship(target, []) == 0
        assert not folder.exists()

    def test_takes_all_to_another_target(self, target: FolderTarget, tmp_path: Path) -> None:
        write_log("1")
        shipping.ship(target, [])
        write_log("2")

        assert shipping.ship(FolderTarget(tmp_path / "other"), []) == 2
        assert shipping.ship(target, []) == 1

    def test_takes_much_in_several_parts(
        self, target: FolderTarget, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(shipping, "BATCH", 2)
        write_log("1", "2", "3", "4", "5")

        assert shipping.ship(target, []) == 5

        assert len(list(folder.rglob("*.jsonl.gz"))) == 3
        assert shipping.ship(target, []) == 0

    def test_goes_on_where_a_target_went_away(
        self, target: FolderTarget, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(shipping, "BATCH", 2)
        write_log("1", "2", "3")

        with pytest.raises(TargetError):
            shipping.ship(FullAfterOne(folder), [])

        assert shipping.ship(target, []) == 1

    def test_takes_it_again_when_it_was_killed_before_it_noted_it(
        self, target: FolderTarget, tombstones_dir: Path
    ) -> None:
        write_log("1")
        shipping.ship(target, [])
        (tombstones_dir / "shipped.json").unlink()
        write_log("2")

        assert shipping.ship(target, []) == 2

        lose_disk(tombstones_dir)
        assert read_keys(target) == ["1", "2"]

    @pytest.mark.parametrize("state", [b"", b"{", b'{"x": "y"}', b"\xff"])
    def test_takes_it_again_where_its_note_is_damaged(
        self, target: FolderTarget, tombstones_dir: Path, state: bytes
    ) -> None:
        write_log("1")
        shipping.ship(target, [])
        (tombstones_dir / "shipped.json").write_bytes(state)

        assert shipping.ship(target, []) == 1

    def test_notes_nothing_where_the_target_is_away(self, tmp_path: Path, tombstones_dir: Path) -> None:
        write_log("1")
        away = FolderTarget(tmp_path / "not mounted" / "backups")

        with pytest.raises(TargetError):
            shipping.ship(away, [])

        assert [path.name for path in tombstones_dir.iterdir() if "shipping" in path.name] == ["shipping.lock"]
        (tmp_path / "not mounted").mkdir()
        assert shipping.ship(away, []) == 1

    def test_goes_on_after_the_log_was_pruned(self, target: FolderTarget) -> None:
        write_log("1", "2")
        shipping.ship(target, [])
        log.prune(before=NOON + dt.timedelta(days=1))
        assert shipping.ship(target, []) == 0

        write_log("3")

        assert shipping.ship(target, []) == 1

    def test_takes_nothing_where_all_was_pruned_before_it_was_shipped(self, target: FolderTarget) -> None:
        write_log("1", "2")
        log.prune(before=NOON + dt.timedelta(days=1))

        assert shipping.ship(target, []) == 0
        assert shipping.ship(target, []) == 0

    def test_takes_what_follows_a_log_that_was_lost(self, target: FolderTarget) -> None:
        write_log("1", "2", "3")
        shipping.ship(target, [])
        log.find_log().unlink()
        assert shipping.ship(target, []) == 0
        write_log("4", "5", "6", "7")

        assert shipping.ship(target, []) == 4
        assert read_keys(target) == ["1", "2", "3", "4", "5", "6", "7"]

    def test_encrypts_to_the_recipients(
        self, target: FolderTarget, folder: Path, tombstones_dir: Path, identity: Identity
    ) -> None:
        write_log("a-secret")

        shipping.ship(target, [str(identity.to_public())])

        (path,) = (path for path in folder.rglob("*") if path.is_file())
        assert path.name.endswith(".jsonl.gz.age")
        assert path.read_bytes().startswith(b"age-encryption.org/")
        lose_disk(tombstones_dir)
        assert read_keys(target, identity) == ["a-secret"]
        assert not list(tombstones_dir.glob(".shipping-*"))


class TestReadAll:
    def test_has_each_entry_once_and_sorted(self, target: FolderTarget, tombstones_dir: Path) -> None:
        write_log("1", "2")
        shipping.ship(target, [])
        write_log("3")

        assert read_keys(target) == ["1", "2", "3"]

    def test_has_what_earlier_installations_shipped(self, target: FolderTarget, tombstones_dir: Path) -> None:
        write_log("1")
        shipping.ship(target, [])
        lose_disk(tombstones_dir)
        write_log("2")

        assert sorted(read_keys(target)) == ["1", "2"]

    def test_has_what_was_shipped_where_the_log_was_cut(self, target: FolderTarget) -> None:
        write_log("1", "2")
        shipping.ship(target, [])
        with log.find_log().open("r+b") as file:
            file.truncate(10)

        assert read_keys(target) == ["1", "2"]

    def test_reads_no_shipment_that_is_older_than_what_is_wanted(
        self, target: FolderTarget, tombstones_dir: Path
    ) -> None:
        write_log("1")
        shipping.ship(target, [])
        lose_disk(tombstones_dir)
        (shipment,) = shipping.list_shipments(target)

        found = [
            len(shipping.read_all(target, [], since=shipment.shipped_at + dt.timedelta(seconds=seconds)))
            for seconds in (0, 1, 2)
        ]

        assert found == [1, 1, 0]

    def test_of_an_empty_target_is_the_log(self, target: FolderTarget) -> None:
        write_log("1")

        assert read_keys(target) == ["1"]

    def test_does_without_a_key_for_what_is_in_the_log(self, target: FolderTarget, identity: Identity) -> None:
        write_log("1")
        shipping.ship(target, [str(identity.to_public())])

        assert read_keys(target) == ["1"]

    @pytest.mark.parametrize("damage", ["encrypted", "changed", "cut off", "other key"])
    def test_fails_where_a_tombstone_would_be_missed(
        self, target: FolderTarget, folder: Path, tombstones_dir: Path, identity: Identity, damage: str
    ) -> None:
        recipients = [str(identity.to_public())] if damage in ("encrypted", "other key") else []
        write_log("1")
        shipping.ship(target, recipients)
        (path,) = (path for path in folder.rglob("*") if path.is_file())
        content = path.read_bytes()
        if damage == "changed":
            path.write_bytes(gzip.compress(gzip.decompress(content).replace(b'"1"', b'"2"')))
        elif damage == "cut off":
            path.write_bytes(content[:-9])
        identities = [pyrage.x25519.Identity.generate()] if damage == "other key" else []
        lose_disk(tombstones_dir)

        with pytest.raises(UnreadableShipment, match=r"tombstones/.* in .*backups says what was deleted, and its? "):
            read_keys(target, *identities)
        assert read_keys(target, *identities, is_forced=True) == []

    def test_passes_over_what_is_no_shipment(self, target: FolderTarget, folder: Path, tmp_path: Path) -> None:
        write_log("1")
        shipping.ship(target, [])
        (folder / "tombstones" / "notes.txt").write_text("mine")
        (folder / "tombstones" / log.read_installation() / "x.jsonl").write_text("{}")

        assert len(list(shipping.list_shipments(target))) == 1


class TestPrune:
    def test_deletes_shipments_that_are_older_than_every_backup(self, target: FolderTarget) -> None:
        write_log("1")
        shipping.ship(target, [])
        (shipment,) = shipping.list_shipments(target)

        assert shipping.prune(target, before=shipment.shipped_at) == 0
        assert shipping.prune(target, before=shipment.shipped_at + dt.timedelta(seconds=2)) == 1
        assert list(shipping.list_shipments(target)) == []


@pytest.fixture
def bucket(tmp_path: Path, settings: Settings) -> Iterator[Target]:
    server = S3Server(tmp_path / "s3.log")
    server.empty()
    settings.AVATAR_BACKUP_S3 = {
        "endpoint_url": server.url,
        "region_name": "us-east-1",
        "access_key": ACCESS["aws_access_key_id"],
        "secret_key": ACCESS["aws_secret_access_key"],
    }
    yield open_target(f"s3://{BUCKET}/site")
    server.stop()


class TestBucket:
    def test_holds_shipments_as_a_folder_does(self, bucket: Target, tombstones_dir: Path, identity: Identity) -> None:
        for key in ("1", "2"):
            write_log(key)
            assert shipping.ship(bucket, [str(identity.to_public())]) == 1
        lose_disk(tombstones_dir)

        assert read_keys(bucket, identity) == ["1", "2"]
        assert shipping.prune(bucket, before=dt.datetime.now(dt.UTC) + dt.timedelta(days=1)) == 2
        assert read_keys(bucket) == []
