"""Lists backups for a page: within seconds, though the target may be a bucket that is away or a disk that hangs."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from django.conf import settings
from django.utils import timezone, translation

from avatar_site.operations.backups import catalogue, targets
from avatar_site.operations.backups.catalogue import ListedBackup


@dataclass(frozen=True, slots=True)
class Listing:
    """The backups in the target, newest first; or why they could not be read. Both sentences are for operators."""

    address: str
    read_at: dt.datetime
    backups: tuple[ListedBackup, ...] = ()
    problem: str = ""
    #: Why backups may be lost together with the data; empty if not.
    risk: str = ""

    def find(self, name: str) -> ListedBackup | None:
        return next((backup for backup in self.backups if backup.name == name), None)


class Lister:
    """
    Reads the list in a thread, one read at a time: concurrent requests share its result.

    A read that outlasts its request goes on, and the next request gets its result. The thread is a daemon: it does not
    keep the process from ending.
    """

    def __init__(self, read: Callable[[], Listing]) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._reading: Future[Listing] | None = None
        self._last: Listing | None = None

    def get(self, *, timeout_s: float) -> Listing | None:
        """Return the list; if it takes longer, the last one that was read, None if there is none."""
        with self._lock:
            if self._reading is None:
                self._reading = Future()
                threading.Thread(
                    target=self._run, args=(self._reading, translation.get_language()), name="backups", daemon=True
                ).start()
            reading = self._reading
        try:
            return reading.result(timeout_s)
        except TimeoutError:
            return self._last

    def _run(self, reading: Future[Listing], language: str | None) -> None:
        try:
            with translation.override(language):
                listing = self._read()
        except BaseException as error:
            with self._lock:
                self._reading = None
            reading.set_exception(error)
        else:
            with self._lock:
                self._reading, self._last = None, listing
            reading.set_result(listing)


def read_listing() -> Listing:
    """Read the list from the target of the settings."""
    address = settings.AVATAR_BACKUP_TARGET
    try:
        target = targets.open_target(address)
        return Listing(
            address=target.address,
            read_at=timezone.now(),
            backups=tuple(catalogue.list_backups(target)),
            risk=target.describe_risk(),
        )
    except (targets.BadTarget, targets.TargetError) as error:
        return Listing(address=address, read_at=timezone.now(), problem=str(error))


lister = Lister(read_listing)
