from celery import shared_task
from django.utils import timezone

from conversations import files, retention


@shared_task
def purge_expired() -> None:
    """Remove what is older than it may be. Delivered twice, the second finds nothing to do."""
    retention.purge_expired(now=timezone.now())


@shared_task
def remove_orphans() -> None:
    """Remove files without rows, which a process that died in mid-work has left."""
    files.remove_orphans(now=timezone.now())
