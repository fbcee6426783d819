"""Translates `manage.py make_backup_key`."""

from __future__ import annotations

import os
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone
from pyrage.x25519 import Identity


class Command(BaseCommand):
    help = "Make a key pair to encrypt backups with, in a file as age-keygen writes it."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("path", metavar="FILE", type=Path, help="of the private key; it must not exist")

    def handle(self, *args: Any, **options: Any) -> None:
        path: Path = options["path"]
        identity = Identity.generate()
        public = identity.to_public()
        text = f"# created: {timezone.now().isoformat(timespec='seconds')}\n# public key: {public}\n{identity}\n"
        try:
            # Never overwrite a key: backups encrypted to it would be lost.
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            raise CommandError(f"{path} exists: it may be the key of your backups, and is left as it is.") from None
        except OSError as error:
            raise CommandError(f"{path}: {error.strerror}") from error
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            path.unlink(missing_ok=True)
            raise CommandError(f"{path}: {error.strerror}") from error
        self.stdout.write(f"Public key, for AVATAR_BACKUP_RECIPIENTS: {public}")
        self.stdout.write(f"Private key: {path}. Keep it twice, off this machine: without it nothing can be restored.")
