"""
Who may enter a call: origin, login, a place, the wanted conversation; and what the call begins with.

Each check raises Refusal, with the close code that the client sees.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID, uuid4

from channels.db import database_sync_to_async
from django.conf import settings
from django.db import Error as AnyDatabaseError
from django.http.request import split_domain_port, validate_host
from django.utils import timezone

from avatar_site.lib.live_calls import tell_call_ended_async
from conversations.call_store import has_conversation
from inference.interfaces import Quality
from realtime import messages
from realtime.admission import Admission, LiveCall, Outcome
from realtime.call.prompt import EXAMPLES
from realtime.call.settings import CallSettings
from realtime.call.turns import PastTurn
from realtime.call.voice import Voice
from realtime.call_conversation import read_history
from realtime.call_table import CallTable
from realtime.logins import Login, find_logged_in, read_login
from realtime.loop_lag import loop_lag
from realtime.messages import ErrorCode
from realtime.voice_lookup import find_preferred_voice

if TYPE_CHECKING:
    from django.contrib.auth.models import User

logger = logging.getLogger(__name__)

#: How long a call that takes over from another waits until the other's turns are saved.
TAKEOVER_TIMEOUT_S = 10.0


class Refusal(Exception):
    """Raised when a call is refused. The socket closes with `close_code`, after an error message if `code` is set."""

    def __init__(self, close_code: int, code: ErrorCode | None = None) -> None:
        super().__init__(close_code)
        self.close_code = close_code
        self.code = code


_REFUSALS = {
    Outcome.FULL: (messages.CLOSE_SERVER_FULL, ErrorCode.SERVER_FULL),
    Outcome.TOO_MANY: (messages.CLOSE_TOO_MANY_CALLS, ErrorCode.TOO_MANY_CALLS),
    Outcome.DRAINING: (messages.CLOSE_RESTARTING, None),
}


@dataclass(frozen=True, slots=True)
class CallRequest:
    """A handshake whose origin and login were checked."""

    user: User
    login: Login
    #: The conversation to go on with; None: a new one.
    wanted_id: UUID | None
    #: Whether turns are kept. Decided before the call begins, for all of it.
    is_kept: bool


@dataclass(frozen=True, slots=True)
class Waiting:
    """A call is in the waiting list. It will begin the conversation `new_id`; None: it continues one, or has none."""

    new_id: UUID | None


@dataclass(frozen=True, slots=True)
class Start:
    """What a call that was admitted begins with."""

    conversation_id: UUID | None
    #: The conversation gets a row with its first turn.
    is_new: bool
    history: list[PastTurn]
    voice: Voice
    quality: Quality


def read_request(scope: Mapping[str, Any]) -> CallRequest:
    """Check the origin and the login of a handshake and read its query. Raises Refusal."""
    _check_origin(scope)
    user = scope.get("user")
    if user is None or not user.is_authenticated:
        raise Refusal(messages.CLOSE_NOT_LOGGED_IN)
    return CallRequest(
        user=user,
        login=read_login(user, scope.get("session")),
        wanted_id=_read_wanted_conversation(scope),
        is_kept=read_query(scope, "keep") in (None, "yes"),
    )


async def enter(call: LiveCall, request: CallRequest, admission: Admission, table: CallTable) -> Start | Waiting:
    """
    Take a place and read what the call begins with, or a place in the waiting list.

    Raises Refusal; the caller gives the place back.
    """
    wanted_id = request.wanted_id
    new_id = uuid4() if wanted_id is None and request.is_kept else None
    outcome, replaced = await _take_place(call, wanted_id, admission, table, row_conversation_id=wanted_id or new_id)
    if outcome is Outcome.WAITING:
        if wanted_id is not None and not await _has_conversation(wanted_id, call.user_id):
            raise Refusal(messages.CLOSE_UNKNOWN_CONVERSATION)  # not only when its turn has come
        return Waiting(new_id)
    return await _read_start(call, request, new_id, replaced)


async def enter_from_list(call: LiveCall, request: CallRequest, waiting: Waiting, admission: Admission) -> Start:
    """Read what a call begins with that the waiting list has given a place. Raises Refusal, as `enter` does."""
    outcome = admission.seat(call)
    if outcome in _REFUSALS:
        raise Refusal(*_REFUSALS[outcome])
    if await database_sync_to_async(find_logged_in)(request.login) is None:
        raise Refusal(messages.CLOSE_NOT_LOGGED_IN)
    return await _read_start(call, request, waiting.new_id, None)


async def _read_start(call: LiveCall, request: CallRequest, new_id: UUID | None, replaced: LiveCall | None) -> Start:
    wanted_id = request.wanted_id
    is_new = wanted_id is None
    history: list[PastTurn] = []
    if wanted_id is not None:
        if await _has_conversation(wanted_id, call.user_id):
            history = await read_history(wanted_id)
        elif replaced is not None and replaced.is_conversation_unbegun:
            # The connection was lost before any turn was kept: the id is still free.
            is_new = True
        else:
            raise Refusal(messages.CLOSE_UNKNOWN_CONVERSATION)
    voice, quality = await find_preferred_voice(request.user)
    return Start(conversation_id=wanted_id or new_id, is_new=is_new, history=history, voice=voice, quality=quality)


async def _has_conversation(conversation_id: UUID, owner_id: int) -> bool:
    has: bool = await database_sync_to_async(has_conversation)(conversation_id=conversation_id, owner_id=owner_id)
    return has


def make_call_settings() -> CallSettings:
    """Return the operator's settings of a call."""
    return CallSettings(
        system_prompt=settings.AVATAR_SYSTEM_PROMPT,
        examples=EXAMPLES if settings.AVATAR_EXAMPLES else (),
        place=settings.AVATAR_PLACE,
        read_time=timezone.localtime,
        pause_ms=settings.AVATAR_PAUSE_MS,
        sensitivity=settings.AVATAR_SENSITIVITY,
        max_reply_tokens=settings.AVATAR_MAX_REPLY_TOKENS,
        temperature=settings.AVATAR_TEMPERATURE,
        repeat_penalty=settings.AVATAR_REPEAT_PENALTY,
        max_history_messages=settings.AVATAR_LANGUAGE_MODEL_HISTORY_TURNS,
        max_utterance_bytes=settings.AVATAR_MAX_UTTERANCE_BYTES,
        max_utterance_chunks=settings.AVATAR_MAX_UTTERANCE_CHUNKS,
        max_utterance_s=settings.AVATAR_MAX_UTTERANCE_S,
    )


def read_query(scope: Mapping[str, Any], name: str) -> str | None:
    """Return the first value of a parameter in the URL's query."""
    values = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True).get(name)
    return values[0] if values else None


async def _take_place(
    call: LiveCall, wanted_id: UUID | None, admission: Admission, table: CallTable, *, row_conversation_id: UUID | None
) -> tuple[Outcome, LiveCall | None]:
    """
    Take a place, one in the waiting list, or that of the user's own call which holds the wanted conversation.

    Return which of the first two it is, and the user's own call, ended and saved. Raises Refusal.

    A connection that was lost is held for up to a minute, until its ping is missed; so is its place. A call of another
    process is ended the same way, and not returned.
    """
    replaced = admission.find(user_id=call.user_id, conversation_id=wanted_id) if wanted_id else None
    if replaced is None and loop_lag.exceeds(settings.AVATAR_MAX_EVENT_LOOP_LAG_MS / 1000):
        logger.warning("a call is refused: the event loop is %.0f ms late", loop_lag.worst_s * 1000)
        raise Refusal(messages.CLOSE_OVERLOADED, ErrorCode.OVERLOADED)
    limits = {"limit": settings.AVATAR_MAX_SESSIONS, "limit_per_person": settings.AVATAR_MAX_CALLS_PER_PERSON}
    # First the calls of this process, at once: two that enter it together cannot both take its last place.
    here, elsewhere = admission.enter(call, replaced=replaced, **limits), frozenset[UUID]()
    outcome = here
    if here in (Outcome.ADMITTED, Outcome.FULL):
        taken = await table.take(
            call,
            row_conversation_id,
            is_return=replaced is not None,
            is_full=here is Outcome.FULL,
            max_waiting=settings.AVATAR_MAX_WAITING,
            **limits,
        )
        outcome, elsewhere = taken.outcome, taken.replaced
    if outcome is Outcome.WAITING:
        outcome = admission.wait(call)
    elif outcome is Outcome.ADMITTED and here is Outcome.FULL:
        outcome = admission.seat(call)  # it replaces a call while there are more than the limit
    if outcome in _REFUSALS:
        raise Refusal(*_REFUSALS[outcome])
    try:
        async with asyncio.timeout(TAKEOVER_TIMEOUT_S):
            # Before the conversation is read, so that its last turn is part of the history, once.
            if replaced is not None:
                await replaced.end(messages.CLOSE_REPLACED)
            if elsewhere:
                for session_id in elsewhere:
                    await tell_call_ended_async(call.user_id, session_id)
                await table.wait_until_gone(elsewhere)
    except TimeoutError:
        late = [replaced.session_id] if replaced is not None else sorted(elsewhere)
        logger.warning("turns of session %s are saved too late for its successor", ", ".join(map(str, late)))
    except AnyDatabaseError as error:
        logger.warning("whether the call that is replaced has ended cannot be read: %s", error)
    return outcome, replaced


def _check_origin(scope: Mapping[str, Any]) -> None:
    headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
    origin = headers.get(b"origin")
    # Browsers always send an origin; other programs have no cookies that a foreign page could use.
    if origin is None or origin in settings.CSRF_TRUSTED_ORIGINS:
        return
    host = headers.get(b"host", "")
    name, _ = split_domain_port(host)
    allowed = settings.ALLOWED_HOSTS or ([".localhost", "127.0.0.1", "[::1]"] if settings.DEBUG else [])
    expected = (_read_scheme(scope, headers), host.lower())
    if urlsplit(origin)[:2] != expected or not validate_host(name, allowed):
        raise Refusal(messages.CLOSE_WRONG_ORIGIN)


def _read_scheme(scope: Mapping[str, Any], headers: Mapping[bytes, str]) -> str:
    """Return the scheme of this site's pages, as Django's `HttpRequest.scheme` does."""
    if settings.SECURE_PROXY_SSL_HEADER:
        header, secure_value = settings.SECURE_PROXY_SSL_HEADER
        sent = headers.get(header.removeprefix("HTTP_").replace("_", "-").lower().encode())
        if sent is not None:
            return "https" if sent.split(",")[0].strip() == secure_value else "http"
    return "https" if scope.get("scheme") == "wss" else "http"


def _read_wanted_conversation(scope: Mapping[str, Any]) -> UUID | None:
    wanted = read_query(scope, "conversation")
    try:
        return UUID(wanted) if wanted is not None else None
    except ValueError:
        raise Refusal(messages.CLOSE_UNKNOWN_CONVERSATION) from None
