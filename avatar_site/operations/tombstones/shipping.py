"""
Takes the log to the target of backups, and reads it there: the disk that has the log may be the one that is lost.

A shipment is `tombstones/INSTALLATION/TIME-BYTES-SHA256.jsonl.gz`, `.age` after it where there are recipients; size and
SHA-256 are those of its lines. It is written once. One that was written twice, by a process that was killed before it
noted the first, has the same entries again.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import io
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from django.utils import timezone
from pyrage.x25519 import Identity

from avatar_site.operations.backups import packing
from avatar_site.operations.backups.targets import Target
from avatar_site.operations.tombstones import log
from avatar_site.operations.tombstones.log import Entry

PREFIX = "tombstones/"
#: Entries of one shipment: about 3 MB.
BATCH = 10_000
TIMEOUT_S = 60.0
#: Shipments that are read at once: they are small, and a bucket takes its time for each.
READERS = 8
_KEY = re.compile(
    r"tombstones/(?P<installation>[0-9a-f]{16})/(?P<time>[0-9]{8}T[0-9]{6}Z)-(?P<size>[0-9]+)-(?P<sha256>[0-9a-f]{64})"
    r"\.jsonl(?:\.gz)?(?:\.age)?"
)


class UnreadableShipment(Exception):
    """A shipment is damaged, or encrypted to other keys. The message names it, for the operator."""


@dataclass(frozen=True, slots=True)
class Shipment:
    """What the key of a shipment says of it. Nothing in it is newer than `shipped_at`."""

    key: str
    installation: str
    shipped_at: dt.datetime
    content_bytes: int
    content_sha256: str

    def is_older_than(self, moment: dt.datetime) -> bool:
        # The time in the key is in whole seconds, rounded down.
        return self.shipped_at + dt.timedelta(seconds=1) < moment


def ship(target: Target, recipients: Sequence[str]) -> int:
    """
    Take to the target what it does not have yet. Return how many entries. Drains nothing: see `log.drain`.

    Costs a look at the ends of two files where there is nothing new. Raises TargetError, packing.BadKey and OSError.
    """
    shipped_count = 0
    with log.locked_file("shipping.lock", TIMEOUT_S):
        state = log.read_shipped()
        last, shipped = log.read_last_sequence(), state.get(target.address, 0)
        if shipped == last:
            return 0
        entries = (entry for entry in log.read_log() if entry.sequence > shipped)
        while batch := list(islice(entries, BATCH)):
            _write_shipment(batch, target, recipients)
            state[target.address] = batch[-1].sequence
            log.write_shipped(state)
            shipped_count += len(batch)
        if state.get(target.address, 0) < last:
            # The end of the log is a mark, left by pruning.
            state[target.address] = last
            log.write_shipped(state)
    return shipped_count


def read_all(
    target: Target, identities: Sequence[Identity], *, since: dt.datetime | None = None, is_forced: bool = False
) -> list[Entry]:
    """
    Return the entries of the local log and of all shipments, of every installation that shipped there, each once.

    Sorted by time. Shipments all of which is older than `since` are left out: there may be one for each minute of a
    month. One of this installation that cannot be read is no loss while the log is here. Raises UnreadableShipment for
    another one, unless it `is_forced`: then that one is left out. Raises TargetError, OSError.
    """
    local = list(log.read_log())
    own = log.read_installation() if local else ""
    shipments = [each for each in list_shipments(target) if since is None or not each.is_older_than(since)]

    def read(shipment: Shipment) -> list[Entry]:
        try:
            return _read_shipment(shipment, target, identities)
        except (packing.Damaged, packing.NoKey, FileNotFoundError) as error:
            if shipment.installation == own or is_forced:
                log.logger.warning("%s of %s is left out: %s", shipment.key, target.address, error)
                return []
            raise UnreadableShipment(
                f"{shipment.key} in {target.address} says what was deleted, and {error}. Once it is moved away, a"
                " restore brings that back"
            ) from error

    with ThreadPoolExecutor(READERS) as readers:
        shipped = [entry for found in readers.map(read, shipments) for entry in found]
    return merge([*local, *shipped])


def merge(entries: Iterable[Entry]) -> list[Entry]:
    """Return entries each once, sorted by time."""
    return sorted({_identify(entry): entry for entry in entries}.values(), key=log.order)


def list_shipments(target: Target) -> Iterator[Shipment]:
    """Yield the shipments in a target; what else lies there is left out. Raises TargetError."""
    for found in target.list(PREFIX):
        if match := _KEY.fullmatch(found.key):
            shipped_at = dt.datetime.strptime(match["time"], "%Y%m%dT%H%M%SZ").replace(tzinfo=dt.UTC)
            yield Shipment(found.key, match["installation"], shipped_at, int(match["size"]), match["sha256"])


def prune(target: Target, *, before: dt.datetime) -> int:
    """Delete shipments all of which is older than a moment. Return how many. Raises TargetError."""
    outdated = [each for each in list_shipments(target) if each.is_older_than(before)]
    for shipment in outdated:
        target.delete(shipment.key)
    return len(outdated)


def _identify(entry: Entry) -> tuple[object, ...]:
    return entry.installation, entry.sequence, entry.at, entry.table, entry.key


def _write_shipment(entries: Iterable[Entry], target: Target, recipients: Sequence[str]) -> None:
    lines = b"".join(map(log.encode_line, entries))
    name = f"{timezone.now().astimezone(dt.UTC):%Y%m%dT%H%M%SZ}-{len(lines)}-{hashlib.sha256(lines).hexdigest()}.jsonl"
    key = packing.make_key(
        f"{PREFIX}{log.read_installation()}/{name}", is_compressed=True, is_encrypted=bool(recipients)
    )
    # 0700, and beside the log: nothing of it lies in /tmp.
    with tempfile.TemporaryDirectory(dir=log.find_log().parent, prefix=".shipping-") as folder:
        source, packed = Path(folder) / "lines", Path(folder) / "packed"
        source.write_bytes(lines)
        packing.pack(source, packed, compress=True, recipients=recipients)
        target.write(key, packed)


def _read_shipment(shipment: Shipment, target: Target, identities: Sequence[Identity]) -> list[Entry]:
    stored, lines = io.BytesIO(), io.BytesIO()
    target.read(shipment.key, stored)
    stored.seek(0)
    packing.unpack_stream(
        stored,
        lines,
        is_encrypted=packing.is_encrypted_key(shipment.key),
        is_compressed=packing.is_compressed_key(shipment.key),
        identities=identities,
        content_bytes=shipment.content_bytes,
        content_sha256=shipment.content_sha256,
    )
    lines.seek(0)
    return list(log.decode_lines(lines, address=shipment.key))
