"""That boto3 is loaded only where a bucket is used; test_targets.py tests buckets with all other targets."""

from __future__ import annotations

import os
import subprocess
import sys

from django.conf import settings

_LOAD = """
import sys
import django
django.setup()
import avatar_site.operations.tasks
print(sorted({"boto3", "botocore"} & set(sys.modules)))
"""


class TestModule:
    def test_is_not_loaded_by_processes_that_use_no_bucket(self) -> None:
        said = subprocess.run(
            [sys.executable, "-c", _LOAD],
            cwd=settings.BASE_DIR,
            env=os.environ | {"DJANGO_SETTINGS_MODULE": "avatar_site.settings.test"},
            capture_output=True,
            text=True,
            check=True,
        )

        assert said.stdout == "[]\n"
