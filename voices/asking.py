"""
Whole questions to engines that answer in pieces: what is said in this, how does that sound. Knows no Django.

Each has a deadline, after which the engine is taken for hung: see `EngineSilent`.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, replace

from inference.interfaces import (
    BYTES_PER_SAMPLE,
    MICROPHONE_SAMPLE_RATE_HZ,
    EndOfUtterance,
    FinalTranscript,
    InferenceUnavailable,
    Quality,
    SpeakerEmbedding,
    SpeakerEncoder,
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
#: Background jobs wait for live calls for up to a minute (`engines/background_gate.py`), and as long for earlier jobs.
MAX_WAIT_S = 120.0
#: Bounds, not estimates, of engines on two cores: for a second of audio heard, for a character spoken.
MAX_S_PER_HEARD_S = 3.0
MAX_S_PER_CHARACTER = 2.0


class EngineSilent(InferenceUnavailable):
    """An engine has not answered within the deadline of its question: it hangs."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """PCM16 mono. `sample_rate_hz` is 0 when there was nothing to say; `quality` is the worst of its pieces."""

    pcm: bytes
    sample_rate_hz: int
    quality: Quality

    @property
    def duration_ms(self) -> int:
        return round(len(self.pcm) * 1000 / BYTES_PER_SAMPLE / self.sample_rate_hz) if self.sample_rate_hz else 0


def compute_hearing_deadline_s(pcm: bytes, sample_rate_hz: int) -> float:
    """How long an engine may take to answer a question about a recording (PCM16 mono)."""
    return MAX_WAIT_S + MAX_S_PER_HEARD_S * len(pcm) / BYTES_PER_SAMPLE / sample_rate_hz


def compute_speaking_deadline_s(text: str) -> float:
    """How long an engine may take to speak a clause."""
    return MAX_WAIT_S + MAX_S_PER_CHARACTER * len(text)


@contextlib.asynccontextmanager
async def _deadline(deadline_s: float, question: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(deadline_s):
            yield
    except TimeoutError:
        raise EngineSilent(f"{question}: no answer within {deadline_s:.0f} s") from None


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

    Where the `language` is known, it is one utterance: pauses in it end nothing. Raises EngineSilent.
    """
    texts: list[str] = []
    languages: dict[str, int] = {}

    async def audio() -> AsyncGenerator[TranscriptionInput]:
        whole = bytes(16 * 2 * _LEAD_MS) + pcm + bytes(16 * 2 * _PAUSE_MS)
        for start in range(0, len(whole), _PIECE_BYTES):
            yield whole[start : start + _PIECE_BYTES]
        yield EndOfUtterance()

    options = TranscriptionOptions(language=language, endpointing=language is None, is_background=True)
    async with (
        _deadline(compute_hearing_deadline_s(pcm, MICROPHONE_SAMPLE_RATE_HZ), "recognise"),
        contextlib.aclosing(stt.transcribe(audio(), options)) as events,
    ):
        async for event in events:
            if isinstance(event, FinalTranscript) and event.text.strip():
                texts.append(event.text.strip())
                languages[event.language] = languages.get(event.language, 0) + len(event.text)
    language = max(languages, key=lambda each: languages[each]) if languages else ""
    return ("" if language == "zh" else " ").join(texts), language


async def speak(tts: TextToSpeech, clauses: Sequence[str], options: SynthesisOptions) -> Spoken:
    """Speak clauses one after the other. Raises EngineSilent when one of them takes too long."""
    pcm, rate, qualities = bytearray(), 0, set()
    for number, clause in enumerate(clauses):
        here = replace(options, is_first=number == 0, is_last=number == len(clauses) - 1)
        async with (
            _deadline(compute_speaking_deadline_s(clause), "speak"),
            contextlib.aclosing(tts.synthesise(clause, here)) as chunks,
        ):
            async for chunk in chunks:
                pcm += chunk.pcm
                rate = chunk.sample_rate_hz
                qualities.add(chunk.quality)
    return Spoken(bytes(pcm), rate, Quality.HIGH_QUALITY if qualities == {Quality.HIGH_QUALITY} else Quality.FAST)


async def embed(encoder: SpeakerEncoder, pcm: bytes, *, sample_rate_hz: int) -> SpeakerEmbedding:
    """Who speaks in `pcm`. Raises EngineSilent, and what the encoder raises."""
    async with _deadline(compute_hearing_deadline_s(pcm, sample_rate_hz), "embed"):
        return await encoder.embed(pcm, sample_rate_hz=sample_rate_hz)
