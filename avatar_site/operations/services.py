"""Verbs of operating AVATAR: create the first operator, prepare the database."""

from __future__ import annotations

import secrets

from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import transaction

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


def prepare_database() -> None:
    """Migrate, and create the cache table. Changes nothing when both are done."""
    call_command("migrate", interactive=False, verbosity=0)
    call_command("createcachetable", verbosity=0)
