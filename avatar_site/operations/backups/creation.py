"""Makes a backup: a snapshot of the database, the audio that it names, a manifest; then verifies it by restoring."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pyrage
from django.conf import settings
from django.utils import timezone

import avatar_site
from avatar_site import version
from avatar_site.lib import inference_client
from avatar_site.operations.backups import audio, catalogue, database, packing, runs, verification
from avatar_site.operations.backups.copies import hold_backup_lock, make_scratch
from avatar_site.operations.backups.manifest import Manifest, Member, Reason, VerificationRecord, make_name
from avatar_site.operations.backups.snapshot import Snapshot
from avatar_site.operations.models import RunKind
from avatar_site.operations.tombstones import log, shipping
from inference.interfaces import InferenceError

if TYPE_CHECKING:
    from django.contrib.auth.models import User
    from pyrage.x25519 import Recipient

    from avatar_site.operations.backups.targets import Target

logger = logging.getLogger(__name__)

Part = Literal["database", "audio"]
PARTS: frozenset[Part] = frozenset({"database", "audio"})
#: A backup does not wait longer to learn which models run.
INFERENCE_TIMEOUT_S = 2.0

#: What happens next, for the operator.
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Created:
    """A backup that was made. `record` is None if it was not to be verified."""

    manifest: Manifest
    record: VerificationRecord | None
    #: Bytes that this run wrote: what earlier backups have already is not written again.
    stored_bytes: int
    took_s: float


def create_backup(
    *,
    target: Target,
    parts: Collection[Part] = PARTS,
    recipients: Sequence[str] = (),
    reason: Reason = "manual",
    requested_by: User | None = None,
    say: Say = logger.info,
    progress: audio.Progress = audio.no_progress,
    is_verified: bool = True,
) -> Created:
    """
    Make a backup of the site while it serves, and verify it by restoring it into a scratch folder.

    Raises LockHeld, database.SnapshotFailed, TargetError, packing.BadKey, OSError (a full disk), and
    verification.VerificationFailed: then the backup is kept, marked as damaged.
    """
    with hold_backup_lock():
        return create_while_locked(
            target=target,
            parts=parts,
            recipients=recipients,
            reason=reason,
            requested_by=requested_by,
            say=say,
            progress=progress,
            is_verified=is_verified,
        )


def create_while_locked(
    *,
    target: Target,
    parts: Collection[Part] = PARTS,
    recipients: Sequence[str] = (),
    reason: Reason = "manual",
    requested_by: User | None = None,
    say: Say = logger.info,
    progress: audio.Progress = audio.no_progress,
    is_verified: bool = True,
) -> Created:
    """As `create_backup`, for a caller that holds the lock."""
    began_s = time.monotonic()
    packing.check_recipients(recipients)
    # Lives until this run has verified what it wrote, and nowhere else.
    ephemeral = pyrage.x25519.Identity.generate() if recipients else None
    also_to = [ephemeral.to_public()] if ephemeral else []
    keys: list[str | Recipient] = [*recipients, *also_to]
    with runs.recorded(RunKind.BACKUP, reason=reason, requested_by=requested_by) as run:
        # The lock is held: nothing else writes there.
        catalogue.remove_partial_writes(target, before=timezone.now())
        log.drain()
        shipping.ship(target, recipients)
        with make_scratch("backup") as scratch:
            say("Taking a snapshot of the database …")
            snapshot = database.take_snapshot(scratch)
            run.name = name = make_name(snapshot.taken_at)
            stored = _store_database(snapshot, name, target, scratch, keys) if "database" in parts else None
            copied = None
            if "audio" in parts:
                say(f"Copying audio: {len(snapshot.audio_names)} files …")
                copied = audio.copy_audio(
                    snapshot.audio_names,
                    name=name,
                    target=target,
                    scratch=scratch,
                    recipients=recipients,
                    also_to=also_to,
                    progress=progress,
                )
            manifest = _describe(snapshot, name, reason, recipients, stored, copied)
            catalogue.write_manifest(target, manifest)
        stored_bytes = (stored.size_bytes if stored else 0) + (copied.stored_bytes if copied else 0)
        run.stored_bytes = stored_bytes
    record = None
    if is_verified:
        say("Verifying it by restoring it into a scratch folder …")
        record = verification.verify_while_locked(
            target=target, name=name, identities=[ephemeral] if ephemeral else [], requested_by=requested_by
        )
    return Created(manifest, record, stored_bytes, time.monotonic() - began_s)


def _store_database(
    snapshot: Snapshot, name: str, target: Target, scratch: Path, keys: Sequence[str | Recipient]
) -> Member:
    # A dump is compressed already.
    suffix, compress = ("sqlite3", True) if snapshot.vendor == "sqlite" else ("pgdump", False)
    key = packing.make_key(f"db/{name}.{suffix}", is_compressed=compress, is_encrypted=bool(keys))
    packed_path = scratch / "packed"
    packed = packing.pack(snapshot.path, packed_path, compress=compress, recipients=keys)
    target.write(key, packed_path)
    packed_path.unlink()
    return packed.as_member(key)


def _describe(
    snapshot: Snapshot,
    name: str,
    reason: Reason,
    recipients: Sequence[str],
    stored: Member | None,
    copied: audio.CopiedAudio | None,
) -> Manifest:
    return Manifest(
        name=name,
        taken_at=snapshot.taken_at,
        reason=reason,
        version=avatar_site.__version__,
        build=version.read_build(),
        schema=snapshot.schema,
        vendor=snapshot.vendor,
        row_counts=snapshot.row_counts,
        database=stored,
        audio=copied.part if copied else None,
        recipients=tuple(recipients),
        engines=_read_engines(),
    )


def _read_engines() -> dict[str, str]:
    """Return engine and model of each role; empty when the inference process does not run."""
    inference = inference_client.get_inference()
    try:
        status = inference_client.ask(inference.status(), timeout_s=INFERENCE_TIMEOUT_S)
    except (InferenceError, TimeoutError):
        return {}
    return {role.role.value: f"{role.engine} {role.model}".strip() for role in status.roles}


def read_recipients(given: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the public keys to encrypt to: those given, or those of the settings."""
    return tuple(given) or tuple(settings.AVATAR_BACKUP_RECIPIENTS)


def read_identities(given: str = "") -> list[pyrage.x25519.Identity]:
    """Return the private keys in the file that is given, or in that of the settings; or none. Raises BadKey."""
    path = given or settings.AVATAR_BACKUP_IDENTITY_FILE
    return packing.read_identities(Path(path)) if path else []
