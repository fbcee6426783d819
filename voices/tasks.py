"""What workers do for voices. Safe to deliver twice: each takes its work with one conditional UPDATE, or leaves it."""

from celery import shared_task


@shared_task
def extract_embedding(*, voice_profile_id: str) -> None:
    """Make a voice from its recordings."""


@shared_task
def fit_style(*, voice_profile_id: str) -> None:
    """Bring a voice closer to its recordings."""
