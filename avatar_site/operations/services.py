"""Verbs of operating AVATAR: create the first operator, prepare the database."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Any

from django.contrib.auth.models import User
from django.core.management import call_command
from django.core.management.commands.migrate import Command as MigrateCommand
from django.db import connection, transaction
from django.db.migrations.executor import MigrationExecutor

#: Letters and digits that are not confused when read from a screen.
_READABLE = "abcdefghjkmnpqrstuvwxyz23456789"


@transaction.atomic
def ensure_operator(*, username: str, password: str) -> tuple[User, str] | None:
    """
    Create the first operator: a superuser, if there is none.

    Return the user and the password, a random one if `password` is empty; None if there is an operator already. An
    existing user of that name becomes an operator, with that password.
    """
    if User.objects.filter(is_superuser=True, is_active=True).exists():
        return None
    password = password or "-".join("".join(secrets.choice(_READABLE) for _ in range(5)) for _ in range(4))
    user, _ = User.objects.select_for_update().get_or_create(username=username)
    user.is_staff = user.is_superuser = user.is_active = True
    user.set_password(password)
    user.save()
    return user, password


def has_users() -> bool:
    """Return whether anybody has used this database, whatever its schema."""
    return User._meta.db_table in connection.introspection.table_names() and User.objects.exists()


def list_pending_migrations() -> list[str]:
    """Return the migrations that the database lacks, in the order in which they will be applied, as app.name."""
    executor = MigrationExecutor(connection)
    return [str(migration) for migration, _ in executor.migration_plan(executor.loader.graph.leaf_nodes())]


def prepare_database(*, say: Callable[[str], None] = lambda line: None) -> None:
    """
    Migrate, and create the cache table. Changes nothing when both are done.

    Each migration is announced before it runs and timed after: one that rewrites a large table takes minutes.
    """
    call_command(_Migrate(say), interactive=False, verbosity=0)
    call_command("createcachetable", verbosity=0)


class _Migrate(MigrateCommand):
    """Django's command, telling the operator about each migration."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__()
        self._say = say
        self._began_s = 0.0

    def migration_progress_callback(self, action: str, migration: Any = None, fake: bool = False) -> None:
        if action == "apply_start":
            self._began_s = time.monotonic()
            self._say(f"  {migration} …")
        elif action == "apply_success":
            self._say(f"  {migration} took {time.monotonic() - self._began_s:.1f} s")
