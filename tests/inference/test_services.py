from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from inference.client import InferenceClient, make_metadata
from inference.config import InferenceConfig
from inference.engines.background_gate import BackgroundGate
from inference.engines.fake import FakeLanguageModel, FakeSpeakerEncoder, FakeSpeechToText, FakeTextToSpeech
from inference.host import WHOLE_PROCESS, InferenceServer
from inference.interfaces import (
    DiscardUtterance,
    EndOfUtterance,
    FinalTranscript,
    GenerationOptions,
    InferenceBusy,
    InferenceError,
    InferenceUnavailable,
    Message,
    Quality,
    Role,
    SpeechStarted,
    SynthesisOptions,
    TranscriptionInput,
    TranscriptionOptions,
    VoiceReference,
)
from inference.proto import inference_pb2 as pb
from inference.proto import inference_pb2_grpc as rpc
from inference.services import SERVICE_OF_ROLE
from tests.inference.calls import (
    HELLO,
    HUM,
    NOT_SERVING,
    SERVING,
    SPEECH,
    endless_silence,
    endless_speech,
    generate,
    health,
    read_to_the_end,
    synthesise,
    transcribe,
)
from tests.inference.conftest import PATIENCE_S, SECRET, ScriptedEngines, eventually


class TestSecret:
    @pytest.mark.parametrize("secret", ["", "a guess", SECRET[:-1], SECRET + "!"])
    async def test_is_asked_of_every_call(
        self, server: InferenceServer, llm: FakeLanguageModel, stt: FakeSpeechToText, secret: str
    ) -> None:
        stranger = InferenceClient(f"127.0.0.1:{server.port}", secret=secret)
        calls = (
            stranger.status(),
            stranger.tts.list_voices(),
            stranger.encoder.embed(HUM),
            stranger.llm.prefill(HELLO),
            generate(stranger),
            synthesise(stranger),
        )
        try:
            async with asyncio.timeout(PATIENCE_S):
                for call in calls:
                    with pytest.raises(InferenceUnavailable, match="AVATAR_INFERENCE_SECRET"):
                        await call
                # gRPC may lose the reason of a stream that is ended while it is being sent.
                with pytest.raises(InferenceUnavailable):
                    await transcribe(stranger, SPEECH)
        finally:
            await stranger.close()

        assert llm.calls.started == llm.prefill_calls.started == stt.calls.started == 0

    async def test_is_asked_for_health_as_well(self, server: InferenceServer) -> None:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())

        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED

    async def test_turns_away_a_stream_that_sends_nothing(self, server: InferenceServer) -> None:
        is_over = asyncio.Event()

        async def requests() -> AsyncIterator[pb.TranscribeRequest]:
            await is_over.wait()
            yield pb.TranscribeRequest()

        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            with pytest.raises(grpc.aio.AioRpcError, match="AVATAR_INFERENCE_SECRET"):
                async with asyncio.timeout(PATIENCE_S):
                    await read_to_the_end(rpc.SpeechToTextStub(channel).Transcribe(requests()))

    async def test_that_is_wrong_is_logged_once_a_minute(
        self, server: InferenceServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        stranger = InferenceClient(f"127.0.0.1:{server.port}", secret="a guess")
        for _ in range(3):
            with pytest.raises(InferenceUnavailable):
                await stranger.status()
        await stranger.close()

        said = [record.message for record in caplog.records if "turned away" in record.message]
        assert len(said) == 1
        assert "a guess" not in said[0]


class TestCancelling:
    """What a caller no longer wants, no engine goes on with."""

    async def test_ends_a_generation(self, client: InferenceClient, llm: FakeLanguageModel) -> None:
        llm.hold_after(3)
        talking = asyncio.create_task(generate(client))
        await asyncio.wait_for(llm.is_holding.wait(), PATIENCE_S)

        talking.cancel()
        await asyncio.gather(talking, return_exceptions=True)

        await eventually(lambda: llm.calls.active == 0)
        assert llm.calls.cancelled == 1

    async def test_ends_a_prefill(self, client: InferenceClient, llm: FakeLanguageModel) -> None:
        llm.prefill_s = 60
        reading = asyncio.create_task(client.llm.prefill(HELLO))
        await eventually(lambda: llm.prefill_calls.active == 1)

        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)

        await eventually(lambda: llm.prefill_calls.cancelled == 1)

    async def test_ends_a_synthesis(self, client: InferenceClient, tts: FakeTextToSpeech) -> None:
        tts.real_time_factor = 5
        speaking = asyncio.create_task(synthesise(client))
        await eventually(lambda: tts.calls.active == 1)

        speaking.cancel()
        await asyncio.gather(speaking, return_exceptions=True)

        await eventually(lambda: tts.calls.cancelled == 1)

    async def test_ends_a_transcription(self, client: InferenceClient, stt: FakeSpeechToText) -> None:
        async def listen() -> None:
            await read_to_the_end(client.stt.transcribe(endless_silence(), TranscriptionOptions()))

        listening = asyncio.create_task(listen())
        await eventually(lambda: stt.heard_bytes > 0)

        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)

        await eventually(lambda: stt.calls.cancelled == 1)

    async def test_is_what_closing_the_iterator_does(
        self, client: InferenceClient, stt: FakeSpeechToText, llm: FakeLanguageModel, tts: FakeTextToSpeech
    ) -> None:
        llm.tokens_per_s = tts.real_time_factor = 1
        streams: list[Any] = [
            client.llm.generate(HELLO, GenerationOptions()),
            client.tts.synthesise("說一句很長很長的話", SynthesisOptions()),
            client.stt.transcribe(endless_speech(), TranscriptionOptions()),
        ]

        for stream in streams:
            async with asyncio.timeout(PATIENCE_S), aclosing(stream):
                await anext(stream)

        for engine in (llm, tts, stt):
            await eventually(lambda calls=engine.calls: calls.cancelled == 1 and calls.active == 0)  # type: ignore[misc]
        assert [role.active_calls for role in (await client.status()).roles] == [0, 0, 0, 0]

    async def test_lets_other_calls_go_on(self, client: InferenceClient, llm: FakeLanguageModel) -> None:
        llm.hold_after(2)
        cancelled, kept = (asyncio.create_task(generate(client)) for _ in range(2))
        await eventually(lambda: llm.calls.active == 2)

        cancelled.cancel()
        await eventually(lambda: llm.calls.cancelled == 1)
        llm.release()

        assert "hello" in await asyncio.wait_for(kept, PATIENCE_S)


class TestBadInput:
    async def test_is_audio_of_an_odd_length(self, client: InferenceClient, stt: FakeSpeechToText) -> None:
        with pytest.raises(InferenceError, match="even number of bytes"):
            await transcribe(client, b"123")

        await eventually(lambda: stt.calls.active == 0)

    async def test_is_a_language_nobody_speaks(self, client: InferenceClient) -> None:
        with pytest.raises(InferenceError, match="'fr': expected zh, en"):
            await transcribe(client, TranscriptionOptions(language="fr"))

    async def test_is_a_role_that_no_chat_has(self, client: InferenceClient) -> None:
        robot: Any = "robot"

        with pytest.raises(InferenceError, match="'robot': expected system, user or assistant"):
            async for _ in client.llm.generate([Message(robot, "beep")], GenerationOptions()):
                pass

    async def test_is_a_quality_there_is_not(self, server: InferenceServer) -> None:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            request = pb.SynthesiseRequest(text="hi", quality="superb")
            call = rpc.TextToSpeechStub(channel).Synthesise(request, metadata=make_metadata(SECRET))

            with pytest.raises(grpc.aio.AioRpcError) as caught:
                async for _ in call:
                    pass

        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT

    @pytest.mark.parametrize("first", [pb.TranscribeRequest(pcm=bytes(640)), None], ids=["audio first", "nothing"])
    async def test_is_a_transcription_without_options(
        self, server: InferenceServer, first: pb.TranscribeRequest | None
    ) -> None:
        async def requests() -> AsyncIterator[pb.TranscribeRequest]:
            if first is not None:
                yield first

        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            with pytest.raises(grpc.aio.AioRpcError, match="first message of a transcription is its options"):
                async for _ in rpc.SpeechToTextStub(channel).Transcribe(requests(), metadata=make_metadata(SECRET)):
                    pass

    async def test_is_a_message_beyond_the_limit(self, client: InferenceClient) -> None:
        with pytest.raises(InferenceError):
            await transcribe(client, bytes(8 * 1024 * 1024))


class TestBackground:
    """What is made in the background waits for a conversation wherever it is: heard, thought about, or in between."""

    @pytest.fixture(autouse=True)
    def short_pause(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("inference.host.PAUSE_S", 0.05)

    @pytest.fixture
    async def turn(self, server: InferenceServer) -> AsyncIterator[Callable[[], asyncio.Task[None]]]:
        """Wait for the turn of something in the background."""
        with server.host.gate.background_job() as job:
            yield lambda: asyncio.create_task(job.wait_for_turn())

    async def test_waits_while_somebody_speaks(
        self, client: InferenceClient, server: InferenceServer, turn: Callable[[], asyncio.Task[None]]
    ) -> None:
        events: Any = client.stt.transcribe(endless_speech(), TranscriptionOptions())
        async with aclosing(events):
            assert isinstance(await anext(events), SpeechStarted)
            waiting = turn()
            await asyncio.sleep(0.2)
            assert not waiting.done()

        await asyncio.wait_for(waiting, PATIENCE_S)

    async def test_waits_no_longer_than_the_utterance(
        self, client: InferenceClient, turn: Callable[[], asyncio.Task[None]]
    ) -> None:
        async def audio() -> AsyncIterator[TranscriptionInput]:
            yield SPEECH
            yield EndOfUtterance()
            async for item in endless_silence():
                yield item

        events: Any = client.stt.transcribe(audio(), TranscriptionOptions())
        async with aclosing(events):
            while not isinstance(await anext(events), FinalTranscript):
                pass
            await asyncio.wait_for(turn(), PATIENCE_S)

    async def test_waits_for_nothing_that_is_discarded(
        self, client: InferenceClient, turn: Callable[[], asyncio.Task[None]]
    ) -> None:
        is_heard = asyncio.Event()

        async def audio() -> AsyncIterator[TranscriptionInput]:
            yield SPEECH
            await is_heard.wait()
            yield DiscardUtterance()
            async for item in endless_silence():
                yield item

        events: Any = client.stt.transcribe(audio(), TranscriptionOptions())
        async with aclosing(events):
            assert isinstance(await anext(events), SpeechStarted)
            is_heard.set()
            await asyncio.wait_for(turn(), PATIENCE_S)

    @pytest.mark.parametrize("is_background", [False, True])
    async def test_waits_for_nobody_who_listens_to_silence_or_to_a_recording(
        self,
        client: InferenceClient,
        stt: FakeSpeechToText,
        turn: Callable[[], asyncio.Task[None]],
        *,
        is_background: bool,
    ) -> None:
        audio = endless_speech() if is_background else endless_silence()
        events = client.stt.transcribe(audio, TranscriptionOptions(is_background=is_background))
        listening = asyncio.create_task(read_to_the_end(events))
        await eventually(lambda: stt.heard_bytes > 20_000)  # of speech, three times what begins an utterance

        await asyncio.wait_for(turn(), 0.05)

        listening.cancel()

    async def test_waits_while_an_answer_is_thought_of(
        self, client: InferenceClient, llm: FakeLanguageModel, turn: Callable[[], asyncio.Task[None]]
    ) -> None:
        llm.hold_after(1)
        events: Any = client.llm.generate(HELLO, GenerationOptions())
        async with aclosing(events):
            await anext(events)
            waiting = turn()
            await asyncio.sleep(0.2)
            assert not waiting.done()

        await asyncio.wait_for(waiting, PATIENCE_S)

    async def test_waits_while_what_was_said_so_far_is_read(
        self, client: InferenceClient, llm: FakeLanguageModel, turn: Callable[[], asyncio.Task[None]]
    ) -> None:
        llm.prefill_s = 60
        reading = asyncio.create_task(client.llm.prefill(HELLO))
        await eventually(lambda: llm.prefill_calls.active == 1)
        waiting = turn()
        await asyncio.sleep(0.2)
        assert not waiting.done()

        reading.cancel()
        await asyncio.wait_for(waiting, PATIENCE_S)

    async def test_waits_in_the_pause_after_it(
        self,
        start_server: Callable[..., Any],
        config: InferenceConfig,
        connect: Callable[[int], InferenceClient],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("inference.host.PAUSE_S", 60)
        server: InferenceServer = await start_server(config)
        await generate(connect(server.port))

        with server.host.gate.background_job() as job:
            waiting = asyncio.create_task(job.wait_for_turn())
            await asyncio.sleep(0.2)
            assert not waiting.done()
            waiting.cancel()

    async def test_has_one_gate_for_all_engines_on_the_processor(
        self, start_server: Callable[..., Any], config: InferenceConfig, engines: ScriptedEngines
    ) -> None:
        here, elsewhere = Gated(), Gated()
        elsewhere.device = "cuda:0"
        engines |= {"tts:good": here, "encoder:good": elsewhere}

        server: InferenceServer = await start_server(config)

        assert here.gate is server.host.gate
        assert elsewhere.gate is not server.host.gate

    async def test_does_not_wait_for_what_another_device_does(
        self,
        start_server: Callable[..., Any],
        config: InferenceConfig,
        connect: Callable[[int], InferenceClient],
        llm: FakeLanguageModel,
    ) -> None:
        llm.device = "cuda:0"
        llm.hold_after(1)
        server: InferenceServer = await start_server(config)
        events: Any = connect(server.port).llm.generate(HELLO, GenerationOptions())

        async with aclosing(events):
            await anext(events)
            with server.host.gate.background_job() as job:
                await asyncio.wait_for(job.wait_for_turn(), 0.05)


class Gated(FakeTextToSpeech):
    def __init__(self) -> None:
        super().__init__()
        self.gate = BackgroundGate()


class TestAnEngineThatFails:
    @pytest.mark.parametrize(
        ("error", "expected"),
        [
            (InferenceError("broken"), InferenceError),
            (InferenceBusy("full"), InferenceBusy),
            (InferenceUnavailable("away"), InferenceUnavailable),
            (RuntimeError("surprise"), InferenceError),
        ],
    )
    async def test_ends_its_own_call_only(
        self, client: InferenceClient, llm: FakeLanguageModel, error: Exception, expected: type[Exception]
    ) -> None:
        llm.fail_next(error, after_tokens=2)

        with pytest.raises(InferenceError) as caught:
            await generate(client)

        assert type(caught.value) is expected
        assert str(error.args[0]) in str(caught.value)
        assert await generate(client)

    async def test_by_a_value_is_not_taken_for_a_request_that_is_wrong(
        self, client: InferenceClient, server: InferenceServer, llm: FakeLanguageModel, caplog: pytest.LogCaptureFixture
    ) -> None:
        llm.fail_next(ValueError("a tensor of the wrong shape"))
        stub = rpc.LanguageModelStub(client.channel())

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await read_to_the_end(stub.Generate(pb.GenerateRequest(max_tokens=1), metadata=client.metadata))

        assert caught.value.code() is grpc.StatusCode.INTERNAL
        assert caught.value.details() == "ValueError: a tensor of the wrong shape"
        (record,) = [each for each in caplog.records if each.name == "inference.services" and each.levelname == "ERROR"]
        assert record.exc_info is not None
        assert isinstance(record.exc_info[1], ValueError)


class TestSpeakerEncoder:
    async def test_of_none_leaves_a_conversation_possible(
        self, engines: ScriptedEngines, start_server: Callable[..., Any], connect: Any, config: InferenceConfig
    ) -> None:
        engines["encoder:good"] = OSError("weights are missing")
        server = await start_server(config)
        client = connect(server.port)

        with pytest.raises(InferenceUnavailable, match="weights are missing"):
            await client.encoder.embed(HUM)
        assert (await client.status()).is_ready
        assert await health(server.port, WHOLE_PROCESS) == SERVING
        assert await health(server.port, SERVICE_OF_ROLE[Role.ENCODER]) == NOT_SERVING

    async def test_takes_a_minute_of_a_recording(self, client: InferenceClient, encoder: FakeSpeakerEncoder) -> None:
        minute = HUM * 30

        assert await client.encoder.embed(minute) == await encoder.embed(minute)
        assert await client.encoder.embed(minute * 3, sample_rate_hz=48_000)

    async def test_says_what_is_wrong_with_it(self, client: InferenceClient) -> None:
        for pcm, reason in ((HUM[:1000], "0.0 s long"), (HUM * 31, "62.0 s long"), (bytes(32_000), "no speech")):
            with pytest.raises(InferenceError, match=reason):
                await client.encoder.embed(pcm)

    async def test_may_be_busy_or_away(self, client: InferenceClient, encoder: FakeSpeakerEncoder) -> None:
        encoder.hold()
        embedding = [asyncio.create_task(client.encoder.embed(HUM)) for _ in range(2)]
        await eventually(lambda: encoder.calls.active == 2)

        with pytest.raises(InferenceBusy, match="encoder has 2 calls"):
            await client.encoder.embed(HUM)

        encoder.release()
        await asyncio.gather(*embedding)
        encoder.start_outage()
        with pytest.raises(InferenceUnavailable):
            await client.encoder.embed(HUM)

    async def test_stops_when_the_caller_leaves(self, client: InferenceClient, encoder: FakeSpeakerEncoder) -> None:
        encoder.hold()
        embedding = asyncio.create_task(client.encoder.embed(HUM))
        await eventually(lambda: encoder.calls.active == 1)

        embedding.cancel()

        await eventually(lambda: encoder.calls.cancelled == 1)


class TestStyle:
    async def test_must_be_whole(self, client: InferenceClient) -> None:
        with pytest.raises(InferenceError, match="style: expected 256 float32, got 8 bytes"):
            async for _ in client.tts.synthesise("你好", SynthesisOptions(style=bytes(8))):
                pass


class TestVoiceReference:
    REFERENCE = VoiceReference(b"\x01\x02" * 24_000 * 12, 24_000, "這是我的聲音。")

    async def test_arrives_whole(self, client: InferenceClient, tts: FakeTextToSpeech) -> None:
        options = SynthesisOptions(reference=self.REFERENCE, quality=Quality.HIGH_QUALITY)

        chunks = [chunk async for chunk in client.tts.synthesise("你好", options)]

        assert tts.requests == [("你好", options)]
        assert {chunk.quality for chunk in chunks} == {Quality.HIGH_QUALITY}

    @pytest.mark.parametrize("reference", [replace(REFERENCE, pcm=b"\x01"), replace(REFERENCE, pcm=b"")])
    async def test_must_be_sound(self, client: InferenceClient, reference: VoiceReference) -> None:
        with pytest.raises(InferenceError, match="reference"):
            async for _ in client.tts.synthesise("你好", SynthesisOptions(reference=reference)):
                pass
