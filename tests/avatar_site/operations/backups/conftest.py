from collections.abc import Callable
from pathlib import Path

import pytest

from tests.backup_site import BackupSite


@pytest.fixture
def make_site(tmp_path: Path) -> Callable[..., BackupSite]:
    """Makes sites that share the target of backups, each with an empty database."""

    def make(name: str = "site", **environment: str) -> BackupSite:
        site = BackupSite(tmp_path / name, target=str(tmp_path / "target"), **environment)
        site.prepare()
        return site

    return make


@pytest.fixture
def site(make_site: Callable[..., BackupSite]) -> BackupSite:
    return make_site()
