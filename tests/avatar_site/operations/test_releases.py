from __future__ import annotations

import datetime as dt
import json
import shutil
from pathlib import Path
from typing import Any

import pyrage
import pytest
from django.utils import timezone
from pytest_django import Settings

from avatar_site import version
from avatar_site.operations import releases
from avatar_site.operations.locks import BACKUP_LOCK, hold_lock
from tests.backup_site import BackupSite
from tests.s3 import BUCKET, S3Server


def ask(site: BackupSite, *question: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(site.manage("work_on_release", *question))
    return answer


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, prepared_data: Path) -> BackupSite:
    site = BackupSite(tmp_path_factory.mktemp("filled"))
    shutil.copytree(prepared_data, site.data_dir)
    site.fill(2)
    return site


@pytest.fixture
def site(filled: BackupSite, tmp_path: Path) -> BackupSite:
    site = BackupSite(tmp_path)
    shutil.copytree(filled.data_dir, site.data_dir)
    return site


class TestDescribe:
    def test_says_what_code_and_database_are(self, site: BackupSite) -> None:
        facts = ask(site, "describe")

        assert {name: facts[name] for name in ("version", "build", "schema")} == version.describe()
        assert facts["applied"] == facts["schema"]
        assert (facts["data_dir"], facts["profile"]) == (str(site.data_dir), "fake")
        assert "manage.py" in facts["code"]


class TestBackUp:
    def test_backs_up_everything_and_verifies(self, site: BackupSite) -> None:
        backup = ask(site, "back-up", "before-upgrade")["backup"]

        (listed,) = json.loads(site.manage("list_backups", "--json"))
        assert (backup["name"], backup["target"], backup["only"]) == (listed["name"], site.target, "")
        manifest = json.loads((Path(site.target) / "manifests" / f"{backup['name']}.json").read_text())
        assert manifest["reason"] == "before-upgrade"
        assert manifest["audio"]["file_count"] == 2
        assert (Path(site.target) / "manifests" / f"{backup['name']}.verified.json").exists()

    def test_keeps_a_copy_that_needs_no_key(self, site: BackupSite) -> None:
        key = pyrage.x25519.Identity.generate()
        site.environment = site.environment | {"AVATAR_BACKUP_RECIPIENTS": str(key.to_public())}

        backup = ask(site, "back-up", "before-upgrade")["backup"]

        assert (backup["target"], backup["only"]) == (str(site.data_dir / "release-backups"), "database")
        assert [path.suffix for path in Path(backup["target"]).glob("db/*")] == [".gz"]
        assert [path.suffix for path in Path(site.target).glob("db/*")] == [".age"]

    def test_keeps_a_copy_that_needs_no_network(self, site: BackupSite, tmp_path: Path) -> None:
        server = S3Server(tmp_path / "s3.log")
        try:
            server.empty()
            site.environment = site.environment | {
                "AVATAR_BACKUP_TARGET": f"s3://{BUCKET}/site",
                "AVATAR_BACKUP_S3_ENDPOINT_URL": server.url,
                "AVATAR_BACKUP_S3_REGION": "us-east-1",
                "AVATAR_BACKUP_S3_ACCESS_KEY_ID": "test",
                "AVATAR_BACKUP_S3_SECRET_ACCESS_KEY": "test",
            }

            backup = ask(site, "back-up", "before-upgrade")["backup"]
        finally:
            server.stop()

        # The bucket is away: the present state can be backed up, and the one before restored.
        safety = ask(site, "back-up", "before-restore", "--only", "database")["backup"]
        restore = ("restore", backup["name"], "--from", backup["target"], "--only", backup["only"], "--yes")
        site.manage(*restore, "--skip-unreadable-tombstones")
        assert safety["target"] == backup["target"] == str(site.data_dir / "release-backups")

    def test_needs_no_copy_where_the_key_is(self, site: BackupSite, tmp_path: Path) -> None:
        key = pyrage.x25519.Identity.generate()
        (tmp_path / "key").write_text(str(key))
        site.environment = site.environment | {
            "AVATAR_BACKUP_RECIPIENTS": str(key.to_public()),
            "AVATAR_BACKUP_IDENTITY_FILE": str(tmp_path / "key"),
        }

        assert ask(site, "back-up", "before-upgrade")["backup"]["target"] == site.target

    def test_has_nothing_to_do_without_a_database(self, tmp_path: Path) -> None:
        assert ask(BackupSite(tmp_path), "back-up", "before-upgrade") == {"backup": None}

    def test_fails_with_a_sentence(self, site: BackupSite, tmp_path: Path) -> None:
        site.environment = site.environment | {"AVATAR_BACKUP_TARGET": str(tmp_path / "not" / "mounted")}

        assert "Is its disk mounted?" in site.fail("work_on_release", "back-up", "before-upgrade")

    def test_waits_for_no_other_backup(self, site: BackupSite) -> None:
        with hold_lock(site.data_dir, BACKUP_LOCK):
            output = site.fail("work_on_release", "back-up", "before-upgrade")

        assert "another backup is being made" in output


class TestCountSince:
    def test_counts_what_was_created_since_a_backup(self, site: BackupSite) -> None:
        name = site.back_up("--only", "database")
        site.fill(3, label="later")

        assert ask(site, "count-since", name, site.target) == {
            "turns": 3,
            "conversations": 1,
            "voices": 0,
            "users": 0,
        }

    def test_does_not_know_a_backup_that_is_gone(self, site: BackupSite) -> None:
        output = site.fail("work_on_release", "count-since", "20261126T200617Z-7fbb", site.target)

        assert "There is no backup 20261126T200617Z-7fbb" in output


class TestLocalBackups:
    def test_go_when_backups_of_the_database_do(self, site: BackupSite, settings: Settings) -> None:
        site.manage("backup", "--only", "database", "--to", str(site.data_dir / "release-backups"))
        settings.AVATAR_DATA_DIR = site.data_dir
        settings.AVATAR_BACKUP_DATABASE_DAYS = 7

        releases.prune_local_backups(now=timezone.now() + dt.timedelta(days=6))
        were_there = (site.data_dir / "release-backups").exists()
        releases.prune_local_backups(now=timezone.now() + dt.timedelta(days=8))

        assert were_there
        assert not (site.data_dir / "release-backups").exists()

    def test_are_nothing_to_prune_where_there_are_none(self, settings: Settings, tmp_path: Path) -> None:
        settings.AVATAR_DATA_DIR = tmp_path

        releases.prune_local_backups(now=timezone.now())
