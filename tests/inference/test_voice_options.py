from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from inference.interfaces import InferenceError, VoiceReference
from inference.voice_options import check_reference, choose_shares, parse_blend, pick_heaviest, read_style


class TestParseBlend:
    def test_reads_one_voice(self) -> None:
        assert parse_blend("zf_xiaoxiao") == {"zf_xiaoxiao": 1.0}

    def test_reads_several(self) -> None:
        assert parse_blend("a:0.5+b:0.3+a:0.2") == {"a": 0.7, "b": 0.3}

    @pytest.mark.parametrize(
        ("voice", "reason"),
        [
            ("a:0.6+b:0.6", "sum to 1"),
            ("a:0.5", "sum to 1"),
            ("a+b", "expected key:weight"),
            ("a:x+b:y", "expected key:weight"),
            ("a:1.5+b:-0.5", "above 0"),
            ("a:nan+b:1", "above 0"),
            ("a:inf+b:-inf", "above 0"),
        ],
    )
    def test_refuses_what_is_no_blend(self, voice: str, reason: str) -> None:
        with pytest.raises(InferenceError, match=reason):
            parse_blend(voice)


class TestChooseShares:
    @pytest.mark.parametrize(
        ("voice", "shares"),
        [
            ("", {"b": 1.0}),
            ("a", {"a": 1.0}),
            ("a:0.25+b:0.75", {"a": 0.25, "b": 0.75}),
            ("nobody", {"b": 1.0}),
            ("nobody:0.6+somebody:0.4", {"b": 1.0}),
            ("a:0.1+nobody:0.6+b:0.3", {"a": 0.25, "b": 0.75}),
        ],
    )
    def test_leaves_out_what_is_not_known(self, voice: str, shares: dict[str, float]) -> None:
        assert choose_shares(voice, {"a", "b"}, default="b") == pytest.approx(shares)

    def test_refuses_what_is_no_blend(self) -> None:
        with pytest.raises(InferenceError, match="expected key:weight"):
            choose_shares("a+nobody", {"a"}, default="a")


class TestFindHeaviest:
    @pytest.mark.parametrize(("voice", "key"), [("a", "a"), ("a:0.4+b:0.6", "b"), ("a:0.5+b:0.5", "a")])
    def test_is_the_first_with_the_largest_share(self, voice: str, key: str) -> None:
        assert pick_heaviest(parse_blend(voice)) == key


class TestReadStyle:
    def test_reads_one(self) -> None:
        assert read_style(np.arange(256, dtype="<f4").tobytes()).tolist() == list(range(256))

    @pytest.mark.parametrize("style", [b"\0" * 8, b"\0" * 9, b"\0\0\xc0\x7f" * 256])
    def test_refuses_what_is_none(self, style: bytes) -> None:
        with pytest.raises(InferenceError, match="256 finite float32"):
            read_style(style)


class TestCheckReference:
    REFERENCE = VoiceReference(b"\1" * 2 * 24_000 * 12, 24_000, "你好。")

    def test_takes_one(self) -> None:
        check_reference(self.REFERENCE)

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"transcript": ""}, "needs the transcript"),
            ({"transcript": " 。"}, "needs the transcript"),
            ({"sample_rate_hz": 16_000}, "18.0 s is too long: at most 12 s"),
            ({"pcm": bytes(64_000)}, "silence"),
        ],
    )
    def test_refuses_what_nobody_can_speak_like(self, change: dict[str, object], reason: str) -> None:
        with pytest.raises(InferenceError, match=reason):
            check_reference(replace(self.REFERENCE, **change))  # type: ignore[arg-type]
