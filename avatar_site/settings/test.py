"""For the tests: nothing of this machine's own settings, everything in a folder that is thrown away."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

_data_dir = Path(tempfile.mkdtemp(prefix="avatar-test-"))


def _remove_data_dir(*, made_by: int) -> None:
    # A forked child runs this too when it ends.
    if os.getpid() == made_by:
        shutil.rmtree(_data_dir, ignore_errors=True)


atexit.register(_remove_data_dir, made_by=os.getpid())

# Where the weights are is the one thing about this machine that tests with real engines need.
_kept = {"AVATAR_MODELS_DIR"}
for _name in list(os.environ):
    if (_name.startswith("AVATAR_") or _name in {"DATABASE_URL", "REDIS_URL"}) and _name not in _kept:
        del os.environ[_name]
os.environ.update(
    AVATAR_ENV_FILE="",
    # Nothing listens there, so that no test reaches engines that run on the same machine.
    AVATAR_INFERENCE_ADDRESS=f"unix:{_data_dir}/no-engines.sock",
    AVATAR_DATA_DIR=str(_data_dir),
    AVATAR_PROFILE="fake",
    AVATAR_SECRET_KEY="for-tests-only-" * 5,
)

from avatar_site.settings.base import *  # noqa: E402, F403 — only after the environment is as the tests want it
from avatar_site.settings.base import DATABASES  # noqa: E402 — as above

ALLOWED_HOSTS = ["localhost", "127.0.0.1", "testserver"]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
# A file, not memory: connections of several threads then meet as they do in use.
DATABASES["default"]["TEST"] = {"NAME": str(_data_dir / "test.sqlite3")}
CACHES = {
    "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
    "throttle": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": "throttle"},
}
CELERY_TASK_ALWAYS_EAGER = True
CELERY_TASK_EAGER_PROPAGATES = True
WHITENOISE_AUTOREFRESH = True
