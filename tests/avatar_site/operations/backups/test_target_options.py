"""The options that name a target: empty is an error, as an unset variable of a shell gives it, and not the default."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from pytest_django import Settings


class TestEmptyTarget:
    @pytest.mark.parametrize(
        "command",
        [
            ("backup", "--to", ""),
            ("list_backups", "--to", ""),
            ("verify_backup", "--from", ""),
            ("restore", "latest", "--from", "", "--yes"),
        ],
    )
    def test_is_refused(self, settings: Settings, tmp_path: Path, command: tuple[str, ...]) -> None:
        settings.AVATAR_DATA_DIR = tmp_path / "data"
        settings.AVATAR_BACKUP_TARGET = str(tmp_path / "target")

        with pytest.raises(CommandError, match="it is empty"):
            call_command(*command)

        assert not (tmp_path / "target").exists()


class TestEmptyName:
    @pytest.mark.django_db
    def test_is_not_the_newest_backup(self, settings: Settings, tmp_path: Path) -> None:
        settings.AVATAR_DATA_DIR = tmp_path / "data"
        settings.AVATAR_BACKUP_TARGET = str(tmp_path / "target")

        with pytest.raises(CommandError, match="not the name of a backup"):
            call_command("verify_backup", "")
