from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator

import pytest

from inference.interfaces import InferenceUnavailable
from realtime.call.utterance import AudioDecodingError, AudioTooLong
from realtime.call.voice import VoiceUnreadable
from realtime.streams import attempt, within

pytestmark = pytest.mark.virtual_clock


class Source:
    """A stream of numbers, each of which comes after a pause of its own."""

    def __init__(self, *pauses_s: float) -> None:
        self._pauses_s = pauses_s
        self.is_closed = False

    async def run(self) -> AsyncGenerator[int]:
        try:
            for number, pause_s in enumerate(self._pauses_s):
                await asyncio.sleep(pause_s)
                yield number
        finally:
            self.is_closed = True


class TestWithin:
    async def test_gives_the_first_item_more_time_than_those_that_follow(self) -> None:
        source = Source(9, 1, 1, 3)
        items = within(source.run(), first_s=10, next_s=2, what="a token")

        assert [await anext(items) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(InferenceUnavailable, match="a token did not come within 2 s"):
            await anext(items)
        assert source.is_closed

    async def test_does_not_wait_for_a_first_item_that_never_comes(self) -> None:
        source = Source(3600)
        began_at = asyncio.get_running_loop().time()

        with pytest.raises(InferenceUnavailable):
            await anext(within(source.run(), first_s=10, next_s=2, what="a token"))

        assert asyncio.get_running_loop().time() - began_at == pytest.approx(10, abs=0.001)
        assert source.is_closed

    async def test_does_not_count_the_time_that_the_reader_takes(self) -> None:
        received = []

        async for number in within(Source(1, 1).run(), first_s=2, next_s=2, what="a token"):
            await asyncio.sleep(60)
            received.append(number)

        assert received == [0, 1]

    async def test_closes_the_source_at_once_when_the_reader_leaves(self) -> None:
        source = Source(1, 1)

        async with contextlib.aclosing(within(source.run(), first_s=2, next_s=2, what="a token")) as items:
            await anext(items)

        assert source.is_closed

    async def test_passes_on_what_the_source_raises(self) -> None:
        async def fail() -> AsyncGenerator[int]:
            yield 1
            raise ZeroDivisionError

        items = within(fail(), first_s=2, next_s=2, what="a token")

        assert await anext(items) == 1
        with pytest.raises(ZeroDivisionError):
            await anext(items)


class TestAttempt:
    async def test_returns_the_result(self) -> None:
        assert await attempt(asyncio.sleep(1, "found"), timeout_s=2) == "found"

    @pytest.mark.parametrize("error", [AudioDecodingError("noise"), AudioTooLong("a minute"), VoiceUnreadable("away")])
    async def test_returns_a_refusal_and_logs_no_failure(
        self, caplog: pytest.LogCaptureFixture, error: Exception
    ) -> None:
        async def refuse() -> None:
            raise error

        assert await attempt(refuse(), timeout_s=2) is error
        assert caplog.records == []

    async def test_returns_in_time_and_names_what_was_slow(self, caplog: pytest.LogCaptureFixture) -> None:
        async def find_a_voice() -> None:
            await asyncio.sleep(3600)

        began_at = asyncio.get_running_loop().time()
        outcome = await attempt(find_a_voice(), timeout_s=5)

        assert isinstance(outcome, TimeoutError)
        assert asyncio.get_running_loop().time() - began_at == pytest.approx(5, abs=0.001)
        assert "find_a_voice took more than 5 s" in caplog.text

    async def test_returns_an_unexpected_failure_and_logs_where_it_happened(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def find_a_voice() -> None:
            raise ZeroDivisionError

        outcome = await attempt(find_a_voice(), timeout_s=5)

        assert isinstance(outcome, ZeroDivisionError)
        assert [(record.levelno, record.exc_info is not None) for record in caplog.records] == [(logging.ERROR, True)]

    async def test_lets_a_cancellation_pass(self) -> None:
        task = asyncio.create_task(attempt(asyncio.sleep(3600), timeout_s=7200))
        await asyncio.sleep(0)

        task.cancel()

        with pytest.raises(asyncio.CancelledError):
            await task
