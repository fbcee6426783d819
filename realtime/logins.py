"""
The login that a call is held with, and whether it still holds.

Logging out, a new password, deactivating or deleting the account end it; see docs/decisions/0012.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.contrib.auth import SESSION_KEY, get_user_model
from django.utils.crypto import constant_time_compare

if TYPE_CHECKING:
    from django.contrib.auth.models import User
    from django.db.models import QuerySet


@dataclass(frozen=True, slots=True)
class Login:
    """`session_key` is None where there is no session (another way to log in)."""

    user_id: int
    auth_hash: str
    session_key: str | None


def read_login(user: User, session: Any | None) -> Login:
    """Return the login of a handshake, to be compared with later."""
    return Login(user.pk, user.get_session_auth_hash(), session.session_key if session is not None else None)


def find_logged_in(login: Login, users: QuerySet[User] | None = None) -> User | None:
    """
    Return the user if the login still holds, read from `users` (for their annotations).

    Costs two queries, the user and the session, and changes nothing, unlike `django.contrib.auth.get_user`.
    """
    users = get_user_model().objects.all() if users is None else users
    user = users.filter(pk=login.user_id, is_active=True).first()
    if user is None or not constant_time_compare(user.get_session_auth_hash(), login.auth_hash):
        return None
    if login.session_key is None:
        return user
    session = import_module(settings.SESSION_ENGINE).SessionStore(login.session_key)
    return user if session.load().get(SESSION_KEY) == str(user.pk) else None
