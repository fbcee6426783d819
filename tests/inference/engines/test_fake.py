from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator

import pytest

from inference.engines.fake import FakeSpeechToText
from inference.interfaces import TranscriptionInput, TranscriptionOptions


class TestFakeSpeechToText:
    async def test_leaves_no_exception_unretrieved_when_it_is_cancelled_as_the_audio_ends(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        is_waiting, is_over = asyncio.Event(), asyncio.Event()

        async def audio() -> AsyncGenerator[TranscriptionInput]:
            is_waiting.set()
            await is_over.wait()
            return
            yield b""

        hearing = asyncio.ensure_future(anext(FakeSpeechToText().transcribe(audio(), TranscriptionOptions())))
        await is_waiting.wait()
        is_over.set()
        # One turn of the loop: the audio has ended, and who waits for it has not been told.
        await asyncio.sleep(0)
        hearing.cancel()
        await asyncio.wait([hearing])
        # Its traceback holds what it waited for.
        del hearing
        gc.collect()

        assert [record.message for record in caplog.records if record.name == "asyncio"] == []
