"""Django's own signals of accounts and logins: the only place that sees all changes, those in the admin included."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.contrib.auth.signals import user_logged_out
from django.db import transaction
from django.db.models.signals import post_delete, post_save
from django.dispatch import receiver

from avatar_site.lib.live_calls import tell_login_changed, tell_logout

if TYPE_CHECKING:
    from django.contrib.auth.models import User
    from django.http import HttpRequest

#: Saved by every login, and no reason to check the calls.
_HARMLESS_FIELDS = frozenset({"last_login"})


@receiver(user_logged_out)
def end_calls_of_session(request: HttpRequest | None, user: User | None, **kwargs: Any) -> None:
    session = getattr(request, "session", None)
    if user is not None and session is not None and session.session_key:
        tell_logout(user.pk, session.session_key)


@receiver(post_save, sender=settings.AUTH_USER_MODEL)
def recheck_calls(instance: User, created: bool, update_fields: frozenset[str] | None = None, **kwargs: Any) -> None:
    if not created and (update_fields is None or not update_fields <= _HARMLESS_FIELDS):
        transaction.on_commit(partial(tell_login_changed, instance.pk), robust=True)


@receiver(post_delete, sender=settings.AUTH_USER_MODEL)
def recheck_calls_of_deleted_user(instance: User, **kwargs: Any) -> None:
    # The instance's own pk is None by the time of the commit.
    transaction.on_commit(partial(tell_login_changed, instance.pk), robust=True)
