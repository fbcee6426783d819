"""Translates `manage.py remove_orphans`."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand
from django.utils import timezone

from conversations import files


class Command(BaseCommand):
    help = "Remove audio files that belong to no turn, and let turns whose file is gone say so."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="only say what would be removed")

    def handle(self, *args: Any, **options: Any) -> None:
        orphans = files.remove_orphans(now=timezone.now(), is_dry_run=options["dry_run"])
        if options["dry_run"]:
            for name in orphans.files:
                self.stdout.write(name)
        self.stdout.write(
            f"{'Found' if options['dry_run'] else 'Removed'} {len(orphans.files)} files without a turn"
            f" ({orphans.file_bytes} bytes); {len(orphans.turns)} turns whose file is gone."
        )
