"""Fixtures of the tests of operations: data folders to copy, each made once."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.backup_site import BackupSite
from tests.virtual_clock import list_loop_factories


def pytest_asyncio_loop_factories(config: Any, item: Any) -> Mapping[str, Any]:
    return list_loop_factories(item)


@pytest.fixture(scope="session")
def prepared_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of a site whose database is migrated and empty."""
    site = BackupSite(tmp_path_factory.mktemp("prepared"))
    site.prepare()
    return site.data_dir


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory, prepared_data: Path) -> Path:
    """The data folder of a site with one conversation of 6 turns, each with its audio."""
    site = BackupSite(tmp_path_factory.mktemp("small"))
    shutil.copytree(prepared_data, site.data_dir)
    site.fill(6)
    return site.data_dir
