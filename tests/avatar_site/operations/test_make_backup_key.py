from __future__ import annotations

import stat
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from avatar_site.operations.backups import packing


class TestMakeBackupKey:
    def test_writes_a_key_that_opens_what_is_encrypted_to_it(self, tmp_path: Path) -> None:
        path, told = tmp_path / "key.txt", StringIO()

        call_command("make_backup_key", path, stdout=told)

        (identity,) = packing.read_identities(path)
        (public,) = [word for word in told.getvalue().split() if word.startswith("age1")]
        assert str(identity.to_public()) == public
        assert packing.check_recipients([public])
        assert f"# public key: {public}\n" in path.read_text()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    def test_keeps_a_key_that_is_there(self, tmp_path: Path) -> None:
        path = tmp_path / "key.txt"
        path.write_text("the only key of all backups")

        with pytest.raises(CommandError, match="exists"):
            call_command("make_backup_key", path)

        assert path.read_text() == "the only key of all backups"

    def test_leaves_nothing_where_there_is_no_room(self, tmp_path: Path) -> None:
        with pytest.raises(CommandError, match="No such file"):
            call_command("make_backup_key", tmp_path / "no-folder" / "key.txt")
