from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from django.conf import settings
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder
from django.test import Client

from avatar_site import __version__, version


def git(folder: Path, *arguments: str) -> bytes:
    names = ("-c", "user.name=Operator", "-c", "user.email=operator@example.org")
    return subprocess.run(["git", *names, *arguments], cwd=folder, check=True, capture_output=True).stdout


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Code without git, whose archive id was not written."""
    folder = tmp_path / "avatar"
    (folder / "avatar_site").mkdir(parents=True)
    (folder / "manage.py").write_text("# code\n")
    for name in ("avatar_site/build.txt", ".gitattributes"):
        shutil.copy(settings.BASE_DIR / name, folder / name)
    return folder


@pytest.fixture
def checkout(archive: Path) -> Path:
    git(archive, "init", "--quiet")
    git(archive, "add", ".")
    git(archive, "commit", "--quiet", "--message", "first")
    return archive


class TestBuild:
    def test_is_the_commit_of_a_checkout(self, checkout: Path) -> None:
        assert version.identify(checkout) == git(checkout, "rev-parse", "HEAD").decode()[:12]

    @pytest.mark.parametrize("name", ["manage.py", "avatar_site/new.py"])
    def test_says_that_code_differs_from_the_commit(self, checkout: Path, name: str) -> None:
        (checkout / name).write_text("# other code\n")

        assert version.identify(checkout).endswith("-dirty")

    def test_disregards_files_that_are_not_code(self, checkout: Path) -> None:
        (checkout / "notes.txt").write_text("to do\n")

        assert not version.identify(checkout).endswith("-dirty")

    def test_disregards_the_repository_that_a_hook_is_of(self, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        head = git_head(checkout)
        monkeypatch.setenv("GIT_DIR", "/nowhere")

        assert version.identify(checkout) == head

    def test_is_the_commit_of_an_archive(self, checkout: Path, tmp_path: Path) -> None:
        with tarfile.open(fileobj=io.BytesIO(git(checkout, "archive", "HEAD"))) as tar:
            tar.extractall(tmp_path / "unpacked", filter="data")

        assert version.identify(tmp_path / "unpacked") == git_head(checkout)

    def test_is_a_digest_of_the_code_elsewhere(self, archive: Path) -> None:
        before = version.identify(archive)

        (archive / "manage.py").write_text("# other code\n")

        assert before.startswith("digest-")
        assert version.identify(archive) not in ("", before)

    def test_digests_code_and_not_what_is_made_of_it(self, archive: Path) -> None:
        before = version.identify(archive)

        (archive / "avatar_site" / "__pycache__").mkdir()
        (archive / "avatar_site" / "__pycache__" / "env.cpython-311.pyc").write_bytes(b"\0")
        (archive / "notes.txt").write_text("to do\n")

        assert version.identify(archive) == before

    def test_digests_the_borders_between_files(self, archive: Path) -> None:
        (archive / "static").mkdir()
        (archive / "static" / "ab").write_text("c")
        before = version.identify(archive)

        (archive / "static" / "ab").rename(archive / "static" / "a")
        (archive / "static" / "a").write_text("bc")

        assert version.identify(archive) != before

    def test_is_a_digest_without_a_git_program(self, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(checkout))

        assert version.identify(checkout).startswith("digest-")

    def test_names_code_that_exists(self) -> None:
        assert [name for name in version.CODE if not (settings.BASE_DIR / name).exists()] == []


def git_head(folder: Path) -> str:
    return git(folder, "rev-parse", "HEAD").decode()[:12]


class TestSchemaHeads:
    def test_are_the_newest_migrations_of_the_code(self) -> None:
        heads = version.read_schema_heads()

        assert heads["auth"] == "0012_alter_user_first_name_max_length"
        for app in ("conversations", "voices"):
            names = sorted(path.stem for path in (settings.BASE_DIR / app / "migrations").glob("0*.py"))
            assert heads[app] == names[-1]

    @pytest.mark.django_db
    def test_of_an_up_to_date_database_are_the_same(self) -> None:
        assert version.read_applied_heads() == version.read_schema_heads()

    @pytest.mark.django_db
    def test_of_a_newer_database_are_its_own(self) -> None:
        MigrationRecorder(connection).record_applied("voices", "9999_from_the_future")

        assert version.read_applied_heads()["voices"] == "9999_from_the_future"


class TestCommand:
    def run(self, tmp_path: Path, *arguments: str) -> str:
        environment = {"AVATAR_DATA_DIR": str(tmp_path), "AVATAR_ENV_FILE": "", "PATH": "/usr/bin:/bin"}
        command = [sys.executable, "manage.py", "version", *arguments]
        return subprocess.run(
            command, cwd=settings.BASE_DIR, env=environment, check=True, capture_output=True, text=True
        ).stdout

    def test_shows_ours_and_not_djangos(self, tmp_path: Path) -> None:
        output = self.run(tmp_path)

        assert output.startswith(f"AVATAR {__version__}, build {version.read_build()}\n")
        assert "conversations  0" in output

    def test_tells_programs(self, tmp_path: Path) -> None:
        assert json.loads(self.run(tmp_path, "--json")) == {
            "version": __version__,
            "build": version.read_build(),
            "schema": version.read_schema_heads(),
        }


class TestAdmin:
    def test_shows_version_and_build(self, admin_client: Client) -> None:
        page = admin_client.get("/admin/").content.decode()

        assert f"{__version__} · {version.read_build()}" in page
