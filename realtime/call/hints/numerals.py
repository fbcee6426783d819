"""
Parses and formats numbers in Chinese, English and digits. Pure: imports no Django, no engine.

`NUMBER` is a regular expression (without groups) for all of them; `parse_number` says whether a match is a number.
"""

from __future__ import annotations

import re
from fractions import Fraction

_DIGITS = {c: n for n, c in enumerate("零一二三四五六七八九")} | {"〇": 0, "兩": 2}
_TENS = {"十": 10, "百": 100, "千": 1000}
_MYRIADS = {"萬": 10_000, "億": 100_000_000}
_WORDS = {
    word: number
    for number, word in enumerate(
        [
            "zero",
            "one",
            "two",
            "three",
            "four",
            "five",
            "six",
            "seven",
            "eight",
            "nine",
            "ten",
            "eleven",
            "twelve",
            "thirteen",
            "fourteen",
            "fifteen",
            "sixteen",
            "seventeen",
            "eighteen",
            "nineteen",
        ]
    )
} | {
    word: 10 * number
    for number, word in enumerate(["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"], 2)
}
_SCALES = {"hundred": 100, "thousand": 1000, "million": 1_000_000}

_WORD = "|".join(sorted([*_WORDS, *_SCALES], key=len, reverse=True))
NUMBER = (
    r"(?:\d+(?:,\d{3})+(?:\.\d+)?[萬億]?|\d+(?:\.\d+)?[千萬億]?"
    r"|[零〇一二兩三四五六七八九十百千萬億]+(?:點[零〇一二三四五六七八九]+)?"
    rf"|\b(?:{_WORD})(?:(?:[ -]|\band\b)+(?:{_WORD}))*\b)"
)


def parse_number(text: str) -> Fraction | None:
    """Read a number exactly. None: `text` is none, such as 萬一 or "hundred"."""
    text = text.strip().lower()
    if match := re.fullmatch(r"(\d[\d,]*(?:\.\d+)?)([千萬億]?)", text):
        scale = (_TENS | _MYRIADS).get(match[2], 1)
        return Fraction(match[1].replace(",", "")) * scale
    if text[:1].isascii():
        return _parse_english(text)
    whole, point, decimals = text.partition("點")
    value = _parse_chinese(whole)
    if value is None or not point:
        return value
    if not decimals or any(c not in _DIGITS for c in decimals):
        return None
    return value + Fraction(int("".join(str(_DIGITS[c]) for c in decimals)), 10 ** len(decimals))


def _parse_chinese(text: str) -> Fraction | None:
    if not text or any(c not in _DIGITS and c not in _TENS and c not in _MYRIADS for c in text):
        return None
    if all(c in _DIGITS for c in text):
        return Fraction(int("".join(str(_DIGITS[c]) for c in text)))
    total = section = digit = last_unit = 0
    has_digit = False
    for character in text:
        if character in _DIGITS:
            if has_digit and digit:
                return None
            digit, has_digit = _DIGITS[character], True
            if digit == 0:
                last_unit = 0  # 一百零五: no unit is left out after a zero
            continue
        if character in _TENS:
            unit = _TENS[character]
            if unit > 10 and not digit:
                return None
            section += (digit or 1) * unit
            last_unit = unit
        else:
            unit = _MYRIADS[character]
            if not section and not digit:
                return None
            total += (section + digit) * unit
            section, last_unit = 0, unit
        digit, has_digit = 0, False
    # 一百二 is 120 and 一萬五 is 15,000: the last unit is left out.
    section += digit * (last_unit // 10 if last_unit >= 100 else 1)
    return Fraction(total + section)


def _parse_english(text: str) -> Fraction | None:
    total = section = 0
    is_number = False
    for word in re.split(r"[ -]+", text):
        if word in _WORDS:
            section += _WORDS[word]
            is_number = True
        elif word == "hundred" and section:
            section *= 100
        elif word in _SCALES and section:
            total, section = total + section * _SCALES[word], 0
        elif word != "and":
            return None
    return Fraction(total + section) if is_number else None


def format_number(value: Fraction, *, decimals: int = 2) -> str:
    """Write a number in digits, rounded, without trailing zeros."""
    rounded = round(value, decimals)
    if rounded.denominator == 1:
        return str(rounded.numerator)
    return f"{float(rounded):.{decimals}f}".rstrip("0")


def format_chinese(number: int) -> str:
    """Write a whole number from 0 to 9999 in Chinese."""
    if number < 0 or number > 9999:
        raise ValueError(f"{number}: expected 0 to 9999")
    if number == 0:
        return "零"
    digits = "零一二三四五六七八九"
    said, is_gap = "", False
    for unit, name in ((1000, "千"), (100, "百"), (10, "十"), (1, "")):
        digit = number // unit % 10
        if digit == 0:
            is_gap = bool(said)
            continue
        said += ("零" if is_gap else "") + ("" if digit == 1 and unit == 10 and not said else digits[digit]) + name
        is_gap = False
    return said


def say_in_chinese(value: Fraction) -> str | None:
    """Write a number as it is spoken: 八十六點五, 負三. None from a hundred million on, and for endless decimals."""
    whole, rest = divmod(abs(value), 1)
    hundredths = rest * 100
    if whole >= 100_000_000 or hundredths.denominator != 1:
        return None
    myriads, below = divmod(int(whole), 10_000)
    said = format_chinese(myriads) + "萬" if myriads else ""
    if below or not myriads:
        said += ("零" if myriads and below < 1000 else "") + _with_unit_one(format_chinese(below), bool(myriads))
    if hundredths:
        decimals = f"{int(hundredths):02}".rstrip("0")
        said += "點" + "".join("零一二三四五六七八九"[int(digit)] for digit in decimals)
    return ("負" if value < 0 else "") + said


def _with_unit_one(said: str, is_after_myriads: bool) -> str:
    """一萬零一十, but 十 alone."""
    return "一" + said if is_after_myriads and said.startswith("十") else said
