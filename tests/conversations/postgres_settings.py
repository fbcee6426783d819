"""The tests' settings, with the PostgreSQL that test_postgres.py has started."""

import os

# The tests' settings forget what is set.
_socket_folder, _port = os.environ["AVATAR_TEST_POSTGRES"].rsplit(":", 1)

from avatar_site.settings.test import *  # noqa: E402, F403 — a settings module is its base plus what differs

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "postgres",
        "USER": "avatar",
        "HOST": _socket_folder,
        "PORT": _port,
    }
}
