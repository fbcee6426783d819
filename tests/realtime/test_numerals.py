from __future__ import annotations

from fractions import Fraction

import pytest

from realtime.numerals import format_chinese, format_number, parse_number


class TestParseNumber:
    @pytest.mark.parametrize(
        ("text", "number"),
        [
            ("65", 65),
            ("1,200", 1200),
            ("3.5", Fraction(7, 2)),
            ("3萬", 30_000),
            ("六十五", 65),
            ("十", 10),
            ("十二", 12),
            ("一百零五", 105),
            ("一百二", 120),
            ("一百二十五", 125),
            ("兩千五", 2500),
            ("一千零五十", 1050),
            ("一萬五", 15_000),
            ("三億兩千萬", 320_000_000),
            ("二零二六", 2026),
            ("三點五", Fraction(7, 2)),
            ("twenty-five", 25),
            ("two hundred and forty", 240),
            ("three thousand", 3000),
        ],
    )
    def test_reads(self, text: str, number: Fraction) -> None:
        assert parse_number(text) == number

    @pytest.mark.parametrize("text", ["", "百", "萬一", "點五", "hundred", "and", "五六百"])
    def test_takes_no_other_words_for_numbers(self, text: str) -> None:
        assert parse_number(text) is None


class TestFormatNumber:
    @pytest.mark.parametrize(
        ("number", "text"), [(Fraction(195), "195"), (Fraction(1, 3), "0.33"), (Fraction(-5, 2), "-2.5")]
    )
    def test_rounds_and_drops_zeros(self, number: Fraction, text: str) -> None:
        assert format_number(number) == text


class TestFormatChinese:
    @pytest.mark.parametrize(
        ("number", "text"),
        [(0, "零"), (10, "十"), (25, "二十五"), (105, "一百零五"), (110, "一百一十"), (2003, "二千零三")],
    )
    def test_says(self, number: int, text: str) -> None:
        assert format_chinese(number) == text

    def test_refuses_what_it_cannot_say(self) -> None:
        with pytest.raises(ValueError, match="10000"):
            format_chinese(10_000)
