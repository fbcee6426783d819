"""The queue of one machine: Kombu's file system transport, whose folders Kombu does not create."""

from pathlib import Path

from django.conf import settings


def make_broker_folders() -> None:
    for option, folder in getattr(settings, "CELERY_BROKER_TRANSPORT_OPTIONS", {}).items():
        if option.endswith(("folder", "_in", "_out")):
            Path(folder).mkdir(mode=0o700, parents=True, exist_ok=True)
