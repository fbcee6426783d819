"""What workers do for conversations. Safe to deliver twice."""

from __future__ import annotations

import uuid

from celery import shared_task

from conversations import rendering
from voices import engines


@shared_task
def render_in_high_quality(*, turn_id: str) -> None:
    """Replace the audio of an answer that was spoken fast."""
    rendering.render(turn_id=uuid.UUID(turn_id), inference=engines.get_inference())
