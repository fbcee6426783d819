"""Whole backups and restores, by the commands, in a bucket whose server checks signatures; and when it goes away."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pyrage
import pytest

from tests.backup_site import BackupSite, without_own
from tests.cutting_proxy import CuttingProxy
from tests.seaweed import OWNER, SeaweedServer

# Each command is a process that loads Django.
pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def make_bucket_site(tmp_path: Path, prepared_data: Path, seaweed: SeaweedServer) -> Callable[..., BackupSite]:
    """Makes a site with an empty database; its target is a bucket. The server's address can be another one."""

    def make(name: str, bucket: str, *, url: str = "", keys: tuple[str, str] = OWNER, **more: str) -> BackupSite:
        environment = {**seaweed.make_environment(keys), **more}
        if url:
            environment["AVATAR_BACKUP_S3_ENDPOINT_URL"] = url
        site = BackupSite(tmp_path / name, target=f"s3://{bucket}/site", **environment)
        shutil.copytree(prepared_data, site.data_dir)
        return site

    return make


@pytest.fixture
def site(make_bucket_site: Callable[..., BackupSite], bucket: str) -> BackupSite:
    return make_bucket_site("site", bucket)


@pytest.fixture
def proxy(seaweed: SeaweedServer) -> Iterator[CuttingProxy]:
    with CuttingProxy(seaweed.port) as proxy:
        yield proxy


class TestRoundTrip:
    def test_is_equal_in_rows_and_bytes(self, site: BackupSite, make_bucket_site: Callable[..., BackupSite]) -> None:
        site.fill(40)
        rows, files = site.read_rows(), site.read_files()
        name = site.back_up()
        bucket = site.target.removeprefix("s3://").partition("/")[0]
        empty = make_bucket_site("empty", bucket)

        (listed,) = json.loads(site.manage("list_backups", "--json"))
        empty.manage("restore", name, "--yes")

        assert (listed["name"], listed["is_verified"], listed["is_encrypted"]) == (name, True, False)
        assert without_own(empty.read_rows()) == without_own(rows)
        assert rows["conversations_turn"][0] == 40
        assert empty.read_files() == files

    def test_is_equal_if_it_is_encrypted_and_the_audio_lies_in_a_bucket_as_well(
        self, seaweed: SeaweedServer, bucket: str, make_bucket_site: Callable[..., BackupSite], tmp_path: Path
    ) -> None:
        identity = pyrage.x25519.Identity.generate()
        key_file = tmp_path / "key.txt"
        key_file.write_text(str(identity))
        storage = seaweed.make_bucket()
        site = make_bucket_site(
            "site",
            bucket,
            AVATAR_STORAGE="s3",
            AVATAR_S3_BUCKET=storage,
            **{name.replace("BACKUP_", ""): value for name, value in seaweed.make_environment().items()},
        )
        site.fill(12)
        rows = site.read_rows()
        contents = {key: read(seaweed, storage, key) for key in seaweed.list_keys(storage)}
        name = site.back_up("--encrypt-to", str(identity.to_public()))
        for key in contents:
            seaweed.client.delete_object(Bucket=storage, Key=key)

        refused = site.fail("restore", name, "--yes")
        site.manage("restore", name, "--yes", "--identity", str(key_file))

        assert "Nothing was changed" in refused
        assert without_own(site.read_rows()) == without_own(rows)
        assert {key: read(seaweed, storage, key) for key in seaweed.list_keys(storage)} == contents
        assert len(contents) == 12
        assert not site.media_dir.exists()


class TestBucketThatGoesAway:
    def test_in_a_backup_costs_neither_the_site_nor_the_last_backup(
        self, make_bucket_site: Callable[..., BackupSite], bucket: str, proxy: CuttingProxy
    ) -> None:
        site = make_bucket_site("site", bucket, url=proxy.url)
        site.fill(10, size=100_000)
        last = site.back_up()
        site.fill(20, size=100_000, label="later")
        rows, files = site.read_rows(), site.read_files()
        # Each connection takes a few files and breaks.
        proxy.cut(up_after_bytes=50_000, times=10_000)

        said = site.fail("backup")
        cut_count = proxy.cut_count
        proxy.cut(times=0)

        assert site.target in said
        assert "connection" in said.lower()
        assert cut_count
        assert without_own(site.read_rows()) == without_own(rows)
        assert site.read_files() == files
        (listed,) = json.loads(site.manage("list_backups", "--json"))
        assert (listed["name"], listed["is_verified"]) == (last, True)
        site.manage("verify_backup", last)
        second = site.back_up()
        assert [each["name"] for each in json.loads(site.manage("list_backups", "--json"))] == [second, last]
        assert site.list_scratch() == []

    def test_in_a_restore_changes_nothing(
        self, make_bucket_site: Callable[..., BackupSite], bucket: str, proxy: CuttingProxy
    ) -> None:
        site = make_bucket_site("site", bucket, url=proxy.url)
        site.fill(4, size=400_000)
        name = site.back_up()
        site.fill(4, label="later")
        rows, files = site.read_rows(), site.read_files()
        # Resumed twice, a download gets no further than some 200 kB.
        proxy.cut(down_after_bytes=1, times=10_000)

        said = site.fail("restore", name, "--yes")
        cut_count = proxy.cut_count
        proxy.cut(times=0)

        assert "Nothing was changed" in said
        assert cut_count
        assert without_own(site.read_rows()) == without_own(rows)
        assert site.read_files() == files
        site.manage("restore", name, "--yes")
        assert site.read_rows()["conversations_turn"][0] == 4

    def test_or_was_never_there_is_said_in_a_sentence(
        self, make_bucket_site: Callable[..., BackupSite], bucket: str
    ) -> None:
        missing = make_bucket_site("missing", "avatar-no-such-bucket")
        refused = make_bucket_site("refused", bucket, keys=(OWNER[0], "another"))

        for command in (["backup"], ["list_backups"], ["verify_backup"], ["restore", "latest", "--yes"]):
            assert "there is no bucket avatar-no-such-bucket" in missing.fail(*command)
            assert "SignatureDoesNotMatch" in refused.fail(*command)


def read(seaweed: SeaweedServer, bucket: str, key: str) -> bytes:
    content: bytes = seaweed.client.get_object(Bucket=bucket, Key=key)["Body"].read()
    return content
