from __future__ import annotations

import threading

import pytest
from django.utils import timezone, translation

from avatar_site.operations.backups.listing import Lister, Listing


def make_listing(address: str) -> Listing:
    return Listing(address, timezone.now())


class SlowTarget:
    """A read that begins when it is asked for, and ends when it is let."""

    def __init__(self) -> None:
        self.reads = 0
        self.may_end = threading.Event()

    def read(self) -> Listing:
        self.reads += 1
        number = self.reads
        assert self.may_end.wait(60)
        return make_listing(f"read {number}")


class TestLister:
    def test_reads_anew_each_time(self) -> None:
        target = SlowTarget()
        target.may_end.set()
        lister = Lister(target.read)

        assert [found.address for _ in range(2) if (found := lister.get(timeout_s=60))] == ["read 1", "read 2"]

    def test_has_all_wait_for_one_read(self) -> None:
        target = SlowTarget()
        lister = Lister(target.read)

        assert [lister.get(timeout_s=0) for _ in range(3)] == [None] * 3
        target.may_end.set()
        found = lister.get(timeout_s=60)

        assert found is not None
        # The one that was asked for first, or the one after it, if that has ended in between.
        assert found.address in ("read 1", "read 2")
        assert target.reads <= 2

    def test_returns_the_last_one_while_the_target_is_slow(self) -> None:
        target = SlowTarget()
        target.may_end.set()
        lister = Lister(target.read)
        first = lister.get(timeout_s=60)
        target.may_end.clear()

        assert lister.get(timeout_s=0) is first
        target.may_end.set()

    def test_tries_again_after_an_error(self) -> None:
        def fail() -> Listing:
            raise RuntimeError("unexpected")

        lister = Lister(fail)

        for _ in range(2):
            with pytest.raises(RuntimeError, match="unexpected"):
                lister.get(timeout_s=60)

    def test_reads_in_the_language_of_who_asks(self) -> None:
        lister = Lister(lambda: make_listing(translation.get_language() or ""))

        with translation.override("en"):
            found = lister.get(timeout_s=60)

        assert found is not None
        assert found.address == "en"
