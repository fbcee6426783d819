"""
The Celery application of beat: `celery --app avatar_site.beat beat`.

Beat only sends the names of tasks on time. Without Django's applications and the tasks it holds 46 MiB instead of 120.
"""

import os
from pathlib import Path
from typing import Any

from celery import Celery
from celery.beat import PersistentScheduler
from django.conf import settings

from avatar_site.celery_broker import install_transport
from avatar_site.celery_logs import install_logs
from avatar_site.operations.heartbeat_files import BEAT, HeartbeatFile
from avatar_site.private_files import restrict_new_files
from inference.sd_notify import LoopWatch

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "avatar_site.settings.prod")

restrict_new_files()
# No fixups: Celery's own for Django loads every application.
app = Celery("avatar", fixups=())
app.config_from_object("django.conf:settings", namespace="CELERY")
# What that fixup would have taken from Django.
app.conf.timezone = settings.TIME_ZONE
install_transport()
install_logs()


class Scheduler(PersistentScheduler):
    """Celery's scheduler, which sends heartbeats from its loop."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._watch = LoopWatch(on_beat=HeartbeatFile(Path(settings.AVATAR_DATA_DIR), BEAT).renew)
        super().__init__(*args, **options)
        # Otherwise it sleeps until the next task is due, a minute or so.
        self.max_interval = self._watch.interval_s / 2
        self._watch.start()

    def tick(self, *args: Any, **options: Any) -> Any:
        self._watch.note_turn()
        return super().tick(*args, **options)

    def _ensure_connected(self) -> Any:
        # Celery waits here while Redis is away, for as long as it takes.
        with self._watch.waiting():
            return super()._ensure_connected()


app.conf.beat_scheduler = f"{__name__}:{Scheduler.__name__}"
