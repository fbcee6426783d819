"""Backups and restores that are killed, run out of disk, or lose their target."""

import json
import random
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.backup_site import BackupSite, kill_after, without_own

# Each command is a process that loads Django.
pytestmark = pytest.mark.timeout(300)

#: Moments of a kill in one test; `make bench-backup --kills 10` tries more of them, on more data.
MOMENTS = 3


def choose_moments(took_s: float) -> list[float]:
    """One in each part of the time that a run took: the first is in time for one that takes half of that."""
    return [(0.2 + 0.8 * (part + random.random()) / MOMENTS) * took_s for part in range(MOMENTS)]


class TestKilled:
    def test_backup_costs_neither_the_site_nor_the_last_backup(self, full_site: BackupSite) -> None:
        site = full_site
        began_s = time.monotonic()
        last = site.back_up()
        took_s = time.monotonic() - began_s
        killed = 0
        for number, after_s in enumerate(choose_moments(took_s)):
            site.fill(20, label=f"later {number}")
            rows, files = site.read_rows(), site.read_files()

            killed += kill_after(site, "backup", after_s=after_s)

            assert without_own(site.read_rows()) == without_own(rows)
            assert site.read_files() == files
        assert killed
        site.manage("verify_backup", last)
        # What a kill leaves if it happens in the middle of a write, which chance seldom does.
        (Path(site.target) / "db" / f".{last}.sqlite3.gz.0123456789abcdef.part").write_bytes(b"half")
        (site.data_dir / "scratch" / "backup-killed").mkdir(parents=True, exist_ok=True)
        assert "verified" in site.manage("backup")
        assert site.list_scratch() == []
        assert not [path for path in Path(site.target).rglob("*") if path.name.startswith(".")]

    def test_restore_leaves_the_state_before_or_the_restored_one(self, saved_site: BackupSite) -> None:
        site, name = saved_site, saved_site.find_newest()
        old = without_own(site.read_rows())
        site.fill(20, label="new")
        new = without_own(site.read_rows())
        reference = BackupSite(site.data_dir.parent / "reference", target=site.target)
        shutil.copytree(site.data_dir, reference.data_dir)
        began_s = time.monotonic()
        reference.manage("restore", name, "--yes")
        took_s = time.monotonic() - began_s
        killed = 0
        for after_s in choose_moments(took_s):
            killed += kill_after(site, "restore", name, "--yes", after_s=after_s)

            found = without_own(site.read_rows())
            assert found in (old, new)
            if found == new:
                # The product runs on: every turn has its audio.
                assert len(site.read_files()) >= 60
        assert killed
        site.manage("restore", name, "--yes")
        assert without_own(site.read_rows()) == old
        site.manage("verify_backup", name)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 160 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=160m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill_disk(folder: Path, *, but_for: int) -> Path:
    filler = folder / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(folder).free - but_for))
    return filler


class TestFullDisk:
    def test_of_the_target_costs_no_earlier_backup(
        self, make_site: Callable[..., BackupSite], small_disk: Path
    ) -> None:
        site = make_site(AVATAR_BACKUP_TARGET=str(small_disk / "target"))
        site.fill(20)
        name = site.back_up()
        site.fill(60, size=100_000, label="large")
        filler = fill_disk(small_disk, but_for=2_000_000)

        assert "full" in site.fail("backup")

        filler.unlink()
        site.manage("verify_backup", name)
        assert [each["name"] for each in json.loads(site.manage("list_backups", "--json"))] == [name]

    def test_of_the_data_costs_nothing(self, tmp_path: Path, small_disk: Path, prepared_data: Path) -> None:
        site = BackupSite(small_disk, target=str(tmp_path / "target"))
        shutil.copytree(prepared_data, site.data_dir)
        site.fill(10, size=50_000)
        name = site.back_up()
        filler = fill_disk(small_disk, but_for=4_000_000)
        rows, files = without_own(site.read_rows()), site.read_files()

        # Each before it writes what does not fit.
        for what, arguments in (
            ("a copy of the database", ("backup",)),
            ("the audio of the backup", ("restore", name, "--yes")),
        ):
            assert re.search(f"{what} needs .* MiB are free", site.fail(*arguments))
            assert without_own(site.read_rows()) == rows
            assert site.read_files() == files

        filler.unlink()
        site.back_up()
        site.manage("restore", name, "--yes")
        assert without_own(site.read_rows()) == rows
