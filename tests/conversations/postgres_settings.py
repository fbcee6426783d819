"""The tests' settings, with the PostgreSQL that test_postgres.py has started."""

import os

import environ

_url = os.environ["AVATAR_TEST_DATABASE_URL"]

from avatar_site.settings.test import *  # noqa: E402, F403 — a settings module is its base plus what differs

DATABASES = {"default": dict(environ.Env.db_url_config(_url))}
