from __future__ import annotations

from fractions import Fraction

import pytest

from realtime.call.hints.numerals import format_chinese, format_number, parse_number, say_in_chinese


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


class TestSayInChinese:
    @pytest.mark.parametrize(
        ("number", "text"),
        [
            (Fraction(0), "零"),
            (Fraction(960), "九百六十"),
            (Fraction(12_300), "一萬二千三百"),
            (Fraction(10_010), "一萬零一十"),
            (Fraction(20_305), "二萬零三百零五"),
            (Fraction(1_000_000), "一百萬"),
            (Fraction(173, 2), "八十六點五"),
            (Fraction(-301, 100), "負三點零一"),
        ],
    )
    def test_says_what_is_spoken(self, number: Fraction, text: str) -> None:
        assert say_in_chinese(number) == text

    @pytest.mark.parametrize("number", [Fraction(1, 3), Fraction(100_000_000)])
    def test_leaves_out_what_has_no_short_words(self, number: Fraction) -> None:
        assert say_in_chinese(number) is None
