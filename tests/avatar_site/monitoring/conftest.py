"""Tests of what runs until it is cancelled may run on a virtual clock."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pytest_django import Settings

from tests.virtual_clock import list_loop_factories


def pytest_asyncio_loop_factories(config: Any, item: Any) -> Mapping[str, Any]:
    return list_loop_factories(item)


@pytest.fixture
def data_dir(settings: Settings, tmp_path: Path) -> Path:
    """A data folder of the test's own, with a queue."""
    folder = tmp_path / "data"
    settings.AVATAR_DATA_DIR = folder
    settings.AVATAR_BACKUP_TARGET = str(folder / "backups")
    messages = folder / "queue" / "messages"
    settings.CELERY_BROKER_TRANSPORT_OPTIONS = {"data_folder_in": str(messages), "data_folder_out": str(messages)}
    messages.mkdir(parents=True)
    return folder


@pytest.fixture
def noon() -> dt.datetime:
    return dt.datetime(2026, 11, 27, 4, 0, 12, tzinfo=dt.UTC)
