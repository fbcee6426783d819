"""A clock for code that takes one as an argument."""

from __future__ import annotations


class Clock:
    """Stands until the test moves it."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now
