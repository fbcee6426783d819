"""Extra databases as Django's default one, for tests that replace or dump the database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import environ
from django.conf import settings
from django.db import connections
from django.db.utils import load_backend


@contextmanager
def as_default(url: str) -> Iterator[None]:
    """Let this thread's default connection be one to another database, with the options that the product has."""
    options = dict(environ.Env.db_url_config(url))
    if options["ENGINE"] == "django.db.backends.sqlite3":
        options["OPTIONS"] = settings.DATABASES["default"]["OPTIONS"]
    configured = connections.configure_settings({"default": options})["default"]
    own = connections["default"]
    connections["default"] = load_backend(configured["ENGINE"]).DatabaseWrapper(configured, "default")
    try:
        yield
    finally:
        connections["default"].close()
        connections["default"] = own
