import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db import connection, connections
from django.db.migrations.recorder import MigrationRecorder

from avatar_site.lib.stored_files import FEW_ORPHANS
from avatar_site.operations.database_checks import check_before_start
from tests import factories


@pytest.fixture
def another_database(tmp_path: Path, django_db_blocker: object) -> Iterator[Path]:
    """The default connection leads to a file of the test's own."""
    path = tmp_path / "other.sqlite3"
    with django_db_blocker.unblock():  # type: ignore[attr-defined]  # a fixture of pytest-django, which has no public type
        before = connections["default"]
        other = before.copy()
        other.settings_dict = before.settings_dict | {"NAME": str(path)}
        connections["default"] = other
        yield path
        other.close()
        connections["default"] = before


def keep_file(name: str) -> None:
    default_storage.save(name, ContentFile(b"sound"))


class TestDamage:
    def test_finds_a_file_that_is_no_database(self, another_database: Path) -> None:
        another_database.write_bytes(b"not a database at all" * 1000)

        finding = check_before_start()

        assert finding
        assert "damaged" in finding.problem
        assert "restore the last backup" in finding.remedy

    def test_finds_pages_that_were_overwritten(self, another_database: Path) -> None:
        with sqlite3.connect(another_database) as made:
            made.execute("CREATE TABLE turn (text TEXT)")
            made.executemany("INSERT INTO turn VALUES (?)", [("words " * 100,)] * 500)
        made.close()
        with another_database.open("r+b") as file:
            file.seek(40_000)
            file.write(b"\xff" * 20_000)

        finding = check_before_start()

        assert finding
        assert "damaged" in finding.problem

    def test_is_content_with_a_new_file(self, another_database: Path) -> None:
        assert check_before_start() is None


@pytest.mark.django_db
class TestMigrations:
    def test_is_content_with_its_own(self) -> None:
        assert check_before_start() is None

    def test_finds_one_of_a_newer_version(self) -> None:
        MigrationRecorder(connection).record_applied("voices", "0999_future")

        finding = check_before_start()

        assert finding
        assert "voices.0999_future" in finding.problem
        assert "newer" in finding.remedy

    def test_passes_over_those_of_applications_that_are_not_ours(self) -> None:
        MigrationRecorder(connection).record_applied("something_else", "0999_future")

        assert check_before_start() is None


@pytest.mark.django_db
class TestLostRows:
    @pytest.mark.parametrize("folder", ["conversations/1/a", "voices/1/a"])
    def test_finds_recordings_beside_an_empty_database(self, folder: str) -> None:
        keep_file(f"{folder}/turn.ogg")
        User.objects.all().delete()

        finding = check_before_start()

        assert finding
        assert "knows of no recordings" in finding.problem
        assert "Restore the database" in finding.remedy

    def test_is_content_with_a_few_files_that_wait_to_be_removed(self, alice: User) -> None:
        for number in range(FEW_ORPHANS):
            keep_file(f"conversations/1/{number}/turn.ogg")

        assert check_before_start() is None

    def test_finds_many_files_of_another_database(self, alice: User) -> None:
        for number in range(FEW_ORPHANS + 1):
            keep_file(f"conversations/1/{number}/turn.ogg")

        assert check_before_start()

    def test_is_content_where_there_are_rows(self, alice: User) -> None:
        for number in range(FEW_ORPHANS + 1):
            keep_file(f"conversations/1/{number}/turn.ogg")
        factories.create_turn(factories.create_conversation(alice))

        assert check_before_start() is None
