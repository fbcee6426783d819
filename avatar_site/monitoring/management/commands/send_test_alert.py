"""Translates `manage.py send_test_alert`."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone, translation

from avatar_site.monitoring import notifications
from avatar_site.monitoring.models import Alert, Severity


class Command(BaseCommand):
    help = "Send an alert that is none by e-mail and webhook, as they are set. Nothing of it is kept."

    def handle(self, *args: Any, **options: Any) -> None:
        channels = notifications.list_channels()
        if not channels:
            raise CommandError("Nobody is told of alerts: set AVATAR_ALERT_EMAILS or AVATAR_ALERT_WEBHOOK_URL.")
        now = timezone.now()
        alert = Alert(condition="test", severity=Severity.WARNING, opened_at=now, last_seen_at=now)
        problems = []
        for channel in channels:
            try:
                with translation.override(settings.LANGUAGE_CODE):
                    channel.send([alert])
            except notifications.NotSent as error:
                problems.append(f"{channel.name}: {error}")
            else:
                self.stdout.write(f"{channel.name}: sent")
        if problems:
            raise CommandError("\n".join(problems))
