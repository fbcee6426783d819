from __future__ import annotations

import asyncio

import pytest

from inference.engines.fake import FakeLanguageModel
from inference.interfaces import Message
from realtime.read_ahead import ReadAhead

pytestmark = pytest.mark.virtual_clock


class TestReadAhead:
    async def test_reads_the_last_of_what_was_asked_for_meanwhile(self) -> None:
        llm = FakeLanguageModel(prefill_s=1.0)
        async with asyncio.TaskGroup() as group:
            read_ahead = ReadAhead(llm, timeout_s=20, start=group.create_task)
            for text in "甲乙丙":
                read_ahead.request(lambda text=text: [Message("user", text)])  # type: ignore[misc]
                await asyncio.sleep(0.1)

        assert [messages[-1].content for messages in llm.prefills] == ["甲", "丙"]

    async def test_gives_up_on_one_that_takes_too_long_and_stops_at_once(self) -> None:
        llm = FakeLanguageModel(prefill_s=3600.0)
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            read_ahead = ReadAhead(llm, timeout_s=20, start=group.create_task)
            began_at = loop.time()
            read_ahead.request(lambda: [Message("user", "甲")])
            await asyncio.sleep(1)
            read_ahead.request(lambda: [Message("user", "乙")])
            await asyncio.sleep(20)
            assert llm.prefill_calls.cancelled == 1
            task = read_ahead.stop()
            assert task is not None
            await asyncio.wait([task])

        assert loop.time() - began_at < 21.1
        assert llm.prefill_calls.active == 0
