"""Whole questions to engines that answer in pieces: what is said in this, how does that sound. Knows no Django."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace

from inference.interfaces import (
    BYTES_PER_SAMPLE,
    EndOfUtterance,
    FinalTranscript,
    Quality,
    SpeechToText,
    SynthesisOptions,
    TextToSpeech,
    TranscriptionInput,
    TranscriptionOptions,
)

#: With the marks that end them. A full stop within a number ends nothing.
_SENTENCES = re.compile(r".+?(?:[。！？!?；;\n]+|\.(?=\s|$)|$)", re.DOTALL)
_PARTS = re.compile(r".+?(?:[，、：,:]+|\s+|$)", re.DOTALL)
#: One message of a transcription holds at most 1 MiB.
_PIECE_BYTES = 256 * 1024
#: Silence before the first word and after the last, so that the recogniser hears them begin and end.
_LEAD_MS = 200
_PAUSE_MS = 700


@dataclass(frozen=True, slots=True)
class Spoken:
    """PCM16 mono. `sample_rate_hz` is 0 when there was nothing to say; `quality` is the worst of its pieces."""

    pcm: bytes
    sample_rate_hz: int
    quality: Quality

    @property
    def duration_ms(self) -> int:
        return round(len(self.pcm) * 1000 / BYTES_PER_SAMPLE / self.sample_rate_hz) if self.sample_rate_hz else 0


def cut_sentences(text: str, *, longest: int = 60) -> list[str]:
    """Cut a text into what an engine speaks in one go: sentences, and parts of those that are long."""
    clauses: list[str] = []
    for sentence in _SENTENCES.findall(text):
        if len(sentence) <= longest:
            clauses.append(sentence.strip())
            continue
        part = ""
        for piece in _PARTS.findall(sentence):
            if part and len(part) + len(piece) > longest:
                clauses.append(part.strip())
                part = ""
            part += piece
        clauses.append(part.strip())
    return [clause for clause in clauses if clause]


async def recognise(stt: SpeechToText, pcm: bytes, *, language: str | None = None) -> tuple[str, str]:
    """
    What is said in `pcm` (PCM16 mono, 16 kHz), and in which language; empty if nothing is.

    Where the `language` is known, it is one utterance: pauses in it end nothing.
    """
    texts: list[str] = []
    languages: dict[str, int] = {}

    async def audio() -> AsyncGenerator[TranscriptionInput]:
        whole = bytes(16 * 2 * _LEAD_MS) + pcm + bytes(16 * 2 * _PAUSE_MS)
        for start in range(0, len(whole), _PIECE_BYTES):
            yield whole[start : start + _PIECE_BYTES]
        yield EndOfUtterance()

    options = TranscriptionOptions(language=language, endpointing=language is None, is_background=True)
    async with contextlib.aclosing(stt.transcribe(audio(), options)) as events:
        async for event in events:
            if isinstance(event, FinalTranscript) and event.text.strip():
                texts.append(event.text.strip())
                languages[event.language] = languages.get(event.language, 0) + len(event.text)
    language = max(languages, key=lambda each: languages[each]) if languages else ""
    return ("" if language == "zh" else " ").join(texts), language


async def speak(tts: TextToSpeech, clauses: Sequence[str], options: SynthesisOptions) -> Spoken:
    """Speak clauses one after the other."""
    pcm, rate, qualities = bytearray(), 0, set()
    for number, clause in enumerate(clauses):
        here = replace(options, is_first=number == 0, is_last=number == len(clauses) - 1)
        async with contextlib.aclosing(tts.synthesise(clause, here)) as chunks:
            async for chunk in chunks:
                pcm += chunk.pcm
                rate = chunk.sample_rate_hz
                qualities.add(chunk.quality)
    return Spoken(bytes(pcm), rate, Quality.HIGH_QUALITY if qualities == {Quality.HIGH_QUALITY} else Quality.FAST)
