"""Translates `manage.py purge_expired`."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand
from django.utils import timezone

from conversations import retention


class Command(BaseCommand):
    help = "Remove what is older than the site or its owner wants it kept. Beat does so daily."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="only say what would be removed")

    def handle(self, *args: Any, **options: Any) -> None:
        expired = retention.purge_expired(now=timezone.now(), is_dry_run=options["dry_run"])
        self.stdout.write(
            f"{'Would remove' if options['dry_run'] else 'Removed'} {expired.audio_files} audio files"
            f" ({expired.audio_bytes} bytes), {expired.turns} turns, {expired.conversations} conversations."
        )
