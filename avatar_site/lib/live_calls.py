"""
Messages to live calls from the process that changes a login or a voice. Imports none of the apps.

A message goes through the channel layer. Without Redis that layer reaches only its own process, so a call also polls
the database (`realtime/watch.py`): telling never raises and never waits long.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from django.db import transaction

logger = logging.getLogger(__name__)

#: Every live call, of any user: each may speak in a shared voice. A group per voice would have to be joined after the
#: voice is looked up, and a change in between would be missed.
ALL_CALLS = "calls"
#: Deleting a voice or logging out does not wait longer for a Redis that does not answer.
SEND_TIMEOUT_S = 1.0
RESUBSCRIBE_S = 5.0


@dataclass(frozen=True, slots=True)
class LoginChanged:
    """The user's logins may be over: check them."""


@dataclass(frozen=True, slots=True)
class LoggedOut:
    """The session with this digest ends. Sent before its row is deleted, so a check would come too early."""

    session_digest: str


@dataclass(frozen=True, slots=True)
class VoiceChanged:
    """A voice was deleted, disabled, shared or unshared, or sounds different now: look it up again."""

    voice_profile_id: UUID


@dataclass(frozen=True, slots=True)
class CallEnded:
    """The row of this call says that it is to end: read it."""

    session_id: UUID


LiveCallMessage = LoginChanged | LoggedOut | VoiceChanged | CallEnded


def tell_login_changed(user_id: int) -> None:
    """Have the user's calls check their logins."""
    _send(_group_of(user_id), {"type": "login.changed"})


def tell_logout(user_id: int, session_key: str) -> None:
    """End the user's calls of this session."""
    _send(_group_of(user_id), {"type": "login.ended", "session_digest": digest_session(session_key)})


def tell_voice_changed(voice_profile_id: UUID) -> None:
    """Have every call that speaks in this voice look it up again, once the transaction that changes it commits."""
    message = {"type": "voice.changed", "voice_profile_id": str(voice_profile_id)}
    transaction.on_commit(partial(_send, ALL_CALLS, message), robust=True)


def tell_call_ended(user_id: int, session_id: UUID) -> None:
    """Have a call of this user read in the table of live calls that it is to end."""
    _send(_group_of(user_id), _make_call_ended(session_id))


async def tell_call_ended_async(user_id: int, session_id: UUID) -> None:
    """As `tell_call_ended`, in an event loop."""
    await _send_async(_group_of(user_id), _make_call_ended(session_id))


async def follow(user_id: int, handle: Callable[[LiveCallMessage], None]) -> None:
    """
    Hand every message to a call of this user to `handle`, until cancelled.

    A channel layer that fails is logged and joined again after a pause: it ends no call.
    """
    handler_error: Exception | None = None
    layer = get_channel_layer()
    groups = (_group_of(user_id), ALL_CALLS)
    while layer is not None:
        try:
            channel = await layer.new_channel()
            try:
                for group in groups:
                    await layer.group_add(group, channel)
                while True:
                    if (message := _read(await layer.receive(channel))) is not None:
                        try:
                            handle(message)
                        except Exception as error:
                            handler_error = error
                            raise
            finally:
                # An error here must not replace the cancellation: the call could never end while Redis is away.
                with contextlib.suppress(Exception):
                    async with asyncio.timeout(SEND_TIMEOUT_S):
                        for group in groups:
                            await layer.group_discard(group, channel)
        except Exception as error:
            if error is handler_error:
                raise  # the call's own, not the layer's
            logger.warning("messages to live calls cannot be received: %r", error)
            await asyncio.sleep(RESUBSCRIBE_S)


def digest_session(session_key: str) -> str:
    """Read access to Redis must not yield a session key that logs in."""
    return hashlib.sha256(session_key.encode()).hexdigest()


def _read(message: dict[str, Any]) -> LiveCallMessage | None:
    match message:
        case {"type": "login.changed"}:
            return LoginChanged()
        case {"type": "login.ended", "session_digest": digest}:
            return LoggedOut(digest)
        case {"type": "call.ended", "session_id": session_id}:
            with contextlib.suppress(ValueError):
                return CallEnded(UUID(session_id))
        case {"type": "voice.changed", "voice_profile_id": voice_profile_id}:
            with contextlib.suppress(ValueError):
                return VoiceChanged(UUID(voice_profile_id))
    logger.warning("a message to live calls is not understood, maybe of another version: %r", message)
    return None


def _make_call_ended(session_id: UUID) -> dict[str, Any]:
    return {"type": "call.ended", "session_id": str(session_id)}


def _send(group: str, message: dict[str, Any]) -> None:
    try:
        async_to_sync(_put)(group, message)
    except Exception as error:
        # A logout or a deletion is not undone for this: the calls poll.
        _log_unsent(group, message, error)


async def _send_async(group: str, message: dict[str, Any]) -> None:
    try:
        await _put(group, message)
    except Exception as error:
        _log_unsent(group, message, error)


async def _put(group: str, message: dict[str, Any]) -> None:
    layer = get_channel_layer()
    if layer is not None:
        async with asyncio.timeout(SEND_TIMEOUT_S):
            await layer.group_send(group, message)


def _log_unsent(group: str, message: dict[str, Any], error: Exception) -> None:
    logger.warning("%s was not sent to %s: %r", message["type"], group, error)


def _group_of(user_id: int) -> str:
    return f"user.{user_id}"
