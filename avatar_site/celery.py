"""The Celery application of the worker: `celery --app avatar_site.celery worker`."""

import os

from celery import Celery

from avatar_site.celery_broker import install_transport
from avatar_site.private_files import restrict_new_files

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "avatar_site.settings.prod")

restrict_new_files()
app = Celery("avatar")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()

install_transport()
