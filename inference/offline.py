"""
Offline recognition, synthesis and embedding: a whole recording or text in, one result out. Imports protocols alone.

Each request to an engine has a deadline, after which the engine counts as hung: see `EngineSilent`.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, replace

from inference.audio.durations import compute_duration_s, count_bytes
from inference.interfaces import (
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

#: With their closing punctuation. A full stop within a number does not end a sentence.
_SENTENCES = re.compile(r".+?(?:[。！？!?；;\n]+|\.(?=\s|$)|$)", re.DOTALL)
_PARTS = re.compile(r".+?(?:[，、：,:]+|\s+|$)", re.DOTALL)
#: A gRPC message of a transcription holds at most 1 MiB.
_PIECE_BYTES = 256 * 1024
#: Silence added before the first word and after the last, for the VAD.
_LEAD_MS = 200
_PAUSE_MS = 700
#: A background job waits for live calls for at most a minute, and as long for the job before it.
MAX_WAIT_S = 120.0
#: Upper bounds for engines on two cores: per second of audio recognised, per character synthesised.
MAX_S_PER_HEARD_S = 3.0
MAX_S_PER_CHARACTER = 2.0


class EngineSilent(InferenceUnavailable):
    """An engine has not responded within the deadline of a request: it hangs."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """PCM16 mono. `sample_rate_hz` is 0 for an empty text; `quality` is the lowest of its clauses."""

    pcm: bytes
    sample_rate_hz: int
    quality: Quality

    @property
    def duration_ms(self) -> int:
        return round(compute_duration_s(self.pcm, self.sample_rate_hz) * 1000) if self.sample_rate_hz else 0


def compute_hearing_deadline_s(pcm: bytes, sample_rate_hz: int) -> float:
    """Return how long recognising or embedding a recording (PCM16 mono) may take."""
    return MAX_WAIT_S + MAX_S_PER_HEARD_S * compute_duration_s(pcm, sample_rate_hz)


def compute_speaking_deadline_s(text: str) -> float:
    """Return how long the synthesis of a clause may take."""
    return MAX_WAIT_S + MAX_S_PER_CHARACTER * len(text)


@contextlib.asynccontextmanager
async def _deadline(deadline_s: float, question: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(deadline_s):
            yield
    except TimeoutError:
        raise EngineSilent(f"{question}: no answer within {deadline_s:.0f} s") from None


def cut_sentences(text: str, *, longest: int = 60) -> list[str]:
    """Split a text into clauses for synthesis: sentences, and long ones at their commas and spaces."""
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
    Return the transcript of `pcm` (PCM16 mono, 16 kHz) and its language; both empty if there is no speech.

    With a `language`, the recording is one utterance: endpointing is off. Raises EngineSilent.
    """
    texts: list[str] = []
    languages: dict[str, int] = {}

    async def audio() -> AsyncGenerator[TranscriptionInput]:
        lead, pause = (bytes(count_bytes(ms, MICROPHONE_SAMPLE_RATE_HZ)) for ms in (_LEAD_MS, _PAUSE_MS))
        whole = lead + pcm + pause
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
    """Synthesise clauses in order. Raises EngineSilent when one of them misses its deadline."""
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
    """Return the speaker embedding of `pcm`. Raises EngineSilent, and what the encoder raises."""
    async with _deadline(compute_hearing_deadline_s(pcm, sample_rate_hz), "embed"):
        return await encoder.embed(pcm, sample_rate_hz=sample_rate_hz)
