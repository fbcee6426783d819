"""Converts Chinese between scripts: to Traditional characters and Taiwanese words, and to Simplified characters."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import cache

import opencc

from inference.interfaces import GenerationEvent, GenerationFinished, TextDelta


@cache
def _converter(configuration: str) -> opencc.OpenCC:
    return opencc.OpenCC(configuration)


def to_taiwanese(text: str) -> str:
    """
    Convert any Chinese to Traditional characters and Taiwanese words.

    By way of Simplified characters: mixed script, as Whisper and small language models write it, is converted wrongly
    otherwise. 臺 becomes 台, the usual form in Taiwan.
    """
    converted: str = _converter("s2twp").convert(_converter("t2s").convert(text))
    return converted.replace("臺", "台")


def to_traditional(text: str) -> str:
    """
    Convert the script, not the words: for transcripts.

    A speaker who says 打開 must not read 開啟; 软体 of a recogniser is 軟體.
    """
    return str(_converter("s2tw").convert(_converter("t2s").convert(text))).replace("臺", "台")


def to_simplified(text: str) -> str:
    """Convert to Simplified characters, which word segmentation and pronunciation were trained on."""
    converted: str = _converter("t2s").convert(text)
    return converted


def has_chinese(text: str) -> bool:
    return any("\u4e00" <= character <= "\u9fff" or "\u3400" <= character <= "\u4dbf" for character in text)


class TaiwaneseStream:
    """
    Converts streamed text to Traditional characters and Taiwanese words.

    Traditional text passes at once. In Simplified text the last two characters are held back until the next piece,
    because the conversion of a word depends on all of it.
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


async def stream_taiwanese(events: AsyncGenerator[GenerationEvent]) -> AsyncGenerator[GenerationEvent]:
    """Convert the text of a reply with `TaiwaneseStream`. Closing the result closes `events`."""
    script = TaiwaneseStream()
    async with aclosing(events):
        async for event in events:
            match event:
                case TextDelta():
                    if ready := script.feed(event.text):
                        yield TextDelta(ready)
                case GenerationFinished():
                    if rest := script.finish():
                        yield TextDelta(rest)
                    yield event
