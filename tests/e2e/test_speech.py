"""The measure that the conversation tests rest on."""

import pytest

from tests.e2e.speech import measure_character_error_rate


class TestCharacterErrorRate:
    @pytest.mark.parametrize(
        ("expected", "actual", "rate"),
        [
            ("你好嗎？", "你好嗎", 0.0),
            ("Hello, World", "hello world", 0.0),
            ("今天天氣", "今天氣", 0.25),
            ("今天", "", 1.0),
            ("你好", "再見了", 1.5),
        ],
    )
    def test_counts_what_is_wrong(self, expected: str, actual: str, rate: float) -> None:
        assert measure_character_error_rate(expected, actual) == rate
