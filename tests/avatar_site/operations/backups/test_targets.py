from __future__ import annotations

import datetime as dt
import io
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from django.utils import translation
from pytest_django import Settings

from avatar_site.operations.backups.targets import (
    BadTarget,
    BucketTarget,
    FolderTarget,
    Target,
    TargetError,
    is_safe_key,
    open_target,
)

EARLIER = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
LATER = dt.datetime(2100, 1, 1, tzinfo=dt.UTC)


@pytest.fixture
def data_dir(settings: Settings, tmp_path: Path) -> Path:
    settings.AVATAR_DATA_DIR = tmp_path / "data"
    settings.AVATAR_DATA_DIR.mkdir()
    return Path(settings.AVATAR_DATA_DIR)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(b"content")
    return path


@pytest.fixture
def folder(data_dir: Path) -> Path:
    return data_dir / "backups"


@pytest.fixture
def target(folder: Path) -> FolderTarget:
    return FolderTarget(folder)


def read(target: Target, key: str) -> bytes:
    content = io.BytesIO()
    target.read(key, content)
    return content.getvalue()


def list_keys(target: Target, prefix: str = "") -> list[str]:
    return [entry.key for entry in target.list(prefix)]


class TestFolderTarget:
    def test_gives_back_what_was_written(self, target: FolderTarget, source: Path) -> None:
        target.write("db/a.sqlite3.gz", source)

        assert read(target, "db/a.sqlite3.gz") == b"content"
        assert source.exists()

    def test_replaces_a_file(self, target: FolderTarget, source: Path) -> None:
        target.write("manifests/a.json", source)
        source.write_bytes(b"other")
        target.write("manifests/a.json", source)

        assert read(target, "manifests/a.json") == b"other"
        assert list_keys(target) == ["manifests/a.json"]

    def test_lists_the_files_of_a_folder_with_their_sizes_and_ages(
        self, target: FolderTarget, source: Path, folder: Path
    ) -> None:
        for key in ("audio/objects/ab/1", "audio/index", "audio2/x", "db/y"):
            target.write(key, source)
        os.utime(folder / "audio/index", (0, 0))

        entries = list(target.list("audio/"))

        assert [entry.key for entry in entries] == ["audio/index", "audio/objects/ab/1"]
        assert entries[0].size_bytes == len(b"content")
        assert entries[0].modified_at == dt.datetime.fromtimestamp(0, dt.UTC)

    def test_is_empty_until_something_is_written(self, target: FolderTarget, folder: Path) -> None:
        assert list_keys(target) == list_keys(target, "db/") == []
        with pytest.raises(FileNotFoundError):
            read(target, "db/a")
        target.delete("db/a")
        assert not folder.exists()

    def test_deletes_a_file_once_or_twice(self, target: FolderTarget, source: Path) -> None:
        target.write("db/a", source)

        target.delete("db/a")
        target.delete("db/a")

        assert list_keys(target) == []

    def test_closes_files_and_folders_to_others(self, target: FolderTarget, source: Path, folder: Path) -> None:
        previous = os.umask(0)
        try:
            target.write("audio/objects/ab/1", source)
        finally:
            os.umask(previous)

        modes = {path.relative_to(folder).as_posix(): path.stat().st_mode & 0o777 for path in folder.rglob("*")}
        assert modes == {"audio": 0o700, "audio/objects": 0o700, "audio/objects/ab": 0o700, "audio/objects/ab/1": 0o600}
        assert folder.stat().st_mode & 0o777 == 0o700

    def test_syncs_the_file_before_its_name_and_the_name_before_it_returns(
        self, target: FolderTarget, source: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        target.write("db/other", source)
        calls: list[str] = []
        sync, replace = os.fsync, Path.replace

        def record_sync(descriptor: int) -> None:
            calls.append("sync " + Path(f"/proc/self/fd/{descriptor}").readlink().name.split(".")[0])
            sync(descriptor)

        def record_replace(path: Path, to: Path) -> Path:
            calls.append(f"rename to {to.name}")
            return replace(path, to)

        monkeypatch.setattr(os, "fsync", record_sync)
        monkeypatch.setattr(Path, "replace", record_replace)

        target.write("db/a", source)

        # A hidden name has nothing before its first full stop.
        assert calls == ["sync ", "rename to a", "sync db"]

    def test_leaves_the_old_file_when_a_write_fails(self, target: FolderTarget, source: Path, folder: Path) -> None:
        target.write("db/a", source)
        source.unlink()
        source.mkdir()

        with pytest.raises(IsADirectoryError):
            target.write("db/a", source)

        assert read(target, "db/a") == b"content"
        assert [path.name for path in (folder / "db").iterdir()] == ["a"]

    def test_shows_no_partial_file_and_removes_old_ones(self, target: FolderTarget, source: Path, folder: Path) -> None:
        target.write("db/a", source)
        partial = folder / "db" / ".b.0123456789abcdef.part"
        partial.write_bytes(b"con")

        assert list_keys(target) == ["db/a"]
        assert target.remove_partial_writes(before=EARLIER) == 0
        assert target.remove_partial_writes(before=LATER) == 1
        assert [path.name for path in (folder / "db").iterdir()] == ["a"]

    def test_does_not_follow_links_out_of_itself_when_it_lists(
        self, target: FolderTarget, source: Path, folder: Path, tmp_path: Path
    ) -> None:
        target.write("db/a", source)
        (folder / "db" / "b").symlink_to(tmp_path)

        assert list_keys(target) == ["db/a"]

    @pytest.mark.parametrize("key", ["../a", "db/../../a", "/etc/passwd", "db//a", "db/.", "", "db/.hidden", "a\\b"])
    def test_refuses_a_key_that_leads_out(self, target: FolderTarget, source: Path, tmp_path: Path, key: str) -> None:
        before = sorted(tmp_path.rglob("*"))

        for call in (
            lambda: target.write(key, source),
            lambda: target.read(key, io.BytesIO()),
            lambda: target.delete(key),
            lambda: list(target.list(f"{key}/")),
        ):
            with pytest.raises(TargetError, match="not the name of a file"):
                call()

        assert sorted(tmp_path.rglob("*")) == before

    def test_does_not_take_the_place_of_a_disk_that_is_not_mounted(self, source: Path, tmp_path: Path) -> None:
        target = FolderTarget(tmp_path / "not mounted" / "backups")

        for call in (
            lambda: target.write("db/a", source),
            lambda: target.read("db/a", io.BytesIO()),
            lambda: list(target.list("db/")),
        ):
            with pytest.raises(TargetError, match="not mounted is not there"):
                call()

        assert not (tmp_path / "not mounted").exists()

    def test_raises_the_error_of_the_other_file_as_it_is(self, target: FolderTarget, source: Path) -> None:
        target.write("db/a", source)

        with Path("/dev/full").open("wb", buffering=0) as full, pytest.raises(OSError, match="No space") as raised:
            target.read("db/a", full)

        assert not isinstance(raised.value, TargetError)

    def test_takes_writers_of_one_key_from_many_threads(self, target: FolderTarget, tmp_path: Path) -> None:
        sources = []
        for letter in "abcdefgh":
            sources.append(tmp_path / letter)
            sources[-1].write_bytes(letter.encode() * 100_000)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda source: target.write("db/a", source), sources * 5))

        content = read(target, "db/a")
        assert len(content) == 100_000
        assert len(set(content)) == 1
        assert list_keys(target) == ["db/a"]


class TestRiskOfAFolder:
    def test_is_described_on_the_disk_of_the_data(self, target: FolderTarget) -> None:
        with translation.override("en"):
            assert "same disk" in target.describe_risk()
        with translation.override("zh-hant"):
            assert "同一顆硬碟" in target.describe_risk()

    def test_is_none_on_another_disk(self, data_dir: Path) -> None:
        elsewhere = Path("/proc")
        assert elsewhere.stat().st_dev != data_dir.stat().st_dev

        assert FolderTarget(elsewhere / "avatar" / "backups").describe_risk() == ""


class TestOpeningATarget:
    def test_gives_a_folder(self, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("HOME", str(tmp_path / "home"))

        assert open_target(" backups ").address == str(tmp_path / "backups")
        assert open_target("~/backups").address == str(tmp_path / "home" / "backups")
        assert isinstance(open_target("/mnt/disk"), FolderTarget)

    def test_gives_a_bucket(self) -> None:
        target = open_target("s3://avatar-backups/site/one/")

        assert isinstance(target, BucketTarget)
        assert target.address == "s3://avatar-backups/site/one"
        assert open_target("s3://avatar-backups").address == "s3://avatar-backups"

    @pytest.mark.parametrize(
        "address",
        ["", " ", "s3://", "s3:bucket", "s3://UP", "s3://a_b/x", "s3://bucket/../x", "s3://bucket/a//b", "ftp://x/y"],
    )
    def test_refuses_what_is_none(self, address: str) -> None:
        with pytest.raises(BadTarget):
            open_target(address)

    def test_does_not_repeat_a_secret_in_an_address(self) -> None:
        with pytest.raises(BadTarget) as raised:
            open_target("s3://key:sesame@bucket/x")

        assert "sesame" not in str(raised.value)

    def test_refuses_a_file(self, data_dir: Path, source: Path) -> None:
        with pytest.raises(BadTarget, match="not a folder"):
            open_target(str(source))

    @pytest.mark.parametrize("name", ["", "media", "media/backups"])
    def test_refuses_the_folders_of_the_data(self, data_dir: Path, name: str) -> None:
        with pytest.raises(BadTarget, match="holds the data itself"):
            open_target(str(data_dir / name))


class TestKey:
    @pytest.mark.parametrize("key", ["a", "db/a.gz", "tombstones/5f/2026-01-01T00:00:00Z-1.jsonl", "聲音/a"])
    def test_is_safe_below_the_target(self, key: str) -> None:
        assert is_safe_key(key)

    @pytest.mark.parametrize("key", ["", "/", "a/", "/a", "a//b", "..", "a/../b", ".a", "a/.b", "a\\b", "a\0", "a\nb"])
    def test_is_not_safe_otherwise(self, key: str) -> None:
        assert not is_safe_key(key)
