from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any, get_args
from uuid import UUID, uuid4

import jsonschema
import pytest

from realtime import messages
from realtime.messages import AudioFormat, ErrorCode, ProtocolError

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/protocol.md").read_text(encoding="utf-8")
EXAMPLES = [json.loads(text) for text in re.findall(r"```json\n(.*?)\n```", PAGE, re.DOTALL)]
VALIDATOR = jsonschema.Draft202012Validator(messages.build_schema(), format_checker=jsonschema.FormatChecker())
TURN = "7f0c2f5e-3b0a-4f39-9a55-0d3b7f6c1a11"


def parse(**message: Any) -> messages.ClientMessage:
    return messages.parse(json.dumps(message))


def serialise(message: messages.ServerMessage) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(messages.serialise(message, session_id=uuid4()))
    return content


def refuse(text: str) -> ProtocolError:
    with pytest.raises(ProtocolError) as caught:
        messages.parse(text)
    return caught.value


class TestParse:
    @pytest.mark.parametrize(
        ("message", "value"),
        [
            ({"type": "interrupt"}, messages.InterruptMessage()),
            ({"type": "text", "text": "好"}, messages.TextMessage("好")),
            ({"type": "text", "text": "好" * 4000}, messages.TextMessage("好" * 4000)),
            ({"type": "correct", "turn_id": TURN, "text": "好"}, messages.CorrectMessage(UUID(TURN), "好")),
            ({"type": "ping"}, messages.PingMessage(None)),
            ({"type": "ping", "nonce": "1"}, messages.PingMessage("1")),
            ({"type": "audio_end"}, messages.AudioEndMessage(messages.UNSET)),
            ({"type": "audio_end", "voice_profile_id": None}, messages.AudioEndMessage(None)),
            ({"type": "audio_end", "voice_profile_id": TURN}, messages.AudioEndMessage(UUID(TURN))),
            ({"type": "audio_chunk", "data": "AAA="}, messages.AudioChunkMessage(b"\0\0")),
            (
                {"type": "audio_chunk", "data": "AAA=", "format": "wav"},
                messages.AudioChunkMessage(b"\0\0", AudioFormat.WAV),
            ),
            (
                {"type": "playback", "turn_id": TURN, "played_ms": 250.0},
                messages.PlaybackMessage(UUID(TURN), 250, False),
            ),
            ({"type": "configure", "pause_ms": 200}, messages.ConfigureMessage(pause_ms=200)),
            ({"type": "configure", "speed": 1}, messages.ConfigureMessage(speed=1.0)),
            ({"type": "configure"}, messages.ConfigureMessage()),
        ],
    )
    def test_reads(self, message: dict[str, Any], value: messages.ClientMessage) -> None:
        assert parse(**message) == value
        VALIDATOR.validate(message)

    @pytest.mark.parametrize(
        "message",
        [
            {},
            {"type": None},
            {"type": 5},
            {"type": "text"},
            {"type": "text", "text": ""},
            {"type": "text", "text": "好" * 4001},
            {"type": "text", "text": 5},
            {"type": "text", "text": None},
            {"type": "text", "text": "a", "turn_id": TURN},
            {"type": "correct", "text": "好"},
            {"type": "correct", "turn_id": TURN},
            {"type": "correct", "turn_id": TURN, "text": ""},
            {"type": "correct", "turn_id": "last", "text": "好"},
            {"type": "interrupt", "session_id": TURN},
            {"type": "audio_end", "voice_profile_id": "me"},
            {"type": "audio_end", "voice_profile_id": 5},
            {"type": "audio_chunk"},
            {"type": "audio_chunk", "data": ""},
            {"type": "audio_chunk", "data": 5},
            {"type": "audio_chunk", "data": "AAA=", "format": "mp3"},
            {"type": "playback", "turn_id": TURN},
            {"type": "playback", "turn_id": TURN, "played_ms": -1},
            {"type": "playback", "turn_id": TURN, "played_ms": 1.5},
            {"type": "playback", "turn_id": TURN, "played_ms": True},
            {"type": "playback", "turn_id": TURN, "played_ms": 1, "is_finished": 1},
            {"type": "configure", "mode": "shout"},
            {"type": "configure", "mode": None},
            {"type": "configure", "pause_ms": 199},
            {"type": "configure", "pause_ms": 3001},
            {"type": "configure", "sensitivity": 0.05},
            {"type": "configure", "speed": "1"},
            {"type": "configure", "speed": 2.1},
            {"type": "ping", "nonce": "x" * 101},
        ],
    )
    def test_refuses_what_the_schema_refuses(self, message: dict[str, Any]) -> None:
        assert refuse(json.dumps(message)).code == ErrorCode.VALIDATION_ERROR
        assert not VALIDATOR.is_valid(message)

    @pytest.mark.parametrize("text", ["", "{", "nonsense", '{"type": "ping"', '{"a": NaN}', "[" * 100_000])
    def test_refuses_what_is_not_json(self, text: str) -> None:
        assert refuse(text).code == ErrorCode.JSON_DECODE_ERROR

    @pytest.mark.parametrize("text", ["[]", "1", "null", '"ping"'])
    def test_refuses_what_is_not_an_object(self, text: str) -> None:
        assert refuse(text).code == ErrorCode.VALIDATION_ERROR

    def test_refuses_an_unknown_type(self) -> None:
        assert refuse('{"type": "status"}').code == ErrorCode.UNKNOWN_MESSAGE_TYPE

    def test_refuses_half_a_character(self) -> None:
        assert refuse('{"type": "text", "text": "\\ud83d"}').code == ErrorCode.VALIDATION_ERROR

    @pytest.mark.parametrize("kind", ["text", "correct"])
    @pytest.mark.parametrize(
        ("typed", "kept"),
        [
            ("把\u202e這句\u202c倒過來\u2066。\u2069", "把這句倒過來。"),
            ("\ufeff你好\x00\x1b[31m\x7f\x84\u200f", "你好[31m"),
            ("第一行\r\n第二行\t完", "第一行\n第二行\t完"),
            ("一\u2028二\u2029三\x85四\r五", "一\n二\n三\n四\n五"),
            ("\U0001f469\u200d\U0001f4bb", "\U0001f469\u200d\U0001f4bb"),
        ],
    )
    def test_takes_out_what_only_steers_a_display(self, kind: str, typed: str, kept: str) -> None:
        turn = {"turn_id": TURN} if kind == "correct" else {}

        message = parse(type=kind, text=typed, **turn)

        assert isinstance(message, messages.TextMessage | messages.CorrectMessage)
        assert message.text == kept

    def test_refuses_nothing_but_control_characters(self) -> None:
        assert refuse('{"type": "text", "text": "\\u202e\\u0007"}').detail == "text: nothing but control characters"

    @pytest.mark.parametrize("data", ["AA", "A===", "AA AA", "好好好好"])
    def test_refuses_what_is_not_base64(self, data: str) -> None:
        assert refuse(json.dumps({"type": "audio_chunk", "data": data})).code == ErrorCode.VALIDATION_ERROR

    def test_takes_a_chunk_of_the_largest_size_and_no_larger(self) -> None:
        largest = base64.b64encode(bytes(messages.MAX_CHUNK_BYTES)).decode()
        larger = base64.b64encode(bytes(messages.MAX_CHUNK_BYTES + 1)).decode()

        parse(type="audio_chunk", data=largest)
        with pytest.raises(ProtocolError, match="data: expected `bytes` of length <="):
            parse(type="audio_chunk", data=larger)

    def test_refuses_a_message_that_is_too_long(self) -> None:
        assert refuse(" " * (messages.MAX_MESSAGE_CHARACTERS + 1)).code == ErrorCode.VALIDATION_ERROR

    @pytest.mark.parametrize(
        ("text", "detail"),
        [
            ('{"type": "configure", "pause_ms": 1}', "pause_ms: expected `int` >= 200"),
            ('{"type": "configure", "mode": "shout"}', "mode: invalid enum value 'shout'"),
            ('{"type": "text"}', "text: required"),
            ('{"type": "ping", "session": 1}', "session: unknown field"),
        ],
    )
    def test_names_the_field(self, text: str, detail: str) -> None:
        assert refuse(text).detail == detail

    def test_quotes_no_more_than_a_little(self) -> None:
        for text in ('{"type": "ping", "%s": 1}', '{"type": "%s"}', '{"type": "configure", "mode": "%s"}'):
            assert len(refuse(text % ("x" * 10_000)).detail) < 250

    def test_calls_what_is_not_json_so_before_it_looks_at_fields(self) -> None:
        assert refuse('{"type": "text", "text": 5').code == ErrorCode.JSON_DECODE_ERROR


class TestFrames:
    @pytest.mark.parametrize("size", [2, 640, 64_000])
    def test_are_taken(self, size: int) -> None:
        messages.check_frame(bytes(size))

    @pytest.mark.parametrize("size", [0, 1, 641, 64_002])
    def test_of_other_sizes_are_refused(self, size: int) -> None:
        with pytest.raises(ProtocolError):
            messages.check_frame(bytes(size))


class TestSniffing:
    @pytest.mark.parametrize(
        ("data", "kind"),
        [
            (b"RIFF....WAVE", AudioFormat.WAV),
            (b"\x1a\x45\xdf\xa3....", AudioFormat.WEBM),
            (bytes(12), AudioFormat.PCM),
            (b"\0\0", AudioFormat.PCM),
        ],
    )
    def test_knows(self, data: bytes, kind: AudioFormat) -> None:
        assert messages.sniff_format(data) is kind

    @pytest.mark.parametrize("data", [b"OggS1234", b"fLaC1234", b"ID3\x04....", b"\0\0\0\x20ftypM4A "])
    def test_refuses_what_it_knows_and_does_not_take(self, data: bytes) -> None:
        with pytest.raises(ProtocolError, match="UNSUPPORTED_FORMAT"):
            messages.sniff_format(data)


class TestSerialise:
    def test_writes_every_message_as_the_schema_says(self) -> None:
        turn, user = uuid4(), uuid4()
        examples: list[messages.ServerMessage] = [
            messages.ReadyStatus(uuid4(), None, False, messages.Limits(1, 2, 3)),
            messages.ReadyStatus(None, None, False, messages.Limits(1, 2, 3), answer_within_s=20),
            messages.Waiting(3, 4),
            messages.Status(stage=messages.Stage.LLM, turn_id=turn),
            messages.Status(stage=messages.Stage.LISTENING, is_speaking=False),
            messages.Transcription(user, "好", True, "zh"),
            messages.Corrected(user, "好", "zh"),
            messages.LlmResponse(turn, user, "好", False),
            messages.TtsReady(turn, user, "/a"),
            messages.TtsReady(turn, user, None),
            messages.TurnEnd(turn, user, False, 5, messages.LatencyMs(stt=5)),
            messages.Interrupted(turn, 5),
            messages.ErrorMessage(ErrorCode.SERVER_FULL, "好"),
            messages.ErrorMessage(ErrorCode.VOICE_GONE, "好", True, turn, uuid4(), "x"),
            messages.IdleWarning(60, "好"),
            messages.Pong("1"),
            messages.Pong(),
        ]
        assert {type(m) for m in examples} == set(get_args(messages.ServerMessage))

        for message in examples:
            text = messages.serialise(message, session_id=uuid4())
            VALIDATOR.validate(json.loads(text))
            assert "\\u" not in text

    def test_leaves_out_what_is_not_said_and_keeps_nulls_that_say_something(self) -> None:
        status = serialise(messages.Status(stage=messages.Stage.STT))
        end = serialise(messages.TurnEnd(uuid4(), uuid4(), False, 0, messages.LatencyMs()))

        assert set(status) == {"type", "session_id", "stage"}
        assert end["latency_ms"] == {"stt": None, "ttft": None, "ttfa": None, "total": None}


class TestDocumentation:
    def test_schema_is_up_to_date(self) -> None:
        kept = json.loads((ROOT / "docs/protocol.schema.json").read_text(encoding="utf-8"))

        assert kept == messages.build_schema(), "run: python -m realtime.messages > docs/protocol.schema.json"

    def test_schema_is_a_schema(self) -> None:
        jsonschema.Draft202012Validator.check_schema(messages.build_schema())

    @pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example["type"])
    def test_examples_are_valid(self, example: dict[str, Any]) -> None:
        VALIDATOR.validate(example)
        if example["type"] in messages.CLIENT_MESSAGES:
            parse(**example)

    def test_there_is_an_example_and_a_row_of_every_message(self) -> None:
        types = set(messages.CLIENT_MESSAGES) | {messages.read_type(each) for each in get_args(messages.ServerMessage)}

        assert {example["type"] for example in EXAMPLES} == types
        assert types <= set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE))

    def test_every_error_and_close_code_is_explained(self) -> None:
        close_codes = {str(value) for name, value in vars(messages).items() if name.startswith("CLOSE_")}

        assert set(re.findall(r"^\| `([A-Z_]+)` \|", PAGE, re.MULTILINE)) == set(ErrorCode)
        assert set(re.findall(r"^\| (\d{4}) \|", PAGE, re.MULTILINE)) == close_codes

    def test_every_field_is_named(self) -> None:
        for name, definition in messages.build_schema()["$defs"].items():
            for field in definition.get("properties", {}):
                assert f"`{field}`" in PAGE or field in ("type",), f"{name}.{field}"


class TestCloseCodes:
    @pytest.mark.parametrize(
        ("code", "name"),
        [
            (messages.CLOSE_SERVER_FULL, "server_full"),
            (messages.CLOSE_RESTARTING, "restarting"),
            (messages.CLOSE_FATAL_ERROR, "fatal_error"),
            (1000, "other"),
        ],
    )
    def test_have_names_for_metrics(self, code: int, name: str) -> None:
        assert messages.name_close_code(code) == name
