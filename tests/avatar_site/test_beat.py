import os
import subprocess
import sys
from pathlib import Path

from django.conf import settings

from avatar_site.celery import app as worker_app

#: What beat would send, from the program as beat loads it.
_LIST = """
import sys
from avatar_site.beat import app
assert not {"rest_framework", "django.contrib.auth.models", "voices.models"} & set(sys.modules), "Django was set up"
print(app.timezone, *sorted(entry["task"] for entry in app.conf.beat_schedule.values()), sep="\\n")
"""


class TestBeat:
    def test_knows_the_schedule_without_djangos_applications(self, tmp_path: Path) -> None:
        environment = os.environ | {
            "DJANGO_SETTINGS_MODULE": "avatar_site.settings.prod",
            "AVATAR_DATA_DIR": str(tmp_path),
        }

        said = subprocess.run(
            [sys.executable, "-c", _LIST],
            cwd=settings.BASE_DIR,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )

        timezone, *tasks = said.stdout.split()
        assert timezone == settings.TIME_ZONE
        assert tasks == sorted(entry["task"] for entry in settings.CELERY_BEAT_SCHEDULE.values())

    def test_sends_tasks_that_the_worker_has(self) -> None:
        worker_app.loader.import_default_modules()

        assert {entry["task"] for entry in settings.CELERY_BEAT_SCHEDULE.values()} <= set(worker_app.tasks)
