"""
Restores a backup: prepared on a copy, and put in the place of the live database by one rename.

Audio is added to the live storage before that, and nothing there is overwritten or removed. Before the rename, the site
is unchanged, and added files have no row; after it, newer audio has no row. Sweeps remove neither until an operator
confirms the restore.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from django.conf import settings
from django.db import DatabaseError
from django.db.migrations.loader import MigrationLoader
from django.utils import timezone

from avatar_site.operations.backups import audio, catalogue, creation, database, packing, targets
from avatar_site.operations.backups.copies import CopyFailed, hold_backup_lock, make_scratch, work_on_copy
from avatar_site.operations.backups.creation import PARTS, Part
from avatar_site.operations.backups.manifest import BadManifest, Manifest
from avatar_site.operations.backups.preparation import PrepareRequest, PrepareResult, RenameRequest, RenameResult
from avatar_site.operations.backups.targets import TargetError
from avatar_site.operations.backups.verification import VerificationFailed, check_copy, fetch_copy
from avatar_site.operations.locks import SERVE_LOCK, LockHeld, hold_lock
from avatar_site.operations.models import Restore
from avatar_site.operations.tombstones import applying, log, shipping

if TYPE_CHECKING:
    import datetime as dt

    from pyrage.x25519 import Identity

    from avatar_site.operations.backups.targets import Target
    from avatar_site.operations.backups.verification import Copy
    from avatar_site.operations.tombstones.log import Entry

logger = logging.getLogger(__name__)

Say = Callable[[str], None]


class RestoreRefused(Exception):
    """Nothing was changed. The message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore did. `applied` are sentences on what was deleted or revoked since the backup, and is so again."""

    manifest: Manifest
    #: Empty if the state before could not be read, or was empty.
    safety_name: str
    applied: list[str]
    #: Files that were added to the storage.
    audio_files: int
    #: Files that rows name and the storage does not have.
    missing_files: int
    took_s: float


def restore(
    *,
    target: Target,
    name: str,
    parts: Collection[Part] = PARTS,
    identities: Sequence[Identity] = (),
    recipients: Sequence[str] = (),
    safety_targets: Sequence[Target] = (),
    say: Say = logger.info,
    skips_unreadable_tombstones: bool = False,
) -> Restored:
    """
    Put the state of a backup in the place of the present one, of which a backup is made first.

    The product must not run with the data folder. What was deleted or revoked since the backup stays so, by the log
    here, in `target` and in AVATAR_BACKUP_TARGET: one that cannot be read is left out if `skips_unreadable_tombstones`.
    The backup of the present state goes to the first of `safety_targets` that can be written; without any, to `target`.

    Raises RestoreRefused, NoSuchBackup, TargetError, and OSError (a full disk): in each case the site is unchanged.
    """
    began_s = time.monotonic()
    data_dir = Path(settings.AVATAR_DATA_DIR)
    try:
        with hold_lock(data_dir, SERVE_LOCK):
            try:
                with hold_backup_lock():
                    return _Restoring(
                        target=target,
                        name=name,
                        parts=parts,
                        identities=identities,
                        recipients=recipients,
                        safety_targets=safety_targets or [target],
                        say=say,
                        skips_unreadable_tombstones=skips_unreadable_tombstones,
                        began_s=began_s,
                    ).run()
            except LockHeld as error:
                raise RestoreRefused("A backup is being made or verified: try again later.") from error
    except LockHeld as error:
        raise RestoreRefused(f"AVATAR runs with the data folder {data_dir}: stop AVATAR first.") from error
    except packing.NoKey as error:
        raise RestoreRefused(
            f"{error}. Name the file with the private key: --identity FILE. Nothing was changed."
        ) from error
    except (packing.Damaged, BadManifest, VerificationFailed, CopyFailed) as error:
        raise RestoreRefused(f"Backup {name} cannot be restored: {error}. Nothing was changed.") from error
    except (database.LoadFailed, database.SwapRefused) as error:
        raise RestoreRefused(f"{error} Nothing was changed.") from error


def confirm_restores(*, now: dt.datetime) -> int:
    """Confirm that the restored state is right: sweeps may remove orphans again. Return how many were confirmed."""
    return Restore.objects.unconfirmed().update(confirmed_at=now)


@dataclass(slots=True)
class _Restoring:
    """One restore, while both locks are held."""

    target: Target
    name: str
    parts: Collection[Part]
    identities: Sequence[Identity]
    recipients: Sequence[str]
    safety_targets: Sequence[Target]
    say: Say
    skips_unreadable_tombstones: bool
    began_s: float

    def run(self) -> Restored:
        manifest = catalogue.read_manifest(self.target, self.name)
        parts = self._check(manifest)
        with make_scratch("restore") as folder:
            self.say(f"Fetching {self.name} from {self.target.address} …")
            with fetch_copy(
                manifest, target=self.target, folder=folder, identities=self.identities, parts=parts
            ) as copy:
                self.say("Verifying it …")
                check_copy(manifest, copy)
                if copy.database is not None:
                    return self._replace_database(manifest, copy, copy.database)
                return self._add_audio(manifest, copy)

    def _check(self, manifest: Manifest) -> set[Part]:
        """Return the parts that are restored. Raises RestoreRefused."""
        there: set[Part] = set()
        if manifest.database is not None:
            there.add("database")
        if manifest.audio is not None:
            there.add("audio")
        parts = there & set(self.parts)
        if not parts:
            raise RestoreRefused(f"Backup {self.name} has no {' and no '.join(sorted(self.parts))}.")
        if "database" not in parts:
            return parts
        database.check_replaceable(vendor=manifest.vendor)
        if newer := find_unknown_migrations(manifest):
            raise RestoreRefused(
                f"Backup {self.name} was made by AVATAR {manifest.version}, which is newer than this one: it knows "
                f"{newer[0]}. Install that version, or choose an older backup."
            )
        return parts

    def _replace_database(self, manifest: Manifest, copy: Copy, prepared: database.LoadedDatabase) -> Restored:
        present, safety_name = self._keep_present()
        self.say("Preparing the copy: migrations, deletions since, retention …")
        # Read after the safety backup, which has shipped the newest.
        entries = self._read_entries(since=manifest.taken_at - applying.MARGIN)
        entries_path, present_path = copy.folder / "entries.json", copy.folder / "present.json"
        entries_path.write_bytes(applying.encode_entries(entries))
        if present is not None:
            present_path.write_bytes(applying.encode_present(present))
        request = PrepareRequest(
            name=self.name,
            taken_at=manifest.taken_at,
            restored_at=timezone.now(),
            safety_name=safety_name,
            entries=str(entries_path),
            present=str(present_path) if present is not None else "",
        )
        result = work_on_copy("prepare", request, PrepareResult, folder=copy.folder, database_url=prepared.database_url)
        added = 0
        if copy.files is not None:
            self.say("Adding audio to the storage …")
            merged = audio.merge_audio(copy.folder / "media", result.audio_names, files=copy.files)
            added = merged.added
            if merged.renamed:
                work_on_copy(
                    "rename",
                    RenameRequest(merged.renamed),
                    RenameResult,
                    folder=copy.folder,
                    database_url=prepared.database_url,
                )
        missing = audio.count_missing(result.audio_names)
        self.say("Replacing the database …")
        if kept := database.swap(prepared, now=timezone.now(), keeps_live=not safety_name):
            self.say(f"The database before it is kept as {kept}.")
        # From here on nothing may fail: the site has changed. Drained are the tombstones that preparing has added,
        # with names of deleted people in them.
        log.drain_or_leave()
        return Restored(manifest, safety_name, result.applied, added, missing, time.monotonic() - self.began_s)

    def _read_entries(self, *, since: dt.datetime) -> list[Entry]:
        """
        Return what was deleted or revoked, by the log here and all shipments. Raises RestoreRefused, OSError.

        The configured target is where the site has shipped, which need not be the one that is restored from.
        """
        found = list(log.read_log())
        sources = [self.target]
        try:
            configured = targets.open_target(settings.AVATAR_BACKUP_TARGET)
        except targets.BadTarget as error:
            self._skip_tombstones(settings.AVATAR_BACKUP_TARGET, error)
        else:
            if configured.address != self.target.address:
                sources.append(configured)
        for source in sources:
            try:
                found += shipping.read_all(
                    source, self.identities, since=since, is_forced=self.skips_unreadable_tombstones
                )
            except (TargetError, shipping.UnreadableShipment) as error:
                self._skip_tombstones(source.address, error)
        return shipping.merge(found)

    def _skip_tombstones(self, address: str, error: Exception) -> None:
        """Say that a target's record of deletions is left out. Raises RestoreRefused where it must not be."""
        if not self.skips_unreadable_tombstones:
            raise RestoreRefused(
                f"Backup {self.name} cannot be restored: what was deleted since is also recorded in {address}, which"
                f" cannot be read ({error}). To restore it all the same, and perhaps bring back what was deleted:"
                " --skip-unreadable-tombstones. Nothing was changed."
            ) from error
        self.say(f"Warning: the record of deletions in {address} is left out ({error}).")

    def _keep_present(self) -> tuple[applying.PresentKeys | None, str]:
        """Back up the present state, and read which rows it has. None and empty if it cannot be read, or has none."""
        try:
            if not database.has_content():
                return None, ""
            log.drain()
            present = applying.read_present_keys()
        except DatabaseError as error:
            self.say(f"The present database cannot be read ({error}): it is kept aside as it is.")
            return None, ""
        self.say("Backing up the present state …")
        try:
            created = self._back_up_present()
        except (database.SnapshotFailed, DatabaseError, VerificationFailed) as error:
            self.say(f"The present database cannot be backed up ({error}): it is kept aside as it is.")
            return None, ""
        return present, created.manifest.name

    def _back_up_present(self) -> creation.Created:
        """Raises SnapshotFailed, DatabaseError, VerificationFailed; TargetError if no target can be written."""
        *preferred, last = self.safety_targets
        for target in preferred:
            try:
                return self._back_up_to(target)
            except TargetError as error:
                self.say(f"{error} The present state is backed up to {last.address} instead.")
        return self._back_up_to(last)

    def _back_up_to(self, target: Target) -> creation.Created:
        return creation.create_while_locked(
            target=target, recipients=self.recipients, reason="before-restore", say=self.say
        )

    def _add_audio(self, manifest: Manifest, copy: Copy) -> Restored:
        """Add the audio that rows of the present database name and the storage does not have."""
        names = database.list_audio_names()
        merged = audio.merge_audio(copy.folder / "media", names, files=copy.files or (), is_missing_only=True)
        missing = audio.count_missing(names)
        return Restored(manifest, "", [], merged.added, missing, time.monotonic() - self.began_s)


def find_unknown_migrations(manifest: Manifest) -> list[str]:
    """Return the newest migrations of a backup that this program does not have, as app.name."""
    known = MigrationLoader(None, ignore_no_migrations=True).disk_migrations
    replaced = {key for migration in known.values() for key in migration.replaces}
    ours = {app for app, _ in known}
    return sorted(
        f"{app}.{name}"
        for app, name in manifest.schema.items()
        if app in ours and (app, name) not in known and (app, name) not in replaced
    )
