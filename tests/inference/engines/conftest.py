"""Tests of the gate run on a virtual clock."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.virtual_clock import list_loop_factories


def pytest_asyncio_loop_factories(config: Any, item: Any) -> Mapping[str, Any]:
    return list_loop_factories(item)
