"""
The gRPC server around the engines: admission, cancellation, state, draining. Knows no engine by name.

Protobuf types live here and in `inference.client` only.
"""

from __future__ import annotations

import asyncio
import hmac
import importlib
import logging
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, aclosing, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Self, cast

import grpc
import grpc.aio
import psutil
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from inference import device_memory
from inference.address import AddressTaken, find_socket_path, hold_socket, make_target, private_files
from inference.client import SECRET_METADATA, make_server_options
from inference.config import InferenceConfig
from inference.device_memory import DeviceMemoryReader
from inference.engines.base import Engine
from inference.engines.giving_way import Queue
from inference.engines.worker import Urgency
from inference.interfaces import (
    BYTES_PER_SAMPLE,
    MICROPHONE_SAMPLE_RATE_HZ,
    STYLE_VALUES,
    DiscardUtterance,
    EndOfUtterance,
    FinalTranscript,
    GenerationFinished,
    GenerationOptions,
    InferenceBusy,
    InferenceError,
    InferenceStatus,
    InferenceUnavailable,
    LanguageModel,
    Message,
    PartialTranscript,
    ProvisionalTranscript,
    Quality,
    Role,
    RoleState,
    RoleStatus,
    SpeakerEncoder,
    SpeechResumed,
    SpeechStarted,
    SpeechToText,
    SynthesisOptions,
    TextDelta,
    TextToSpeech,
    TranscriptEvent,
    TranscriptionInput,
    TranscriptionOptions,
    VoiceReference,
)
from inference.proto import inference_pb2 as pb
from inference.proto import inference_pb2_grpc as rpc

logger = logging.getLogger(__name__)

SERVICE_OF_ROLE = {
    Role.STT: "avatar.inference.v1.SpeechToText",
    Role.LLM: "avatar.inference.v1.LanguageModel",
    Role.TTS: "avatar.inference.v1.TextToSpeech",
    Role.ENCODER: "avatar.inference.v1.SpeakerEncoder",
}
#: The health service's name for the whole process: SERVING when a spoken conversation is possible.
WHOLE_PROCESS = ""
WATCH_EVERY_S = 1.0
#: With less of the device's memory free, a call would not get through its first layers.
MIN_FREE_MIB = 64
#: How long the processor is left alone after a conversation used it: it goes from one engine to the next, with moments
#: in between.
PAUSE_S = 2.0


@dataclass(slots=True)
class Slot:
    """One role: its engine once there is one, and what there is to say about it."""

    status: RoleStatus
    engine: Engine | None = None


class EngineHost:
    """
    Loads the engines, best first, and counts the calls under way.

    An engine that fails to load does not take the others down: the role falls back to the next in its list, or is
    reported unavailable with the reasons.
    """

    def __init__(self, config: InferenceConfig, reader: DeviceMemoryReader | None = None) -> None:
        self.config = config
        self.reader = reader or device_memory.get_reader(config)
        self.started_at = time.time()
        #: Of all engines on the processor. A device of its own has room for both, and is left to its engines' queues.
        self.queue = Queue(pause_s=PAUSE_S)
        self._process = psutil.Process()
        self._slots = {
            role: Slot(RoleStatus(role, RoleState.LOADING, "", "", "", load_s=0.0, memory_bytes=0)) for role in Role
        }

    async def load(self, on_change: Any = None) -> None:
        """Load and warm every role. Calls `on_change(role, state)` at every change."""
        for role in Role:
            await self._load_role(role)
            if on_change is not None:
                await on_change(role, self._slots[role].status.state)

    async def _load_role(self, role: Role) -> None:
        slot = self._slots[role]
        reasons: list[str] = []
        for name in self.config.engines.get(role, ()):
            module, _, model = name.partition(":")
            slot.status = replace(slot.status, state=RoleState.LOADING, engine=module, model=model)
            resident_before, held_before = self._process.memory_info().rss, self._read_held_bytes()
            started = time.monotonic()
            engine: Engine | None = None
            try:
                engine = await asyncio.to_thread(create_engine, role, module, model, self.config)
                slot.status = replace(
                    slot.status, state=RoleState.WARMING, model=engine.model_name, device=engine.device
                )
                await engine.warm_up()
                if _is_on_processor(engine):
                    engine.queue = self.queue
            except Exception as error:  # an engine may fail in any way its library knows; the role goes on
                logger.exception("engine %s failed to load", name)
                reasons.append(f"{name}: {error}")
                if engine is not None:
                    await self._close(engine)  # its memory is needed by the next
                continue
            slot.engine = engine
            slot.status = replace(
                slot.status,
                state=RoleState.READY,
                load_s=time.monotonic() - started,
                memory_bytes=max(
                    0,
                    self._read_held_bytes() - held_before
                    if _is_on_device(engine)
                    else self._process.memory_info().rss - resident_before,
                ),
                reason="; ".join(reasons),
                clones=engine.can_clone,
            )
            logger.info("%s is ready: %s on %s, %.1f s", role, name, engine.device, slot.status.load_s)
            return
        slot.status = replace(slot.status, state=RoleState.UNAVAILABLE, reason="; ".join(reasons) or "no engine named")
        logger.error("%s is unavailable: %s", role, slot.status.reason)

    @contextmanager
    def call(self, role: Role) -> Iterator[Engine]:
        """
        Hold a place for one call.

        Raises InferenceUnavailable while the role has no engine, InferenceBusy when it has `max_calls` calls.
        """
        self.look_after(role)
        slot = self._slots[role]
        if slot.engine is None or slot.status.state is not RoleState.READY:
            raise InferenceUnavailable(f"{role} is {slot.status.state}: {slot.status.reason or 'not ready yet'}")
        self._check_free_memory(role, slot.engine)
        if slot.status.active_calls >= self.config.max_calls:
            raise InferenceBusy(f"{role} has {slot.status.active_calls} calls under way")
        slot.status = replace(slot.status, active_calls=slot.status.active_calls + 1)
        try:
            yield slot.engine
        finally:
            slot.status = replace(slot.status, active_calls=slot.status.active_calls - 1)

    @contextmanager
    def keep_clear(self, engine: Engine) -> Iterator[None]:
        """Somebody is spoken with, by this engine: what is made in the background on the processor waits."""
        if not _is_on_processor(engine):
            yield
            return
        with self.queue.hold_a_place(Urgency.FINAL):
            yield

    def look_after(self, role: Role) -> RoleState:
        """Ask the role's engine whether it can be used, take note, and return the role's state."""
        slot = self._slots[role]
        if slot.engine is not None and slot.status.state in (RoleState.READY, RoleState.UNAVAILABLE):
            trouble = slot.engine.find_trouble()
            state = RoleState.UNAVAILABLE if trouble else RoleState.READY
            if state is not slot.status.state:
                logger.log(logging.ERROR if trouble else logging.INFO, "%s is %s %s", role, state, trouble)
                slot.status = replace(slot.status, state=state, reason=trouble)
        return slot.status.state

    def _check_free_memory(self, role: Role, engine: Engine) -> None:
        """A language model has its memory from the start; what the others need is taken at each call."""
        if role is Role.LLM or not _is_on_device(engine):
            return
        free_mib = device_memory.find_free_mib(self.reader)
        if free_mib is not None and free_mib < MIN_FREE_MIB:
            raise InferenceBusy(f"{role}: {free_mib} MiB of the device's memory are free, {MIN_FREE_MIB} are needed")

    def _read_held_bytes(self) -> int:
        return sum(device.total_bytes - device.free_bytes for device in self.reader.read())

    def status(self) -> InferenceStatus:
        for role in Role:
            self.look_after(role)
        return InferenceStatus(
            profile=self.config.profile,
            roles=tuple(
                replace(slot.status, figures=dict(slot.engine.figures if slot.engine is not None else {}))
                for slot in self._slots.values()
            ),
            resident_bytes=self._process.memory_info().rss,
            started_at=self.started_at,
            devices=self.reader.read(),
        )

    async def close(self) -> None:
        for slot in self._slots.values():
            if slot.engine is not None:
                await self._close(slot.engine)
                slot.engine = None

    async def _close(self, engine: Engine) -> None:
        try:
            await engine.close()
        except Exception:  # the others are closed all the same
            logger.exception("engine %s did not close", engine.model_name)


def _is_on_device(engine: Engine) -> bool:
    return engine.device.startswith("cuda")


def _is_on_processor(engine: Engine) -> bool:
    return engine.device == "cpu"


def create_engine(role: Role, module: str, model: str, config: InferenceConfig) -> Engine:
    """Import `inference.engines.<module>` and let it load `model`. Raises whatever the engine raises."""
    library = importlib.import_module(f"inference.engines.{module}")
    return cast(Engine, getattr(library, f"create_{role.value}")(model=model, config=config))


# --- the services ------------------------------------------------------------------------------


class InvalidRequest(Exception):
    """A request cannot be understood. Raised where requests are read, never by an engine."""


@contextmanager
def _told_in_grpc() -> Iterator[None]:
    """Turn the border's errors into status codes, which the caller sends. What was not expected is logged."""
    try:
        yield
    except InferenceUnavailable as error:
        raise _Refusal(grpc.StatusCode.UNAVAILABLE, str(error)) from error
    except InferenceBusy as error:
        raise _Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error)) from error
    except InferenceError as error:
        raise _Refusal(grpc.StatusCode.INTERNAL, str(error)) from error
    except InvalidRequest as error:
        raise _Refusal(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from error
    except Exception as error:  # an engine may fail in any way its library knows; its caller is told nevertheless
        logger.exception("a call failed")
        raise _Refusal(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}") from error


class _Refusal(Exception):
    def __init__(self, code: grpc.StatusCode, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class SpeechToTextService(rpc.SpeechToTextServicer):
    def __init__(self, host: EngineHost) -> None:
        self._host = host

    async def Transcribe(
        self, requests: AsyncIterator[pb.TranscribeRequest], context: Any
    ) -> AsyncIterator[pb.TranscribeResponse]:
        try:
            with _told_in_grpc(), self._host.call(Role.STT) as engine:
                first = await anext(aiter(requests), None)
                if first is None or first.WhichOneof("input") != "options":
                    raise InvalidRequest("the first message of a transcription is its options")
                options = _transcription_options(first.options)
                with _Utterance(self._host, engine, options) as utterance:
                    events = cast(SpeechToText, engine).transcribe(_inputs(requests, utterance), options)
                    async with aclosing(events):
                        async for event in events:
                            utterance.follow(event)
                            yield _transcript_response(event)
        except _Refusal as refusal:
            await context.abort(refusal.code, refusal.detail)


class _Utterance:
    """Keeps the processor clear while somebody speaks: a stream is open as long as a call, and mostly silent."""

    def __init__(self, host: EngineHost, engine: Engine, options: TranscriptionOptions) -> None:
        self._host, self._engine, self._is_background = host, engine, options.is_background
        self._place = ExitStack()
        self._is_speaking = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def follow(self, event: TranscriptEvent) -> None:
        if isinstance(event, FinalTranscript):
            self.end()
        elif isinstance(event, SpeechStarted) and not self._is_speaking and not self._is_background:
            self._place.enter_context(self._host.keep_clear(self._engine))
            self._is_speaking = True

    def end(self) -> None:
        self._place.close()
        self._is_speaking = False


async def _inputs(
    requests: AsyncIterator[pb.TranscribeRequest], utterance: _Utterance
) -> AsyncIterator[TranscriptionInput]:
    async for request in requests:
        match request.WhichOneof("input"):
            case "pcm":
                if len(request.pcm) % 2:
                    raise InvalidRequest("PCM16 audio has an even number of bytes")
                yield request.pcm
            case "options":
                yield _transcription_options(request.options)
            case "end_of_utterance":
                yield EndOfUtterance()
            case "discard_utterance":
                utterance.end()
                yield DiscardUtterance()


def _transcription_options(options: pb.TranscriptionOptions) -> TranscriptionOptions:
    if options.language not in ("", "zh", "en"):
        raise InvalidRequest(f"language {options.language!r}: expected zh, en or nothing")
    return TranscriptionOptions(
        language=options.language or None,
        endpointing=options.endpointing,
        pause_ms=options.pause_ms,
        min_speech_ms=options.min_speech_ms,
        sensitivity=options.sensitivity,
        is_background=options.is_background,
    )


def _transcript_response(event: TranscriptEvent) -> pb.TranscribeResponse:
    match event:
        case SpeechStarted():
            return pb.TranscribeResponse(speech_started=pb.SpeechStarted(speech_start_ms=event.speech_start_ms))
        case PartialTranscript():
            return pb.TranscribeResponse(partial=pb.Transcript(text=event.text, language=event.language))
        case ProvisionalTranscript():
            return pb.TranscribeResponse(provisional=pb.Transcript(text=event.text, language=event.language))
        case SpeechResumed():
            return pb.TranscribeResponse(speech_resumed=pb.SpeechResumed())
        case FinalTranscript():
            return pb.TranscribeResponse(
                final=pb.FinalTranscript(
                    text=event.text,
                    language=event.language,
                    speech_start_ms=event.speech_start_ms,
                    speech_end_ms=event.speech_end_ms,
                    received_ms=event.received_ms,
                )
            )


class LanguageModelService(rpc.LanguageModelServicer):
    def __init__(self, host: EngineHost) -> None:
        self._host = host

    async def Generate(self, request: pb.GenerateRequest, context: Any) -> AsyncIterator[pb.GenerateResponse]:
        options = GenerationOptions(
            max_tokens=request.max_tokens,
            temperature=request.temperature,
            seed=request.seed if request.HasField("seed") else None,
            repeat_penalty=request.repeat_penalty or 1.0,
        )
        try:
            with _told_in_grpc(), self._host.call(Role.LLM) as engine, self._host.keep_clear(engine):
                events = cast(LanguageModel, engine).generate(_messages(request.messages), options)
                async with aclosing(events):
                    async for event in events:
                        match event:
                            case TextDelta():
                                yield pb.GenerateResponse(text_delta=event.text)
                            case GenerationFinished():
                                yield pb.GenerateResponse(
                                    finished=pb.GenerationFinished(
                                        reason=event.reason,
                                        prompt_tokens=event.prompt_tokens,
                                        completion_tokens=event.completion_tokens,
                                    )
                                )
        except _Refusal as refusal:
            await context.abort(refusal.code, refusal.detail)

    async def Prefill(self, request: pb.PrefillRequest, context: Any) -> pb.PrefillResponse:
        try:
            with _told_in_grpc(), self._host.call(Role.LLM) as engine, self._host.keep_clear(engine):
                await cast(LanguageModel, engine).prefill(_messages(request.messages))
        except _Refusal as refusal:
            await context.abort(refusal.code, refusal.detail)
        return pb.PrefillResponse()


def _messages(messages: Any) -> list[Message]:
    for message in messages:
        if message.role not in ("system", "user", "assistant"):
            raise InvalidRequest(f"message role {message.role!r}: expected system, user or assistant")
    return [Message(m.role, m.content, m.is_shared) for m in messages]


class TextToSpeechService(rpc.TextToSpeechServicer):
    def __init__(self, host: EngineHost) -> None:
        self._host = host

    async def Synthesise(self, request: pb.SynthesiseRequest, context: Any) -> AsyncIterator[pb.SynthesiseResponse]:
        try:
            with _told_in_grpc(), self._host.call(Role.TTS) as engine:
                options = SynthesisOptions(
                    voice=request.voice,
                    quality=_quality(request),
                    speed=request.speed or 1.0,
                    is_first=request.is_first,
                    is_last=request.is_last,
                    reference=_reference(request),
                    style=_style(request),
                    is_background=request.is_background,
                )
                chunks = cast(TextToSpeech, engine).synthesise(request.text, options)
                async with aclosing(chunks):
                    async for chunk in chunks:
                        yield pb.SynthesiseResponse(
                            pcm=chunk.pcm, sample_rate_hz=chunk.sample_rate_hz, quality=chunk.quality
                        )
        except _Refusal as refusal:
            await context.abort(refusal.code, refusal.detail)

    async def ListVoices(self, request: pb.ListVoicesRequest, context: Any) -> pb.ListVoicesResponse:
        try:
            with _told_in_grpc(), self._host.call(Role.TTS) as engine:
                voices = await cast(TextToSpeech, engine).list_voices()
        except _Refusal as refusal:
            await context.abort(refusal.code, refusal.detail)
        return pb.ListVoicesResponse(
            voices=[pb.Voice(key=v.key, name=v.name, language=v.language, gender=v.gender) for v in voices]
        )

    async def ListStyles(self, request: pb.ListStylesRequest, context: Any) -> pb.ListStylesResponse:
        try:
            with _told_in_grpc(), self._host.call(Role.TTS) as engine:
                styles = await cast(TextToSpeech, engine).list_styles()
        except _Refusal as refusal:
            await context.abort(refusal.code, refusal.detail)
        return pb.ListStylesResponse(styles=styles)


def _quality(request: pb.SynthesiseRequest) -> Quality:
    try:
        return Quality(request.quality or Quality.FAST)
    except ValueError:
        raise InvalidRequest(f"quality {request.quality!r}: expected {', '.join(Quality)}") from None


def _reference(request: pb.SynthesiseRequest) -> VoiceReference | None:
    if not request.HasField("reference"):
        return None
    reference = request.reference
    if len(reference.pcm) % BYTES_PER_SAMPLE or not reference.pcm or not reference.sample_rate_hz:
        raise InvalidRequest("reference: expected PCM16 audio and its sample rate")
    return VoiceReference(reference.pcm, reference.sample_rate_hz, reference.transcript)


def _style(request: pb.SynthesiseRequest) -> bytes:
    if request.style and len(request.style) != STYLE_VALUES * 4:
        raise InvalidRequest(f"style: expected {STYLE_VALUES} float32, got {len(request.style)} bytes")
    return bytes(request.style)


class SpeakerEncoderService(rpc.SpeakerEncoderServicer):
    def __init__(self, host: EngineHost) -> None:
        self._host = host

    async def Embed(self, request: pb.EmbedRequest, context: Any) -> pb.EmbedResponse:
        try:
            with _told_in_grpc(), self._host.call(Role.ENCODER) as engine:
                embedding = await cast(SpeakerEncoder, engine).embed(
                    request.pcm, sample_rate_hz=request.sample_rate_hz or MICROPHONE_SAMPLE_RATE_HZ
                )
        except _Refusal as refusal:
            await context.abort(refusal.code, refusal.detail)
        return pb.EmbedResponse(values=embedding.values, encoder=embedding.encoder)


class InferenceService(rpc.InferenceServicer):
    def __init__(self, host: EngineHost) -> None:
        self._host = host

    async def GetStatus(self, request: pb.GetStatusRequest, context: Any) -> pb.GetStatusResponse:
        status = self._host.status()
        return pb.GetStatusResponse(
            profile=status.profile,
            roles=[
                pb.RoleStatus(
                    role=r.role.value,
                    state=r.state.value,
                    engine=r.engine,
                    model=r.model,
                    device=r.device,
                    load_s=r.load_s,
                    memory_bytes=r.memory_bytes,
                    reason=r.reason,
                    active_calls=r.active_calls,
                    clones=r.clones,
                    figures=r.figures,
                )
                for r in status.roles
            ],
            resident_bytes=status.resident_bytes,
            started_at=status.started_at,
            devices=[
                pb.DeviceMemory(name=d.name, total_bytes=d.total_bytes, free_bytes=d.free_bytes) for d in status.devices
            ],
        )


class SecretInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs only
    """Turns away calls that do not bring the shared secret, before anything of their requests is read."""

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
        return grpc.stream_stream_rpc_method_handler(self._turn_away)

    async def _turn_away(self, requests: Any, context: Any) -> None:
        now = time.monotonic()
        if now - self._warned_at >= self.WARN_EVERY_S:
            # Once a minute: a stranger must not fill the log.
            self._warned_at = now
            logger.warning("turned away a call without the right AVATAR_INFERENCE_SECRET, from %s", context.peer())
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, "AVATAR_INFERENCE_SECRET is not that of this server")


class InferenceServer:
    """The listening process: answers status and health at once, serves a role as soon as it is warm."""

    def __init__(self, config: InferenceConfig, reader: DeviceMemoryReader | None = None) -> None:
        self.config = config
        self.host = EngineHost(config, reader)
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]  # grpc-stubs does not know it
        self._server: grpc.aio.Server | None = None
        self._held = ExitStack()
        #: The TCP port; 1 for a Unix socket.
        self.port = 0

    async def start(self) -> None:
        """
        Listen at once, so that the state can be asked for while the models load. `load` comes next.

        Raises RuntimeError when the address is taken.
        """
        interceptors = [SecretInterceptor(self.config.secret)] if self.config.secret else []
        # SO_REUSEPORT off: a second process on the same port must fail, not take half of the calls.
        options = (*make_server_options(), ("grpc.so_reuseport", 0))
        self._server = grpc.aio.server(interceptors=interceptors, options=options)
        rpc.add_SpeechToTextServicer_to_server(SpeechToTextService(self.host), self._server)
        rpc.add_LanguageModelServicer_to_server(LanguageModelService(self.host), self._server)
        rpc.add_TextToSpeechServicer_to_server(TextToSpeechService(self.host), self._server)
        rpc.add_SpeakerEncoderServicer_to_server(SpeakerEncoderService(self.host), self._server)
        rpc.add_InferenceServicer_to_server(InferenceService(self.host), self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        for service in (*SERVICE_OF_ROLE.values(), WHOLE_PROCESS):
            await self._health.set(service, health_pb2.HealthCheckResponse.NOT_SERVING)
        try:
            if (path := find_socket_path(self.config.address)) is not None:
                self._held.enter_context(hold_socket(path))
            with private_files():
                self.port = self._server.add_insecure_port(make_target(self.config.address))
        except (AddressTaken, RuntimeError) as error:
            raise RuntimeError(f"cannot listen on {self.config.address}: is another process there?") from error
        except OSError as error:
            raise RuntimeError(f"cannot listen on {self.config.address}: {error}") from error
        await self._server.start()

    async def load(self) -> None:
        """Load and warm the engines; health turns to SERVING role by role, and for the whole at the end."""
        await self.host.load(self._role_changed)
        await self._tell(WHOLE_PROCESS, is_serving=self.host.status().is_ready)

    async def watch(self) -> None:
        """Keep the health service true to the engines, until cancelled. After `load`."""
        while True:
            await asyncio.sleep(WATCH_EVERY_S)
            for role in Role:
                await self._role_changed(role, self.host.look_after(role))
            await self._tell(WHOLE_PROCESS, is_serving=self.host.status().is_ready)

    async def _role_changed(self, role: Role, state: RoleState) -> None:
        await self._tell(SERVICE_OF_ROLE[role], is_serving=state is RoleState.READY)

    async def _tell(self, service: str, *, is_serving: bool) -> None:
        status = health_pb2.HealthCheckResponse
        await self._health.set(service, status.SERVING if is_serving else status.NOT_SERVING)

    async def stop(self) -> None:
        """Refuse new calls, let those under way finish for `drain_s`, then end them and free the engines."""
        await self._health.enter_graceful_shutdown()
        if self._server is not None:
            await self._server.stop(grace=self.config.drain_s)
        await self.host.close()
        self._held.close()


async def serve(config: InferenceConfig) -> None:
    """
    Serve until SIGTERM or SIGINT.

    Raises BudgetError when the engines are to have more of the device's memory than there is.
    """
    reader = device_memory.get_reader(config)
    device_memory.check_budget(device_memory.list_shares(config), reader.read(), reserve_mib=config.memory_reserve_mib)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    server = InferenceServer(config, reader)
    await server.start()
    logger.info("inference listens on %s, profile %s", config.address, config.profile)
    loading = asyncio.create_task(_load_and_watch(server))
    waiting = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({loading, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if loading.done():
            loading.result()
        await waiting
    finally:
        loading.cancel()
        waiting.cancel()
        logger.info("inference drains")
        await server.stop()


async def _load_and_watch(server: InferenceServer) -> None:
    await server.load()
    await server.watch()
