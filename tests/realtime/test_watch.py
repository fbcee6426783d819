from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import pytest
from asgiref.sync import sync_to_async
from channels.layers import get_channel_layer
from django.contrib.auth.models import User
from django.db import InterfaceError, OperationalError, connection
from django.db.models import QuerySet
from django.test import Client
from django.test.utils import CaptureQueriesContext

from avatar_site.lib import live_calls
from realtime.call.voice import Voice
from realtime.limits import IDLE_WARNING_S, IdleWatch
from realtime.logins import Login, read_login
from realtime.models import CallState
from realtime.watch import (
    RECHECK_S,
    CallWatch,
    Check,
    EndedFromOutside,
    IdleOver,
    IdleSoon,
    LoginOver,
    WatchEvent,
    check,
)
from tests import factories
from voices.models import VoiceProfile

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def profile(alice: User) -> VoiceProfile:
    return factories.create_voice_profile(owner=alice, version=3)


def make_login(user: User) -> Login:
    client = Client()
    client.force_login(user)
    session: Any = client.session
    return read_login(user, session)


class TestCheck:
    @pytest.mark.parametrize("has_voice", [False, True])
    def test_costs_two_queries(self, alice: User, profile: VoiceProfile, has_voice: bool) -> None:
        login = make_login(alice)

        with CaptureQueriesContext(connection) as queries:
            found = check(login, profile.pk if has_voice else None)

        assert found == Check(True, 3 if has_voice else None)
        assert len(queries) == 2

    def test_has_no_version_of_a_voice_that_is_gone_or_may_not_be_used(
        self, alice: User, bob: User, profile: VoiceProfile
    ) -> None:
        voices = VoiceProfile.objects.filter(pk=profile.pk)
        alices, bobs = read_login(alice, None), read_login(bob, None)
        assert check(bobs, profile.pk) == Check(True, None)
        voices.update(is_shared=True)
        assert check(bobs, profile.pk) == Check(True, 3)

        voices.update(availability="deleting")
        assert check(alices, profile.pk) == Check(True, None)
        voices.delete()
        assert check(alices, profile.pk) == Check(True, None)

    def test_fails_with_the_login(self, alice: User, profile: VoiceProfile) -> None:
        login = make_login(alice)
        alice.set_password("something else entirely")
        alice.save()

        assert not check(login, profile.pk).is_login_valid


#: Much sooner than a poll.
AT_ONCE_S = 0.01
#: More than any test takes: a watch that goes on fails.
MAX_POLLS = 200


class Watched:
    """A call that is watched: what its watch has said of it, and when, in seconds since it began."""

    def __init__(self, login: Login, *, voice: Voice, idle_limit_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._began_at = self._loop.time()
        self.voice = voice
        self.session_id = uuid4()
        self.events: list[tuple[float, WatchEvent]] = []
        self.changed_voices: list[UUID] = []
        self.has_changed = asyncio.Event()
        self.polls = 0
        self.on_poll: Callable[[int], None] = lambda count: None
        self.watch = CallWatch(
            login=login,
            session_id=self.session_id,
            idle=IdleWatch(limit_s=idle_limit_s, now=self._loop.time()),
            clock=self._loop.time,
            read_voice=self._read_voice,
            on_voice_changed=self._note_voice,
            handle=self._handle,
        )
        self.task = asyncio.create_task(self.watch.run())

    def read_clock(self) -> float:
        return self._loop.time() - self._began_at

    def _read_voice(self) -> Voice:
        self.polls += 1
        assert self.polls <= MAX_POLLS, "what the test waits for does not come"
        self.on_poll(self.polls)
        return self.voice

    def _note_voice(self, voice_profile_id: UUID) -> None:
        self.changed_voices.append(voice_profile_id)
        self.has_changed.set()

    async def _handle(self, event: WatchEvent) -> None:
        self.events.append((self.read_clock(), event))


@asynccontextmanager
async def watch_call(login: Login, *, voice: Voice | None = None, idle_limit_s: float = 0.0) -> AsyncGenerator[Watched]:
    """A call that hears what calls are told; afterwards its watch is over, and nothing of it is left."""
    watched = Watched(login, voice=voice or Voice(), idle_limit_s=idle_limit_s)
    for _ in range(10):
        await asyncio.sleep(0)
    try:
        yield watched
    finally:
        watched.task.cancel()
        await asyncio.wait([watched.task])
        assert len(asyncio.all_tasks()) == 1


async def tell(group: str, **message: str) -> None:
    """Send as `live_calls` does, but in this event loop: a thread would let its clock jump to the next poll."""
    layer: Any = get_channel_layer()
    await layer.group_send(group, message)


async def wait_for_polls(watched: Watched, count: int) -> None:
    """Return when so many polls are over: the next one begins."""
    reached = asyncio.Event()
    wanted = watched.polls + count + 1
    watched.on_poll = lambda polls: reached.set() if polls == wanted else None
    await reached.wait()


@pytest.fixture
def is_told_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process without Redis, of changes that others make."""
    monkeypatch.setattr(live_calls, "get_channel_layer", lambda: None)


@pytest.mark.virtual_clock
class TestEndingFromOutside:
    @pytest.mark.usefixtures("is_told_nothing")
    @pytest.mark.parametrize("state", [CallState.ENDING, CallState.REPLACED])
    async def test_ends_the_call_within_two_seconds_where_nothing_is_told(self, alice: User, state: CallState) -> None:
        login = await sync_to_async(make_login)(alice)
        async with watch_call(login) as watched:
            await sync_to_async(factories.create_live_call)(alice, session_id=watched.session_id, state=state)
            await watched.task

        ((ended_at, event),) = watched.events
        assert event == EndedFromOutside(is_replaced=state is CallState.REPLACED)
        assert ended_at <= 2

    async def test_is_looked_for_at_once_when_it_is_told_and_ends_no_other_call(self, alice: User) -> None:
        login = await sync_to_async(make_login)(alice)
        async with watch_call(login) as watched, watch_call(login) as other:
            for each, state in ((watched, CallState.ENDING), (other, CallState.ACTIVE)):
                await sync_to_async(factories.create_live_call)(alice, session_id=each.session_id, state=state)
            began_at = watched.read_clock()
            await tell(f"user.{alice.pk}", type="call.ended", session_id=str(watched.session_id))
            await watched.task

        ((ended_at, event),) = watched.events
        assert event == EndedFromOutside(is_replaced=False)
        assert ended_at - began_at < AT_ONCE_S
        assert other.events == []

    @pytest.mark.usefixtures("is_told_nothing")
    async def test_does_not_come_from_a_row_that_is_missing(self, alice: User) -> None:
        login = await sync_to_async(make_login)(alice)
        async with watch_call(login) as watched:
            await wait_for_polls(watched, 2)

        assert watched.events == []


@pytest.mark.virtual_clock
class TestLosingTheLogin:
    @pytest.mark.usefixtures("is_told_nothing")
    async def test_ends_the_call_within_two_seconds_where_nothing_is_told(self, alice: User) -> None:
        login = await sync_to_async(make_login)(alice)
        await User.objects.aupdate(is_active=False)
        async with watch_call(login) as watched:
            await watched.task

        ((ended_at, event),) = watched.events
        assert event == LoginOver()
        assert ended_at <= 2

    async def test_is_looked_for_at_once_when_it_may_be_over(self, alice: User) -> None:
        login = await sync_to_async(make_login)(alice)
        await User.objects.aupdate(is_active=False)
        async with watch_call(login) as watched:
            await tell(f"user.{alice.pk}", type="login.changed")
            await watched.task

        ((ended_at, event),) = watched.events
        assert event == LoginOver()
        assert ended_at < AT_ONCE_S

    async def test_is_looked_for_at_each_turn(self, alice: User) -> None:
        login = await sync_to_async(make_login)(alice)
        await User.objects.aupdate(is_active=False)
        async with watch_call(login) as watched:
            watched.watch.recheck()
            await watched.task

        ((ended_at, event),) = watched.events
        assert event == LoginOver()
        assert ended_at < AT_ONCE_S

    async def test_by_logging_out_is_believed_although_the_session_still_is_there(self, alice: User) -> None:
        login = await sync_to_async(make_login)(alice)
        assert login.session_key is not None
        digest = live_calls.digest_session(login.session_key)
        async with watch_call(login) as watched:
            await tell(f"user.{alice.pk}", type="login.ended", session_digest=digest)
            await watched.task

        ((ended_at, event),) = watched.events
        assert event == LoginOver()
        assert ended_at < AT_ONCE_S

    @pytest.mark.parametrize("has_session", [True, False])
    async def test_in_another_session_is_nothing(self, alice: User, has_session: bool) -> None:
        here = await sync_to_async(make_login)(alice) if has_session else read_login(alice, None)
        async with watch_call(here) as watched:
            digest = live_calls.digest_session("another session's key")
            await tell(f"user.{alice.pk}", type="login.ended", session_digest=digest)
            await wait_for_polls(watched, 3)

        assert watched.events == []

    @pytest.mark.usefixtures("is_told_nothing")
    @pytest.mark.parametrize("error", [OperationalError, InterfaceError])
    async def test_is_not_assumed_while_the_database_is_away_and_is_noticed_afterwards(
        self, alice: User, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
    ) -> None:
        def fail(query: Any) -> None:
            raise error("away")

        login = read_login(alice, None)
        await User.objects.aupdate(is_active=False)
        async with watch_call(login) as watched:
            with monkeypatch.context() as away:
                away.setattr(QuerySet, "first", fail)
                await wait_for_polls(watched, 3)
            assert watched.events == []
            await watched.task

        assert [event for _, event in watched.events] == [LoginOver()]


@pytest.mark.virtual_clock
class TestIdling:
    @pytest.mark.usefixtures("is_told_nothing")
    async def test_is_warned_of_and_then_ends_the_call(self, alice: User) -> None:
        async with watch_call(read_login(alice, None), idle_limit_s=120) as watched:
            await watched.task

        (warned_at, warning), (ended_at, end) = watched.events
        assert (type(warning), end) == (IdleSoon, IdleOver())
        assert warned_at == pytest.approx(120 - IDLE_WARNING_S, abs=RECHECK_S)
        assert isinstance(warning, IdleSoon)
        assert warning.ends_in_s == pytest.approx(120 - warned_at, abs=1)
        assert 120 <= ended_at <= 120 + RECHECK_S

    @pytest.mark.usefixtures("is_told_nothing")
    async def test_begins_again_with_activity(self, alice: User) -> None:
        async with watch_call(read_login(alice, None), idle_limit_s=120) as watched:
            active_at = 90.0
            watched.on_poll = lambda polls: watched.watch.note_activity() if polls == active_at / RECHECK_S else None
            await watched.task

        assert [type(event) for _, event in watched.events] == [IdleSoon, IdleSoon, IdleOver]
        assert watched.events[-1][0] == pytest.approx(active_at + 120, abs=RECHECK_S)


@pytest.mark.virtual_clock
class TestChangingTheVoice:
    async def test_is_passed_on_at_once_when_it_is_told(self, alice: User) -> None:
        voice_profile_id = uuid4()
        async with watch_call(read_login(alice, None)) as watched:
            await tell(live_calls.ALL_CALLS, type="voice.changed", voice_profile_id=str(voice_profile_id))
            async with asyncio.timeout(1):
                await watched.has_changed.wait()

            assert watched.read_clock() < AT_ONCE_S
        assert watched.changed_voices == [voice_profile_id]

    @pytest.mark.usefixtures("is_told_nothing")
    @pytest.mark.parametrize("change", [{"version": 4}, {"availability": "disabled"}])
    async def test_is_noticed_where_nothing_is_told(
        self, alice: User, profile: VoiceProfile, change: dict[str, Any]
    ) -> None:
        async with watch_call(read_login(alice, None), voice=Voice(profile.pk, version=3)) as watched:
            await wait_for_polls(watched, 2)
            assert watched.changed_voices == []
            await VoiceProfile.objects.filter(pk=profile.pk).aupdate(**change)
            await wait_for_polls(watched, 1)

        assert watched.changed_voices[0] == profile.pk
        assert watched.events == []

    @pytest.mark.usefixtures("is_told_nothing")
    async def test_is_not_looked_for_in_the_default_voice(self, alice: User) -> None:
        async with watch_call(read_login(alice, None)) as watched:
            await wait_for_polls(watched, 2)

        assert watched.changed_voices == []
