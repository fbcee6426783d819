"""What all tests share. Alice owns; Bob does not."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.apps import apps
from django.contrib.auth.models import User
from django.db.models.signals import post_migrate
from django.test import Client
from pytest_django import Settings

from tests import factories


def _restore_stock_voices(**kwargs: object) -> None:
    from voices.models import VoiceProfile
    from voices.stock import write_stock_voices

    write_stock_voices(VoiceProfile)


@pytest.fixture(scope="session", autouse=True)
def _stock_voices_survive_flush() -> None:
    """A test with real transactions empties every table when it ends, those that migrations filled as well."""
    post_migrate.connect(_restore_stock_voices, sender=apps.get_app_config("voices"))


@pytest.fixture(autouse=True)
def media_root(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A media folder of the test's own, made only if the test writes to it."""
    root = tmp_path_factory.getbasetemp() / "media"
    settings.MEDIA_ROOT = root
    yield root
    if root.exists():
        shutil.rmtree(root)


@pytest.fixture(autouse=True)
def spool_dir(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A spool of the test's own, as the media folder."""
    root = tmp_path_factory.getbasetemp() / "spool"
    settings.AVATAR_SPOOL_DIR = root
    yield root
    if root.exists():
        shutil.rmtree(root)


@pytest.fixture
def alice(db: None) -> User:
    return factories.create_user("alice")


@pytest.fixture
def bob(db: None) -> User:
    return factories.create_user("bob")


@pytest.fixture
def alices_client(alice: User) -> Client:
    client = Client()
    client.force_login(alice)
    return client


@pytest.fixture
def bobs_client(bob: User) -> Client:
    client = Client()
    client.force_login(bob)
    return client
