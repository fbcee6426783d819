"""
The Celery application of beat: `celery --app avatar_site.beat beat`.

Beat only sends the names of tasks on time. Without Django's applications and the tasks it holds 46 MiB instead of 120.
"""

import os

from celery import Celery
from django.conf import settings

from avatar_site.celery_broker import install_transport
from avatar_site.private_files import restrict_new_files

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "avatar_site.settings.prod")

restrict_new_files()
# No fixups: Celery's own for Django loads every application.
app = Celery("avatar", fixups=())
app.config_from_object("django.conf:settings", namespace="CELERY")
# What that fixup would have taken from Django.
app.conf.timezone = settings.TIME_ZONE
install_transport()
