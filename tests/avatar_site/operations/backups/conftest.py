"""What the tests of backups share: sites in folders, and a server of S3 that checks signatures."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pytest_django import Settings

from tests.backup_site import BackupSite
from tests.seaweed import SeaweedServer


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedServer]:
    server = SeaweedServer(tmp_path_factory.mktemp("seaweed"))
    yield server
    server.stop()


@pytest.fixture
def bucket(seaweed: SeaweedServer, settings: Settings) -> str:
    """An empty bucket, with the settings of its server."""
    settings.AVATAR_BACKUP_S3 = seaweed.make_settings()
    return seaweed.make_bucket()


@pytest.fixture(scope="session")
def prepared_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of a site whose database is migrated and empty."""
    site = BackupSite(tmp_path_factory.mktemp("prepared"))
    site.prepare()
    return site.data_dir


@pytest.fixture
def make_site(tmp_path: Path, prepared_data: Path) -> Callable[..., BackupSite]:
    """Makes sites that share the target of backups, each with an empty database."""

    def make(name: str = "site", **environment: str) -> BackupSite:
        site = BackupSite(tmp_path / name, target=str(tmp_path / "target"), **environment)
        shutil.copytree(prepared_data, site.data_dir)
        return site

    return make


@pytest.fixture
def site(make_site: Callable[..., BackupSite]) -> BackupSite:
    return make_site()
