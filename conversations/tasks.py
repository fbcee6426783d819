"""Tasks for conversations. Safe to deliver twice."""

from __future__ import annotations

import uuid

from celery import shared_task

from avatar_site.lib import inference_client
from conversations import resynthesis


@shared_task
def render_in_high_quality(*, turn_id: str) -> None:
    """Synthesise a fast reply again in high quality."""
    resynthesis.render(turn_id=uuid.UUID(turn_id), inference=inference_client.get_inference())
