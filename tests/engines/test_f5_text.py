"""What F5-TTS is given to read: words for numbers, and a site's own readings. No weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from inference.config import ConfigurationError
from inference.engines.f5_tts import Pronunciations, to_spoken


class TestText:
    def test_is_said_in_words(self) -> None:
        assert to_spoken("今天有 25 度，降雨機率 30%。") == "今天有二十五度，降雨机率百分之三十。"
        assert to_spoken("**Hello**  `there`") == "Hello there"

    def test_takes_a_sites_own_readings(self, tmp_path: Path) -> None:
        path = tmp_path / "readings.json"
        path.write_text(json.dumps({"長榮": "chang2 rong2", "行": "hang2"}), encoding="utf-8")

        own, general = Pronunciations.read(path), Pronunciations.read(None)

        assert "chang2" in own.tokens("长荣")
        assert own.tokens("银行")[-1] == "hang2"
        assert own.tokens("我行吗")[2:4] == [" ", "hang2"]
        assert general.tokens("我行吗")[2:4] == [" ", "xing2"]

    @pytest.mark.parametrize("entries", [{"重慶": "chong2"}, {"": ""}, {"好": 3}, ["好"], {"好": "HAO3"}])
    def test_refuses_readings_that_are_none(self, tmp_path: Path, entries: object) -> None:
        path = tmp_path / "readings.json"
        path.write_text(json.dumps(entries), encoding="utf-8")

        with pytest.raises(ConfigurationError, match="one syllable for each character"):
            Pronunciations.read(path)
