"""A site whose audio is in a bucket, with its backups in another one, over HTTP with signatures."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.backup_site import BackupSite, without_own
from tests.seaweed import OWNER, SeaweedServer

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def make_bucket_site(seaweed: SeaweedServer, make_site: Callable[..., BackupSite], tmp_path: Path) -> Any:
    def make(name: str, bucket: str, target: str) -> BackupSite:
        return make_site(
            name,
            **{
                "AVATAR_STORAGE": "s3",
                "AVATAR_S3_BUCKET": bucket,
                "AVATAR_S3_ENDPOINT_URL": seaweed.url,
                "AVATAR_S3_REGION": "us-east-1",
                "AVATAR_S3_ACCESS_KEY_ID": OWNER[0],
                "AVATAR_S3_SECRET_ACCESS_KEY": OWNER[1],
                "AVATAR_BACKUP_TARGET": f"s3://{target}/backups",
            },
            **seaweed.make_environment(),
        )

    return make


def read_contents(seaweed: SeaweedServer, bucket: str) -> dict[str, bytes]:
    return {key: seaweed.client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in seaweed.list_keys(bucket)}


class TestSiteInABucket:
    def test_is_restored_into_another_bucket(self, seaweed: SeaweedServer, make_bucket_site: Any) -> None:
        audio, target, other_audio = (seaweed.make_bucket() for _ in range(3))
        site = make_bucket_site("site", audio, target)
        site.fill(20)
        name = site.back_up()
        other = make_bucket_site("other", other_audio, target)

        other.manage("restore", name, "--yes")

        assert read_contents(seaweed, other_audio) == read_contents(seaweed, audio)
        assert len(seaweed.list_keys(audio)) == 20
        assert without_own(other.read_rows()) == without_own(site.read_rows())

    def test_gets_back_what_was_lost_and_keeps_what_is_newer(
        self, seaweed: SeaweedServer, make_bucket_site: Any
    ) -> None:
        audio, target = seaweed.make_bucket(), seaweed.make_bucket()
        site = make_bucket_site("site", audio, target)
        site.fill(6, label="before")
        name, before = site.back_up(), read_contents(seaweed, audio)
        site.fill(4, label="after")
        lost = next(iter(before))
        seaweed.client.delete_object(Bucket=audio, Key=lost)

        site.manage("restore", name, "--yes")

        contents = read_contents(seaweed, audio)
        assert contents.items() >= before.items()
        assert len(contents) == 10

    def test_says_that_the_target_is_away_and_changes_nothing(
        self, seaweed: SeaweedServer, make_bucket_site: Any
    ) -> None:
        audio, target = seaweed.make_bucket(), seaweed.make_bucket()
        site = make_bucket_site("site", audio, target)
        site.fill(2)
        name, rows = site.back_up(), site.read_rows()
        seaweed.stop()
        try:
            for arguments in (("backup",), ("restore", name, "--yes"), ("list_backups",)):
                assert f"s3://{target}/backups" in site.fail(*arguments)
        finally:
            seaweed.start()
        assert without_own(site.read_rows()) == without_own(rows)
        site.manage("verify_backup", name)
