"""The gRPC client of the inference process, as Django and Celery hold it. gRPC errors end here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager

import grpc
import grpc.aio

from inference import wire
from inference.address import make_target
from inference.interfaces import (
    MICROPHONE_SAMPLE_RATE_HZ,
    AudioChunk,
    GenerationEvent,
    GenerationOptions,
    InferenceBusy,
    InferenceError,
    InferenceStatus,
    InferenceUnavailable,
    Message,
    SpeakerEmbedding,
    SynthesisOptions,
    TranscriptEvent,
    TranscriptionInput,
    TranscriptionOptions,
    VoiceInfo,
)
from inference.proto import inference_pb2 as pb
from inference.proto import inference_pb2_grpc as rpc
from inference.telemetry.context import to_headers

#: The longest message either side sends: a recording of a minute at 48 kHz and its envelope.
MAX_MESSAGE_BYTES = 6 * 1024 * 1024
STATUS_TIMEOUT_S = 2.0
#: The metadata key of the shared secret; gRPC allows binary values under keys that end in "-bin".
SECRET_METADATA = "avatar-secret-bin"  # noqa: S105 — a name
#: gRPC's detail when a request could not be written because the server had already ended the call; the status that the
#: server ended it with is then lost.
WRITE_FAILED = "Internal error from Core"
#: Embedding a minute of audio takes two seconds, after at most a minute of waiting for live calls, and for other jobs.
EMBED_TIMEOUT_S = 300.0

#: A process that hangs without closing its socket is detected after the keepalive time plus the timeout.
KEEPALIVE_MS = 20_000
KEEPALIVE_TIMEOUT_MS = 5_000

Options = tuple[tuple[str, int], ...]

MESSAGE_OPTIONS: Options = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
)


def make_channel_options() -> Options:
    return (
        *MESSAGE_OPTIONS,
        # Reconnect to a restarted server within a second; gRPC's default is up to two minutes.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        # 0: ping idle streams too. By default gRPC slows down to one ping a minute after the second.
        ("grpc.http2.max_pings_without_data", 0),
    )


def make_server_options() -> Options:
    """Return the options that match `make_channel_options` on the server."""
    return (
        *MESSAGE_OPTIONS,
        # By default gRPC allows one ping in five minutes on an idle stream, and disconnects at the third excess one.
        ("grpc.http2.min_ping_interval_without_data_ms", KEEPALIVE_MS // 2),
    )


class InferenceClient:
    """
    All roles of the inference process at `address` ("unix:/path" or "host:port"), which requires `secret`.

    Cheap to create: connects at the first call, once per event loop, so that one object serves a web process and the
    short-lived loops of `asyncio.run` alike.
    """

    def __init__(self, address: str, *, secret: str = "") -> None:
        self.address = address
        self._secret_metadata = make_metadata(secret)
        self._channels: dict[asyncio.AbstractEventLoop, grpc.aio.Channel] = {}
        self.stt = _SpeechToText(self)
        self.llm = _LanguageModel(self)
        self.tts = _TextToSpeech(self)
        self.encoder = _SpeakerEncoder(self)

    @property
    def metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        """The secret, and the ids that are bound now (`telemetry.context`)."""
        return (*self._secret_metadata, *to_headers().items())

    def channel(self) -> grpc.aio.Channel:
        loop = asyncio.get_running_loop()
        if loop not in self._channels:
            for stale in [known for known in self._channels if known.is_closed()]:
                del self._channels[stale]
            self._channels[loop] = grpc.aio.insecure_channel(make_target(self.address), options=make_channel_options())
        return self._channels[loop]

    async def status(self) -> InferenceStatus:
        async with _translated_errors():
            reply = await rpc.InferenceStub(self.channel()).GetStatus(
                pb.GetStatusRequest(), timeout=STATUS_TIMEOUT_S, metadata=self.metadata
            )
        return wire.status_from_proto(reply)

    async def read_metrics(self) -> bytes:
        async with _translated_errors():
            reply = await rpc.InferenceStub(self.channel()).GetMetrics(
                pb.GetMetricsRequest(), timeout=STATUS_TIMEOUT_S, metadata=self.metadata
            )
        exposition: bytes = reply.exposition
        return exposition

    async def close(self) -> None:
        """Close this event loop's connection. Active calls raise InferenceUnavailable."""
        channel = self._channels.pop(asyncio.get_running_loop(), None)
        if channel is not None:
            await channel.close(grace=None)


def make_metadata(secret: str) -> tuple[tuple[str, bytes], ...]:
    return ((SECRET_METADATA, secret.encode()),) if secret else ()


class _SpeechToText:
    def __init__(self, client: InferenceClient) -> None:
        self._client = client

    async def transcribe(
        self, audio: AsyncIterator[TranscriptionInput], options: TranscriptionOptions
    ) -> AsyncGenerator[TranscriptEvent]:
        async def requests() -> AsyncIterator[pb.TranscribeRequest]:
            yield wire.transcription_input_to_proto(options)
            async for item in audio:
                yield wire.transcription_input_to_proto(item)

        async with _translated_errors():
            call = rpc.SpeechToTextStub(self._client.channel()).Transcribe(requests(), metadata=self._client.metadata)
            try:
                async for response in call:
                    yield wire.transcript_event_from_proto(response)
            finally:
                call.cancel()


class _LanguageModel:
    def __init__(self, client: InferenceClient) -> None:
        self._client = client

    async def generate(
        self, messages: Sequence[Message], options: GenerationOptions
    ) -> AsyncGenerator[GenerationEvent]:
        request = wire.generation_to_proto(messages, options)
        async with _translated_errors():
            call = rpc.LanguageModelStub(self._client.channel()).Generate(request, metadata=self._client.metadata)
            try:
                async for response in call:
                    yield wire.generation_event_from_proto(response)
            finally:
                call.cancel()

    async def prefill(self, messages: Sequence[Message]) -> None:
        async with _translated_errors():
            await rpc.LanguageModelStub(self._client.channel()).Prefill(
                pb.PrefillRequest(messages=wire.messages_to_proto(messages)), metadata=self._client.metadata
            )


class _TextToSpeech:
    def __init__(self, client: InferenceClient) -> None:
        self._client = client

    async def synthesise(self, text: str, options: SynthesisOptions) -> AsyncGenerator[AudioChunk]:
        request = wire.synthesis_to_proto(text, options)
        async with _translated_errors():
            call = rpc.TextToSpeechStub(self._client.channel()).Synthesise(request, metadata=self._client.metadata)
            try:
                async for response in call:
                    yield wire.audio_chunk_from_proto(response)
            finally:
                call.cancel()

    async def list_voices(self) -> tuple[VoiceInfo, ...]:
        async with _translated_errors():
            reply = await rpc.TextToSpeechStub(self._client.channel()).ListVoices(
                pb.ListVoicesRequest(), timeout=STATUS_TIMEOUT_S, metadata=self._client.metadata
            )
        return wire.voices_from_proto(reply)

    async def list_styles(self) -> dict[str, bytes]:
        async with _translated_errors():
            reply = await rpc.TextToSpeechStub(self._client.channel()).ListStyles(
                pb.ListStylesRequest(), timeout=STATUS_TIMEOUT_S, metadata=self._client.metadata
            )
        return wire.styles_from_proto(reply)


class _SpeakerEncoder:
    def __init__(self, client: InferenceClient) -> None:
        self._client = client

    async def embed(self, pcm: bytes, *, sample_rate_hz: int = MICROPHONE_SAMPLE_RATE_HZ) -> SpeakerEmbedding:
        request = wire.recording_to_proto(pcm, sample_rate_hz)
        async with _translated_errors():
            reply = await rpc.SpeakerEncoderStub(self._client.channel()).Embed(
                request, timeout=EMBED_TIMEOUT_S, metadata=self._client.metadata
            )
        return wire.embedding_from_proto(reply)


@asynccontextmanager
async def _translated_errors() -> AsyncIterator[None]:
    """Translate gRPC's errors into the border's."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        detail = error.details() or error.code().name
        match error.code():
            case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.DEADLINE_EXCEEDED | grpc.StatusCode.UNAUTHENTICATED:
                raise InferenceUnavailable(detail) from error
            case grpc.StatusCode.INTERNAL if detail == WRITE_FAILED:
                raise InferenceUnavailable("the call was ended while audio was being sent") from error
            case grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise InferenceBusy(detail) from error
            case _:
                raise InferenceError(detail) from error
    except grpc.aio.UsageError as error:  # the channel was closed before a call
        raise InferenceUnavailable(str(error)) from error
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        # The caller was not cancelled: gRPC raises this when the channel is closed during a call.
        raise InferenceUnavailable("the connection was closed") from error
