"""Translates `manage.py remove_orphans`."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from avatar_site.lib.stored_files import SweepRefused
from conversations.orphans import DoubtfulOrphans, remove_orphans
from voices.services import delete_orphans


class Command(BaseCommand):
    help = "Remove audio files that belong to no turn or no voice, and let turns whose file is gone say so."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="only say what would be removed")
        parser.add_argument(
            "--force", action="store_true", help="even if so much is missing that the storage seems to be away"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            orphans = remove_orphans(now=timezone.now(), is_dry_run=options["dry_run"], is_forced=options["force"])
        except SweepRefused as refusal:
            raise CommandError(f"Nothing was removed. {refusal}") from refusal
        except DoubtfulOrphans as error:
            raise CommandError(f"Nothing was removed. {error} If not, and this is to be done: --force.") from error
        if options["dry_run"]:
            for name in orphans.sweep.files:
                self.stdout.write(name)
            if orphans.doubt:
                self.stdout.write(f"Would refuse without --force: {orphans.doubt}")
        self.stdout.write(
            f"{'Found' if options['dry_run'] else 'Removed'} {len(orphans.sweep.files)} files without a turn"
            f" ({orphans.sweep.file_bytes} bytes); {len(orphans.turns)} turns whose file is gone."
        )
        if not options["dry_run"]:
            count = delete_orphans(now=timezone.now(), is_forced=options["force"])
            self.stdout.write(f"Removed {count} files without a voice.")
