"""
The values of the inference border as protobuf, each with both directions in one place.

Used by the client and by the services; no other module knows protobuf types. Nothing is copied but the fields: PCM
passes as the `bytes` it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, cast

from inference.interfaces import (
    BYTES_PER_SAMPLE,
    MICROPHONE_SAMPLE_RATE_HZ,
    STYLE_VALUES,
    AudioChunk,
    DeviceMemory,
    DiscardUtterance,
    EndOfUtterance,
    FinalTranscript,
    GenerationEvent,
    GenerationFinished,
    GenerationOptions,
    InferenceError,
    InferenceStatus,
    Message,
    PartialTranscript,
    ProvisionalTranscript,
    Quality,
    Role,
    RoleState,
    RoleStatus,
    SpeakerEmbedding,
    SpeechResumed,
    SpeechStarted,
    SynthesisOptions,
    TextDelta,
    TranscriptEvent,
    TranscriptionInput,
    TranscriptionOptions,
    VoiceInfo,
    VoiceReference,
)
from inference.proto import inference_pb2 as pb


class InvalidRequest(Exception):
    """A request cannot be understood. Raised where requests are read, never by an engine."""


# --- transcription -----------------------------------------------------------------------------


def transcription_input_to_proto(item: TranscriptionInput) -> pb.TranscribeRequest:
    match item:
        case bytes():
            return pb.TranscribeRequest(pcm=item)
        case TranscriptionOptions():
            return pb.TranscribeRequest(
                options=pb.TranscriptionOptions(
                    language=item.language or "",
                    endpointing=item.endpointing,
                    pause_ms=item.pause_ms,
                    min_speech_ms=item.min_speech_ms,
                    sensitivity=item.sensitivity,
                    is_background=item.is_background,
                )
            )
        case EndOfUtterance():
            return pb.TranscribeRequest(end_of_utterance=pb.EndOfUtterance())
        case DiscardUtterance():
            return pb.TranscribeRequest(discard_utterance=pb.DiscardUtterance())


def transcription_input_from_proto(request: pb.TranscribeRequest) -> TranscriptionInput:
    """Raises InvalidRequest for audio of an odd length, an unknown language, or an unknown input."""
    match request.WhichOneof("input"):
        case "pcm":
            if len(request.pcm) % BYTES_PER_SAMPLE:
                raise InvalidRequest("PCM16 audio has an even number of bytes")
            return request.pcm
        case "options":
            options = request.options
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
        case "end_of_utterance":
            return EndOfUtterance()
        case "discard_utterance":
            return DiscardUtterance()
        case _:
            raise InvalidRequest("an unknown input: client and server differ in version")


def transcript_event_to_proto(event: TranscriptEvent) -> pb.TranscribeResponse:
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


def transcript_event_from_proto(response: pb.TranscribeResponse) -> TranscriptEvent:
    """Raises InferenceError for an event that this version does not know."""
    match response.WhichOneof("event"):
        case "speech_started":
            return SpeechStarted(response.speech_started.speech_start_ms)
        case "partial":
            return PartialTranscript(response.partial.text, response.partial.language)
        case "provisional":
            return ProvisionalTranscript(response.provisional.text, response.provisional.language)
        case "speech_resumed":
            return SpeechResumed()
        case "final":
            final = response.final
            return FinalTranscript(
                text=final.text,
                language=final.language,
                speech_start_ms=final.speech_start_ms,
                speech_end_ms=final.speech_end_ms,
                received_ms=final.received_ms,
            )
        case unknown:
            raise InferenceError(f"unknown transcript event {unknown!r}: server and client differ in version")


# --- generation --------------------------------------------------------------------------------


def messages_to_proto(messages: Sequence[Message]) -> list[pb.Message]:
    return [pb.Message(role=m.role, content=m.content, is_shared=m.is_shared) for m in messages]


def messages_from_proto(messages: Iterable[pb.Message]) -> list[Message]:
    """Raises InvalidRequest for a role that no chat has."""
    return [Message(_read_message_role(m.role), m.content, m.is_shared) for m in messages]


def _read_message_role(role: str) -> Literal["system", "user", "assistant"]:
    if role not in ("system", "user", "assistant"):
        raise InvalidRequest(f"message role {role!r}: expected system, user or assistant")
    return cast(Literal["system", "user", "assistant"], role)


def generation_to_proto(messages: Sequence[Message], options: GenerationOptions) -> pb.GenerateRequest:
    return pb.GenerateRequest(
        messages=messages_to_proto(messages),
        max_tokens=options.max_tokens,
        temperature=options.temperature,
        seed=options.seed,
        repeat_penalty=options.repeat_penalty,
    )


def generation_from_proto(request: pb.GenerateRequest) -> tuple[list[Message], GenerationOptions]:
    """Raises InvalidRequest for a role that no chat has."""
    options = GenerationOptions(
        max_tokens=request.max_tokens,
        temperature=request.temperature,
        seed=request.seed if request.HasField("seed") else None,
        repeat_penalty=request.repeat_penalty or 1.0,
    )
    return messages_from_proto(request.messages), options


def generation_event_to_proto(event: GenerationEvent) -> pb.GenerateResponse:
    match event:
        case TextDelta():
            return pb.GenerateResponse(text_delta=event.text)
        case GenerationFinished():
            return pb.GenerateResponse(
                finished=pb.GenerationFinished(
                    reason=event.reason,
                    prompt_tokens=event.prompt_tokens,
                    completion_tokens=event.completion_tokens,
                )
            )


def generation_event_from_proto(response: pb.GenerateResponse) -> GenerationEvent:
    if response.WhichOneof("event") != "finished":
        return TextDelta(response.text_delta)
    finished = response.finished
    return GenerationFinished(
        reason=cast(Literal["stop", "length"], finished.reason),
        prompt_tokens=finished.prompt_tokens,
        completion_tokens=finished.completion_tokens,
    )


# --- synthesis ---------------------------------------------------------------------------------


def synthesis_to_proto(text: str, options: SynthesisOptions) -> pb.SynthesiseRequest:
    reference = options.reference
    return pb.SynthesiseRequest(
        text=text,
        voice=options.voice,
        quality=options.quality.value,
        speed=options.speed,
        is_first=options.is_first,
        is_last=options.is_last,
        reference=None
        if reference is None
        else pb.VoiceReference(
            pcm=reference.pcm, sample_rate_hz=reference.sample_rate_hz, transcript=reference.transcript
        ),
        style=options.style,
        is_background=options.is_background,
    )


def synthesis_from_proto(request: pb.SynthesiseRequest) -> tuple[str, SynthesisOptions]:
    """Raises InvalidRequest for an unknown quality, a style of another size, a reference without sound."""
    options = SynthesisOptions(
        voice=request.voice,
        quality=_read_quality(request.quality),
        speed=request.speed or 1.0,
        is_first=request.is_first,
        is_last=request.is_last,
        reference=_read_reference(request.reference) if request.HasField("reference") else None,
        style=_read_style(request.style),
        is_background=request.is_background,
    )
    return request.text, options


def _read_quality(quality: str) -> Quality:
    try:
        return Quality(quality or Quality.FAST)
    except ValueError:
        raise InvalidRequest(f"quality {quality!r}: expected {', '.join(Quality)}") from None


def _read_reference(reference: pb.VoiceReference) -> VoiceReference:
    if len(reference.pcm) % BYTES_PER_SAMPLE or not reference.pcm or not reference.sample_rate_hz:
        raise InvalidRequest("reference: expected PCM16 audio and its sample rate")
    return VoiceReference(reference.pcm, reference.sample_rate_hz, reference.transcript)


def _read_style(style: bytes) -> bytes:
    if style and len(style) != STYLE_VALUES * 4:
        raise InvalidRequest(f"style: expected {STYLE_VALUES} float32, got {len(style)} bytes")
    return style


def audio_chunk_to_proto(chunk: AudioChunk) -> pb.SynthesiseResponse:
    return pb.SynthesiseResponse(pcm=chunk.pcm, sample_rate_hz=chunk.sample_rate_hz, quality=chunk.quality)


def audio_chunk_from_proto(response: pb.SynthesiseResponse) -> AudioChunk:
    return AudioChunk(response.pcm, response.sample_rate_hz, Quality(response.quality or Quality.FAST))


def voices_to_proto(voices: Iterable[VoiceInfo]) -> pb.ListVoicesResponse:
    return pb.ListVoicesResponse(
        voices=[pb.Voice(key=v.key, name=v.name, language=v.language, gender=v.gender) for v in voices]
    )


def voices_from_proto(response: pb.ListVoicesResponse) -> tuple[VoiceInfo, ...]:
    return tuple(
        VoiceInfo(v.key, v.name, v.language, cast(Literal["female", "male"], v.gender)) for v in response.voices
    )


def styles_to_proto(styles: Mapping[str, bytes]) -> pb.ListStylesResponse:
    return pb.ListStylesResponse(styles=styles)


def styles_from_proto(response: pb.ListStylesResponse) -> dict[str, bytes]:
    return dict(response.styles)


# --- speaker embeddings ------------------------------------------------------------------------


def recording_to_proto(pcm: bytes, sample_rate_hz: int) -> pb.EmbedRequest:
    return pb.EmbedRequest(pcm=pcm, sample_rate_hz=sample_rate_hz)


def recording_from_proto(request: pb.EmbedRequest) -> tuple[bytes, int]:
    return request.pcm, request.sample_rate_hz or MICROPHONE_SAMPLE_RATE_HZ


def embedding_to_proto(embedding: SpeakerEmbedding) -> pb.EmbedResponse:
    return pb.EmbedResponse(values=embedding.values, encoder=embedding.encoder)


def embedding_from_proto(response: pb.EmbedResponse) -> SpeakerEmbedding:
    return SpeakerEmbedding(tuple(response.values), response.encoder)


# --- status ------------------------------------------------------------------------------------


def status_to_proto(status: InferenceStatus) -> pb.GetStatusResponse:
    return pb.GetStatusResponse(
        profile=status.profile,
        roles=[_role_to_proto(role) for role in status.roles],
        resident_bytes=status.resident_bytes,
        started_at=status.started_at,
        devices=[
            pb.DeviceMemory(name=d.name, total_bytes=d.total_bytes, free_bytes=d.free_bytes) for d in status.devices
        ],
    )


def status_from_proto(response: pb.GetStatusResponse) -> InferenceStatus:
    return InferenceStatus(
        profile=response.profile,
        roles=tuple(_role_from_proto(role) for role in response.roles),
        resident_bytes=response.resident_bytes,
        started_at=response.started_at,
        devices=tuple(DeviceMemory(d.name, d.total_bytes, d.free_bytes) for d in response.devices),
    )


def _role_to_proto(role: RoleStatus) -> pb.RoleStatus:
    return pb.RoleStatus(
        role=role.role.value,
        state=role.state.value,
        engine=role.engine,
        model=role.model,
        device=role.device,
        load_s=role.load_s,
        memory_bytes=role.memory_bytes,
        reason=role.reason,
        active_calls=role.active_calls,
        clones=role.clones,
        figures=role.figures,
    )


def _role_from_proto(role: pb.RoleStatus) -> RoleStatus:
    return RoleStatus(
        role=Role(role.role),
        state=RoleState(role.state),
        engine=role.engine,
        model=role.model,
        device=role.device,
        load_s=role.load_s,
        memory_bytes=role.memory_bytes,
        reason=role.reason,
        active_calls=role.active_calls,
        clones=role.clones,
        figures=dict(role.figures),
    )
