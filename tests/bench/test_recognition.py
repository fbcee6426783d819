from __future__ import annotations

import pytest

from tests.bench.recognition import to_units


class TestToUnits:
    @pytest.mark.parametrize(
        ("text", "like"),
        [
            ("一百二十五加三百七十八等於多少？", "125加378等於多少"),
            ("兩千三百五十元", "2,350元"),
            ("明天早上七點半", "明天早上7:30"),
            ("下午三點十五分。", "下午3點15"),
            ("百分之二十的折扣", "20%的折扣"),
            ("二零二六年十二月二十五號", "2026年12月25號"),
            ("三萬五千", "3萬5千"),
            ("台北", "臺北"),
        ],
    )
    def test_takes_numerals_for_digits(self, text: str, like: str) -> None:
        assert to_units(text, "zh") == to_units(like, "zh")

    def test_takes_no_symbol_for_a_word(self) -> None:
        assert to_units("125×378", "zh") != to_units("一百二十五乘三百七十八", "zh")

    def test_counts_words_of_english(self) -> None:
        assert to_units("What is twelve times eight?", "en") == to_units("what is 12 times 8", "en")
