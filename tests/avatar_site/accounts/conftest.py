from collections.abc import Iterator

import pytest
from django.core.cache import caches


@pytest.fixture(autouse=True)
def _forget_failures() -> Iterator[None]:
    yield
    caches["throttle"].clear()
