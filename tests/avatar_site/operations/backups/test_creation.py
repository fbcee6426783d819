"""Whole backups, by the command, of a site in a folder."""

import gzip
import hashlib
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pyrage
import pytest

from tests.backup_site import BackupSite

# Each command is a process that loads Django.
pytestmark = pytest.mark.timeout(300)


def list_backups(site: BackupSite) -> list[dict[str, object]]:
    backups: list[dict[str, object]] = json.loads(site.manage("list_backups", "--json"))
    return backups


def list_objects(site: BackupSite) -> set[Path]:
    return {path for path in (Path(site.target) / "audio" / "objects").rglob("*") if path.is_file()}


def read_content(path: Path) -> bytes:
    """Return what can be read of a stored file without a key: compression hides nothing."""
    content = path.read_bytes()
    return gzip.decompress(content) if path.suffix == ".gz" else content


class TestBackup:
    def test_is_verified_and_says_what_is_not_in_it(self, full_site: BackupSite) -> None:
        site = full_site

        said = site.manage("backup")

        assert "verified" in said
        assert "40 files of audio" in said
        assert "Not in it: the secret key" in said.splitlines()[-1]
        (listed,) = list_backups(site)
        assert listed["name"] == said.split()[1]
        assert listed["is_verified"] is True

    def test_writes_only_the_audio_that_is_new(self, saved_site: BackupSite) -> None:
        site = saved_site
        before = {path: path.stat().st_mtime_ns for path in list_objects(site)}

        site.fill(10, label="second")
        site.back_up()

        assert len(before) == 40
        assert len(list_objects(site)) == 50
        assert {path: path.stat().st_mtime_ns for path in before} == before

    def test_of_one_part_has_no_other(self, full_site: BackupSite) -> None:
        site = full_site

        site.back_up("--only", "database")
        assert list_objects(site) == set()
        assert len(list((Path(site.target) / "db").iterdir())) == 1

        site.back_up("--only", "audio")
        assert len(list_objects(site)) == 40
        assert len(list((Path(site.target) / "db").iterdir())) == 1

    def test_can_be_read_by_its_user_alone(self, saved_site: BackupSite) -> None:
        site = saved_site

        for path in Path(site.target).rglob("*"):
            assert path.stat().st_mode & 0o077 == 0, path

    def test_names_a_file_that_is_missing_though_its_row_lives(self, full_site: BackupSite) -> None:
        site = full_site
        lost = next(path for path in site.media_dir.rglob("*") if path.is_file())
        lost.unlink()

        said = site.fail("backup")

        assert "1 files of audio are missing" in said
        assert str(lost.relative_to(site.media_dir)) in said
        # The rest is there, and verified.
        assert len(list_backups(site)) == 1

    def test_is_refused_while_another_is_made(self, full_site: BackupSite) -> None:
        site = full_site
        with (site.data_dir / "backup.lock").open("a") as lock:
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX)
            assert "Another backup is being made" in site.fail("backup")
        site.back_up()

    def test_is_recorded_with_its_verification(self, full_site: BackupSite) -> None:
        site = full_site
        name = site.back_up()

        with sqlite3.connect(site.data_dir / "avatar.sqlite3") as database:
            runs = database.execute(
                "SELECT kind, state, name, problem FROM operations_backuprun ORDER BY id"
            ).fetchall()[-2:]
        assert runs == [("backup", "done", name, ""), ("verification", "done", name, "")]

    def test_that_was_killed_reads_as_interrupted_after_the_next(self, full_site: BackupSite) -> None:
        site = full_site
        killed = site.start("backup")
        assert killed.stdout is not None
        while not any(name.startswith("backup-") for name in site.list_scratch()):
            assert killed.poll() is None
        killed.kill()
        killed.communicate()

        site.back_up()

        with sqlite3.connect(site.data_dir / "avatar.sqlite3") as database:
            runs = database.execute("SELECT kind, state, problem FROM operations_backuprun ORDER BY id").fetchall()
        assert runs[-3] == ("backup", "failed", "It was interrupted.")
        assert site.list_scratch() == []


class TestEncryptedBackup:
    @pytest.fixture
    def identity(self) -> pyrage.x25519.Identity:
        return pyrage.x25519.Identity.generate()

    @pytest.fixture
    def key_file(self, identity: pyrage.x25519.Identity, tmp_path: Path) -> Path:
        path = tmp_path / "key.txt"
        path.write_text(f"# created by a test\n{identity}\n")
        path.chmod(0o600)
        return path

    def test_has_nothing_readable_and_was_verified_by_decrypting(
        self, site: BackupSite, identity: pyrage.x25519.Identity
    ) -> None:
        site.fill(5, label="kept secret")
        name = site.back_up("--encrypt-to", str(identity.to_public()))

        readable = [read_content(path) for path in Path(site.target).rglob("*") if path.is_file()]
        assert all(b"secret" not in content for content in readable)
        assert all(b"conversations/" not in content for content in readable)
        assert not {hashlib.sha256(content).hexdigest() for content in readable} & {*site.read_files().values()}
        # The verification that follows a backup restores it, with a key that only that run had.
        record = json.loads((Path(site.target) / "manifests" / f"{name}.verified.json").read_bytes())
        assert record["problem"] == ""
        assert record["is_checksum_only"] is False

    def test_is_only_compared_without_its_key(
        self, full_site: BackupSite, identity: pyrage.x25519.Identity, key_file: Path
    ) -> None:
        site = full_site
        site.back_up("--encrypt-to", str(identity.to_public()))

        assert "was not restored" in site.manage("verify_backup")
        # The restore that followed the backup still counts.
        assert "verified" in site.manage("list_backups").splitlines()[-1]
        assert "was restored into a scratch folder" in site.manage("verify_backup", "--identity", str(key_file))

    def test_of_the_second_night_is_verified_though_its_audio_is_of_the_first(
        self, site: BackupSite, identity: pyrage.x25519.Identity
    ) -> None:
        site.fill(5, label="first")
        site.back_up("--encrypt-to", str(identity.to_public()))
        site.fill(5, label="second")

        name = site.back_up("--encrypt-to", str(identity.to_public()))

        (listed,) = [each for each in list_backups(site) if each["name"] == name]
        assert listed["is_verified"] is True
        assert listed["is_checksum_only"] is False

    def test_is_restored_with_its_key_and_not_without(
        self,
        full_site: BackupSite,
        make_site: Callable[..., BackupSite],
        identity: pyrage.x25519.Identity,
        key_file: Path,
    ) -> None:
        site = full_site
        site.back_up("--encrypt-to", str(identity.to_public()))
        other = make_site("other")

        assert "--identity FILE" in other.fail("restore", "latest", "--yes")
        other.manage("restore", "latest", "--yes", "--identity", str(key_file))

        assert other.read_files() == site.read_files()


class TestVerifyBackup:
    def test_finds_a_flipped_bit_in_the_database(self, saved_site: BackupSite) -> None:
        site, name = saved_site, saved_site.find_newest()
        (stored,) = (Path(site.target) / "db").iterdir()
        content = bytearray(stored.read_bytes())
        content[len(content) // 2] ^= 1
        stored.write_bytes(content)

        assert f"Backup {name} is damaged" in site.fail("verify_backup")
        (listed,) = list_backups(site)
        assert listed["is_verified"] is False
        assert str(listed["problem"]) in site.manage("list_backups")
        assert "Nothing was changed" in site.fail("restore", name, "--yes")

    def test_finds_truncated_and_missing_audio(self, saved_site: BackupSite) -> None:
        site, name = saved_site, saved_site.find_newest()
        stored = sorted(list_objects(site))[0]
        content = stored.read_bytes()

        stored.write_bytes(content[:-1])
        assert f"Backup {name} is damaged" in site.fail("verify_backup", name)
        stored.unlink()
        assert f"Backup {name} is damaged" in site.fail("verify_backup", name)
        stored.write_bytes(content)
        assert "is complete" in site.manage("verify_backup", name)

    def test_says_that_there_is_no_such_backup(self, site: BackupSite) -> None:
        name = "20200101T000000Z-0000"
        assert f"There is no backup {name}" in site.fail("verify_backup", name)
        assert "'../../etc/passwd' is not the name of a backup" in site.fail("verify_backup", "../../etc/passwd")
        assert "There are no backups" in site.fail("verify_backup")
