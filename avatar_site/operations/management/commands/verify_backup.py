"""Translates `manage.py verify_backup`."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, no_translations

from avatar_site.lib.disk import describe_error
from avatar_site.operations.backups import catalogue, creation, packing, targets, verification
from avatar_site.operations.locks import LockHeld


class Command(BaseCommand):
    help = "Restore a backup into a scratch folder, open it there, and compare it with its manifest."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", nargs="?", metavar="NAME", help="as list_backups shows it (default: the newest)")
        parser.add_argument(
            "--from", dest="source", metavar="TARGET", help="a folder, or s3://bucket/prefix (AVATAR_BACKUP_TARGET)"
        )
        parser.add_argument(
            "--identity", metavar="FILE", help="the private key of an encrypted backup (AVATAR_BACKUP_IDENTITY_FILE)"
        )

    @no_translations
    def handle(self, *args: Any, **options: Any) -> None:
        try:
            target = targets.open_target(
                settings.AVATAR_BACKUP_TARGET if options["source"] is None else options["source"]
            )
            name = catalogue.find_newest(target) if options["name"] is None else options["name"]
            identities = creation.read_identities(options["identity"])
            record = verification.verify_backup(target=target, name=name, identities=identities)
        except LockHeld as error:
            raise CommandError("Another backup is being made, verified or restored: try again later.") from error
        except verification.VerificationFailed as error:
            raise CommandError(f"Backup {name} is damaged: {error}") from error
        except (targets.BadTarget, packing.BadKey, catalogue.NoSuchBackup, OSError) as error:
            raise CommandError(describe_error(error)) from error
        if record.is_checksum_only:
            self.stdout.write(
                f"Backup {name}: stored files have their checksums, {record.took_s:g} s. It is encrypted, and was not "
                "restored: name the private key with --identity FILE."
            )
        else:
            self.stdout.write(f"Backup {name} was restored into a scratch folder and is complete, {record.took_s:g} s.")
