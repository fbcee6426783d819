import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings

from avatar_site.private_files import close_to_others


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """As an older version has left it: readable by every user of the machine."""
    folder = tmp_path / "data"
    (folder / "logs").mkdir(parents=True)
    (folder / "media" / "voices").mkdir(parents=True)
    for name in ("avatar.sqlite3", "avatar.sqlite3-wal", "logs/web.log"):
        (folder / name).write_text("secret")
        (folder / name).chmod(0o644)
    for path in (folder, folder / "logs", folder / "media"):
        path.chmod(0o755)
    return folder


class TestCloseToOthers:
    def test_closes_folders_and_files_and_says_which(self, data_dir: Path) -> None:
        closed = close_to_others(data_dir)

        names = ("", "avatar.sqlite3", "avatar.sqlite3-wal", "logs", "logs/web.log", "media")
        assert set(closed) == {data_dir / name for name in names}
        assert {mode(path) for path in closed if path.is_dir()} == {0o700}
        assert {mode(path) for path in closed if path.is_file()} == {0o600}

    def test_says_nothing_the_second_time(self, data_dir: Path) -> None:
        close_to_others(data_dir)

        assert close_to_others(data_dir) == []

    def test_leaves_a_shared_folder_as_it_is(self, data_dir: Path) -> None:
        data_dir.chmod(0o1777)

        assert close_to_others(data_dir) == []
        assert mode(data_dir) == 0o1777

    def test_follows_no_link(self, data_dir: Path, tmp_path: Path) -> None:
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir(mode=0o755)
        elsewhere.chmod(0o755)
        (data_dir / "link").symlink_to(elsewhere)

        close_to_others(data_dir)

        assert mode(elsewhere) == 0o755


class TestProcesses:
    @pytest.mark.parametrize("module", ["avatar_site.celery", "avatar_site.beat"])
    def test_make_private_files(self, module: str, tmp_path: Path) -> None:
        code = f"import {module}, pathlib; pathlib.Path({str(tmp_path / 'new')!r}).touch()"
        environment = os.environ | {
            "DJANGO_SETTINGS_MODULE": "avatar_site.settings.prod",
            "AVATAR_DATA_DIR": str(tmp_path / "data"),
        }

        subprocess.run([sys.executable, "-c", code], cwd=settings.BASE_DIR, env=environment, umask=0o022, check=True)

        assert mode(tmp_path / "new") == 0o600
        assert mode(tmp_path / "data" / "queue" / "messages") == 0o700
