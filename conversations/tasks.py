"""Tasks for conversations. Safe to deliver twice."""

from __future__ import annotations

import logging
import uuid
from contextlib import suppress

from celery import shared_task
from django.utils import timezone

from avatar_site.lib import inference_client
from avatar_site.lib.stored_files import SweepRefused
from conversations import orphans, resynthesis, retention

logger = logging.getLogger(__name__)


@shared_task
def render_in_high_quality(*, turn_id: str) -> None:
    """Synthesise a fast reply again in high quality."""
    resynthesis.render(turn_id=uuid.UUID(turn_id), inference=inference_client.get_inference())


@shared_task
def purge_expired() -> None:
    """Run the retention."""
    retention.purge_expired(now=timezone.now())


@shared_task
def remove_orphans() -> None:
    """Sweep audio without rows, and rows without audio. A doubtful result is logged, and changes nothing."""
    with suppress(orphans.DoubtfulOrphans):
        try:
            orphans.remove_orphans(now=timezone.now())
        except SweepRefused as refusal:
            logger.warning("orphans are left alone: %s", refusal)
