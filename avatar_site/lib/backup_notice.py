"""What pages that delete say of backups. A template library: `{% load backups %}`."""

from __future__ import annotations

from django import template
from django.conf import settings
from django.utils.translation import ngettext

register = template.Library()


@register.simple_tag
def kept_in_backups() -> str:
    """Return one sentence: for how many days backups still contain the deleted data."""
    days = max(settings.AVATAR_BACKUP_DATABASE_DAYS, settings.AVATAR_BACKUP_AUDIO_DAYS)
    return ngettext(
        "Backups keep it for %(days)d more day at most.", "Backups keep it for %(days)d more days at most.", days
    ) % {"days": days}
