"""
Ends calls whose login is over: logged out, a new password, an account that was deactivated or deleted.

Django's signals say so at once, through the channel layer's group of the user. Without Redis that layer reaches only
the process it is in, so that a call also looks for itself, every `RECHECK_S` and at each turn.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from django.conf import settings
from django.contrib.auth import SESSION_KEY, get_user_model
from django.utils.crypto import constant_time_compare

if TYPE_CHECKING:
    from django.contrib.auth.models import User

logger = logging.getLogger(__name__)

#: A call is over within two seconds of its login. Two small queries a call, in the thread that all queries share.
RECHECK_S = 1.5
#: A log-out does not wait for a Redis that does not answer: the calls notice by themselves.
TELL_TIMEOUT_S = 1.0
RESUBSCRIBE_S = 5.0


@dataclass(frozen=True, slots=True)
class Login:
    """What a call is held with. `session_key` is None where there is no session (another way to log in)."""

    user_id: int
    auth_hash: str
    session_key: str | None


def read_login(user: User, session: Any | None) -> Login:
    """Return the login of a handshake, to be compared with later."""
    return Login(user.pk, user.get_session_auth_hash(), session.session_key if session is not None else None)


def is_valid(login: Login) -> bool:
    """Ask the database whether a login still holds. Changes nothing, unlike `django.contrib.auth.get_user`."""
    user = get_user_model().objects.filter(pk=login.user_id, is_active=True).first()
    if user is None or not constant_time_compare(user.get_session_auth_hash(), login.auth_hash):
        return False
    if login.session_key is None:
        return True
    session = import_module(settings.SESSION_ENGINE).SessionStore(login.session_key)
    return bool(session.load().get(SESSION_KEY) == str(user.pk))


def tell_change(user_id: int) -> None:
    """Have the user's calls look whether their logins still hold."""
    _tell(user_id, {"type": "login.changed", "session": None})


def tell_logout(user_id: int, session_key: str) -> None:
    """End the user's calls of this session. Said before the session is deleted, so that looking would be too early."""
    _tell(user_id, {"type": "login.changed", "session": _digest(session_key)})


async def follow_changes(login: Login, *, on_change: Callable[[], None], on_logout: Callable[[], None]) -> None:
    """Hear what `tell_change` and `tell_logout` say of a login, until cancelled."""
    layer = get_channel_layer()
    if layer is None:
        return
    while True:
        try:
            channel = await layer.new_channel()
            await layer.group_add(_group(login.user_id), channel)
            try:
                while True:
                    message = await layer.receive(channel)
                    if message["session"] is None:
                        on_change()
                    elif login.session_key is not None and message["session"] == _digest(login.session_key):
                        on_logout()
            finally:
                await layer.group_discard(_group(login.user_id), channel)
        except Exception as error:
            # Whatever Redis says: no call ends of it, and the call looks for itself.
            logger.warning("changes of logins are not heard of: %r", error)
            await asyncio.sleep(RESUBSCRIBE_S)


def _tell(user_id: int, message: dict[str, Any]) -> None:
    async def send() -> None:
        layer = get_channel_layer()
        if layer is not None:
            async with asyncio.timeout(TELL_TIMEOUT_S):
                await layer.group_send(_group(user_id), message)

    try:
        async_to_sync(send)()
    except Exception as error:
        # A log-out, a new password or a deletion is never undone for this: the calls look for themselves.
        logger.warning("calls of user %s were not told that a login changed: %r", user_id, error)


def _group(user_id: int) -> str:
    return f"user.{user_id}"


def _digest(session_key: str) -> str:
    # Read access to Redis must not give a session key that logs in.
    return hashlib.sha256(session_key.encode()).hexdigest()
