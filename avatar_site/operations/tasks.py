"""Celery tasks of operations. Safe to deliver twice."""

from celery import shared_task
from django.core.management import call_command

from conversations.call_store import replay_all_spooled_turns


@shared_task
def clear_expired_logins() -> None:
    """Remove expired sessions, which Django keeps."""
    call_command("clearsessions")


@shared_task
def replay_spooled_turns() -> None:
    """Save what calls could not save while the database was away. Run twice, the second run has nothing to save."""
    replay_all_spooled_turns()
