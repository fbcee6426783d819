"""Traditional Chinese out, always: one converter for what is heard and what is said."""

from __future__ import annotations

from functools import cache

import opencc


@cache
def _converter(configuration: str) -> opencc.OpenCC:
    return opencc.OpenCC(configuration)


def to_taiwanese(text: str) -> str:
    """
    Convert any Chinese to Traditional characters and Taiwanese words.

    To Simplified first: mixed script, which Whisper and small language models write, is converted wrongly otherwise.
    臺 becomes 台, as people in Taiwan write it when nobody looks.
    """
    converted: str = _converter("s2twp").convert(_converter("t2s").convert(text))
    return converted.replace("臺", "台")


def to_traditional(text: str) -> str:
    """
    Convert the script, not the words: for what somebody has said.

    Who says 打開 is not to read 開啟; a recogniser that wrote 软体 heard 軟體.
    """
    return str(_converter("s2tw").convert(_converter("t2s").convert(text))).replace("臺", "台")


def to_simplified(text: str) -> str:
    """For what was trained on Simplified characters: word segmentation and pronunciation."""
    converted: str = _converter("t2s").convert(text)
    return converted


def has_chinese(text: str) -> bool:
    return any("\u4e00" <= character <= "\u9fff" or "\u3400" <= character <= "\u4dbf" for character in text)


class TaiwaneseStream:
    """
    Converts a stream to Taiwanese as it comes.

    What is Traditional already passes at once. In Simplified text the last two characters wait for the next piece:
    the conversion of a word depends on all of it.
    """

    def __init__(self) -> None:
        self._raw = ""
        self._emitted = 0

    def feed(self, text: str) -> str:
        self._raw += text
        converted = to_taiwanese(self._raw) if has_chinese(self._raw) else self._raw
        stable = len(converted) if converted == self._raw else max(self._emitted, len(converted) - 2)
        ready = converted[self._emitted : stable]
        self._emitted = stable
        return ready

    def finish(self) -> str:
        converted = to_taiwanese(self._raw) if has_chinese(self._raw) else self._raw
        return converted[self._emitted :]
