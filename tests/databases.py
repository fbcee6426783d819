"""Databases of tests: others as Django's default one, and what is left in ours when a test empties it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import environ
import pytest
from django.conf import settings
from django.core.management.commands import flush
from django.db import connection, connections, transaction
from django.db.utils import load_backend

from avatar_site.operations.tombstones import triggers


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


def restore_rows_after_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Let a flush end with the rows that the migrations had made. To be called when there are no others.

    A test with real transactions empties every table when it ends. Django then sends post_migrate, with which each app
    makes its rows anew, one by one through the ORM: 0.13 s, for hundreds of tests.
    """
    inserts: dict[str, list[Any]] = {}
    with connection.cursor() as cursor:
        for table in connection.introspection.django_table_names(only_existing=True, include_views=False):
            cursor.execute(f"SELECT * FROM {connection.ops.quote_name(table)}")  # noqa: S608 — names of tables
            if rows := cursor.fetchall():
                places = ", ".join(["%s"] * len(cursor.description))
                inserts[f"INSERT INTO {connection.ops.quote_name(table)} VALUES ({places})"] = rows  # noqa: S608

    def restore(verbosity: int, interactive: bool, db: str) -> None:
        with transaction.atomic(db), connections[db].cursor() as cursor:
            for insert, rows in inserts.items():
                cursor.executemany(insert, rows)
        # A test may have removed them.
        triggers.install(using=db)

    monkeypatch.setattr(flush, "emit_post_migrate_signal", restore)
