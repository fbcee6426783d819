from celery import shared_task
from django.core.management import call_command


@shared_task
def clear_expired_logins() -> None:
    """Remove sessions that have expired; Django keeps them until somebody does."""
    call_command("clearsessions")
