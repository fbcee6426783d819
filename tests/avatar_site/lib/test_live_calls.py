from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any
from uuid import uuid4

import pytest
from asgiref.sync import sync_to_async
from channels.layers import get_channel_layer
from django.db import transaction

from avatar_site.lib import live_calls
from avatar_site.lib.live_calls import (
    ALL_CALLS,
    LiveCallMessage,
    LoggedOut,
    LoginChanged,
    VoiceChanged,
    digest_session,
    follow,
    tell_login_changed,
    tell_logout,
    tell_voice_changed,
)


class Follower:
    """A call of user 1, as the messages see it."""

    def __init__(self) -> None:
        self.received: list[LiveCallMessage] = []
        self._has_received = asyncio.Event()

    def handle(self, message: LiveCallMessage) -> None:
        self.received.append(message)
        self._has_received.set()

    async def wait(self) -> list[LiveCallMessage]:
        async with asyncio.timeout(5):
            await self._has_received.wait()
        return self.received


@pytest.fixture
async def follower() -> AsyncGenerator[Follower]:
    follower = Follower()
    task = asyncio.create_task(follow(1, follower.handle))
    for _ in range(10):
        await asyncio.sleep(0)
    yield follower
    task.cancel()
    await asyncio.wait([task])


class TestFollowing:
    async def test_hears_of_its_own_logins(self, follower: Follower) -> None:
        await sync_to_async(tell_login_changed)(2)
        await sync_to_async(tell_logout)(1, "a session key")

        assert await follower.wait() == [LoggedOut(digest_session("a session key"))]

    async def test_hears_of_a_change_of_login(self, follower: Follower) -> None:
        await sync_to_async(tell_login_changed)(1)

        assert await follower.wait() == [LoginChanged()]

    @pytest.mark.django_db(transaction=True)
    async def test_hears_of_every_voice_once_the_change_is_committed(self, follower: Follower) -> None:
        kept, lost = uuid4(), uuid4()

        def change() -> None:
            with transaction.atomic():
                tell_voice_changed(lost)
                transaction.set_rollback(True)
            with transaction.atomic():
                tell_voice_changed(kept)
                assert not follower.received

        await sync_to_async(change)()

        assert await follower.wait() == [VoiceChanged(kept)]

    async def test_raises_what_the_call_raises(self) -> None:
        def fail(message: LiveCallMessage) -> None:
            raise ZeroDivisionError

        task = asyncio.create_task(follow(1, fail))
        for _ in range(10):
            await asyncio.sleep(0)
        await sync_to_async(tell_login_changed)(1)

        async with asyncio.timeout(5):
            with pytest.raises(ZeroDivisionError):
                await task

    async def test_survives_a_message_of_another_version(
        self, follower: Follower, caplog: pytest.LogCaptureFixture
    ) -> None:
        layer: Any = get_channel_layer()
        await layer.group_send(ALL_CALLS, {"type": "weather.changed"})
        await layer.group_send(ALL_CALLS, {"type": "voice.changed", "voice_profile_id": "seven"})
        await sync_to_async(tell_login_changed)(1)

        assert await follower.wait() == [LoginChanged()]
        assert "weather.changed" in caplog.text


class Layer:
    """A channel layer whose Redis goes away, or stops answering, once a call has joined its groups."""

    def __init__(self, *, does_hang: bool) -> None:
        self._does_hang = does_hang
        self.is_joined = asyncio.Event()
        self.channels = 0

    async def _fail(self) -> None:
        if self._does_hang:
            await asyncio.Event().wait()
        raise ConnectionError("away")

    async def new_channel(self) -> str:
        self.channels += 1
        if self.channels > 1:
            # A call that was to end and joins again would never end, nor would the test.
            raise asyncio.CancelledError
        return "specific.channel"

    async def group_add(self, group: str, channel: str) -> None:
        pass

    async def group_discard(self, group: str, channel: str) -> None:
        await self._fail()

    async def receive(self, channel: str) -> dict[str, Any]:
        self.is_joined.set()
        await asyncio.Event().wait()
        raise AssertionError

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        await self._fail()


class TestLeaving:
    @pytest.mark.parametrize("does_hang", [True, False])
    async def test_ends_while_redis_is_away(self, monkeypatch: pytest.MonkeyPatch, does_hang: bool) -> None:
        layer = Layer(does_hang=does_hang)
        monkeypatch.setattr(live_calls, "get_channel_layer", lambda: layer)
        monkeypatch.setattr(live_calls, "SEND_TIMEOUT_S", 0.01)
        monkeypatch.setattr(live_calls, "RESUBSCRIBE_S", 0.01)
        task = asyncio.create_task(follow(1, Follower().handle))
        await layer.is_joined.wait()

        task.cancel()
        await asyncio.wait([task], timeout=5)

        assert task.cancelled()
        assert layer.channels == 1


class TestTelling:
    @pytest.mark.parametrize("does_hang", [True, False])
    def test_neither_fails_nor_waits_without_redis(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, does_hang: bool
    ) -> None:
        monkeypatch.setattr(live_calls, "get_channel_layer", lambda: Layer(does_hang=does_hang))
        monkeypatch.setattr(live_calls, "SEND_TIMEOUT_S", 0.01)

        tell_logout(1, "a session key")

        assert "login.ended was not sent to user.1" in caplog.text
        assert "a session key" not in caplog.text
