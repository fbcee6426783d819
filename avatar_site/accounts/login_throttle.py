"""
Slows password guessing: a growing delay per account and per address, and few password hashes at a time.

Counts live in the cache named "throttle": memory of the one web process, or Redis where there are several.
"""

from __future__ import annotations

import hashlib
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from django.core.cache import BaseCache, caches

from avatar_site.web.limits import group_address

#: A hash takes about 0.3 s of one core, by design. More at a time would stall calls and pages.
MAX_HASHES_AT_A_TIME = 2
HASH_WAIT_S = 3.0


class LoginThrottled(Exception):
    """Too many failures. `wait_s` is how long until the next attempt is looked at."""

    def __init__(self, wait_s: float) -> None:
        super().__init__(f"wait {wait_s:.0f} s")
        self.wait_s = wait_s


class HashingBusy(Exception):
    """Others are logging in, and no hash could be computed within `HASH_WAIT_S`."""


@dataclass(frozen=True, slots=True)
class Policy:
    """`free_failures` cost nothing; each further one doubles the delay, from `first_delay_s` to `max_delay_s`."""

    free_failures: int
    first_delay_s: float
    max_delay_s: float

    def compute_delay_s(self, failures: int) -> float:
        """Return how long after the last of `failures` no further attempt is looked at."""
        excess = failures - self.free_failures
        if excess < 0:
            return 0.0
        # Bounded before the power: a count of thousands must not become a huge number.
        return min(self.max_delay_s, self.first_delay_s * 2.0 ** min(excess, 30))


#: A minute at most: password guessing must not lock the account's owner out for long.
ACCOUNT_POLICY = Policy(free_failures=5, first_delay_s=2.0, max_delay_s=60.0)
#: Higher, since an office shares one address.
ADDRESS_POLICY = Policy(free_failures=20, first_delay_s=2.0, max_delay_s=300.0)
#: Failures are forgotten after this long without one.
FORGET_AFTER_S = 3600


class LoginThrottle:
    """Counts attempts as failed until `clear`, so that attempts at the same moment cannot all pass unseen."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        # Read, decide and write as one step within this process; across processes the cache's own races remain.
        self._lock = threading.Lock()
        self._hashes = threading.BoundedSemaphore(MAX_HASHES_AT_A_TIME)

    @property
    def _cache(self) -> BaseCache:
        return caches["throttle"]

    def reserve(self, *, username: str, address: str) -> None:
        """Count an attempt. Raises LoginThrottled, and then counts nothing."""
        now = self._clock()
        account_key, address_key = _keys(username, address)
        policies = {account_key: ACCOUNT_POLICY, address_key: ADDRESS_POLICY}
        with self._lock:
            known = {key: self._cache.get(key, (0, 0.0)) for key in policies}
            wait_s = max(
                last_at + policies[key].compute_delay_s(failures) - now for key, (failures, last_at) in known.items()
            )
            if wait_s > 0:
                raise LoginThrottled(wait_s)
            for key, (failures, _) in known.items():
                self._cache.set(key, (failures + 1, now), FORGET_AFTER_S)

    def release(self, *, username: str, address: str) -> None:
        """Take back an attempt that was not looked at: failures before it stay counted."""
        with self._lock:
            for key in _keys(username, address):
                self._take_back(key)

    def clear(self, *, username: str, address: str) -> None:
        """Take back the attempt that succeeded: the account's failures are forgotten, the address keeps its others."""
        account_key, address_key = _keys(username, address)
        with self._lock:
            self._cache.delete(account_key)
            self._take_back(address_key)

    def _take_back(self, key: str) -> None:
        failures, last_at = self._cache.get(key, (0, 0.0))
        if failures > 1:
            self._cache.set(key, (failures - 1, last_at), FORGET_AFTER_S)
        else:
            self._cache.delete(key)

    @contextmanager
    def hash_slot(self) -> Iterator[None]:
        """Hold one of the places for computing a password hash. Raises HashingBusy."""
        if not self._hashes.acquire(timeout=HASH_WAIT_S):
            raise HashingBusy
        try:
            yield
        finally:
            self._hashes.release()


def _keys(username: str, address: str) -> tuple[str, str]:
    """Return the keys of the account and of the address, of which a subscriber's /64 of IPv6 is one."""
    return _key("account", username), _key("address", group_address(address))


def _key(kind: str, value: str) -> str:
    normalised = unicodedata.normalize("NFKC", value).casefold()
    # A digest: names may hold what a cache key may not, and need not be readable in Redis.
    return f"login:{kind}:{hashlib.sha256(normalised.encode(errors='surrogatepass')).hexdigest()}"


throttle = LoginThrottle()
