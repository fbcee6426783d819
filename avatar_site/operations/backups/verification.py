"""Verifies a backup: restores it into a scratch folder, opens it there with Django, compares counts and contents."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from django.utils import timezone

from avatar_site.operations.backups import audio, catalogue, database, packing, runs
from avatar_site.operations.backups.copies import CopyFailed, hold_backup_lock, make_scratch, work_on_copy
from avatar_site.operations.backups.manifest import BadManifest, IndexedFile, Manifest, VerificationRecord
from avatar_site.operations.backups.preparation import CheckRequest, CheckResult
from avatar_site.operations.backups.targets import TargetError
from avatar_site.operations.models import RunKind

if TYPE_CHECKING:
    from django.contrib.auth.models import User
    from pyrage.x25519 import Identity

    from avatar_site.operations.backups.targets import Target

logger = logging.getLogger(__name__)


class VerificationFailed(Exception):
    """The backup is damaged. The message says what is wrong; the record in the target says it as well."""


@dataclass(frozen=True, slots=True)
class Copy:
    """A backup that was fetched: a folder like a data folder, and its database, which PostgreSQL has elsewhere."""

    folder: Path
    #: None: without a database.
    database: database.LoadedDatabase | None = None
    #: None: without audio.
    files: list[IndexedFile] | None = None
    #: Names of audio that was only compared, for want of its key.
    compared: list[str] = field(default_factory=list)


def verify_backup(
    *, target: Target, name: str, identities: Sequence[Identity] = (), requested_by: User | None = None
) -> VerificationRecord:
    """
    Restore a backup into a scratch folder, compare, and write the record of it into the target.

    An encrypted one without its key is only compared with its checksums, and the record says so. Raises LockHeld,
    NoSuchBackup, TargetError, VerificationFailed, and OSError when the scratch folder's disk is full.
    """
    with hold_backup_lock():
        return verify_while_locked(target=target, name=name, identities=identities, requested_by=requested_by)


def verify_while_locked(
    *, target: Target, name: str, identities: Sequence[Identity] = (), requested_by: User | None = None
) -> VerificationRecord:
    """As `verify_backup`, for a caller that holds the lock."""
    began_s = time.monotonic()
    problem, is_checksum_only = "", False
    with runs.recorded(RunKind.VERIFICATION, name=name, requested_by=requested_by):
        try:
            manifest = catalogue.read_manifest(target, name)
            try:
                _restore_and_check(manifest, target=target, identities=identities)
            except packing.NoKey:
                is_checksum_only = True
                _compare_checksums(manifest, target=target)
        except (packing.Damaged, BadManifest, CopyFailed, database.LoadFailed) as error:
            problem = str(error)
        except VerificationFailed as error:
            problem = str(error)
        now = timezone.now()
        restored_at = None if problem else now
        if is_checksum_only and not problem:
            earlier = catalogue.read_record(target, name)
            restored_at = earlier.restored_at if earlier else None
        record = VerificationRecord(
            name=name,
            verified_at=now,
            took_s=round(time.monotonic() - began_s, 1),
            problem=problem,
            is_checksum_only=is_checksum_only,
            restored_at=restored_at,
        )
        try:
            catalogue.write_record(target, record)
        except TargetError as error:
            # A disk that can only be read is a good place for a backup.
            logger.warning("the verification of %s is not recorded: %s", name, error)
        if problem:
            raise VerificationFailed(problem)
    return record


def _restore_and_check(manifest: Manifest, *, target: Target, identities: Sequence[Identity]) -> None:
    with (
        make_scratch("verify") as scratch,
        fetch_copy(manifest, target=target, folder=scratch, identities=identities, may_compare=True) as copy,
    ):
        check_copy(manifest, copy)


@contextmanager
def fetch_copy(
    manifest: Manifest,
    *,
    target: Target,
    folder: Path,
    identities: Sequence[Identity],
    parts: Collection[str] = ("database", "audio"),
    may_compare: bool = False,
) -> Iterator[Copy]:
    """
    Fetch, decrypt and decompress a backup into a folder, comparing checksums. A scratch database is dropped at the end.

    `may_compare`: audio that earlier runs encrypted, to a key that is not here, is compared and not fetched. Raises
    packing.Damaged, packing.NoKey, BadManifest, TargetError, database.LoadFailed.
    """
    files, compared = None, []
    if manifest.audio is not None and "audio" in parts:
        fetched = audio.fetch_audio(
            manifest, target=target, folder=folder, identities=identities, may_compare=may_compare
        )
        files, compared = fetched.files, fetched.compared
    if manifest.database is None or "database" not in parts:
        yield Copy(folder, None, files, compared)
        return
    path = folder / ("avatar.sqlite3" if manifest.vendor == "sqlite" else "database.pgdump")
    catalogue.fetch_member(target, manifest.database, path, identities=identities)
    with database.loaded(path, vendor=manifest.vendor) as loaded:
        yield Copy(folder, loaded, files, compared)


def check_copy(manifest: Manifest, copy: Copy) -> None:
    """Have a child process open the copy and compare it with the manifest. Raises VerificationFailed, CopyFailed."""
    if copy.database is None:
        return
    missing = [*copy.compared, *manifest.audio.missing] if manifest.audio else []
    request = CheckRequest(row_counts=dict(manifest.row_counts), files=copy.files, missing=missing)
    result = work_on_copy("check", request, CheckResult, folder=copy.folder, database_url=copy.database.database_url)
    if result.problems:
        more = f" (and {len(result.problems) - 3} more)" if len(result.problems) > 3 else ""
        raise VerificationFailed("; ".join(result.problems[:3]) + more)


def _compare_checksums(manifest: Manifest, *, target: Target) -> None:
    """Read every stored file, and compare its checksum. Raises packing.Damaged, BadManifest, TargetError."""
    for member in catalogue.list_members(manifest):
        catalogue.check_stored(target, member)
    for stored in catalogue.read_objects(target, manifest):
        catalogue.check_stored(target, stored)
