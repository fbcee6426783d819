"""The Celery application of the worker: `celery --app avatar_site.celery worker`."""

import os
from typing import Any

from celery import Celery
from celery.signals import worker_init

from avatar_site.celery_broker import install_transport
from avatar_site.celery_logs import install_logs
from avatar_site.operations.worker_heartbeats import HeartbeatStep
from avatar_site.private_files import restrict_new_files

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "avatar_site.settings.prod")

restrict_new_files()
app = Celery("avatar")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
app.steps["consumer"].add(HeartbeatStep)

install_transport()
install_logs()


@worker_init.connect
def refuse_newer_database(**kwargs: Any) -> None:
    """End a worker whose tasks do not know the schema of the database."""
    # Models: they can be imported once Django is set up.
    from avatar_site.operations import database_checks

    database_checks.refuse_newer_database()
