from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any, get_args
from uuid import UUID, uuid4

import jsonschema
import pytest

from realtime import protocol
from realtime.protocol import AudioFormat, ErrorCode, ProtocolError

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/protocol.md").read_text(encoding="utf-8")
EXAMPLES = [json.loads(text) for text in re.findall(r"```json\n(.*?)\n```", PAGE, re.DOTALL)]
VALIDATOR = jsonschema.Draft202012Validator(protocol.build_schema(), format_checker=jsonschema.FormatChecker())
TURN = "7f0c2f5e-3b0a-4f39-9a55-0d3b7f6c1a11"


def parse(**message: Any) -> protocol.ClientMessage:
    return protocol.parse(json.dumps(message))


def refuse(text: str) -> ProtocolError:
    with pytest.raises(ProtocolError) as caught:
        protocol.parse(text)
    return caught.value


class TestParse:
    @pytest.mark.parametrize(
        ("message", "value"),
        [
            ({"type": "interrupt"}, protocol.InterruptMessage()),
            ({"type": "text", "text": "好"}, protocol.TextMessage("好")),
            ({"type": "text", "text": "好" * 4000}, protocol.TextMessage("好" * 4000)),
            ({"type": "correct", "turn_id": TURN, "text": "好"}, protocol.CorrectMessage(UUID(TURN), "好")),
            ({"type": "ping"}, protocol.PingMessage(None)),
            ({"type": "ping", "nonce": "1"}, protocol.PingMessage("1")),
            ({"type": "audio_end"}, protocol.AudioEndMessage(protocol.UNSET)),
            ({"type": "audio_end", "voice_profile_id": None}, protocol.AudioEndMessage(None)),
            ({"type": "audio_end", "voice_profile_id": TURN}, protocol.AudioEndMessage(UUID(TURN))),
            ({"type": "audio_chunk", "data": "AAA="}, protocol.AudioChunkMessage(b"\0\0")),
            (
                {"type": "audio_chunk", "data": "AAA=", "format": "wav"},
                protocol.AudioChunkMessage(b"\0\0", AudioFormat.WAV),
            ),
            (
                {"type": "playback", "turn_id": TURN, "played_ms": 250.0},
                protocol.PlaybackMessage(UUID(TURN), 250, False),
            ),
            ({"type": "configure", "pause_ms": 200}, protocol.ConfigureMessage(pause_ms=200)),
            ({"type": "configure", "speed": 1}, protocol.ConfigureMessage(speed=1.0)),
            ({"type": "configure"}, protocol.ConfigureMessage()),
        ],
    )
    def test_reads(self, message: dict[str, Any], value: protocol.ClientMessage) -> None:
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
            ("\ufeff你好\x00\x1b[31m\x7f\x85\u200f", "你好[31m"),
            ("第一行\r\n第二行\t完", "第一行\n第二行\t完"),
            ("一\u2028二\u2029三", "一\n二\n三"),
            ("\U0001f469\u200d\U0001f4bb", "\U0001f469\u200d\U0001f4bb"),
        ],
    )
    def test_takes_out_what_only_steers_a_display(self, kind: str, typed: str, kept: str) -> None:
        turn = {"turn_id": TURN} if kind == "correct" else {}

        message = parse(type=kind, text=typed, **turn)

        assert isinstance(message, protocol.TextMessage | protocol.CorrectMessage)
        assert message.text == kept

    def test_refuses_nothing_but_control_characters(self) -> None:
        assert refuse('{"type": "text", "text": "\\u202e\\u0007"}').detail == "text: nothing but control characters"

    @pytest.mark.parametrize("data", ["AA", "A===", "AA AA", "好好好好"])
    def test_refuses_what_is_not_base64(self, data: str) -> None:
        assert refuse(json.dumps({"type": "audio_chunk", "data": data})).code == ErrorCode.VALIDATION_ERROR

    def test_takes_a_chunk_of_the_largest_size_and_no_larger(self) -> None:
        largest = base64.b64encode(bytes(protocol.MAX_CHUNK_BYTES)).decode()
        larger = base64.b64encode(bytes(protocol.MAX_CHUNK_BYTES + 1)).decode()

        parse(type="audio_chunk", data=largest)
        with pytest.raises(ProtocolError, match="data: expected 1 to"):
            parse(type="audio_chunk", data=larger)

    def test_refuses_a_message_that_is_too_long(self) -> None:
        assert refuse(" " * (protocol.MAX_MESSAGE_CHARACTERS + 1)).code == ErrorCode.VALIDATION_ERROR

    def test_names_the_field(self) -> None:
        assert refuse('{"type": "configure", "pause_ms": 1}').detail == "pause_ms: expected 200 to 3000"


class TestFrames:
    @pytest.mark.parametrize("size", [2, 640, 64_000])
    def test_are_taken(self, size: int) -> None:
        protocol.check_frame(bytes(size))

    @pytest.mark.parametrize("size", [0, 1, 641, 64_002])
    def test_of_other_sizes_are_refused(self, size: int) -> None:
        with pytest.raises(ProtocolError):
            protocol.check_frame(bytes(size))


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
        assert protocol.sniff_format(data) is kind

    @pytest.mark.parametrize("data", [b"OggS1234", b"fLaC1234", b"ID3\x04....", b"\0\0\0\x20ftypM4A "])
    def test_refuses_what_it_knows_and_does_not_take(self, data: bytes) -> None:
        with pytest.raises(ProtocolError, match="UNSUPPORTED_FORMAT"):
            protocol.sniff_format(data)


class TestSerialise:
    def test_writes_every_message_as_the_schema_says(self) -> None:
        turn, user = uuid4(), uuid4()
        messages: list[protocol.ServerMessage] = [
            protocol.ReadyStatus(uuid4(), None, False, protocol.Limits(1, 2, 3)),
            protocol.ReadyStatus(None, None, False, protocol.Limits(1, 2, 3)),
            protocol.Status(stage=protocol.Stage.LLM, turn_id=turn),
            protocol.Status(stage=protocol.Stage.LISTENING, is_speaking=False, reason="x"),
            protocol.Transcription(user, "好", True, "zh"),
            protocol.Corrected(user, "好", "zh"),
            protocol.LlmResponse(turn, user, "好", False),
            protocol.TtsReady(turn, user, "/a"),
            protocol.TtsReady(turn, user, None),
            protocol.TurnEnd(turn, user, False, 5, protocol.LatencyMs(stt=5)),
            protocol.Interrupted(turn, 5),
            protocol.ErrorMessage(ErrorCode.SERVER_FULL, "好"),
            protocol.ErrorMessage(ErrorCode.VOICE_GONE, "好", True, turn, uuid4(), "x"),
            protocol.IdleWarning(60, "好"),
            protocol.Pong("1"),
            protocol.Pong(),
        ]
        assert {type(m) for m in messages} == set(get_args(protocol.ServerMessage))

        for message in messages:
            text = protocol.serialise(message, session_id=uuid4())
            VALIDATOR.validate(json.loads(text))
            assert "\\u" not in text

    def test_leaves_out_what_is_not_said_and_keeps_nulls_that_say_something(self) -> None:
        status = protocol.to_dict(protocol.Status(stage=protocol.Stage.STT), session_id=uuid4())
        end = protocol.to_dict(protocol.TurnEnd(uuid4(), uuid4(), False, 0, protocol.LatencyMs()), session_id=uuid4())

        assert set(status) == {"type", "session_id", "stage"}
        assert end["latency_ms"] == {"stt": None, "ttft": None, "ttfa": None, "total": None}


class TestDocumentation:
    def test_schema_is_up_to_date(self) -> None:
        kept = json.loads((ROOT / "docs/protocol.schema.json").read_text(encoding="utf-8"))

        assert kept == protocol.build_schema(), "run: python -m realtime.protocol > docs/protocol.schema.json"

    def test_schema_is_a_schema(self) -> None:
        jsonschema.Draft202012Validator.check_schema(protocol.build_schema())

    @pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example["type"])
    def test_examples_are_valid(self, example: dict[str, Any]) -> None:
        VALIDATOR.validate(example)
        if example["type"] in protocol.CLIENT_MESSAGES:
            parse(**example)

    def test_there_is_an_example_and_a_row_of_every_message(self) -> None:
        types = set(protocol.CLIENT_MESSAGES) | {cls.type for cls in get_args(protocol.ServerMessage)}

        assert {example["type"] for example in EXAMPLES} == types
        assert types <= set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE))

    def test_every_error_and_close_code_is_explained(self) -> None:
        close_codes = {str(value) for name, value in vars(protocol).items() if name.startswith("CLOSE_")}

        assert set(re.findall(r"^\| `([A-Z_]+)` \|", PAGE, re.MULTILINE)) == set(ErrorCode)
        assert set(re.findall(r"^\| (\d{4}) \|", PAGE, re.MULTILINE)) == close_codes

    def test_every_field_is_named(self) -> None:
        for name, definition in protocol.build_schema()["$defs"].items():
            for field in definition.get("properties", {}):
                assert f"`{field}`" in PAGE or field in ("type",), f"{name}.{field}"
