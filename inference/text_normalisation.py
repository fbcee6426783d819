"""
Text normalisation for Mandarin synthesis: numbers, dates, symbols and markup as words.

misaki's normaliser (from PaddleSpeech) reads numbers, dates, times, percentages, temperatures and measures, in
Simplified characters. What it does not support, or reads otherwise than people in Taiwan, is rewritten before and after
it. Pure; English is left to its phonemiser, which reads numbers itself.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from typing import Any

_DIGITS = dict(zip("0123456789", "零一二三四五六七八九", strict=True))

_NUMBER = r"(\d[\d,]*(?:\.\d+)?)\s?([万亿]?)"
_CURRENCIES = tuple(
    (re.compile(pattern), before, after)
    for pattern, before, after in (
        (rf"(?:NT\$|NTD\s?|TWD\s?)\s?{_NUMBER}\s?元?", "新台币", "元"),
        (rf"(?:US\$|USD\s?)\s?{_NUMBER}(?:美元)?", "", "美元"),
        (rf"\$\s?{_NUMBER}\s?元?", "", "元"),
        (rf"€\s?{_NUMBER}(?:欧元)?", "", "欧元"),
        (rf"[¥￥]\s?{_NUMBER}\s?元?", "", "元"),
    )
)
_UNITS = {
    "km/h": "公里每小时",
    "m/s": "公尺每秒",
    "km²": "平方公里",
    "m²": "平方公尺",
    "m³": "立方公尺",
    "km": "公里",
    "cm": "公分",
    "mm": "公厘",
    "m": "公尺",
    "kg": "公斤",
    "mg": "毫克",
    "g": "公克",
    "ml": "毫升",
    "mL": "毫升",
    "L": "公升",
    "ms": "毫秒",
    "dB": "分贝",
}
_SYMBOLS = {
    "&": "和",
    "+": "加",
    "=": "等于",
    "×": "乘以",
    "÷": "除以",
    "²": "平方",
    "³": "立方",
    "#": "",
    "〇": "零",
    "–": "-",
}
_PAUSES = str.maketrans(
    {"；": "，", "、": "，", "：": "，", "—": "，", "…": "。", "·": " ", "・": " ", "/": "，", "|": "，", "•": "，"}
)
_QUOTES = re.compile(r"[「」『』《》〈〉“”‘’\"'()（）\[\]【】{}<>*_~`^\\@$%]")
#: English words: misaki's normaliser would run them together and read the "m" in them as metres.
_LATIN = re.compile(r"([A-Za-zÀ-ɏ](?:[A-Za-zÀ-ɏ'’ ]*[A-Za-zÀ-ɏ])?)")


def normalise_mandarin(text: str) -> str:
    """
    Rewrite Simplified Chinese text so that each character is spoken: numbers in words, symbols in words or dropped.

    English words stay unchanged. Punctuation that marks a pause becomes ，。！？.
    """
    text = _plain_characters(unicodedata.normalize("NFC", text))
    text = _without_markup(text)
    text = _with_numbers_read(text)
    for symbol, spoken in _SYMBOLS.items():
        text = text.replace(symbol, spoken)
    text = re.sub(r"(?<=[元块圆])/", "每", text)
    text = re.sub(r"(?<!\d)/|/(?!\d)", "，", text).replace("|", "，")
    spoken_runs = [run if _LATIN.fullmatch(run) else _normalised(run) for run in _LATIN.split(text)]
    text = "".join(spoken_runs)
    text = re.sub(r"\d", lambda digit: _DIGITS[digit[0]], text)  # digits that are still left
    return re.sub(r"\s+", " ", text).strip()


def _normalised(run: str) -> str:
    """Normalise a run without Latin letters with misaki. 101 is 一零一 in Taiwan, where misaki reads 幺零幺."""
    normalised = "".join(_normaliser().normalize(run)).replace("幺", "一")
    return _QUOTES.sub(" ", normalised).translate(_PAUSES)


def _plain_characters(text: str) -> str:
    """Drop pictographs and their modifiers, which have no sound; replace unusual digits and letters by plain ones."""
    plain: list[str] = []
    for character in text:
        category = unicodedata.category(character)
        if character in "°℃〇²³^`":
            plain.append(character)
        elif category == "Nl":  # Ⅳ
            plain.append(f"{unicodedata.numeric(character):.0f}")
        elif category in ("No", "Nd") or "Ａ" <= character <= "ｚ":  # ① ½ ₂ １ Ａ
            plain.append(unicodedata.normalize("NFKC", character).replace("⁄", "/"))
        elif category not in ("So", "Sk", "Cf", "Cs", "Co", "Cn", "Me") and not "\ufe00" <= character <= "\ufe0f":
            plain.append(character)
    return "".join(plain).replace("−", "-")


def _without_markup(text: str) -> str:
    """Drop Markdown, tags and URLs; the words of a link stay."""
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"https?://[\w./?=&%#:~+-]*", "", text, flags=re.ASCII)
    text = re.sub(r"</?[A-Za-z][^<>]*>", "", text)
    text = re.sub(r"~~|```\w*|^\s*(?:[-*+]\s+|-{3,}\s*$)", "", text, flags=re.MULTILINE)
    text = re.sub(r"(?<=[A-Za-z0-9])@(?=[A-Za-z])", " at ", text)
    return re.sub(r"(?<=[A-Za-z])\.(?=[A-Za-z])", " dot ", text)


def _with_numbers_read(text: str) -> str:
    """Rewrite what misaki's normaliser does not support, or reads otherwise than people in Taiwan. Order matters."""
    text = re.sub(r"(?<!\d)(\d{4})([/.-])(\d{1,2})\2(\d{1,2})(?!\d)", r"\1年\3月\4日", text)
    text = re.sub(r"(?<!\d)(?:\+886[- ]?)?\(?0\d{1,3}\)?[- ]?\d{3,4}[- ]?\d{3,4}(?!\d)", _digit_by_digit, text)
    text = re.sub(r"\+\d{1,3}(?:[- ]?\d{2,4}){2,4}(?!\d)", _digit_by_digit, text)
    text = re.sub(r"(?<![\d-])\d{1,4}(?:-\d{2,5}){2,}(?!\d)", _digit_by_digit, text)
    text = re.sub(r"(?<![\d.])\d+(?:\.\d+){2,}", lambda m: "点".join(map(_digits, m[0].split("."))), text)  # 1.2.3
    text = re.sub(r"(?<=[A-Za-z])-(?=[\dA-Za-z])", " ", text)  # GPT-4
    text = re.sub(r"(?<![\d:])(\d{1,3}):(\d{1,3})(?=[^\d:]|$)(?![分秒点])", _ratio_or_time, text)
    for pattern, before, after in _CURRENCIES:
        text = pattern.sub(lambda m, b=before, a=after: f"{b}{_cardinal(m[1])}{m[2]}{a}", text)  # type: ignore[misc]
    text = re.sub(r"(?<![\d.])\d{1,3}(?:,\d{3})+(?:\.\d+)?(?!\d)", lambda m: _cardinal(m[0]), text)  # 1,299
    text = re.sub(
        r"(\d)\s?(" + "|".join(map(re.escape, _UNITS)) + r")(?![A-Za-z])", lambda m: m[1] + _UNITS[m[2]], text
    )
    text = re.sub(r"(-?\d+(?:\.\d+)?)\s?°\s?F(?![A-Za-z])", r"华氏\1度", text)
    text = re.sub(r"(?<=\d)\s?(?:°\s?C(?![A-Za-z])|℃|°)", "度", text)
    text = re.sub(r"(\d+(?:\.\d+)?)\s?[-~～–]\s?(\d+(?:\.\d+)?)%", r"\1%到\2%", text)
    text = re.sub(r"(?<=[\d%])\s?[~～–]\s?(?=\d)", "到", text)
    text = re.sub(r"\^(\d+)", r"的\1次方", text)
    # 200 is a cardinal; 110 is read digit by digit
    text = re.sub(r"(?<![\d.:-])[1-9]\d*00(?![\d.:年%-])", lambda m: _cardinal(m[0]), text)
    return re.sub(r"(?<![\d.第])2\s?(?=[个本只张位杯件条台块份次家间天周岁倍瓶碗盘首篇座辆双对群])", "两", text)


def _digits(text: str) -> str:
    return "".join(_DIGITS[digit] for digit in text)


def _digit_by_digit(match: re.Match[str]) -> str:
    plus = "加" if match[0].startswith("+") else ""
    return plus + "，".join(_digits(group) for group in re.split(r"\D+", match[0]) if group)


def _cardinal(text: str) -> str:
    from misaki.zh_normalization.num import num2str  # its tables take a while to load

    return str(num2str(text.replace(",", "")))


def _ratio_or_time(match: re.Match[str]) -> str:
    hour, minute = match[1], match[2]
    if match[0] == "24:00":
        return "二十四点"
    is_time = len(minute) == 2 and int(hour) < 24 and int(minute) < 60
    return match[0] if is_time else f"{hour}比{minute}"


@cache
def _normaliser() -> Any:
    from misaki.zh_normalization.text_normalization import TextNormalizer  # its tables take a while to load

    return TextNormalizer()
