"""Celery tasks of monitoring, on the maintenance queue. Safe to deliver twice."""

from __future__ import annotations

from celery import shared_task
from django.utils import timezone

from avatar_site.monitoring import rollups, watching


@shared_task
def watch() -> None:
    """Write the system sample of this minute, open and resolve alerts, and tell of them."""
    watching.watch(now=timezone.now())


@shared_task
def roll_up() -> None:
    """Make hours of the minutes that are older than a week."""
    rollups.roll_up(now=timezone.now())
