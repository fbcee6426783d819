"""Translates `manage.py list_alerts`."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, no_translations
from django.utils import timezone

from avatar_site.monitoring.models import Alert


class Command(BaseCommand):
    help = "List the alerts that are not resolved, oldest first. What each means: docs/runbooks/alerts.md."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--all", action="store_true", help="those that are resolved as well")

    @no_translations
    def handle(self, *args: Any, **options: Any) -> None:
        alerts = Alert.objects.all() if options["all"] else Alert.objects.unresolved()
        rows = list(alerts.order_by("opened_at", "pk"))
        for alert in rows:
            since = f"{timezone.localtime(alert.opened_at):%Y-%m-%d %H:%M}"
            name = f"{alert.condition} {alert.subject}".strip()
            self.stdout.write(f"{since}  {alert.severity:<7}  {alert.state:<12}  {name}: {alert}")
        if not rows:
            self.stdout.write("There is no alert.")
