from __future__ import annotations

import pytest

faster_whisper = pytest.importorskip("inference.engines.faster_whisper")


class TestFindLoop:
    @pytest.mark.parametrize(
        ("text", "unit"),
        [
            ("Can you tell me? Can you tell me? Can you t", "Can you tell me?"),
            ("台灣最高的山。台灣最高的山。", "台灣最高的山。"),
            ("好好好", "好"),
            ("Oh, there. Oh, there! oh there", "Oh, there."),
        ],
    )
    def test_finds_what_is_repeated(self, text: str, unit: str) -> None:
        assert faster_whisper.find_loop(text) == unit

    @pytest.mark.parametrize("text", ["", "。", "a", "Can you tell me? Can you", "今天天氣很好，我們一起去公園。"])
    def test_finds_none_in_ordinary_speech(self, text: str) -> None:
        assert faster_whisper.find_loop(text) == ""
