"""Executes every command of docs/runbooks/backup.md and restore.md, in a folder that looks like a checkout."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings

from tests.backup_site import BackupSite
from tests.postgres import TOOLS, Postgres, running_postgres
from tests.runbooks import Runbook, read_blocks
from tests.s3 import BUCKET, S3Server

#: Placeholders on the pages: a name, folders and a bucket.
NAME = "20261127T033000Z-1a2b"
USB, DISK = "/media/usb", "/mnt/disk2"
NAMED = re.compile(r"Backup ([0-9]{8}T[0-9]{6}Z-[0-9a-f]{4}) in ")

#: Which sections a test executes: together they are the page.
BACKUP_SECTIONS = {
    "by_hand": ("Take one", "List them", "Verify one"),
    "disk": ("Put them on another disk",),
    "bucket": ("Keep them in a bucket",),
    "encrypted": ("Encrypt them",),
    "postgres": ("On PostgreSQL",),
}
RESTORE_SECTIONS = {
    "back": ("Go back to a backup", "Only one part", "From another place, and encrypted"),
    "new_machine": ("On a new machine",),
    "postgres": ("On PostgreSQL",),
}

pytestmark = pytest.mark.timeout(300)


class Checkout:
    """A folder with the files that the commands expect, and a site with its data in `var`."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        (folder / "manage.py").symlink_to(settings.BASE_DIR / "manage.py")
        (folder / ".venv").symlink_to(sys.prefix)
        (folder / "usb").mkdir()
        self.site = BackupSite(folder, **environment)
        self.site.data_dir.mkdir(mode=0o700)
        (folder / "var").symlink_to(self.site.data_dir)
        # The pages put settings into `.env`, which the environment would override.
        self.site.environment = {
            name: value for name, value in self.site.environment.items() if name != "AVATAR_BACKUP_TARGET"
        } | {"AVATAR_ENV_FILE": str(folder / ".env")}
        self.replace = {USB: str(folder / "usb"), DISK: str(folder / "disk2")}

    def open(self, page: str, sections: tuple[str, ...]) -> Runbook:
        runbook = Runbook(
            page, folder=self.folder, environment=self.site.environment, replace=self.replace, timeout_s=280
        )
        runbook.left = [block for block in runbook.left if block.heading in sections]
        return runbook

    def count_turns(self) -> int:
        return int(self.site.ask("from conversations.models import Turn; print(Turn.objects.count())"))


@pytest.fixture
def checkout(tmp_path: Path, small_data: Path) -> Checkout:
    checkout = Checkout(tmp_path)
    shutil.copytree(small_data, checkout.site.data_dir, dirs_exist_ok=True)
    return checkout


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[S3Server]:
    server = S3Server(tmp_path / "s3.log")
    server.empty()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Postgres, Path]]:
    """A server with the database of a site with 6 turns, and the site's data folder: both to copy."""
    if not TOOLS:
        pytest.skip("PostgreSQL is not installed (make test installs it)")
    with running_postgres("runbook") as server:
        with server.connect() as connection:
            connection.execute("CREATE DATABASE small")
        site = BackupSite(tmp_path_factory.mktemp("postgres"), DATABASE_URL=server.make_url("small"))
        site.prepare()
        site.fill(6)
        yield server, site.data_dir


@pytest.fixture
def postgres_checkout(tmp_path: Path, postgres: tuple[Postgres, Path]) -> Iterator[Checkout]:
    server, data_dir = postgres
    with server.connect() as connection:
        connection.execute("CREATE DATABASE site TEMPLATE small")
    checkout = Checkout(tmp_path, DATABASE_URL=server.make_url("site"))
    shutil.copytree(data_dir, checkout.site.data_dir, dirs_exist_ok=True)
    yield checkout
    with server.connect() as connection:
        connection.execute("DROP DATABASE site WITH (FORCE)")


class TestSections:
    @pytest.mark.parametrize(("page", "sections"), [("backup.md", BACKUP_SECTIONS), ("restore.md", RESTORE_SECTIONS)])
    def test_are_all_executed(self, page: str, sections: dict[str, tuple[str, ...]]) -> None:
        assert {heading for group in sections.values() for heading in group} == {
            block.heading for block in read_blocks(page)
        }


class TestBackupPage:
    def test_takes_lists_and_verifies(self, checkout: Checkout) -> None:
        runbook = checkout.open("backup.md", BACKUP_SECTIONS["by_hand"])

        said = runbook.run("manage.py backup")
        match = NAMED.search(said)
        assert match is not None, said
        runbook.replace[NAME] = match[1]
        assert "Not in it: the secret key" in said
        assert runbook.run("--only database").count(" verified, ") == 3
        listed = runbook.run("list_backups")
        verified = runbook.run("verify_backup")

        assert match[1] in listed
        assert "DAMAGED" not in listed
        assert verified.count("is complete") == 3
        assert runbook.left == []

    def test_moves_to_another_disk(self, checkout: Checkout) -> None:
        before = checkout.site.back_up()
        runbook = checkout.open("backup.md", BACKUP_SECTIONS["disk"])

        said = runbook.run("install -d")
        listed = runbook.run("cp -a")

        assert f" in {checkout.folder / 'disk2' / 'avatar'}: " in said
        assert before in listed
        assert len(re.findall(r"^[0-9]{8}T", listed, re.MULTILINE)) == 2
        assert (checkout.folder / "disk2" / "avatar").stat().st_mode & 0o077 == 0
        assert runbook.left == []

    def test_keeps_them_in_a_bucket(self, checkout: Checkout, bucket: S3Server) -> None:
        checkout.replace |= {
            "s3://avatar-backups/site": f"s3://{BUCKET}/site",
            "https://s3.example.tw": bucket.url,
            "ACCESS-KEY": "test",
            "SECRET-KEY": "test",
        }
        runbook = checkout.open("backup.md", BACKUP_SECTIONS["bucket"])

        said = runbook.run("AVATAR_BACKUP_S3_ENDPOINT_URL")

        assert f" in s3://{BUCKET}/site: " in said
        assert [key for key in bucket.list_keys() if key.startswith("site/manifests/")]
        assert (checkout.folder / ".env").stat().st_mode & 0o077 == 0
        assert runbook.left == []

    def test_encrypts(self, checkout: Checkout) -> None:
        runbook = checkout.open("backup.md", BACKUP_SECTIONS["encrypted"])

        runbook.run_all()

        assert runbook.left == []
        stored = list((checkout.site.data_dir / "backups" / "db").iterdir())
        assert len(stored) == 2
        assert all(path.read_bytes().startswith(b"age-encryption.org/") for path in stored)

    def test_works_on_postgresql(self, postgres_checkout: Checkout) -> None:
        runbook = postgres_checkout.open("backup.md", BACKUP_SECTIONS["postgres"])

        said = runbook.run("ALTER ROLE")

        assert " verified, " in said
        assert runbook.left == []


class TestRestorePage:
    def test_goes_back(self, checkout: Checkout) -> None:
        site = checkout.site
        runbook = checkout.open("restore.md", RESTORE_SECTIONS["back"])
        name = site.back_up()
        runbook.replace[NAME] = name
        first = site.media_dir / min(site.read_files())
        site.fill(4, label="later")

        assert name in runbook.run("list_backups")
        said = runbook.run(f"restore {NAME}", stdin="yes\n")
        assert f"Backup {name} was restored" in said
        assert checkout.count_turns() == 6
        assert "Confirmed" in runbook.run("confirm_restore")

        # The newest is the safety backup, with the later turns.
        runbook.run("--only database")
        assert checkout.count_turns() == 10
        first.unlink()
        runbook.run("--only audio")
        assert first.exists()

        key = checkout.folder / "usb" / "avatar-backup-key.txt"
        public = re.findall("age1[0-9a-z]+", site.manage("make_backup_key", str(key)))[0]
        site.manage("backup", "--to", str(checkout.folder / "usb" / "avatar"), "--encrypt-to", public)
        site.fill(2, label="last")
        assert "was restored" in runbook.run("--identity")
        assert checkout.count_turns() == 10
        assert runbook.left == []

    def test_restores_on_a_new_machine(self, checkout: Checkout, tmp_path_factory: pytest.TempPathFactory) -> None:
        (checkout.folder / "disk2").mkdir()
        checkout.site.manage("backup", "--to", str(checkout.folder / "disk2" / "avatar"))
        rows, files = checkout.site.read_rows(), checkout.site.read_files()
        new = Checkout(tmp_path_factory.mktemp("new"))
        new.replace = checkout.replace
        runbook = new.open("restore.md", RESTORE_SECTIONS["new_machine"])

        said = runbook.run_all()

        assert "was restored" in said
        assert "Confirmed" in said
        assert runbook.left == []
        assert new.site.read_files() == files
        assert new.site.read_rows()["conversations_turn"] == rows["conversations_turn"]

    def test_works_on_postgresql(self, postgres_checkout: Checkout) -> None:
        postgres_checkout.site.back_up()
        postgres_checkout.site.fill(2, label="later")
        runbook = postgres_checkout.open("restore.md", RESTORE_SECTIONS["postgres"])

        said = runbook.run("ALTER ROLE")

        assert "Confirmed" in said
        assert postgres_checkout.count_turns() == 6
        assert runbook.left == []
