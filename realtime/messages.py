"""
Wire messages of `WS /ws/chat`. Imports no Django, no Channels and no gRPC, and does no I/O.

msgspec structs are the one source: `parse` decodes client messages into them, `serialise` encodes server messages, and
`build_schema` derives the JSON Schema that `python -m realtime.messages` prints.
"""

from __future__ import annotations

import json
import re
import sys
from enum import StrEnum
from typing import Annotated, Any, Literal, cast, get_args
from uuid import UUID

import msgspec
from msgspec import UNSET as UNSET  # exported: a field that was not sent, where null means something else
from msgspec import Meta, Struct, UnsetType

from avatar_site.lib.text import strip_unseen
from inference.audio.containers import Container, has_foreign_signature, sniff_container

MICROPHONE_SAMPLE_RATE_HZ = 16_000
REPLY_SAMPLE_RATE_HZ = 24_000
BYTES_PER_SAMPLE = 2
#: The largest binary message, and the largest audio in one `audio_chunk`.
MAX_FRAME_BYTES = 64_000
MAX_CHUNK_BYTES = 1_000_000
MAX_TEXT_CHARACTERS = 4_000
#: The largest JSON message: an `audio_chunk` of the largest size in base64, and its envelope.
MAX_MESSAGE_CHARACTERS = MAX_CHUNK_BYTES * 4 // 3 + 1_000
#: `detail` of an error quotes what the client sent, up to so many characters.
MAX_DETAIL_CHARACTERS = 200

#: The code of the WebSocket registry for "service restart". Every other code is from the range for private use.
CLOSE_RESTARTING = 1012
CLOSE_NOT_LOGGED_IN = 4401
CLOSE_WRONG_ORIGIN = 4403
CLOSE_UNKNOWN_CONVERSATION = 4404
CLOSE_TOO_SLOW = 4408
CLOSE_REPLACED = 4409
CLOSE_IDLE = 4410
CLOSE_ENDED_BY_OPERATOR = 4411
CLOSE_NO_ANSWER = 4412
CLOSE_SERVER_FULL = 4429
CLOSE_TOO_MANY_CALLS = 4430
CLOSE_OVERLOADED = 4431
CLOSE_FATAL_ERROR = 4500


def name_close_code(code: int) -> str:
    """Return the name of a CLOSE_… constant in small letters, such as server_full; "other" for another number."""
    return _CLOSE_NAMES.get(code, "other")


_CLOSE_NAMES = {
    value: name.removeprefix("CLOSE_").lower() for name, value in [*globals().items()] if name[:6] == "CLOSE_"
}


class ErrorCode(StrEnum):
    SERVER_FULL = "SERVER_FULL"
    TOO_MANY_CALLS = "TOO_MANY_CALLS"
    OVERLOADED = "OVERLOADED"
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
    """Raised for a client message that is refused. `code` goes to the client, with `detail` for its programmer."""

    def __init__(self, code: ErrorCode, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class Mode(StrEnum):
    HANDS_FREE = "hands_free"
    HOLD_TO_TALK = "hold_to_talk"


class AudioFormat(StrEnum):
    PCM = "pcm_s16le"
    WAV = "wav"
    WEBM = "webm"


#: Text of a person. The limits count what was sent; `parse` then removes characters that only steer a display.
PlainText = Annotated[str, Meta(min_length=1, max_length=MAX_TEXT_CHARACTERS)]
Language = Literal["auto", "zh", "en"]
QualityName = Literal["fast", "high_quality"]


# --- client → server ----------------------------------------------------------------------------


class _FromClient(Struct, frozen=True, tag_field="type", forbid_unknown_fields=True):
    """A message from the client: an unknown field is an error."""


class AudioChunkMessage(_FromClient, frozen=True, tag="audio_chunk"):
    """A piece of the user's audio. Prefer binary messages for PCM; WAV and WebM are decoded at `audio_end`."""

    data: Annotated[bytes, Meta(min_length=1, max_length=MAX_CHUNK_BYTES)]
    format: AudioFormat | None = None


class AudioEndMessage(_FromClient, frozen=True, tag="audio_end"):
    """The utterance is over now. Without `voice_profile_id` the voice stays; null means the default voice."""

    voice_profile_id: UUID | UnsetType | None = UNSET


class ConfigureMessage(_FromClient, frozen=True, tag="configure"):
    """Change how the call behaves; what is not sent stays as it is."""

    mode: Mode | UnsetType = UNSET
    language: Language | UnsetType = UNSET
    pause_ms: Annotated[int, Meta(ge=200, le=3000)] | UnsetType = UNSET
    sensitivity: Annotated[float, Meta(ge=0.1, le=0.95)] | UnsetType = UNSET
    voice_profile_id: UUID | UnsetType | None = UNSET
    quality: QualityName | UnsetType = UNSET
    speed: Annotated[float, Meta(ge=0.5, le=2.0)] | UnsetType = UNSET
    #: The language of errors and notices from now on.
    page_language: Literal["zh-hant", "en"] | UnsetType = UNSET


class TextMessage(_FromClient, frozen=True, tag="text"):
    """Typed input: a turn as if it had been spoken."""

    text: PlainText


class CorrectMessage(_FromClient, frozen=True, tag="correct"):
    """Replace the text of an earlier turn of the user, forget every later turn, and answer again."""

    turn_id: UUID
    text: PlainText


class InterruptMessage(_FromClient, frozen=True, tag="interrupt"):
    """Stop the reply."""


class PlaybackMessage(_FromClient, frozen=True, tag="playback"):
    """How much of a reply's audio has been played: about every 250 ms, and once at the end."""

    turn_id: UUID
    played_ms: Annotated[int, Meta(ge=0, le=3_600_000)]
    is_finished: bool = False


class PingMessage(_FromClient, frozen=True, tag="ping"):
    """Answered by `pong` with the same nonce."""

    nonce: Annotated[str, Meta(max_length=100)] | None = None


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


# --- server → client ----------------------------------------------------------------------------


class Stage(StrEnum):
    LISTENING = "listening"
    STT = "stt"
    LLM = "llm"
    TTS = "tts"


class _FromServer(Struct, frozen=True, tag_field="type", forbid_unknown_fields=True, kw_only=True):
    """A message from the server: every field is written, except null ones of structs with `omit_defaults`."""

    #: This connection. Set by `serialise`.
    session_id: UUID | UnsetType = UNSET


class Limits(Struct, frozen=True, forbid_unknown_fields=True):
    """The limits of one utterance."""

    max_utterance_bytes: int
    max_utterance_chunks: int
    max_utterance_s: int
    max_frame_bytes: int = MAX_FRAME_BYTES
    max_chunk_bytes: int = MAX_CHUNK_BYTES
    max_text_characters: int = MAX_TEXT_CHARACTERS


class Waiting(_FromServer, frozen=True, tag="waiting"):
    """All places are taken: this call waits for one, as number `place` (1 is the next) of `count`. Sent on a change."""

    place: int
    count: int


class ReadyStatus(_FromServer, frozen=True, tag="status"):
    """
    Sent once, after connecting or waiting: what this call is. Without `conversation_id` nothing of it is kept.

    `answer_within_s` is null unless the call has waited: it ends if nothing but `ping` is sent for so many seconds.
    """

    conversation_id: UUID | None
    voice_profile_id: UUID | None
    is_resumed: bool
    limits: Limits
    sample_rate: int = MICROPHONE_SAMPLE_RATE_HZ
    answer_within_s: int | None = None
    stage: Literal["ready"] = "ready"


class Status(_FromServer, frozen=True, tag="status", omit_defaults=True):
    """What the call is doing. `is_speaking` says whether the user's speech has begun (stage `listening`)."""

    stage: Stage
    turn_id: UUID | None = None
    is_speaking: bool | None = None


class Transcription(_FromServer, frozen=True, tag="transcription"):
    """The transcript of the user's turn. Each replaces the one before; a final empty one means: heard nothing."""

    turn_id: UUID
    text: str
    is_final: bool
    language: str


class Corrected(_FromServer, frozen=True, tag="corrected"):
    """The user's turn has this text now, and every later turn is no longer part of the conversation."""

    turn_id: UUID
    text: str
    language: str


class LlmResponse(_FromServer, frozen=True, tag="llm_response"):
    """The reply's text: pieces to append, then the whole with `is_final` (after a barge-in: what was heard)."""

    turn_id: UUID
    user_turn_id: UUID
    text: str
    is_final: bool
    was_interrupted: bool = False


class TtsReady(_FromServer, frozen=True, tag="tts_ready"):
    """
    The reply's audio follows in binary messages; later it is kept at `audio_url` (null: it is not kept).

    `quality` is that of the first clause: fast where high quality was requested and memory was short.
    """

    turn_id: UUID
    user_turn_id: UUID
    audio_url: str | None
    format: Literal["pcm_s16le"] = "pcm_s16le"
    sample_rate: int = REPLY_SAMPLE_RATE_HZ
    quality: QualityName = "fast"


class LatencyMs(Struct, frozen=True, forbid_unknown_fields=True):
    """Milliseconds since the end of speech (since the message, for typed input). Null where there was no such step."""

    stt: int | None = None
    ttft: int | None = None
    ttfa: int | None = None
    total: int | None = None


class TurnEnd(_FromServer, frozen=True, tag="turn_end"):
    """Everything of this reply has been sent. `quality` is the lowest of its clauses; null without audio."""

    turn_id: UUID
    user_turn_id: UUID
    was_interrupted: bool
    audio_ms: int
    latency_ms: LatencyMs
    quality: QualityName | None = None


class Interrupted(_FromServer, frozen=True, tag="interrupted"):
    """The reply was stopped: stop playing at once. No more audio of this turn follows."""

    turn_id: UUID
    heard_ms: int


class ErrorMessage(_FromServer, frozen=True, tag="error", omit_defaults=True):
    """
    Something went wrong. `error` is a sentence for the user, `detail` is for the programmer of a client.

    `voice_profile_id` says which voice is gone.
    """

    code: ErrorCode
    error: str
    # A factory: msgspec omits a plain default, and this field is always written.
    is_fatal: bool = msgspec.field(default_factory=bool)
    turn_id: UUID | None = None
    voice_profile_id: UUID | None = None
    detail: str | None = None


class IdleWarning(_FromServer, frozen=True, tag="idle_warning"):
    """The call is idle and ends in `ends_in_s` seconds. `notice` is a sentence for the user."""

    ends_in_s: int
    notice: str


class Pong(_FromServer, frozen=True, tag="pong"):
    """Answers `ping`."""

    nonce: str | None = None


ServerMessage = (
    ReadyStatus
    | Waiting
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


def read_type(message_class: type[Struct]) -> str:
    """Return the `type` that messages of this class carry."""
    return cast(str, message_class.__struct_config__.tag)


CLIENT_MESSAGES: dict[str, type[ClientMessage]] = {read_type(each): each for each in get_args(ClientMessage)}


# --- decoding -----------------------------------------------------------------------------------

_decoder: msgspec.json.Decoder[ClientMessage] = msgspec.json.Decoder(ClientMessage)


def parse(text: str) -> ClientMessage:
    """Decode one JSON message. Raises ProtocolError for everything the schema refuses, unknown fields included."""
    if len(text) > MAX_MESSAGE_CHARACTERS:
        raise ProtocolError(ErrorCode.VALIDATION_ERROR, f"message longer than {MAX_MESSAGE_CHARACTERS} characters")
    try:
        message = _decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise _explain(text, error) from None
    if isinstance(message, TextMessage | CorrectMessage):
        shown = strip_unseen(message.text)
        if not shown:
            raise ProtocolError(ErrorCode.VALIDATION_ERROR, "text: nothing but control characters")
        return msgspec.structs.replace(message, text=shown)
    return message


def _decode(text: str) -> ClientMessage:
    try:
        return _decoder.decode(text)
    except msgspec.ValidationError as error:
        if "Expected `int`, got `float`" not in str(error):
            raise
        # To JSON Schema 250.0 is an integer; msgspec goes by the notation.
        return _decoder.decode(json.dumps(json.loads(text, parse_float=_read_number)))


def _read_number(text: str) -> int | float:
    number = float(text)
    return int(number) if number.is_integer() else number


def _explain(text: str, error: Exception) -> ProtocolError:
    """
    Tell which of the three codes applies to a message that was not decoded.

    msgspec decodes into the type while it reads: the first problem it meets may be of the type although the text is
    not JSON at all. The standard library decides what is JSON; a lone surrogate (half a character) is, to it.
    """
    try:
        content = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as not_json:
        return ProtocolError(ErrorCode.JSON_DECODE_ERROR, f"not JSON: {not_json}")
    if not isinstance(content, dict):
        return ProtocolError(ErrorCode.VALIDATION_ERROR, "a message is a JSON object")
    kind = content.get("type")
    if not isinstance(kind, str):
        return ProtocolError(ErrorCode.VALIDATION_ERROR, "type: expected a string")
    if kind not in CLIENT_MESSAGES:
        types = ", ".join(sorted(CLIENT_MESSAGES))
        return ProtocolError(ErrorCode.UNKNOWN_MESSAGE_TYPE, f"type: {kind[:50]!r} is not one of {types}")
    return ProtocolError(ErrorCode.VALIDATION_ERROR, _name_field(str(error))[:MAX_DETAIL_CHARACTERS])


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _name_field(problem: str) -> str:
    """Put the field first: of "Expected `int` >= 200 - at `$.pause_ms`" make "pause_ms: expected `int` >= 200"."""
    if unknown := re.match(r"Object contains unknown field `(.{,50})", problem, re.DOTALL):
        return f"{unknown[1].rstrip('`')}: unknown field"
    if missing := re.match(r"Object missing required field `(\w+)`", problem):
        return f"{missing[1]}: required"
    what, _, path = problem.partition(" - at `$")
    name = path.strip(".`")
    return f"{name}: {what[:1].lower()}{what[1:]}" if name else what


def check_frame(data: bytes) -> None:
    """Raise ProtocolError when a binary message is not microphone audio."""
    if not 2 <= len(data) <= MAX_FRAME_BYTES or len(data) % BYTES_PER_SAMPLE:
        raise ProtocolError(
            ErrorCode.VALIDATION_ERROR,
            f"binary message: expected 2 to {MAX_FRAME_BYTES} bytes, an even number, not {len(data)}",
        )


def sniff_format(data: bytes) -> AudioFormat:
    """Detect the format from the first bytes. Raises ProtocolError for one that is known and not supported."""
    container = sniff_container(data)
    if container is Container.WAV:
        return AudioFormat.WAV
    if container is Container.WEBM:
        return AudioFormat.WEBM
    if container is not None or has_foreign_signature(data):
        # Refused by name instead of being heard as noise.
        raise ProtocolError(ErrorCode.UNSUPPORTED_FORMAT, "data: neither PCM16, nor WAV, nor WebM")
    return AudioFormat.PCM


# --- encoding -----------------------------------------------------------------------------------

_encoder = msgspec.json.Encoder()


def serialise(message: ServerMessage, *, session_id: UUID) -> str:
    """Encode one server message as JSON."""
    return _encoder.encode(msgspec.structs.replace(message, session_id=session_id)).decode()


# --- the schema ---------------------------------------------------------------------------------


def build_schema() -> dict[str, Any]:
    """Describe every JSON message in both directions (JSON Schema, draft 2020-12)."""
    from_client, from_server = get_args(ClientMessage), get_args(ServerMessage)
    references, definitions = msgspec.json.schema_components(
        [*from_client, *from_server], ref_template="#/$defs/{name}"
    )
    for each in (*from_client, *from_server, Limits, LatencyMs):
        _tighten(each, definitions[each.__name__])
    definitions["ClientMessage"] = {"oneOf": list(references[: len(from_client)])}
    definitions["ServerMessage"] = {"oneOf": list(references[len(from_client) :])}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "AVATAR voice socket",
        "description": "JSON messages of WS /ws/chat. Audio travels beside them in binary messages.",
        "oneOf": [{"$ref": "#/$defs/ClientMessage"}, {"$ref": "#/$defs/ServerMessage"}],
        "$defs": definitions,
    }


def _tighten(message_class: type[Struct], definition: dict[str, Any]) -> None:
    """
    Say what msgspec's schema does not: what the server always writes.

    A field with a default is optional to a decoder; `serialise` writes it, unless it is null and omitted.
    """
    definition.pop("title", None)
    definition["description"] = " ".join((message_class.__doc__ or "").split())
    if issubclass(message_class, _FromClient):
        return
    is_null_omitted = message_class.__struct_config__.omit_defaults
    properties = definition["properties"]
    required = []
    for name, described in properties.items():
        described.pop("default", None)
        if is_null_omitted and {"type": "null"} in (options := described.get("anyOf", [])):
            (properties[name],) = [each for each in options if each != {"type": "null"}]
        else:
            required.append(name)
    definition["required"] = required


def print_schema() -> None:
    json.dump(build_schema(), sys.stdout, ensure_ascii=False, indent=2)
    sys.stdout.write("\n")


if __name__ == "__main__":
    print_schema()
