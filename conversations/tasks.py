"""What workers do for conversations. Safe to deliver twice."""

from __future__ import annotations

import uuid
from contextlib import suppress

from celery import shared_task
from django.utils import timezone

from avatar_site.lib import inference_client
from conversations import orphans, resynthesis, retention


@shared_task
def render_in_high_quality(*, turn_id: str) -> None:
    """Replace the audio of an answer that was spoken fast."""
    resynthesis.render(turn_id=uuid.UUID(turn_id), inference=inference_client.get_inference())


@shared_task
def purge_expired() -> None:
    """Remove what is older than it may be. Delivered twice, the second finds nothing to do."""
    retention.purge_expired(now=timezone.now())


@shared_task
def remove_orphans() -> None:
    """Remove files without rows, left by a process that died in mid-work. What is doubtful stays, and is logged."""
    with suppress(orphans.DoubtfulOrphans):
        orphans.remove_orphans(now=timezone.now())
