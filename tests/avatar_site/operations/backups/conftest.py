"""Fixtures of the tests of backups: sites in folders, and a server of S3 that checks signatures."""

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
    """A site without content."""
    return make_site()


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory, prepared_data: Path) -> BackupSite:
    """A site with two conversations of 20 turns, and its backup. Tests take copies of it."""
    site = BackupSite(tmp_path_factory.mktemp("filled"))
    shutil.copytree(prepared_data, site.data_dir)
    site.fill(40)
    site.back_up()
    return site


@pytest.fixture
def full_site(filled: BackupSite, tmp_path: Path) -> BackupSite:
    """A site with 40 turns, each with its audio, and no backup."""
    site = BackupSite(tmp_path / "site", target=str(tmp_path / "target"))
    shutil.copytree(filled.data_dir, site.data_dir)
    return site


@pytest.fixture
def saved_site(full_site: BackupSite, filled: BackupSite) -> BackupSite:
    """A site with 40 turns that are all in its one backup."""
    shutil.copytree(filled.target, full_site.target)
    return full_site
