"""
The wire protocol of `WS /ws/chat` as typed values. Knows no Django, no Channels, no gRPC and does no I/O.

The dataclasses are the one source: `parse` checks client messages against them, `serialise` writes server messages,
and `build_schema` turns them into the JSON Schema that `python -m realtime.protocol` prints.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import json
import math
import sys
import types
import typing
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Annotated, Any, ClassVar, Literal, get_args, get_origin
from uuid import UUID

MICROPHONE_SAMPLE_RATE_HZ = 16_000
REPLY_SAMPLE_RATE_HZ = 24_000
BYTES_PER_SAMPLE = 2
#: The largest binary message, and the largest audio in one `audio_chunk`.
MAX_FRAME_BYTES = 64_000
MAX_CHUNK_BYTES = 1_000_000
MAX_TEXT_CHARACTERS = 4_000
#: The largest JSON message: an `audio_chunk` of the largest size in base64, and its envelope.
MAX_MESSAGE_CHARACTERS = MAX_CHUNK_BYTES * 4 // 3 + 1_000

#: The code of the WebSocket registry for "service restart". Every other code is from the range for private use.
CLOSE_RESTARTING = 1012
CLOSE_NOT_LOGGED_IN = 4401
CLOSE_WRONG_ORIGIN = 4403
CLOSE_UNKNOWN_CONVERSATION = 4404
CLOSE_TOO_SLOW = 4408
CLOSE_REPLACED = 4409
CLOSE_IDLE = 4410
CLOSE_SERVER_FULL = 4429
CLOSE_TOO_MANY_CALLS = 4430
CLOSE_FATAL_ERROR = 4500


class ErrorCode(StrEnum):
    SERVER_FULL = "SERVER_FULL"
    TOO_MANY_CALLS = "TOO_MANY_CALLS"
    ALREADY_PROCESSING = "ALREADY_PROCESSING"
    NO_AUDIO_DATA = "NO_AUDIO_DATA"
    BUFFER_LIMIT_EXCEEDED = "BUFFER_LIMIT_EXCEEDED"
    UNSUPPORTED_FORMAT = "UNSUPPORTED_FORMAT"
    VOICE_GONE = "VOICE_GONE"
    FELL_BEHIND = "FELL_BEHIND"
    NOT_KEPT = "NOT_KEPT"
    KEPT_AGAIN = "KEPT_AGAIN"
    CONVERSATION_GONE = "CONVERSATION_GONE"
    VALIDATION_ERROR = "VALIDATION_ERROR"
    JSON_DECODE_ERROR = "JSON_DECODE_ERROR"
    UNKNOWN_MESSAGE_TYPE = "UNKNOWN_MESSAGE_TYPE"
    PROCESSING_ERROR = "PROCESSING_ERROR"
    INFERENCE_UNAVAILABLE = "INFERENCE_UNAVAILABLE"
    FATAL_ERROR = "FATAL_ERROR"


class ProtocolError(Exception):
    """A client message that cannot be taken. `code` goes to the client, with `detail` for its programmer."""

    def __init__(self, code: ErrorCode, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class Unset(Enum):
    """A field that was not sent, where null means something else."""

    UNSET = "unset"


UNSET = Unset.UNSET


# --- constraints, read by the parser and by the schema ------------------------------------------


@dataclass(frozen=True, slots=True)
class Length:
    minimum: int
    maximum: int


@dataclass(frozen=True, slots=True)
class Range:
    minimum: float
    maximum: float


@dataclass(frozen=True, slots=True)
class PlainText:
    """What a person wrote, so many characters; characters that only steer a display are taken out of it."""

    minimum: int
    maximum: int


@dataclass(frozen=True, slots=True)
class Base64:
    """Bytes, written in base64, at most so many once decoded."""

    maximum: int


class Mode(StrEnum):
    HANDS_FREE = "hands_free"
    HOLD_TO_TALK = "hold_to_talk"


class AudioFormat(StrEnum):
    PCM = "pcm_s16le"
    WAV = "wav"
    WEBM = "webm"


# --- client → server ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AudioChunkMessage:
    """A piece of the user's audio. Prefer binary messages for PCM; WAV and WebM are decoded at `audio_end`."""

    type: ClassVar[str] = "audio_chunk"
    data: Annotated[bytes, Base64(MAX_CHUNK_BYTES)]
    format: AudioFormat | None = None


@dataclass(frozen=True, slots=True)
class AudioEndMessage:
    """The utterance is over now. Without `voice_profile_id` the voice stays; null means the default voice."""

    type: ClassVar[str] = "audio_end"
    voice_profile_id: UUID | Unset | None = UNSET


@dataclass(frozen=True, slots=True)
class ConfigureMessage:
    """Change how the call behaves; what is not sent stays as it is."""

    type: ClassVar[str] = "configure"
    mode: Mode | Unset = UNSET
    language: Literal["auto", "zh", "en"] | Unset = UNSET
    pause_ms: Annotated[int, Range(200, 3000)] | Unset = UNSET
    sensitivity: Annotated[float, Range(0.1, 0.95)] | Unset = UNSET
    voice_profile_id: UUID | Unset | None = UNSET
    quality: Literal["fast", "high_quality"] | Unset = UNSET
    speed: Annotated[float, Range(0.5, 2.0)] | Unset = UNSET
    #: In which language errors and notices are worded from now on.
    page_language: Literal["zh-hant", "en"] | Unset = UNSET


@dataclass(frozen=True, slots=True)
class TextMessage:
    """Typed input: a turn as if it had been spoken."""

    type: ClassVar[str] = "text"
    text: Annotated[str, PlainText(1, MAX_TEXT_CHARACTERS)]


@dataclass(frozen=True, slots=True)
class CorrectMessage:
    """What the user really said in an earlier turn of this conversation: answer it anew, and forget what came after."""

    type: ClassVar[str] = "correct"
    turn_id: UUID
    text: Annotated[str, PlainText(1, MAX_TEXT_CHARACTERS)]


@dataclass(frozen=True, slots=True)
class InterruptMessage:
    """Stop the reply."""

    type: ClassVar[str] = "interrupt"


@dataclass(frozen=True, slots=True)
class PlaybackMessage:
    """How much of a reply's audio has been played: about every 250 ms, and once at the end."""

    type: ClassVar[str] = "playback"
    turn_id: UUID
    played_ms: Annotated[int, Range(0, 3_600_000)]
    is_finished: bool = False


@dataclass(frozen=True, slots=True)
class PingMessage:
    """Answered by `pong` with the same nonce."""

    type: ClassVar[str] = "ping"
    nonce: Annotated[str, Length(0, 100)] | None = None


ClientMessage = (
    AudioChunkMessage
    | AudioEndMessage
    | ConfigureMessage
    | TextMessage
    | CorrectMessage
    | InterruptMessage
    | PlaybackMessage
    | PingMessage
)
CLIENT_MESSAGES: dict[str, type[ClientMessage]] = {cls.type: cls for cls in get_args(ClientMessage)}


# --- server → client ----------------------------------------------------------------------------


class Stage(StrEnum):
    READY = "ready"
    LISTENING = "listening"
    STT = "stt"
    LLM = "llm"
    TTS = "tts"


@dataclass(frozen=True, slots=True)
class Limits:
    """What one utterance may hold."""

    max_utterance_bytes: int
    max_utterance_chunks: int
    max_utterance_s: int
    max_frame_bytes: int = MAX_FRAME_BYTES
    max_chunk_bytes: int = MAX_CHUNK_BYTES
    max_text_characters: int = MAX_TEXT_CHARACTERS


@dataclass(frozen=True, slots=True)
class ReadyStatus:
    """Once, after connecting: what this call is. Without `conversation_id` nothing of it is kept."""

    type: ClassVar[str] = "status"
    conversation_id: UUID | None
    voice_profile_id: UUID | None
    is_resumed: bool
    limits: Limits
    sample_rate: int = MICROPHONE_SAMPLE_RATE_HZ
    stage: Literal[Stage.READY] = Stage.READY


@dataclass(frozen=True, slots=True)
class Status:
    """What the call is doing. `is_speaking` says whether the user's speech has begun (stage `listening`)."""

    type: ClassVar[str] = "status"
    stage: Literal[Stage.LISTENING, Stage.STT, Stage.LLM, Stage.TTS]
    turn_id: UUID | None = None
    is_speaking: bool | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Transcription:
    """What was understood of the user's turn. Each replaces the one before; a final empty one means: heard nothing."""

    type: ClassVar[str] = "transcription"
    turn_id: UUID
    text: str
    is_final: bool
    language: str


@dataclass(frozen=True, slots=True)
class Corrected:
    """The user's turn reads like this now, and every turn after it is no longer a part of the conversation."""

    type: ClassVar[str] = "corrected"
    turn_id: UUID
    text: str
    language: str


@dataclass(frozen=True, slots=True)
class LlmResponse:
    """The reply's text: pieces to append, then the whole with `is_final` (after a barge-in: what was heard)."""

    type: ClassVar[str] = "llm_response"
    turn_id: UUID
    user_turn_id: UUID
    text: str
    is_final: bool
    was_interrupted: bool = False


@dataclass(frozen=True, slots=True)
class TtsReady:
    """
    The reply's audio follows in binary messages; later it is kept at `audio_url` (null: it is not kept).

    `quality` is what it begins with: fast where high quality was wished for and memory was short.
    """

    type: ClassVar[str] = "tts_ready"
    turn_id: UUID
    user_turn_id: UUID
    audio_url: str | None
    format: Literal["pcm_s16le"] = "pcm_s16le"
    sample_rate: int = REPLY_SAMPLE_RATE_HZ
    quality: Literal["fast", "high_quality"] = "fast"


@dataclass(frozen=True, slots=True)
class LatencyMs:
    """Milliseconds since the end of speech (since the message, for typed input). Null where there was no such thing."""

    stt: int | None = None
    ttft: int | None = None
    ttfa: int | None = None
    total: int | None = None


@dataclass(frozen=True, slots=True)
class TurnEnd:
    """Everything of this reply has been sent. `quality` is the least that a part was made with; null without sound."""

    type: ClassVar[str] = "turn_end"
    turn_id: UUID
    user_turn_id: UUID
    was_interrupted: bool
    audio_ms: int
    latency_ms: LatencyMs
    quality: Literal["fast", "high_quality"] | None = None


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The reply was stopped: be silent at once. No more audio of this turn follows."""

    type: ClassVar[str] = "interrupted"
    turn_id: UUID
    heard_ms: int


@dataclass(frozen=True, slots=True)
class ErrorMessage:
    """
    Something went wrong. `error` is a sentence for the user, `detail` is for whoever writes a client.

    `voice_profile_id` says which voice is gone.
    """

    type: ClassVar[str] = "error"
    code: ErrorCode
    error: str
    is_fatal: bool = False
    turn_id: UUID | None = None
    voice_profile_id: UUID | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class IdleWarning:
    """The call is idle and ends in `ends_in_s` seconds. `notice` is a sentence for the user."""

    type: ClassVar[str] = "idle_warning"
    ends_in_s: int
    notice: str


@dataclass(frozen=True, slots=True)
class Pong:
    type: ClassVar[str] = "pong"
    nonce: str | None = None


ServerMessage = (
    ReadyStatus
    | Status
    | Transcription
    | Corrected
    | LlmResponse
    | TtsReady
    | TurnEnd
    | Interrupted
    | ErrorMessage
    | IdleWarning
    | Pong
)

#: Optional fields whose null is left out of a message; every other null is written.
_OMITTED_WHEN_NONE = {
    (Status, "turn_id"),
    (Status, "is_speaking"),
    (Status, "reason"),
    (ErrorMessage, "turn_id"),
    (ErrorMessage, "voice_profile_id"),
    (ErrorMessage, "detail"),
}


# --- reading ------------------------------------------------------------------------------------


def parse(text: str) -> ClientMessage:
    """Read one JSON message. Raises ProtocolError for whatever the schema does not allow, unknown fields included."""
    if len(text) > MAX_MESSAGE_CHARACTERS:
        raise ProtocolError(ErrorCode.VALIDATION_ERROR, f"message longer than {MAX_MESSAGE_CHARACTERS} characters")
    try:
        content = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(ErrorCode.JSON_DECODE_ERROR, f"not JSON: {error}") from None
    if not isinstance(content, dict):
        raise ProtocolError(ErrorCode.VALIDATION_ERROR, "a message is a JSON object")
    kind = content.pop("type", None)
    if not isinstance(kind, str):
        raise ProtocolError(ErrorCode.VALIDATION_ERROR, "type: expected a string")
    message_class = CLIENT_MESSAGES.get(kind)
    if message_class is None:
        raise ProtocolError(ErrorCode.UNKNOWN_MESSAGE_TYPE, f"type: {kind[:50]!r} is not one of {_list_types()}")
    return _build(message_class, content)


def _list_display_controls() -> dict[int, str | None]:
    """
    What a display obeys instead of showing it, as `str.translate` takes it.

    The controls of ASCII and Latin-1 but for tab and line feed, those of writing direction (Unicode's Bidi_Control,
    with which a text can be made to read as another), the byte order mark, annotations and deprecated formats. Joiners
    stay: emoji are made with them.
    """
    controls = {
        *range(0x20),
        *range(0x7F, 0xA0),
        0x061C,
        0x200E,
        0x200F,
        *range(0x202A, 0x202F),
        *range(0x2066, 0x2070),
    }
    controls |= {0xFEFF, *range(0xFFF9, 0xFFFC)}
    table: dict[int, str | None] = dict.fromkeys(controls - {0x09, 0x0A})
    return table | {0x2028: "\n", 0x2029: "\n"}


_DISPLAY_CONTROLS = _list_display_controls()


def check_frame(data: bytes) -> None:
    """Raise ProtocolError when a binary message is not a frame of microphone audio."""
    if not 2 <= len(data) <= MAX_FRAME_BYTES or len(data) % BYTES_PER_SAMPLE:
        raise ProtocolError(
            ErrorCode.VALIDATION_ERROR,
            f"binary message: expected 2 to {MAX_FRAME_BYTES} bytes, an even number, not {len(data)}",
        )


#: How files begin that are neither WAV nor WebM: refused by name instead of being heard as noise.
_FOREIGN_MAGIC = (b"OggS", b"fLaC", b"ID3", b"FORM", b".snd", b"caff", b"#!AMR", b"MThd")


def sniff_format(data: bytes) -> AudioFormat:
    """Tell the format from the first bytes. Raises ProtocolError for one that is known and not taken."""
    if data[:4] == b"RIFF":
        return AudioFormat.WAV
    if data[:4] == b"\x1a\x45\xdf\xa3":
        return AudioFormat.WEBM
    if data.startswith(_FOREIGN_MAGIC) or data[4:8] == b"ftyp":
        raise ProtocolError(ErrorCode.UNSUPPORTED_FORMAT, "data: neither PCM16, nor WAV, nor WebM")
    return AudioFormat.PCM


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _list_types() -> str:
    return ", ".join(sorted(CLIENT_MESSAGES))


def _build(message_class: type[ClientMessage], content: dict[str, Any]) -> ClientMessage:
    specifications = _read_fields(message_class)
    unknown = sorted(set(content) - set(specifications))
    if unknown:
        raise ProtocolError(ErrorCode.VALIDATION_ERROR, f"{unknown[0][:50]}: unknown field")
    values: dict[str, Any] = {}
    for name, specification in specifications.items():
        if name in content:
            values[name] = specification.read(name, content[name])
        elif specification.is_required:
            raise ProtocolError(ErrorCode.VALIDATION_ERROR, f"{name}: required")
    return message_class(**values)


@dataclass(frozen=True, slots=True)
class _Field:
    """One field's type, taken apart once."""

    kind: Any
    constraint: Length | PlainText | Range | Base64 | None
    is_nullable: bool
    is_required: bool

    def read(self, name: str, value: Any) -> Any:
        if value is None:
            if self.is_nullable:
                return None
            raise self._refuse(name, "null is not allowed")
        if self.kind is bytes:
            return self._read_bytes(name, value)
        if self.kind is UUID:
            return self._read_uuid(name, value)
        if self.kind is bool:
            if not isinstance(value, bool):
                raise self._refuse(name, "expected true or false")
            return value
        if self.kind in (int, float):
            return self._read_number(name, value)
        if self.kind is str:
            return self._read_string(name, value)
        choices = _list_choices(self.kind)
        if not isinstance(value, str) or value not in choices:
            raise self._refuse(name, f"expected one of {', '.join(choices)}")
        return self.kind(value) if isinstance(self.kind, type) else value

    def _refuse(self, name: str, why: str) -> ProtocolError:
        return ProtocolError(ErrorCode.VALIDATION_ERROR, f"{name}: {why}")

    def _read_bytes(self, name: str, value: Any) -> bytes:
        try:
            data = base64.b64decode(value, validate=True) if isinstance(value, str) else None
        except (binascii.Error, ValueError):
            data = None
        if data is None:
            raise self._refuse(name, "expected base64")
        if isinstance(self.constraint, Base64) and not 1 <= len(data) <= self.constraint.maximum:
            raise self._refuse(name, f"expected 1 to {self.constraint.maximum} bytes, not {len(data)}")
        return data

    def _read_uuid(self, name: str, value: Any) -> UUID:
        try:
            if isinstance(value, str) and len(value) == 36:
                return UUID(value)
        except ValueError:
            pass
        raise self._refuse(name, "expected a UUID")

    def _read_number(self, name: str, value: Any) -> int | float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not is_number or (self.kind is int and value != int(value)):
            raise self._refuse(name, "expected a whole number" if self.kind is int else "expected a number")
        if isinstance(self.constraint, Range) and not self.constraint.minimum <= value <= self.constraint.maximum:
            raise self._refuse(name, f"expected {self.constraint.minimum} to {self.constraint.maximum}")
        return int(value) if self.kind is int else float(value)

    def _read_string(self, name: str, value: Any) -> str:
        if not isinstance(value, str):
            raise self._refuse(name, "expected a string")
        constraint = self.constraint
        if isinstance(constraint, Length | PlainText) and not constraint.minimum <= len(value) <= constraint.maximum:
            raise self._refuse(name, f"expected {constraint.minimum} to {constraint.maximum} characters")
        if any("\ud800" <= c <= "\udfff" for c in value):
            raise self._refuse(name, "a lone surrogate is not text")
        if not isinstance(constraint, PlainText):
            return value
        text = value.translate(_DISPLAY_CONTROLS)
        if len(text) < constraint.minimum:
            raise self._refuse(name, "nothing but control characters")
        return text


def _list_choices(kind: Any) -> tuple[str, ...]:
    values = get_args(kind) if get_origin(kind) is Literal else tuple(kind)
    return tuple(str(value) for value in values)


#: What `_read_fields` has read, by class.
_FIELDS: dict[type[Any], dict[str, _Field]] = {}


def _read_fields(message_class: type[Any]) -> dict[str, _Field]:
    if message_class not in _FIELDS:
        _FIELDS[message_class] = _inspect_fields(message_class)
    return _FIELDS[message_class]


def _inspect_fields(message_class: type[Any]) -> dict[str, _Field]:
    hints = typing.get_type_hints(message_class, include_extras=True)
    return {
        f.name: _take_apart(
            hints[f.name],
            is_required=f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING,
        )
        for f in dataclasses.fields(message_class)
    }


def _take_apart(hint: Any, *, is_required: bool) -> _Field:
    options = list(get_args(hint)) if get_origin(hint) in (types.UnionType, typing.Union) else [hint]
    is_nullable = types.NoneType in options
    (kind,) = [o for o in options if o not in (types.NoneType, Unset)]
    constraint = None
    if get_origin(kind) is Annotated:
        kind, constraint = get_args(kind)
    return _Field(kind=kind, constraint=constraint, is_nullable=is_nullable, is_required=is_required)


# --- writing ------------------------------------------------------------------------------------


def serialise(message: ServerMessage, *, session_id: UUID) -> str:
    """Write one server message as JSON."""
    return json.dumps(to_dict(message, session_id=session_id), ensure_ascii=False, separators=(",", ":"))


def to_dict(message: ServerMessage, *, session_id: UUID) -> dict[str, Any]:
    content: dict[str, Any] = {"type": message.type, "session_id": str(session_id)}
    for f in dataclasses.fields(message):
        value = getattr(message, f.name)
        if value is None and (type(message), f.name) in _OMITTED_WHEN_NONE:
            continue
        content[f.name] = _write(value)
    return content


def _write(value: Any) -> Any:
    if isinstance(value, UUID | StrEnum):
        return str(value)
    if dataclasses.is_dataclass(value):
        return {f.name: _write(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return value


# --- the schema ---------------------------------------------------------------------------------


def build_schema() -> dict[str, Any]:
    """Describe every JSON message in both directions (JSON Schema, draft 2020-12)."""
    definitions: dict[str, Any] = {}
    for cls in get_args(ClientMessage):
        definitions[_name(cls)] = _describe(cls, is_from_server=False)
    for cls in get_args(ServerMessage):
        definitions[_name(cls)] = _describe(cls, is_from_server=True)
    definitions["ClientMessage"] = {"oneOf": [_refer(cls) for cls in get_args(ClientMessage)]}
    definitions["ServerMessage"] = {"oneOf": [_refer(cls) for cls in get_args(ServerMessage)]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "AVATAR voice socket",
        "description": "JSON messages of WS /ws/chat. Audio travels beside them in binary messages.",
        "oneOf": [{"$ref": "#/$defs/ClientMessage"}, {"$ref": "#/$defs/ServerMessage"}],
        "$defs": definitions,
    }


def _name(cls: type[Any]) -> str:
    return cls.__name__


def _refer(cls: type[Any]) -> dict[str, str]:
    return {"$ref": f"#/$defs/{_name(cls)}"}


def _describe(cls: type[Any], *, is_from_server: bool) -> dict[str, Any]:
    properties: dict[str, Any] = {"type": {"const": cls.type}}
    required = ["type"]
    if is_from_server:
        properties["session_id"] = {"type": "string", "format": "uuid"}
        required.append("session_id")
    for name, specification in _read_fields(cls).items():
        is_left_out = (cls, name) in _OMITTED_WHEN_NONE
        properties[name] = _describe_field(specification, is_nullable=specification.is_nullable and not is_left_out)
        if (is_from_server and not is_left_out) or specification.is_required:
            required.append(name)
    return {
        "description": " ".join((cls.__doc__ or "").split()),
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _describe_field(specification: _Field, *, is_nullable: bool) -> dict[str, Any]:
    kind, constraint = specification.kind, specification.constraint
    content: dict[str, Any]
    if isinstance(constraint, Base64):
        longest = -(-constraint.maximum // 3) * 4
        content = {"type": "string", "contentEncoding": "base64", "minLength": 4, "maxLength": longest}
    elif kind is UUID:
        content = {"type": "string", "format": "uuid"}
    elif kind is bool:
        content = {"type": "boolean"}
    elif kind in (int, float):
        content = {"type": "integer" if kind is int else "number"}
        if isinstance(constraint, Range):
            content |= {"minimum": constraint.minimum, "maximum": constraint.maximum}
    elif kind is str:
        content = {"type": "string"}
        if isinstance(constraint, Length | PlainText):
            content |= {"minLength": constraint.minimum, "maxLength": constraint.maximum}
    elif isinstance(kind, type) and dataclasses.is_dataclass(kind):
        fields = _read_fields(kind)
        content = {
            "type": "object",
            "properties": {n: _describe_field(f, is_nullable=f.is_nullable) for n, f in fields.items()},
            "required": list(fields),
            "additionalProperties": False,
        }
    else:
        content = {"enum": list(_list_choices(kind))}
    if is_nullable:
        return {"anyOf": [content, {"type": "null"}]}
    return content


def print_schema() -> None:
    json.dump(build_schema(), sys.stdout, ensure_ascii=False, indent=2)
    sys.stdout.write("\n")


if __name__ == "__main__":
    print_schema()
