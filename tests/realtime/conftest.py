"""Tests of calls may run on a virtual clock."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from realtime.call_table import call_table
from tests.virtual_clock import list_loop_factories


def pytest_asyncio_loop_factories(config: Any, item: Any) -> Mapping[str, Any]:
    return list_loop_factories(item)


@pytest.fixture(autouse=True)
def _closed_call_table() -> Iterator[None]:
    """The connection of its thread is closed while the test's database is there."""
    yield
    call_table.close()
