from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from inference.client import STATUS_TIMEOUT_S, InferenceClient
from inference.config import InferenceConfig
from inference.engines.fake import FakeLanguageModel, FakeSpeechToText, FakeTextToSpeech
from inference.interfaces import (
    DiscardUtterance,
    EndOfUtterance,
    FinalTranscript,
    GenerationFinished,
    GenerationOptions,
    InferenceUnavailable,
    Message,
    PartialTranscript,
    ProvisionalTranscript,
    Quality,
    SpeechResumed,
    SpeechStarted,
    SynthesisOptions,
    TextDelta,
    TranscriptionInput,
    TranscriptionOptions,
)
from tests.inference.conftest import PATIENCE_S

SPEECH = b"\x00\x20" * 320
SILENCE = bytes(640)


async def transcribe(client: InferenceClient, options: TranscriptionOptions, *items: TranscriptionInput) -> list[Any]:
    async def audio() -> AsyncIterator[TranscriptionInput]:
        for item in items:
            yield item

    return [event async for event in client.stt.transcribe(audio(), options)]


class TestWhatCrossesTheBorder:
    async def test_is_every_option_of_listening(self, client: InferenceClient, stt: FakeSpeechToText) -> None:
        first = TranscriptionOptions(
            language="en", endpointing=False, pause_ms=900, min_speech_ms=300, sensitivity=0.25
        )
        second = TranscriptionOptions(is_background=True)

        await transcribe(client, first, second)

        assert stt.options_seen == [first, second]

    async def test_is_every_event_of_hearing(self, client: InferenceClient, stt: FakeSpeechToText) -> None:
        stt.transcripts = ["你好嗎", "好"]

        events = await transcribe(
            client,
            TranscriptionOptions(),
            *[SPEECH] * 30,
            *[SILENCE] * 15,
            *[SPEECH] * 15,
            DiscardUtterance(),
            *[SPEECH] * 15,
            EndOfUtterance(),
        )

        kinds = [type(event) for event in events]
        assert kinds == [
            SpeechStarted,
            PartialTranscript,
            ProvisionalTranscript,
            SpeechResumed,
            PartialTranscript,
            SpeechStarted,
            FinalTranscript,
        ]
        assert events[-1] == FinalTranscript("你好嗎", "zh", speech_start_ms=1200, speech_end_ms=1500, received_ms=1500)

    async def test_is_every_option_of_speaking(self, client: InferenceClient, tts: FakeTextToSpeech) -> None:
        options = SynthesisOptions(
            voice="zf_xiaoxiao:0.6+zm_yunxi:0.4",
            quality=Quality.HIGH_QUALITY,
            speed=1.5,
            style=b"\x00\x00\x80\x3e" * 256,
            is_first=False,
            is_last=False,
            is_background=True,
        )

        chunks = [chunk async for chunk in client.tts.synthesise("你好", options)]

        assert tts.requests == [("你好", options)]
        assert {chunk.sample_rate_hz for chunk in chunks} == {24_000}
        assert await client.tts.list_voices() == tts.VOICES
        assert await client.tts.list_styles() == await tts.list_styles()

    async def test_is_every_event_of_thinking(self, client: InferenceClient, llm: FakeLanguageModel) -> None:
        messages = (
            Message("system", "短一點", is_shared=True),
            Message("user", "hi"),
            Message("assistant", "嗨"),
            Message("user", "再見"),
        )
        llm.replies = ["一二三四五"]

        options = GenerationOptions(max_tokens=3, temperature=0.5, seed=7, repeat_penalty=1.25)

        events = [event async for event in client.llm.generate(messages, options)]
        await client.llm.prefill(messages[:2])

        assert llm.requests == [messages]
        assert llm.options == [options]
        assert [message.is_shared for message in llm.requests[0]] == [True, False, False, False]
        assert llm.prefills == [messages[:2]]
        assert events == [*map(TextDelta, "一二三"), GenerationFinished("length", prompt_tokens=8, completion_tokens=3)]


class TestAQuietStream:
    async def test_survives_its_keepalive_pings(
        self,
        start_server: Callable[..., Any],
        config: InferenceConfig,
        connect: Callable[[int], InferenceClient],
        stt: FakeSpeechToText,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        # Forty pings; at the third too many, gRPC's own default cuts the connection.
        monkeypatch.setattr("inference.client.KEEPALIVE_MS", 100)
        server = await start_server(config)
        unmuted = asyncio.Event()

        async def audio() -> AsyncIterator[TranscriptionInput]:
            yield SILENCE
            await unmuted.wait()
            for _ in range(30):
                yield SPEECH
            yield EndOfUtterance()

        async def listen() -> list[Any]:
            return [event async for event in connect(server.port).stt.transcribe(audio(), TranscriptionOptions())]

        listening = asyncio.create_task(listen())
        asyncio.get_running_loop().call_later(4.0, unmuted.set)

        assert isinstance((await listening)[-1], FinalTranscript)


class TestInferenceClient:
    async def test_is_cheap_to_make(self) -> None:
        InferenceClient("127.0.0.1:1")

    async def test_says_that_nobody_is_there(self, connect: Callable[[int], InferenceClient]) -> None:
        client = connect(1)

        with pytest.raises(InferenceUnavailable):
            await client.status()
        with pytest.raises(InferenceUnavailable):
            await client.tts.list_voices()

    async def test_does_not_wait_for_a_process_that_hangs(self, connect: Callable[[int], InferenceClient]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            client = connect(listener.getsockname()[1])
            started = time.monotonic()

            with pytest.raises(InferenceUnavailable):
                await client.status()

            assert time.monotonic() - started < STATUS_TIMEOUT_S + 1

    async def test_ends_calls_when_it_is_closed(self, client: InferenceClient, llm: FakeLanguageModel) -> None:
        llm.hold_after(1)
        events: Any = client.llm.generate([Message("user", "hi")], GenerationOptions())
        await anext(events)

        await client.close()

        with pytest.raises(InferenceUnavailable):
            await asyncio.wait_for(anext(events), PATIENCE_S)

    async def test_connects_again_after_it_was_closed(self, client: InferenceClient) -> None:
        await client.status()
        await client.close()

        assert (await client.status()).is_ready

    async def test_serves_several_event_loops(self, client: InferenceClient) -> None:
        async def ask() -> bool:
            try:
                return (await client.status()).is_ready
            finally:
                await client.close()

        answers = [await asyncio.to_thread(asyncio.run, ask()) for _ in range(3)]

        assert answers == [True, True, True]
        assert (await client.status()).is_ready
