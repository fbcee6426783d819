"""
Watches what ends or changes a call from outside: its login, operators, idleness, and the version of its voice.

A change is announced through the channel layer (`avatar_site/lib/live_calls.py`). Without Redis that reaches only the
process it comes from, so a call also polls the database: every RECHECK_S and at each turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from uuid import UUID

from channels.db import database_sync_to_async
from django.contrib.auth import get_user_model
from django.db import Error as AnyDatabaseError
from django.db.models import Subquery

from avatar_site.lib import live_calls
from realtime.call.voice import Voice
from realtime.limits import Idleness, IdleWatch
from realtime.logins import Login, find_logged_in
from realtime.models import CallState, LiveCall
from voices.models import VoiceProfile

logger = logging.getLogger(__name__)

#: A call is over within two seconds of its login. Costs two small queries a call, in the thread that all queries share.
RECHECK_S = 1.5


@dataclass(frozen=True, slots=True)
class LoginOver:
    """The call must end."""


@dataclass(frozen=True, slots=True)
class IdleSoon:
    """The call ends in so many seconds unless the user speaks."""

    ends_in_s: int


@dataclass(frozen=True, slots=True)
class IdleOver:
    """The call must end."""


@dataclass(frozen=True, slots=True)
class EndedFromOutside:
    """The call must end: an operator has ended it, or another process has the conversation now."""

    is_replaced: bool


WatchEvent = LoginOver | IdleSoon | IdleOver | EndedFromOutside


@dataclass(frozen=True, slots=True)
class Check:
    """
    What the database says of a call. `voice_version` is None for a voice that its user may not use any more.

    `state` is that of its row in the table of live calls; None: it has none.
    """

    is_login_valid: bool
    voice_version: int | None = None
    state: CallState | None = None


def check(login: Login, voice_profile_id: UUID | None, session_id: UUID | None = None) -> Check:
    """Read the login, the call's row and the version of a voice: two queries, with or without a voice."""
    row = LiveCall.objects.filter(pk__in=[session_id] if session_id else [])
    users = get_user_model().objects.annotate(call_state=Subquery(row.values("state")[:1]))
    if voice_profile_id is not None:
        usable = VoiceProfile.objects.usable_by(users.model(pk=login.user_id)).filter(pk=voice_profile_id)
        users = users.annotate(voice_version=Subquery(usable.values("version")[:1]))
    user = find_logged_in(login, users)
    state = getattr(user, "call_state", None)
    return Check(user is not None, getattr(user, "voice_version", None), state and CallState(state))


class CallWatch:
    """
    Watches one call. `on_voice_changed` is called with a voice that may be gone or sound different now.

    `handle` may end the call. The voice in use is read by `read_voice`.
    """

    def __init__(
        self,
        *,
        login: Login,
        session_id: UUID,
        idle: IdleWatch,
        clock: Callable[[], float],
        read_voice: Callable[[], Voice],
        on_voice_changed: Callable[[UUID], None],
        handle: Callable[[WatchEvent], Awaitable[None]],
    ) -> None:
        self._login = login
        self._session_id = session_id
        self._idle = idle
        self._clock = clock
        self._read_voice = read_voice
        self._on_voice_changed = on_voice_changed
        self._handle = handle
        self._is_due = asyncio.Event()
        self._is_logged_out = False

    def note_activity(self) -> None:
        """Note that the user speaks or is answered."""
        self._idle.note_activity(self._clock())

    def recheck(self) -> None:
        """Poll now."""
        self._is_due.set()

    async def run(self) -> None:
        """Watch until cancelled, or until the call must end."""
        async with asyncio.TaskGroup() as group:
            following = group.create_task(live_calls.follow(self._login.user_id, self._receive))
            is_over = False
            while not is_over:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(RECHECK_S):
                        await self._is_due.wait()
                self._is_due.clear()
                is_over = await self._poll()
            following.cancel()

    def _receive(self, message: live_calls.LiveCallMessage) -> None:
        match message:
            case live_calls.VoiceChanged(voice_profile_id):
                self._on_voice_changed(voice_profile_id)
            case live_calls.LoginChanged():
                self.recheck()
            case live_calls.CallEnded(session_id) if session_id == self._session_id:
                self.recheck()
            case live_calls.LoggedOut(digest):
                key = self._login.session_key
                if key is not None and digest == live_calls.digest_session(key):
                    self._is_logged_out = True
                    self.recheck()

    async def _poll(self) -> bool:
        """Return whether the call must end."""
        voice = self._read_voice()
        found = None if self._is_logged_out else await self._check(voice.profile_id)
        if self._is_logged_out or (found is not None and not found.is_login_valid):
            await self._handle(LoginOver())
            return True
        if found is not None and found.state in (CallState.ENDING, CallState.REPLACED):
            await self._handle(EndedFromOutside(is_replaced=found.state is CallState.REPLACED))
            return True
        if found is not None and voice.profile_id is not None and found.voice_version != voice.version:
            self._on_voice_changed(voice.profile_id)
        now = self._clock()
        match self._idle.check(now):
            case Idleness.WARN:
                await self._handle(IdleSoon(round(self._idle.compute_rest_s(now))))
            case Idleness.OVER:
                await self._handle(IdleOver())
                return True
        return False

    async def _check(self, voice_profile_id: UUID | None) -> Check | None:
        """Ask the database. A database that restarts ends no call: None, and the next poll is soon."""
        try:
            found: Check = await database_sync_to_async(check)(self._login, voice_profile_id, self._session_id)
        except AnyDatabaseError as error:
            logger.warning("login and voice of a call of user %d cannot be checked: %s", self._login.user_id, error)
            return None
        return found
