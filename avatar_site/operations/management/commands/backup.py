"""Translates `manage.py backup`."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, no_translations
from django.template.defaultfilters import filesizeformat

from avatar_site.lib.disk import describe_error
from avatar_site.operations.backups import creation, database, packing, targets, verification
from avatar_site.operations.backups.progress import TerminalProgress
from avatar_site.operations.locks import LockHeld

#: What the operator has to keep elsewhere, or can do without; docs/runbooks/backup.md says why.
NOT_INCLUDED = "Not in it: the secret key, .env, the queue, logs, logins, and models (docs/runbooks/backup.md)."


class Command(BaseCommand):
    help = "Back up the database and the audio while AVATAR serves, and verify the backup by restoring it."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--only", choices=sorted(creation.PARTS), help="only this part")
        parser.add_argument(
            "--to", metavar="TARGET", help="a folder, or s3://bucket/prefix (default: AVATAR_BACKUP_TARGET)"
        )
        parser.add_argument(
            "--encrypt-to",
            metavar="RECIPIENT",
            action="append",
            default=[],
            help="a public key (age1…); may be given several times (default: AVATAR_BACKUP_RECIPIENTS)",
        )

    @no_translations
    def handle(self, *args: Any, **options: Any) -> None:
        say = self.stdout.write if options["verbosity"] and sys.stdout.isatty() else _say_nothing
        try:
            target = targets.open_target(settings.AVATAR_BACKUP_TARGET if options["to"] is None else options["to"])
            if risk := target.describe_risk():
                self.stderr.write(self.style.WARNING(risk))
            with TerminalProgress(self.stdout) as progress:
                created = creation.create_backup(
                    target=target,
                    parts={options["only"]} if options["only"] else creation.PARTS,
                    recipients=creation.read_recipients(options["encrypt_to"]),
                    say=say,
                    progress=progress,
                )
        except LockHeld as error:
            raise CommandError("Another backup is being made, verified or restored: try again later.") from error
        except verification.VerificationFailed as error:
            raise CommandError(f"The backup was made, and is damaged: {error}") from error
        except (targets.BadTarget, packing.BadKey, database.SnapshotFailed, OSError) as error:
            raise CommandError(describe_error(error)) from error
        if not options["verbosity"]:
            return
        manifest = created.manifest
        parts = []
        if manifest.database is not None:
            parts.append(f"database {filesizeformat(manifest.database.size_bytes)}")
        if manifest.audio is not None:
            parts.append(f"{manifest.audio.file_count} files of audio {filesizeformat(manifest.audio.content_bytes)}")
        self.stdout.write(
            f"Backup {manifest.name} in {target.address}: {', '.join(parts)}; {filesizeformat(created.stored_bytes)} "
            f"written, verified, {created.took_s:.0f} s"
        )
        self.stdout.write(NOT_INCLUDED)
        if manifest.audio is not None and manifest.audio.missing:
            some = ", ".join(manifest.audio.missing[:3])
            raise CommandError(f"{len(manifest.audio.missing)} files of audio are missing in the storage: {some} …")


def _say_nothing(line: str) -> None:
    pass
