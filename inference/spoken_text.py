"""
Written text as it is said aloud, in Mandarin. Pure; English is left to its own phonemiser, which reads numbers itself.

misaki's normaliser (from PaddleSpeech) reads numbers, dates, times, percentages, temperatures and measures, in
Simplified characters. What it does not know, or reads as people in Taiwan do not, is put right here, before and after.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from typing import Any

_DIGITS = dict(zip("0123456789", "零一二三四五六七八九", strict=True))

#: Read before misaki's normaliser sees the text. Order matters.
_CURRENCIES = (
    (r"(?:NT\$|NTD\s?|TWD\s?)\s?(\d[\d.]*)\s?元?", r"新台币\1元"),
    (r"(?:US\$|USD\s?)\s?(\d[\d.]*)", r"\1美元"),
    (r"\$\s?(\d[\d.]*)\s?元?", r"\1元"),
    (r"€\s?(\d[\d.]*)", r"\1欧元"),
    (r"[¥￥]\s?(\d[\d.]*)", r"\1元"),
)
_UNITS = {
    "km/h": "公里每小时",
    "km": "公里",
    "cm": "公分",
    "mm": "公厘",
    "kg": "公斤",
    "mg": "毫克",
    "ml": "毫升",
    "mL": "毫升",
    "m²": "平方公尺",
    "GB": "GB",
}
_SYMBOLS = {"&": "和", "+": "加", "=": "等于", "×": "乘以", "÷": "除以", "@": "at", "#": "", "～": "到", "℃": "度"}
_PAUSES = str.maketrans(
    {"；": "，", "、": "，", "：": "，", "—": "，", "…": "。", "·": " ", "・": " ", "/": "，", "|": "，"}
)
_QUOTES = re.compile(r"[「」『』《》〈〉“”‘’\"'()（）\[\]【】{}<>*_~`^\\]")


def to_spoken_mandarin(text: str) -> str:
    """
    Rewrite Simplified Chinese text so that each character is said: numbers in words, symbols in words or left out.

    English words stay as they are. Punctuation that makes a pause becomes ，。！？.
    """
    text = unicodedata.normalize("NFC", text)
    text = _without_emoji(text)
    text = re.sub(r"(?<=\d)[,，](?=\d{3}(?!\d))", "", text)  # 1,299 → 1299
    text = re.sub(r"(?<!\d)(\(?0\d{1,3}\)?[- ]\d{3,4}[- ]?\d{3,4})(?!\d)", _digit_by_digit, text)  # 02-2345-6789
    text = re.sub(r"(?<!\d)09\d{2}[- ]?\d{3}[- ]?\d{3}(?!\d)", _digit_by_digit, text)
    text = re.sub(r"(?<=[A-Za-z])-(?=[\dA-Za-z])", " ", text)  # GPT-4
    text = re.sub(r"(?<![\d:])(\d{1,3}):(\d{1,3})(?=[^\d:]|$)(?![分秒点])", _ratio_or_time, text)
    for pattern, spoken in _CURRENCIES:
        text = re.sub(pattern, spoken, text)
    text = re.sub(r"(\d)\s?(" + "|".join(map(re.escape, _UNITS)) + r")(?![A-Za-z])", _unit, text)
    text = re.sub(r"(?<!\d)2(?=[个本只张位杯件条台块份次家间天周岁倍瓶碗盘首篇座辆双对群])", "两", text)
    text = "".join(_normaliser().normalize(text))
    text = text.replace("幺", "一")  # Taiwan says 101 as 一零一
    for symbol, spoken in _SYMBOLS.items():
        text = text.replace(symbol, spoken)
    text = _QUOTES.sub(" ", text).translate(_PAUSES)
    text = re.sub(r"\d", lambda digit: _DIGITS[digit[0]], text)  # what nothing else has read
    return re.sub(r"\s+", " ", text).strip()


def _without_emoji(text: str) -> str:
    """Drop pictographs, their modifiers and variation selectors: symbols that no voice can say."""
    return "".join(
        character
        for character in text
        if unicodedata.category(character) not in ("So", "Sk", "Cf", "Cs", "Co", "Cn") or character in "°℃"
    )


def _digit_by_digit(match: re.Match[str]) -> str:
    groups = re.split(r"\D+", match[0].strip("()"))
    return "，".join("".join(_DIGITS[digit] for digit in group) for group in groups if group)


def _ratio_or_time(match: re.Match[str]) -> str:
    hour, minute = match[1], match[2]
    is_time = len(minute) == 2 and int(hour) <= 24 and int(minute) < 60
    return match[0] if is_time else f"{hour}比{minute}"


def _unit(match: re.Match[str]) -> str:
    return match[1] + _UNITS[match[2]]


@cache
def _normaliser() -> Any:
    from misaki.zh_normalization.text_normalization import TextNormalizer  # loads its tables when first spoken to

    return TextNormalizer()
