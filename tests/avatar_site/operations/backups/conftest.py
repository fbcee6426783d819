"""What the tests of backups share: a server of S3 that checks signatures."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pytest_django import Settings

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
