from __future__ import annotations

from pathlib import Path

import pytest
from pytest_django import Settings

from avatar_site.operations import startup
from avatar_site.operations.locks import hold_lock


class TestInterruptedSwitch:
    @pytest.fixture(autouse=True)
    def releases(self, settings: Settings, tmp_path: Path) -> Path:
        settings.BASE_DIR = tmp_path
        return tmp_path / ".releases"

    def test_is_none_without_releases(self) -> None:
        assert startup.find_interrupted_switch() == ""

    def test_is_one_whose_journal_was_left(self, releases: Path) -> None:
        releases.mkdir()
        (releases / "journal.json").write_text("{}")

        assert "`make rollback` goes back" in startup.find_interrupted_switch()

    def test_is_none_that_is_under_way(self, releases: Path) -> None:
        releases.mkdir()
        (releases / "journal.json").write_text("{}")

        with hold_lock(releases, "lock"):
            assert startup.find_interrupted_switch() == ""
