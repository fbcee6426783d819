from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TranscriptionOptions(_message.Message):
    __slots__ = ("language", "endpointing", "pause_ms", "min_speech_ms", "sensitivity", "is_background")
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    ENDPOINTING_FIELD_NUMBER: _ClassVar[int]
    PAUSE_MS_FIELD_NUMBER: _ClassVar[int]
    MIN_SPEECH_MS_FIELD_NUMBER: _ClassVar[int]
    SENSITIVITY_FIELD_NUMBER: _ClassVar[int]
    IS_BACKGROUND_FIELD_NUMBER: _ClassVar[int]
    language: str
    endpointing: bool
    pause_ms: int
    min_speech_ms: int
    sensitivity: float
    is_background: bool
    def __init__(self, language: _Optional[str] = ..., endpointing: _Optional[bool] = ..., pause_ms: _Optional[int] = ..., min_speech_ms: _Optional[int] = ..., sensitivity: _Optional[float] = ..., is_background: _Optional[bool] = ...) -> None: ...

class TranscribeRequest(_message.Message):
    __slots__ = ("options", "pcm", "end_of_utterance", "discard_utterance")
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    PCM_FIELD_NUMBER: _ClassVar[int]
    END_OF_UTTERANCE_FIELD_NUMBER: _ClassVar[int]
    DISCARD_UTTERANCE_FIELD_NUMBER: _ClassVar[int]
    options: TranscriptionOptions
    pcm: bytes
    end_of_utterance: EndOfUtterance
    discard_utterance: DiscardUtterance
    def __init__(self, options: _Optional[_Union[TranscriptionOptions, _Mapping]] = ..., pcm: _Optional[bytes] = ..., end_of_utterance: _Optional[_Union[EndOfUtterance, _Mapping]] = ..., discard_utterance: _Optional[_Union[DiscardUtterance, _Mapping]] = ...) -> None: ...

class EndOfUtterance(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DiscardUtterance(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class TranscribeResponse(_message.Message):
    __slots__ = ("speech_started", "partial", "provisional", "speech_resumed", "final")
    SPEECH_STARTED_FIELD_NUMBER: _ClassVar[int]
    PARTIAL_FIELD_NUMBER: _ClassVar[int]
    PROVISIONAL_FIELD_NUMBER: _ClassVar[int]
    SPEECH_RESUMED_FIELD_NUMBER: _ClassVar[int]
    FINAL_FIELD_NUMBER: _ClassVar[int]
    speech_started: SpeechStarted
    partial: Transcript
    provisional: Transcript
    speech_resumed: SpeechResumed
    final: FinalTranscript
    def __init__(self, speech_started: _Optional[_Union[SpeechStarted, _Mapping]] = ..., partial: _Optional[_Union[Transcript, _Mapping]] = ..., provisional: _Optional[_Union[Transcript, _Mapping]] = ..., speech_resumed: _Optional[_Union[SpeechResumed, _Mapping]] = ..., final: _Optional[_Union[FinalTranscript, _Mapping]] = ...) -> None: ...

class SpeechStarted(_message.Message):
    __slots__ = ("speech_start_ms",)
    SPEECH_START_MS_FIELD_NUMBER: _ClassVar[int]
    speech_start_ms: int
    def __init__(self, speech_start_ms: _Optional[int] = ...) -> None: ...

class SpeechResumed(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Transcript(_message.Message):
    __slots__ = ("text", "language")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    text: str
    language: str
    def __init__(self, text: _Optional[str] = ..., language: _Optional[str] = ...) -> None: ...

class FinalTranscript(_message.Message):
    __slots__ = ("text", "language", "speech_start_ms", "speech_end_ms", "received_ms")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    SPEECH_START_MS_FIELD_NUMBER: _ClassVar[int]
    SPEECH_END_MS_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_MS_FIELD_NUMBER: _ClassVar[int]
    text: str
    language: str
    speech_start_ms: int
    speech_end_ms: int
    received_ms: int
    def __init__(self, text: _Optional[str] = ..., language: _Optional[str] = ..., speech_start_ms: _Optional[int] = ..., speech_end_ms: _Optional[int] = ..., received_ms: _Optional[int] = ...) -> None: ...

class Message(_message.Message):
    __slots__ = ("role", "content", "is_shared")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    IS_SHARED_FIELD_NUMBER: _ClassVar[int]
    role: str
    content: str
    is_shared: bool
    def __init__(self, role: _Optional[str] = ..., content: _Optional[str] = ..., is_shared: _Optional[bool] = ...) -> None: ...

class GenerateRequest(_message.Message):
    __slots__ = ("messages", "max_tokens", "temperature", "seed", "repeat_penalty")
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    REPEAT_PENALTY_FIELD_NUMBER: _ClassVar[int]
    messages: _containers.RepeatedCompositeFieldContainer[Message]
    max_tokens: int
    temperature: float
    seed: int
    repeat_penalty: float
    def __init__(self, messages: _Optional[_Iterable[_Union[Message, _Mapping]]] = ..., max_tokens: _Optional[int] = ..., temperature: _Optional[float] = ..., seed: _Optional[int] = ..., repeat_penalty: _Optional[float] = ...) -> None: ...

class GenerateResponse(_message.Message):
    __slots__ = ("text_delta", "finished")
    TEXT_DELTA_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    text_delta: str
    finished: GenerationFinished
    def __init__(self, text_delta: _Optional[str] = ..., finished: _Optional[_Union[GenerationFinished, _Mapping]] = ...) -> None: ...

class GenerationFinished(_message.Message):
    __slots__ = ("reason", "prompt_tokens", "completion_tokens")
    REASON_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_TOKENS_FIELD_NUMBER: _ClassVar[int]
    reason: str
    prompt_tokens: int
    completion_tokens: int
    def __init__(self, reason: _Optional[str] = ..., prompt_tokens: _Optional[int] = ..., completion_tokens: _Optional[int] = ...) -> None: ...

class PrefillRequest(_message.Message):
    __slots__ = ("messages",)
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    messages: _containers.RepeatedCompositeFieldContainer[Message]
    def __init__(self, messages: _Optional[_Iterable[_Union[Message, _Mapping]]] = ...) -> None: ...

class PrefillResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SynthesiseRequest(_message.Message):
    __slots__ = ("text", "voice", "quality", "speed", "is_first", "is_last", "reference", "style", "is_background")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    VOICE_FIELD_NUMBER: _ClassVar[int]
    QUALITY_FIELD_NUMBER: _ClassVar[int]
    SPEED_FIELD_NUMBER: _ClassVar[int]
    IS_FIRST_FIELD_NUMBER: _ClassVar[int]
    IS_LAST_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    STYLE_FIELD_NUMBER: _ClassVar[int]
    IS_BACKGROUND_FIELD_NUMBER: _ClassVar[int]
    text: str
    voice: str
    quality: str
    speed: float
    is_first: bool
    is_last: bool
    reference: VoiceReference
    style: bytes
    is_background: bool
    def __init__(self, text: _Optional[str] = ..., voice: _Optional[str] = ..., quality: _Optional[str] = ..., speed: _Optional[float] = ..., is_first: _Optional[bool] = ..., is_last: _Optional[bool] = ..., reference: _Optional[_Union[VoiceReference, _Mapping]] = ..., style: _Optional[bytes] = ..., is_background: _Optional[bool] = ...) -> None: ...

class VoiceReference(_message.Message):
    __slots__ = ("pcm", "sample_rate_hz", "transcript")
    PCM_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_RATE_HZ_FIELD_NUMBER: _ClassVar[int]
    TRANSCRIPT_FIELD_NUMBER: _ClassVar[int]
    pcm: bytes
    sample_rate_hz: int
    transcript: str
    def __init__(self, pcm: _Optional[bytes] = ..., sample_rate_hz: _Optional[int] = ..., transcript: _Optional[str] = ...) -> None: ...

class SynthesiseResponse(_message.Message):
    __slots__ = ("pcm", "sample_rate_hz", "quality")
    PCM_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_RATE_HZ_FIELD_NUMBER: _ClassVar[int]
    QUALITY_FIELD_NUMBER: _ClassVar[int]
    pcm: bytes
    sample_rate_hz: int
    quality: str
    def __init__(self, pcm: _Optional[bytes] = ..., sample_rate_hz: _Optional[int] = ..., quality: _Optional[str] = ...) -> None: ...

class ListVoicesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListVoicesResponse(_message.Message):
    __slots__ = ("voices",)
    VOICES_FIELD_NUMBER: _ClassVar[int]
    voices: _containers.RepeatedCompositeFieldContainer[Voice]
    def __init__(self, voices: _Optional[_Iterable[_Union[Voice, _Mapping]]] = ...) -> None: ...

class Voice(_message.Message):
    __slots__ = ("key", "name", "language", "gender")
    KEY_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    GENDER_FIELD_NUMBER: _ClassVar[int]
    key: str
    name: str
    language: str
    gender: str
    def __init__(self, key: _Optional[str] = ..., name: _Optional[str] = ..., language: _Optional[str] = ..., gender: _Optional[str] = ...) -> None: ...

class ListStylesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListStylesResponse(_message.Message):
    __slots__ = ("styles",)
    class StylesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bytes
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
    STYLES_FIELD_NUMBER: _ClassVar[int]
    styles: _containers.ScalarMap[str, bytes]
    def __init__(self, styles: _Optional[_Mapping[str, bytes]] = ...) -> None: ...

class EmbedRequest(_message.Message):
    __slots__ = ("pcm", "sample_rate_hz")
    PCM_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_RATE_HZ_FIELD_NUMBER: _ClassVar[int]
    pcm: bytes
    sample_rate_hz: int
    def __init__(self, pcm: _Optional[bytes] = ..., sample_rate_hz: _Optional[int] = ...) -> None: ...

class EmbedResponse(_message.Message):
    __slots__ = ("values", "encoder")
    VALUES_FIELD_NUMBER: _ClassVar[int]
    ENCODER_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    encoder: str
    def __init__(self, values: _Optional[_Iterable[float]] = ..., encoder: _Optional[str] = ...) -> None: ...

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("profile", "roles", "resident_bytes", "started_at", "devices")
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    ROLES_FIELD_NUMBER: _ClassVar[int]
    RESIDENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    profile: str
    roles: _containers.RepeatedCompositeFieldContainer[RoleStatus]
    resident_bytes: int
    started_at: float
    devices: _containers.RepeatedCompositeFieldContainer[DeviceMemory]
    def __init__(self, profile: _Optional[str] = ..., roles: _Optional[_Iterable[_Union[RoleStatus, _Mapping]]] = ..., resident_bytes: _Optional[int] = ..., started_at: _Optional[float] = ..., devices: _Optional[_Iterable[_Union[DeviceMemory, _Mapping]]] = ...) -> None: ...

class DeviceMemory(_message.Message):
    __slots__ = ("name", "total_bytes", "free_bytes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    name: str
    total_bytes: int
    free_bytes: int
    def __init__(self, name: _Optional[str] = ..., total_bytes: _Optional[int] = ..., free_bytes: _Optional[int] = ...) -> None: ...

class RoleStatus(_message.Message):
    __slots__ = ("role", "state", "engine", "model", "device", "load_s", "memory_bytes", "reason", "active_calls", "figures", "clones")
    class FiguresEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    ROLE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    LOAD_S_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_CALLS_FIELD_NUMBER: _ClassVar[int]
    FIGURES_FIELD_NUMBER: _ClassVar[int]
    CLONES_FIELD_NUMBER: _ClassVar[int]
    role: str
    state: str
    engine: str
    model: str
    device: str
    load_s: float
    memory_bytes: int
    reason: str
    active_calls: int
    figures: _containers.ScalarMap[str, float]
    clones: bool
    def __init__(self, role: _Optional[str] = ..., state: _Optional[str] = ..., engine: _Optional[str] = ..., model: _Optional[str] = ..., device: _Optional[str] = ..., load_s: _Optional[float] = ..., memory_bytes: _Optional[int] = ..., reason: _Optional[str] = ..., active_calls: _Optional[int] = ..., figures: _Optional[_Mapping[str, float]] = ..., clones: _Optional[bool] = ...) -> None: ...

class GetMetricsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetMetricsResponse(_message.Message):
    __slots__ = ("exposition",)
    EXPOSITION_FIELD_NUMBER: _ClassVar[int]
    exposition: bytes
    def __init__(self, exposition: _Optional[bytes] = ...) -> None: ...
