from __future__ import annotations

import datetime as dt
import io
import os
import random
import resource
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from django.utils import translation
from pytest_django import Settings

from avatar_site.lib.disk import is_disk_full
from avatar_site.operations.backups.bucket import BucketTarget
from avatar_site.operations.backups.targets import (
    BadTarget,
    FolderTarget,
    Target,
    TargetError,
    is_safe_key,
    open_target,
)
from tests.cutting_proxy import CuttingProxy
from tests.ports import find_free_port
from tests.s3 import BUCKET, S3Server
from tests.seaweed import OWNER, READER, SeaweedServer

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

        (folder / "db" / ".DS_Store").write_bytes(b"")

        assert list_keys(target) == ["db/a"]
        assert target.remove_partial_writes("db/", before=EARLIER) == 0
        assert target.remove_partial_writes("db/", before=LATER) == 1
        assert sorted(path.name for path in (folder / "db").iterdir()) == [".DS_Store", "a"]

    def test_names_the_limit_of_a_file_system(self, source: Path, folder: Path, tmp_path: Path) -> None:
        """As FAT has it at 4 GiB; here a limit of the process."""
        source.write_bytes(bytes(200_000))
        program = (
            "import sys; from pathlib import Path\n"
            "from avatar_site.operations.backups.targets import FolderTarget, TargetError\n"
            "try: FolderTarget(Path(sys.argv[1])).write('db/a', Path(sys.argv[2]))\n"
            "except TargetError as error: print(error)\n"
        )

        result = subprocess.run(
            [sys.executable, "-c", program, folder, source],
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
            capture_output=True,
            text=True,
            check=True,
        )

        assert result.stdout.startswith(f"{folder}: its file system takes no file of 200,000 bytes"), result.stderr
        assert list((folder / "db").iterdir()) == []

    def test_whose_process_is_killed_in_a_write_keeps_the_old_file(
        self, target: FolderTarget, source: Path, folder: Path, tmp_path: Path
    ) -> None:
        target.write("db/a", source)
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        program = (
            "import sys; from pathlib import Path; from avatar_site.operations.backups.targets import FolderTarget\n"
            "FolderTarget(Path(sys.argv[1])).write('db/a', Path(sys.argv[2]))\n"
        )
        process = subprocess.Popen([sys.executable, "-c", program, folder, pipe])

        with pipe.open("wb", buffering=0) as feed:
            # More than the pipe and a chunk hold: returns when a part of it was read and written.
            feed.write(bytes(3 << 20))
            process.kill()
            process.wait()

        partial = [path for path in (folder / "db").iterdir() if path.name != "a"]
        assert [path.stat().st_size >= 1 << 20 for path in partial] == [True]
        assert read(target, "db/a") == b"content"
        assert list_keys(target) == ["db/a"]
        assert target.remove_partial_writes("db/", before=LATER) == 1
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


class TestFullDisk:
    """A file system of 256 KiB in a private mount namespace."""

    PROGRAM = """
import errno, sys
from pathlib import Path
from avatar_site.lib.disk import is_disk_full
from avatar_site.operations.backups.targets import FolderTarget, TargetError
target = FolderTarget(Path(sys.argv[1]) / "backups")
small, large = Path(sys.argv[2]), Path(sys.argv[3])
target.write("db/a", small)
for key in ("db/a", "db/b"):
    try:
        target.write(key, large)
    except TargetError as error:
        print(is_disk_full(error), error)
with Path(sys.argv[4]).open("wb") as file:
    target.read("db/a", file)
print([path.name for path in (Path(sys.argv[1]) / "backups/db").iterdir()])
target.write("db/b", small)
"""

    def test_is_said_leaves_nothing_and_spares_what_was_there(self, source: Path, tmp_path: Path) -> None:
        place, large, copy = tmp_path / "disk", tmp_path / "large", tmp_path / "copy"
        place.mkdir()
        large.write_bytes(bytes(400_000))
        mount = f"mount -t tmpfs -o size=256k tmpfs '{place}' && exec \"$@\""
        isolate = ["unshare", "--mount", "--map-root-user", "sh", "-c", mount, "sh"]
        if subprocess.run([*isolate, "true"], capture_output=True, check=False).returncode:
            pytest.skip("this machine allows no file system of one's own")

        result = subprocess.run(
            [*isolate, sys.executable, "-c", self.PROGRAM, place, source, large, copy],
            capture_output=True,
            text=True,
            check=False,
        )

        assert result.returncode == 0, result.stderr
        first, second, names = result.stdout.splitlines()
        full = f"True {place}/backups: the disk is full: a file of 400,000 bytes did not fit."
        assert first.startswith(full)
        assert second.startswith(full)
        assert names == "['a']"
        assert copy.read_bytes() == b"content"


class TestWritersOfOneKey:
    """Two processes write it until they are told to stop; a concurrent reader gets one version, whole."""

    READINGS = 20
    PROGRAM = """
import sys
from pathlib import Path
from threading import Thread
from avatar_site.operations.backups.targets import open_target
target = open_target(sys.argv[1])
reader = Thread(target=sys.stdin.read, daemon=True)
target.write("db/a", Path(sys.argv[2]))
print("wrote", flush=True)
reader.start()
while reader.is_alive():
    target.write("db/a", Path(sys.argv[2]))
"""

    def check(self, target: Target, tmp_path: Path, environment: Mapping[str, str]) -> None:
        contents = [letter * 300_000 for letter in (b"a", b"b")]
        processes = []
        for number, content in enumerate(contents):
            source = tmp_path / f"source-{number}"
            source.write_bytes(content)
            processes.append(
                subprocess.Popen(
                    [sys.executable, "-c", self.PROGRAM, target.address, source],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    env=os.environ | environment | {"AVATAR_ENV_FILE": "", "AVATAR_DATA_DIR": str(tmp_path / "child")},
                    text=True,
                )
            )
        for process in processes:
            assert process.stdout
            assert process.stdout.readline() == "wrote\n"
        for _number in range(self.READINGS):
            assert read(target, "db/a") in contents
        assert [process.poll() for process in processes] == [None, None]
        for process in processes:
            process.communicate()
            assert process.returncode == 0
        assert read(target, "db/a") in contents
        assert list_keys(target) == ["db/a"]

    def test_in_a_folder(self, target: FolderTarget, folder: Path, tmp_path: Path) -> None:
        self.check(target, tmp_path, {})

        assert [path.name for path in (folder / "db").iterdir()] == ["a"]

    def test_in_a_bucket(self, seaweed: SeaweedServer, bucket: str, tmp_path: Path) -> None:
        # The settings of tests forget the environment.
        environment = {"DJANGO_SETTINGS_MODULE": "avatar_site.settings.prod", **seaweed.make_environment()}

        self.check(open_target(f"s3://{bucket}/site"), tmp_path, environment)


class TestBucketTarget:
    @pytest.fixture
    def target(self, bucket: str) -> Target:
        return open_target(f"s3://{bucket}/site/one")

    def test_gives_back_what_was_written(
        self, target: Target, source: Path, seaweed: SeaweedServer, bucket: str
    ) -> None:
        target.write("db/a.sqlite3.gz", source)

        assert read(target, "db/a.sqlite3.gz") == b"content"
        assert seaweed.list_keys(bucket) == ["site/one/db/a.sqlite3.gz"]

    def test_replaces_lists_and_deletes(self, target: Target, source: Path) -> None:
        for key in ("audio/objects/ab/1", "audio/index", "audio2/x", "db/y"):
            target.write(key, source)
        source.write_bytes(b"other content")
        target.write("audio/index", source)

        entries = list(target.list("audio/"))
        target.delete("db/y")
        target.delete("db/y")

        assert [(entry.key, entry.size_bytes) for entry in entries] == [("audio/index", 13), ("audio/objects/ab/1", 7)]
        assert all(abs(dt.datetime.now(dt.UTC) - entry.modified_at) < dt.timedelta(minutes=5) for entry in entries)
        assert read(target, "audio/index") == b"other content"
        assert list_keys(target) == ["audio/index", "audio/objects/ab/1", "audio2/x"]
        assert list_keys(target, "nothing/") == []

    def test_lists_more_than_a_page(self, target: Target, source: Path) -> None:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda number: target.write(f"audio/objects/{number:04}", source), range(1005)))

        assert list_keys(target, "audio/") == [f"audio/objects/{number:04}" for number in range(1005)]

    @pytest.mark.parametrize("size", [0, 1 << 20, 20_000_001], ids=["empty", "chunk", "in-parts"])
    def test_takes_a_file_of_any_size(self, target: Target, tmp_path: Path, size: int) -> None:
        source = tmp_path / "large"
        source.write_bytes(random.Random(size).randbytes(size))

        target.write("db/a", source)

        assert read(target, "db/a") == source.read_bytes()
        assert [entry.size_bytes for entry in target.list("db/")] == [size]

    def test_takes_constant_memory(self, target: Target, tmp_path: Path) -> None:
        source = tmp_path / "large"
        with source.open("wb") as file:
            file.truncate(64 << 20)

        tracemalloc.start()
        try:
            target.write("db/a", source)
            with Path(os.devnull).open("wb") as nowhere:
                target.read("db/a", nowhere)
            _current, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

        # Two parts of 8 MiB at most, and boto3's own modules.
        assert peak < 40 << 20

    def test_is_empty_until_something_is_written(self, target: Target) -> None:
        assert list_keys(target) == []
        with pytest.raises(FileNotFoundError):
            read(target, "db/a")
        target.delete("db/a")

    @pytest.mark.parametrize("key", ["../a", "db/../../a", "/etc/passwd", "db//a", ""])
    def test_refuses_a_key_that_leads_out(self, target: Target, source: Path, key: str) -> None:
        for call in (
            lambda: target.write(key, source),
            lambda: target.read(key, io.BytesIO()),
            lambda: target.delete(key),
            lambda: list(target.list(f"{key}/")),
        ):
            with pytest.raises(TargetError, match="not the name of a file"):
                call()

    def test_aborts_old_uploads_of_its_own_that_were_interrupted(
        self, target: Target, seaweed: SeaweedServer, bucket: str
    ) -> None:
        for key in ("site/one/db/a", "site/one/other/a", "other/db/a"):
            upload = seaweed.client.create_multipart_upload(Bucket=bucket, Key=key)
            seaweed.client.upload_part(
                Bucket=bucket, Key=key, UploadId=upload["UploadId"], PartNumber=1, Body=bytes(5 << 20)
            )

        counts = [target.remove_partial_writes("db/", before=before) for before in (EARLIER, LATER, LATER)]

        assert counts == [0, 1, 0]
        left = [
            upload["Key"]
            for folder in ("site/", "other/")
            for upload in seaweed.client.list_multipart_uploads(Bucket=bucket, Prefix=folder).get("Uploads", ())
        ]
        assert left == ["site/one/other/a", "other/db/a"]

    def test_raises_the_errors_of_files_here_as_they_are(self, target: Target, source: Path, tmp_path: Path) -> None:
        target.write("db/a", source)

        with Path("/dev/full").open("wb", buffering=0) as full, pytest.raises(OSError, match="No space") as raised:
            target.read("db/a", full)
        with pytest.raises(FileNotFoundError, match="no such source"):
            target.write("db/b", tmp_path / "no such source")

        assert not isinstance(raised.value, TargetError)

    def test_needs_no_region(
        self, bucket: str, settings: Settings, source: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
        monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
        settings.AVATAR_BACKUP_S3 = settings.AVATAR_BACKUP_S3 | {"region_name": None}
        target = open_target(f"s3://{bucket}")

        target.write("db/a", source)

        assert list_keys(target) == ["db/a"]

    def test_is_shared_by_threads(self, target: Target, tmp_path: Path) -> None:
        sources = []
        for number in range(32):
            sources.append(tmp_path / str(number))
            sources[-1].write_bytes(str(number).encode() * 1000)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda source: target.write(f"db/{source.name}", source), sources))
            contents = list(pool.map(lambda source: read(target, f"db/{source.name}"), sources))

        assert contents == [source.read_bytes() for source in sources]


class TestKeysOfABucket:
    """The server checks signatures."""

    def each_call_is_refused(self, target: Target, source: Path, match: str) -> None:
        for call in (
            lambda: target.write("db/a", source),
            lambda: target.read("db/a", io.BytesIO()),
            lambda: list(target.list("db/")),
            lambda: target.delete("db/a"),
            lambda: target.remove_partial_writes("db/", before=LATER),
        ):
            with pytest.raises(TargetError, match=match) as raised:
                call()
            assert target.address in str(raised.value)
            assert "wrong" not in str(raised.value)

    def test_need_the_right_secret(self, seaweed: SeaweedServer, bucket: str, settings: Settings, source: Path) -> None:
        settings.AVATAR_BACKUP_S3 = seaweed.make_settings((OWNER[0], "wrong"))

        self.each_call_is_refused(open_target(f"s3://{bucket}"), source, r"SignatureDoesNotMatch.*SECRET_ACCESS_KEY")

        assert seaweed.list_keys(bucket) == []

    def test_have_to_be_known(self, seaweed: SeaweedServer, bucket: str, settings: Settings, source: Path) -> None:
        settings.AVATAR_BACKUP_S3 = seaweed.make_settings(("UNKNOWN", OWNER[1]))

        self.each_call_is_refused(open_target(f"s3://{bucket}"), source, "InvalidAccessKeyId")

    def test_that_may_only_read_write_nothing(
        self, seaweed: SeaweedServer, bucket: str, settings: Settings, source: Path
    ) -> None:
        target = open_target(f"s3://{bucket}")
        target.write("db/a", source)
        settings.AVATAR_BACKUP_S3 = seaweed.make_settings(READER)
        reader = open_target(f"s3://{bucket}")

        assert read(reader, "db/a") == b"content"
        for call in (lambda: reader.write("db/b", source), lambda: reader.delete("db/a")):
            with pytest.raises(TargetError, match="AccessDenied"):
                call()
        assert list_keys(target) == ["db/a"]

    def test_are_asked_for_if_there_are_none(
        self, bucket: str, settings: Settings, source: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        settings.AVATAR_BACKUP_S3 = settings.AVATAR_BACKUP_S3 | {"access_key": None, "secret_key": None}
        # The SDK's own places: nothing there, and no question to the network of a cloud.
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
            monkeypatch.delenv(name, raising=False)

        self.each_call_is_refused(open_target(f"s3://{bucket}"), source, "Set AVATAR_BACKUP_S3_ACCESS_KEY_ID")


class TestBucketThatGoesAway:
    def test_by_being_removed_is_named(self, bucket: str, source: Path) -> None:
        target = open_target("s3://avatar-no-such-bucket/x")

        for call in (
            lambda: target.write("db/a", source),
            lambda: target.read("db/a", io.BytesIO()),
            lambda: list(target.list("db/")),
        ):
            with pytest.raises(TargetError, match="there is no bucket avatar-no-such-bucket"):
                call()

    def test_with_its_server_is_an_error_until_it_is_back(
        self, seaweed: SeaweedServer, bucket: str, source: Path, settings: Settings
    ) -> None:
        target = open_target(f"s3://{bucket}")
        target.write("db/a", source)
        seaweed.stop()
        try:
            for call in (
                lambda: target.write("db/b", source),
                lambda: target.read("db/a", io.BytesIO()),
                lambda: list(target.list("db/")),
                lambda: target.delete("db/a"),
            ):
                with pytest.raises(TargetError, match=r"cannot be reached|connection .* was lost"):
                    call()
        finally:
            seaweed.start()

        # The client makes new connections.
        assert list_keys(target) == ["db/a"]
        assert read(target, "db/a") == b"content"

    @pytest.fixture
    def proxy(self, seaweed: SeaweedServer, bucket: str, settings: Settings) -> Iterator[CuttingProxy]:
        with CuttingProxy(seaweed.port) as proxy:
            settings.AVATAR_BACKUP_S3 = seaweed.make_settings(url=proxy.url)
            yield proxy

    @pytest.fixture
    def large(self, tmp_path: Path) -> Path:
        source = tmp_path / "large"
        source.write_bytes(random.Random(1).randbytes(20_000_000))
        return source

    def test_in_a_download_and_returns_is_not_noticed(self, proxy: CuttingProxy, bucket: str, large: Path) -> None:
        target = open_target(f"s3://{bucket}")
        target.write("db/a", large)
        proxy.cut(down_after_bytes=3_000_000, times=2)

        assert read(target, "db/a") == large.read_bytes()

        assert proxy.cut_count == 2
        # Each went on where the one before it stopped.
        assert proxy.down_bytes < 20_500_000

    def test_in_a_download_and_stays_away_is_an_error(self, proxy: CuttingProxy, bucket: str, large: Path) -> None:
        target = open_target(f"s3://{bucket}")
        target.write("db/a", large)
        proxy.cut(down_after_bytes=3_000_000, times=100)

        with pytest.raises(TargetError, match=r"connection to .* was lost"):
            read(target, "db/a")

        assert proxy.cut_count == 3

    def test_in_a_download_that_another_file_replaces_is_an_error(
        self, proxy: CuttingProxy, bucket: str, large: Path, source: Path
    ) -> None:
        """Never the beginning of one and the end of the other."""
        target = open_target(f"s3://{bucket}")
        target.write("db/a", large)
        proxy.cut(down_after_bytes=3_000_000, times=1)
        other = large.with_name("other")
        other.write_bytes(random.Random(2).randbytes(20_000_000))

        class ReplacesOnce(io.BytesIO):
            is_replaced = False

            def write(self, data: Any) -> int:
                if not self.is_replaced:
                    self.is_replaced = True
                    open_target(f"s3://{bucket}").write("db/a", other)
                return super().write(data)

        with pytest.raises(TargetError, match="PreconditionFailed"):
            target.read("db/a", ReplacesOnce())

    def test_in_an_upload_and_returns_is_not_noticed(self, proxy: CuttingProxy, bucket: str, large: Path) -> None:
        target = open_target(f"s3://{bucket}")
        proxy.cut(up_after_bytes=3_000_000, times=1)

        target.write("db/a", large)

        assert proxy.cut_count == 1
        assert read(target, "db/a") == large.read_bytes()

    @pytest.mark.parametrize("size", [2_000_000, 20_000_000], ids=["whole", "in-parts"])
    def test_in_an_upload_and_stays_away_leaves_no_file(
        self, seaweed: SeaweedServer, proxy: CuttingProxy, bucket: str, large: Path, size: int
    ) -> None:
        os.truncate(large, size)
        target = open_target(f"s3://{bucket}")
        proxy.cut(up_after_bytes=1_000_000, times=100)

        with pytest.raises(TargetError, match=r"s3://avatar-.*: .*(connection|Connection)"):
            target.write("db/a", large)

        assert seaweed.list_keys(bucket) == []


class TestRefusalsOfServers:
    """What servers of S3 answer, in the words of their documentation."""

    @pytest.mark.parametrize(
        ("status", "code", "sentence", "is_full"),
        [
            (403, "QuotaExceeded", "the bucket is full", True),
            (507, "XMinioStorageFull", "the bucket is full", True),
            (507, "Whatever", "the bucket is full", True),
            (403, "RequestTimeTooSkewed", "the clock of this machine differs", False),
            (403, "ExpiredToken", "refuses", False),
            (400, "EntityTooLarge", "EntityTooLarge", False),
        ],
    )
    def test_are_put_into_words(
        self, settings: Settings, source: Path, status: int, code: str, sentence: str, is_full: bool
    ) -> None:
        with answering(status, code) as url:
            settings.AVATAR_BACKUP_S3 = {
                "endpoint_url": url,
                "region_name": "us-east-1",
                "access_key": "a",
                "secret_key": "b",
            }
            with pytest.raises(TargetError, match=sentence) as raised:
                open_target("s3://avatar").write("db/a", source)

        assert is_disk_full(raised.value) == is_full
        assert str(raised.value).startswith("s3://avatar: ")


class TestStrangeKeysInABucket:
    def test_are_not_listed(self, settings: Settings, tmp_path: Path, source: Path) -> None:
        """Of moto: SeaweedFS refuses them."""
        server = S3Server(tmp_path / "log")
        try:
            server.empty()
            options = server.as_storage()["OPTIONS"]
            names = ("endpoint_url", "region_name", "access_key", "secret_key")
            settings.AVATAR_BACKUP_S3 = {name: options[name] for name in names}
            target = open_target(f"s3://{BUCKET}/site")
            target.write("audio/a", source)
            for key in ("site/audio/../../etc/passwd", "site/audio//b", "site/audio/folder/", "sitemap/audio/c"):
                server.client.put_object(Bucket=BUCKET, Key=key, Body=b"evil")

            assert list_keys(target) == list_keys(target, "audio/") == ["audio/a"]
        finally:
            server.stop()


class TestRiskOfABucket:
    @pytest.mark.parametrize("url", ["http://127.0.0.1:9000", "http://localhost:9000", "http://[::1]/"])
    def test_is_described_if_this_machine_serves_it(self, settings: Settings, url: str) -> None:
        settings.AVATAR_BACKUP_S3 = settings.AVATAR_BACKUP_S3 | {"endpoint_url": url}

        with translation.override("en"):
            assert "served by this machine" in open_target("s3://avatar").describe_risk()
        with translation.override("zh-hant"):
            assert "這台機器" in open_target("s3://avatar").describe_risk()

    def test_is_described_if_the_audio_of_the_site_lies_in_it(self, settings: Settings) -> None:
        url = "https://s3.example.tw"
        settings.AVATAR_BACKUP_S3 = settings.AVATAR_BACKUP_S3 | {"endpoint_url": url}
        settings.STORAGES = settings.STORAGES | {
            "default": {
                "BACKEND": "avatar_site.storage.Bucket",
                "OPTIONS": {"bucket_name": "avatar", "endpoint_url": url},
            }
        }

        assert open_target("s3://avatar/backups").describe_risk()
        assert open_target("s3://another/backups").describe_risk() == ""

    def test_is_none_elsewhere(self, settings: Settings) -> None:
        assert open_target("s3://avatar").describe_risk() == ""


@contextmanager
def answering(status: int, code: str) -> Iterator[str]:
    """A server that answers everything with one error. Yields its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            body = f"<Error><Code>{code}</Code><Message>It said so.</Message></Error>".encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", find_free_port()), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


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

    @pytest.mark.parametrize(
        "name",
        ["", "media", "media/backups", "scratch/backups", "queue", "tombstones", "logs", "backups-2", "backups/.."],
    )
    def test_refuses_the_folders_of_the_data(self, data_dir: Path, name: str) -> None:
        with pytest.raises(BadTarget, match="holds the data itself"):
            open_target(str(data_dir / name))

    @pytest.mark.parametrize("name", ["backups", "backups/site", "release-backups"])
    def test_takes_the_folders_for_backups_among_the_data(self, data_dir: Path, name: str) -> None:
        assert open_target(str(data_dir / name)).address == str(data_dir / name)


class TestKey:
    @pytest.mark.parametrize("key", ["a", "db/a.gz", "tombstones/5f/2026-01-01T00:00:00Z-1.jsonl", "聲音/a"])
    def test_is_safe_below_the_target(self, key: str) -> None:
        assert is_safe_key(key)

    @pytest.mark.parametrize("key", ["", "/", "a/", "/a", "a//b", "..", "a/../b", ".a", "a/.b", "a\\b", "a\0", "a\nb"])
    def test_is_not_safe_otherwise(self, key: str) -> None:
        assert not is_safe_key(key)
