"""
The gRPC services of the inference process: translate the request, call the engine, translate the answer.

Values and protobuf are translated in `inference.wire`; which engine serves a role is up to the host.
"""

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, aclosing, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Self, cast

import grpc
import grpc.aio

from inference import wire
from inference.client import SECRET_METADATA
from inference.engines.base import Engine
from inference.interfaces import (
    BYTES_PER_SAMPLE,
    MICROPHONE_SAMPLE_RATE_HZ,
    DiscardUtterance,
    FinalTranscript,
    InferenceBusy,
    InferenceError,
    InferenceUnavailable,
    LanguageModel,
    Role,
    SpeakerEncoder,
    SpeechStarted,
    SpeechToText,
    TextToSpeech,
    TranscriptEvent,
    TranscriptionInput,
    TranscriptionOptions,
)
from inference.proto import inference_pb2 as pb
from inference.proto import inference_pb2_grpc as rpc
from inference.telemetry import tracing
from inference.telemetry.context import bind, from_headers
from inference.telemetry.context import read as read_ids
from inference.telemetry.logs import describe_error, figures
from inference.telemetry.metrics import RequestTimer

if TYPE_CHECKING:
    from inference.host import EngineHost

logger = logging.getLogger(__name__)

BYTES_PER_MS = MICROPHONE_SAMPLE_RATE_HZ * BYTES_PER_SAMPLE // 1000

#: The health service's name of each role.
SERVICE_OF_ROLE = {
    Role.STT: "avatar.inference.v1.SpeechToText",
    Role.LLM: "avatar.inference.v1.LanguageModel",
    Role.TTS: "avatar.inference.v1.TextToSpeech",
    Role.ENCODER: "avatar.inference.v1.SpeakerEncoder",
}


def add_services(server: grpc.aio.Server, host: EngineHost) -> None:
    rpc.add_SpeechToTextServicer_to_server(SpeechToTextService(host), server)
    rpc.add_LanguageModelServicer_to_server(LanguageModelService(host), server)
    rpc.add_TextToSpeechServicer_to_server(TextToSpeechService(host), server)
    rpc.add_SpeakerEncoderServicer_to_server(SpeakerEncoderService(host), server)
    rpc.add_InferenceServicer_to_server(InferenceService(host), server)


@asynccontextmanager
async def _translated_errors(context: Any, host: EngineHost, role: Role) -> AsyncIterator[None]:
    """
    Abort the call with the status code of the exception raised inside, and count it. Unexpected ones are logged.

    Binds the ids that came with it: gRPC runs each call in a task of its own.
    """
    metrics = host.metrics
    bind(**from_headers(context.invocation_metadata() or ()))
    try:
        yield
    except InferenceUnavailable as error:
        metrics.count_failure(role, "unavailable")
        await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
    except InferenceBusy as error:
        metrics.count_failure(role, "busy")
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
    except InferenceError as error:
        metrics.count_failure(role, "failed")
        await context.abort(grpc.StatusCode.INTERNAL, str(error))
    except wire.InvalidRequest as error:
        metrics.count_failure(role, "invalid_request")
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
    except Exception as error:  # an engine may raise anything its library defines; its caller gets a status
        metrics.count_failure(role, "unexpected")
        logger.exception("a call failed")
        await context.abort(grpc.StatusCode.INTERNAL, describe_error(error))


@contextmanager
def _measured(
    host: EngineHost, context: Any, role: Role, work: str, engine: Engine, *, is_background: bool = False
) -> Iterator[RequestTimer]:
    """Time one request, log it, and add its span to the turn that its metadata names."""
    trace_id = read_ids().get("trace_id") if tracing.is_on() else None
    is_done = False
    with (
        tracing.span(f"inference {work}", trace_id, attributes={"engine": engine.model_name, "role": role.value}),
        host.metrics.request(role, work, engine.model_name, is_background=is_background) as timer,
    ):
        try:
            yield timer
            is_done = True
        finally:
            extra = figures(
                role=role.value,
                engine=engine.model_name,
                seconds=round(timer.read_s(), 3),
                first_s=None if timer.first_s is None else round(timer.first_s, 3),
                is_background=is_background,
            )
            # Reading ahead happens many times a turn.
            level = logging.DEBUG if work == "prefill" else logging.INFO
            logger.log(level, "%s %s", work, "done" if is_done else "not done", extra=extra)


class SpeechToTextService(rpc.SpeechToTextServicer):
    def __init__(self, host: EngineHost) -> None:
        self._host = host

    async def Transcribe(
        self, requests: AsyncIterator[pb.TranscribeRequest], context: Any
    ) -> AsyncIterator[pb.TranscribeResponse]:
        async with _translated_errors(context, self._host, Role.STT):
            with self._host.call(Role.STT) as engine:
                first = await anext(aiter(requests), None)
                if first is None or first.WhichOneof("input") != "options":
                    raise wire.InvalidRequest("the first message of a transcription is its options")
                options = cast(TranscriptionOptions, wire.transcription_input_from_proto(first))
                with _Utterance(self._host, engine, options) as utterance:
                    events = cast(SpeechToText, engine).transcribe(_read_inputs(requests, utterance), options)
                    async with aclosing(events):
                        async for event in events:
                            utterance.follow(event)
                            yield wire.transcript_event_to_proto(event)


class _Utterance:
    """
    Holds background work back during utterances only: a stream lasts as long as a call and is mostly silent.

    Measures how long each transcript takes.
    """

    def __init__(self, host: EngineHost, engine: Engine, options: TranscriptionOptions) -> None:
        self._host, self._engine, self._is_background = host, engine, options.is_background
        self._live = ExitStack()
        self._is_speaking = False
        self._audio = host.metrics.follow_audio()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def follow(self, event: TranscriptEvent) -> None:
        if isinstance(event, FinalTranscript):
            self._measure(event)
            self.end()
        elif isinstance(event, SpeechStarted) and not self._is_speaking and not self._is_background:
            self._live.enter_context(self._host.live_call(self._engine))
            self._is_speaking = True

    def end(self) -> None:
        self._live.close()
        self._is_speaking = False

    def note_audio(self, size_bytes: int) -> None:
        self._audio.add(size_bytes)

    def _measure(self, event: FinalTranscript) -> None:
        """Count a transcript from when the audio had come that ended the utterance."""
        waited_s = self._audio.find_age_s(event.received_ms * BYTES_PER_MS)
        if waited_s is not None:
            self._host.metrics.observe_transcript(self._engine.model_name, waited_s, is_background=self._is_background)
        extra = figures(
            role=Role.STT.value,
            engine=self._engine.model_name,
            seconds=None if waited_s is None else round(waited_s, 3),
            speech_ms=event.speech_end_ms - event.speech_start_ms,
            is_empty=not event.text,
            is_background=self._is_background,
        )
        logger.info("transcribe done", extra=extra)


async def _read_inputs(
    requests: AsyncIterator[pb.TranscribeRequest], utterance: _Utterance
) -> AsyncIterator[TranscriptionInput]:
    async for request in requests:
        item = wire.transcription_input_from_proto(request)
        if isinstance(item, bytes):
            utterance.note_audio(len(item))
        elif isinstance(item, DiscardUtterance):
            utterance.end()
        yield item


class LanguageModelService(rpc.LanguageModelServicer):
    def __init__(self, host: EngineHost) -> None:
        self._host = host

    async def Generate(self, request: pb.GenerateRequest, context: Any) -> AsyncIterator[pb.GenerateResponse]:
        async with _translated_errors(context, self._host, Role.LLM):
            with self._host.call(Role.LLM) as engine, self._host.live_call(engine):
                events = cast(LanguageModel, engine).generate(*wire.generation_from_proto(request))
                with _measured(self._host, context, Role.LLM, "generate", engine) as timer:
                    async with aclosing(events):
                        async for event in events:
                            timer.note_result()
                            yield wire.generation_event_to_proto(event)

    async def Prefill(self, request: pb.PrefillRequest, context: Any) -> pb.PrefillResponse:
        async with _translated_errors(context, self._host, Role.LLM):
            with (
                self._host.call(Role.LLM) as engine,
                self._host.live_call(engine),
                _measured(self._host, context, Role.LLM, "prefill", engine),
            ):
                await cast(LanguageModel, engine).prefill(wire.messages_from_proto(request.messages))
        return pb.PrefillResponse()


class TextToSpeechService(rpc.TextToSpeechServicer):
    def __init__(self, host: EngineHost) -> None:
        self._host = host

    async def Synthesise(self, request: pb.SynthesiseRequest, context: Any) -> AsyncIterator[pb.SynthesiseResponse]:
        async with _translated_errors(context, self._host, Role.TTS):
            with self._host.call(Role.TTS) as engine:
                text, options = wire.synthesis_from_proto(request)
                is_background = options.is_background
                chunks = cast(TextToSpeech, engine).synthesise(text, options)
                with _measured(
                    self._host, context, Role.TTS, "synthesise", engine, is_background=is_background
                ) as timer:
                    async with aclosing(chunks):
                        async for chunk in chunks:
                            timer.note_result()
                            yield wire.audio_chunk_to_proto(chunk)

    async def ListVoices(self, request: pb.ListVoicesRequest, context: Any) -> pb.ListVoicesResponse:
        async with _translated_errors(context, self._host, Role.TTS):
            with self._host.call(Role.TTS) as engine:
                voices = await cast(TextToSpeech, engine).list_voices()
        return wire.voices_to_proto(voices)

    async def ListStyles(self, request: pb.ListStylesRequest, context: Any) -> pb.ListStylesResponse:
        async with _translated_errors(context, self._host, Role.TTS):
            with self._host.call(Role.TTS) as engine:
                styles = await cast(TextToSpeech, engine).list_styles()
        return wire.styles_to_proto(styles)


class SpeakerEncoderService(rpc.SpeakerEncoderServicer):
    def __init__(self, host: EngineHost) -> None:
        self._host = host

    async def Embed(self, request: pb.EmbedRequest, context: Any) -> pb.EmbedResponse:
        async with _translated_errors(context, self._host, Role.ENCODER):
            with self._host.call(Role.ENCODER) as engine:
                pcm, sample_rate_hz = wire.recording_from_proto(request)
                with _measured(self._host, context, Role.ENCODER, "embed", engine, is_background=True):
                    embedding = await cast(SpeakerEncoder, engine).embed(pcm, sample_rate_hz=sample_rate_hz)
        return wire.embedding_to_proto(embedding)


class InferenceService(rpc.InferenceServicer):
    def __init__(self, host: EngineHost) -> None:
        self._host = host

    async def GetStatus(self, request: pb.GetStatusRequest, context: Any) -> pb.GetStatusResponse:
        return wire.status_to_proto(self._host.status())

    async def GetMetrics(self, request: pb.GetMetricsRequest, context: Any) -> pb.GetMetricsResponse:
        return pb.GetMetricsResponse(exposition=self._host.metrics.render(self._host.status()))


class SecretInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs only
    """Rejects calls that do not bring the shared secret, before anything of their requests is read."""

    WARN_EVERY_S = 60.0

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()
        self._warned_at = -self.WARN_EVERY_S

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any]]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any]:
        given = dict(handler_call_details.invocation_metadata).get(SECRET_METADATA, b"")
        if hmac.compare_digest(given if isinstance(given, bytes) else given.encode(), self._secret):
            return await continuation(handler_call_details)
        return grpc.stream_stream_rpc_method_handler(self._reject)

    async def _reject(self, requests: Any, context: Any) -> None:
        now = time.monotonic()
        if now - self._warned_at >= self.WARN_EVERY_S:
            # Once a minute: a stranger must not fill the log.
            self._warned_at = now
            logger.warning("turned away a call without the right AVATAR_INFERENCE_SECRET, from %s", context.peer())
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, "AVATAR_INFERENCE_SECRET is not that of this server")
