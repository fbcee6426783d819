"""The Celery application of worker and beat: `celery --app avatar_site.celery worker`."""

import os
from pathlib import Path

from celery import Celery
from django.conf import settings

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "avatar_site.settings.prod")

app = Celery("avatar")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()

# The broker of one machine is a folder; Kombu does not make it.
for option, folder in getattr(settings, "CELERY_BROKER_TRANSPORT_OPTIONS", {}).items():
    if option.endswith(("folder", "_in", "_out")):
        Path(folder).mkdir(parents=True, exist_ok=True)
