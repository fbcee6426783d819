from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from django.db import connection
from django.db.migrations.loader import MigrationLoader
from django.utils import translation

from avatar_site.operations.database_checks import Problem, check_database
from conversations.models import Conversation
from tests import factories

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif("connection.vendor != 'sqlite'", reason="looks at SQLite's file"),
]


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A copy of a database in which somebody has talked."""
    conversation = factories.create_conversation()
    for number in range(200):
        factories.create_turn(conversation, text=f"{number} 今天的天氣很好，我們可以一起出去走一走。" * 5)
    copy = tmp_path / "avatar.sqlite3"
    with closing(sqlite3.connect(copy)) as target:
        connection.connection.backup(target)
    return copy


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    file = tmp_path / "media/conversations/1/2/3.ogg"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"OggS")
    return file


def check(database: Path) -> list[Problem]:
    known = set(MigrationLoader(None).disk_migrations)
    findings = check_database(database=database, media_root=database.parent / "media", known=known)
    return [finding.problem for finding in findings]


class TestCheckDatabase:
    def test_finds_nothing_where_nothing_is_wrong(self, database: Path, recording: Path) -> None:
        assert check(database) == []

    def test_finds_nothing_before_the_first_start(self, tmp_path: Path) -> None:
        assert check(tmp_path / "avatar.sqlite3") == []

    @pytest.mark.parametrize("place", [0, 1 / 4, 1 / 2, 3 / 4])
    def test_finds_damage(self, database: Path, place: float) -> None:
        size = database.stat().st_size
        with database.open("r+b") as file:
            file.seek(int(size * place) // 4096 * 4096)
            file.write(b"\xa5" * 4096 * 4)

        assert check(database) == [Problem.DAMAGED]

    def test_finds_that_its_end_is_missing(self, database: Path) -> None:
        with database.open("r+b") as file:
            file.truncate(database.stat().st_size // 2)

        assert check(database) == [Problem.DAMAGED]

    @pytest.mark.parametrize("is_there", [True, False])
    def test_finds_recordings_without_rows(self, database: Path, recording: Path, is_there: bool) -> None:
        """Somebody else's folder, a database that was removed: without this, people begin again without theirs."""
        if is_there:
            with closing(sqlite3.connect(database)) as changed, changed:
                changed.execute("DELETE FROM conversations_turn")
        else:
            database.unlink()

        assert check(database) == [Problem.EMPTY]

    def test_finds_that_a_newer_program_made_it(self, database: Path) -> None:
        with closing(sqlite3.connect(database)) as changed, changed:
            # The second is of an app that is not installed any more: nobody's business.
            for app, name in (("conversations", "0099_later"), ("old", "0001_initial")):
                changed.execute(
                    "INSERT INTO django_migrations (app, name, applied) VALUES (?, ?, '2030-01-01')", [app, name]
                )

        assert check(database) == [Problem.NEWER]

    def test_says_what_to_do_in_both_languages(self, database: Path) -> None:
        database.write_bytes(b"no database" * 1000)
        [finding] = check_database(database=database, media_root=database.parent, known=set())

        with translation.override("en"):
            assert "backup" in str(finding.sentence)
        with translation.override("zh-hant"):
            assert "備份" in str(finding.sentence)
        assert finding.detail == "file is not a database"
        assert Conversation.objects.exists()
