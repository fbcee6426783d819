"""What all tests share. Alice owns; Bob does not."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import translation
from pytest_django import DjangoDbBlocker, Settings

from tests import databases, factories, guard, migrated
from tests.spreading import (  # noqa: F401 — hooks, which pytest finds here
    pytest_collection_modifyitems,
    pytest_runtest_teardown,
    pytest_xdist_auto_num_workers,
    pytest_xdist_make_scheduler,
)

_watch = pytest.StashKey[guard.Watch]()


def pytest_configure(config: pytest.Config) -> None:
    workerinput: dict[str, Any] = getattr(config, "workerinput", {})
    config.stash[_watch] = guard.start(workerinput.get("foreign_listeners"))
    if (folder := migrated.share()) is not None:
        config.add_cleanup(partial(migrated.unshare, folder))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """What ran before the tests is found out once: a worker would take the servers of its neighbours for it."""
    node.workerinput["foreign_listeners"] = guard.read_listeners()


@pytest.fixture(autouse=True)
def _reaches_nothing_else(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test that connected to something it did not start, though the code under test handled the refusal."""
    refused = request.config.stash[_watch].refused
    refused.clear()
    yield
    assert not refused, refused


@pytest.fixture
def refused(request: pytest.FixtureRequest) -> list[str]:
    """What the guard has refused in this test; to be cleared by a test that wanted it refused."""
    return request.config.stash[_watch].refused


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        with django_db_blocker.unblock():
            databases.restore_rows_after_flush(monkeypatch)
        yield


@pytest.fixture(autouse=True)
def _starts_in_the_default_language() -> None:
    """LocaleMiddleware leaves the language of a test's last request active in its thread."""
    translation.deactivate()


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


@pytest.fixture(autouse=True)
def tombstones_dir(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A log of deletions of the test's own, as the media folder."""
    root = tmp_path_factory.getbasetemp() / "tombstones"
    settings.AVATAR_TOMBSTONES_DIR = root
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
