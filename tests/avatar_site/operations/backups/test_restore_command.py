from __future__ import annotations

from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from pytest_django import Settings

NAME = "20261127T033000Z-abcd"


class TestRestoreCommand:
    @pytest.mark.parametrize(
        ("content", "sentence"),
        [
            (b"{", "cannot be read: Input data was truncated"),
            (b'{"format": 99}', "cannot be read: it is of format 99, made by a newer AVATAR"),
        ],
    )
    def test_says_that_a_manifest_cannot_be_read(
        self, settings: Settings, tmp_path: Path, content: bytes, sentence: str
    ) -> None:
        manifest = tmp_path / "manifests" / f"{NAME}.json"
        manifest.parent.mkdir()
        manifest.write_bytes(content)
        settings.AVATAR_BACKUP_TARGET = str(tmp_path)

        with pytest.raises(CommandError, match=sentence) as raised:
            call_command("restore", NAME, "--yes")
        assert str(raised.value).startswith(f"Backup {NAME} cannot be read")
        assert str(raised.value).endswith("Nothing was changed.")

    @pytest.mark.parametrize("name", ["../../etc/passwd", "latest", NAME])
    def test_says_that_there_is_no_such_backup(self, settings: Settings, tmp_path: Path, name: str) -> None:
        settings.AVATAR_BACKUP_TARGET = str(tmp_path)

        with pytest.raises(CommandError, match=r"no backup|no verified backup|not the name of a backup"):
            call_command("restore", name, "--yes")
