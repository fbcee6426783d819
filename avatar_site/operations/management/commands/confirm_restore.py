"""Translates `manage.py confirm_restore`."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, no_translations
from django.utils import timezone

from avatar_site.operations.backups import restoring


class Command(BaseCommand):
    help = "Confirm that a restored state is the right one: audio that no row names may be removed again."

    @no_translations
    def handle(self, *args: Any, **options: Any) -> None:
        if restoring.confirm_restores(now=timezone.now()):
            self.stdout.write("Confirmed: sweeps remove audio that no row names again.")
        else:
            self.stdout.write("There is no restore to confirm.")
