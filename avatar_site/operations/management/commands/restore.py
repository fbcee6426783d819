"""Translates `manage.py restore`."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, no_translations

from avatar_site.lib.disk import describe_error
from avatar_site.operations.backups import catalogue, creation, packing, restoring, targets
from avatar_site.operations.backups.manifest import BadManifest


class Command(BaseCommand):
    help = (
        "Put the state of a backup in the place of the present one, which is backed up first. AVATAR must be stopped."
    )
    # The present database may be damaged, or of another schema.
    requires_migrations_checks = False

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", metavar="NAME", help="as list_backups shows it, or latest")
        parser.add_argument(
            "--from", dest="source", metavar="TARGET", help="a folder, or s3://bucket/prefix (AVATAR_BACKUP_TARGET)"
        )
        parser.add_argument("--only", choices=sorted(creation.PARTS), help="only this part")
        parser.add_argument(
            "--identity", metavar="FILE", help="the private key of an encrypted backup (AVATAR_BACKUP_IDENTITY_FILE)"
        )
        parser.add_argument(
            "--skip-unreadable-tombstones",
            action="store_true",
            help="restore though a record of deletions cannot be read, which may bring back what was deleted",
        )
        parser.add_argument("--yes", action="store_true", help="do not ask")

    @no_translations
    def handle(self, *args: Any, **options: Any) -> None:
        try:
            target = targets.open_target(
                settings.AVATAR_BACKUP_TARGET if options["source"] is None else options["source"]
            )
            parts: frozenset[creation.Part] = frozenset({options["only"]}) if options["only"] else creation.PARTS
            name = options["name"]
            if name == "latest":
                # Without its database, a backup is no state to go back to.
                name = catalogue.find_latest(target, {options["only"] or "database"}).name
            manifest = catalogue.read_manifest(target, name)
            identities = creation.read_identities(options["identity"])
            what = f"{name} ({manifest.reason}), taken {manifest.taken_at:%Y-%m-%d %H:%M} UTC"
            self.stdout.write(f"Restoring {what}.")
            if not options["yes"] and not self._is_agreed(what):
                raise CommandError("Nothing was changed.")
            restored = restoring.restore(
                target=target,
                name=name,
                parts=parts,
                identities=identities,
                recipients=creation.read_recipients(),
                safety_targets=list(_open_safety_targets()),
                say=self.stdout.write,
                skips_unreadable_tombstones=options["skip_unreadable_tombstones"],
            )
        except restoring.RestoreRefused as error:
            raise CommandError(str(error)) from error
        except BadManifest as error:
            raise CommandError(f"Backup {name} cannot be read: {error}. Nothing was changed.") from error
        except (targets.BadTarget, packing.BadKey, catalogue.NoSuchBackup, OSError) as error:
            raise CommandError(f"{describe_error(error)} Nothing was changed.") from error
        for line in restored.applied:
            self.stdout.write(f"  {line}")
        if restored.safety_name:
            self.stdout.write(f"The state before it is in backup {restored.safety_name}.")
        if restored.missing_files:
            self.stdout.write(f"{restored.missing_files} files that rows name are not in the storage.")
        if "database" in parts:
            self.stdout.write("All logins were ended. Look at the site, then run `manage.py confirm_restore`.")
        self.stdout.write(
            f"Backup {name} was restored, {restored.audio_files} files of audio were added, {restored.took_s:.0f} s."
        )

    def _is_agreed(self, what: str) -> bool:
        self.stdout.write(f"Backup {what}, will take the place of the present state, which is backed up first.")
        try:
            return input("Type yes to go on: ").strip().lower() == "yes"
        except EOFError:
            return False


def _open_safety_targets() -> Iterator[targets.Target]:
    """Yield where the present state is backed up to: the configured target; the data folder, if that is away."""
    default = str(Path(settings.AVATAR_DATA_DIR) / "backups")
    for address in dict.fromkeys((settings.AVATAR_BACKUP_TARGET, default)):
        yield targets.open_target(address)
