"""Speech for tests: synthesised, brought to the microphone's rate, and compared with what was understood."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from typing import Any

import numpy as np

from inference.audio.pcm import float_from_pcm, pcm_from_float
from inference.audio.resample import resample
from inference.engines.chinese_script import to_simplified
from inference.interfaces import (
    MICROPHONE_SAMPLE_RATE_HZ,
    EndOfUtterance,
    FinalTranscript,
    SpeechToText,
    SynthesisOptions,
    TextToSpeech,
    TranscriptionInput,
    TranscriptionOptions,
)

FRAME_BYTES = 640


async def say(tts: TextToSpeech, text: str, voice: str = "") -> bytes:
    """Speech as the microphone would hear it: PCM16 at 16 kHz."""
    chunks = [chunk async for chunk in tts.synthesise(text, SynthesisOptions(voice=voice))]
    if not chunks:
        return b""
    samples = float_from_pcm(b"".join(chunk.pcm for chunk in chunks))
    return pcm_from_float(resample(samples, chunks[0].sample_rate_hz, MICROPHONE_SAMPLE_RATE_HZ))


def silence(duration_ms: int) -> bytes:
    return bytes(duration_ms * MICROPHONE_SAMPLE_RATE_HZ // 1000 * 2)


def white_noise(duration_ms: int, level: float = 0.05) -> bytes:
    count = duration_ms * MICROPHONE_SAMPLE_RATE_HZ // 1000
    return pcm_from_float(np.random.default_rng(3).normal(0, level, count))


def fan(duration_ms: int) -> bytes:
    """Air (noise below a few hundred hertz), a motor at 120 Hz with its harmonics, and a slow wobble."""
    count = duration_ms * MICROPHONE_SAMPLE_RATE_HZ // 1000
    seconds = np.arange(count) / MICROPHONE_SAMPLE_RATE_HZ
    air = np.convolve(np.random.default_rng(4).normal(0, 1, count), np.hanning(41) / 20, mode="same") * 0.04
    motor = sum(np.sin(2 * np.pi * 120 * harmonic * seconds) / harmonic for harmonic in range(1, 8)) * 0.05
    return pcm_from_float((air + motor) * (1 + 0.2 * np.sin(2 * np.pi * 0.7 * seconds)))


async def frames(*items: TranscriptionInput) -> AsyncIterator[TranscriptionInput]:
    """Audio in frames of 20 ms, as fast as it is taken; what is not audio as it is."""
    for item in items:
        if isinstance(item, bytes):
            for start in range(0, len(item), FRAME_BYTES):
                yield item[start : start + FRAME_BYTES]
        else:
            yield item


async def hear(stt: SpeechToText, *items: TranscriptionInput, **options: Any) -> list[Any]:
    return [event async for event in stt.transcribe(frames(*items), TranscriptionOptions(**options))]


async def understand(stt: SpeechToText, speech: bytes, language: str | None = None) -> FinalTranscript:
    """What is understood of one utterance, as hold-to-talk hears it."""
    events = await hear(stt, silence(300), speech, silence(100), EndOfUtterance(), endpointing=False, language=language)
    finals = [event for event in events if isinstance(event, FinalTranscript)]
    assert len(finals) == 1
    return finals[0]


def error_rate(expected: str, understood: str, language: str) -> float:
    """Of characters in Mandarin, of words in English: edits for each one expected."""
    one, other = _units(expected, language), _units(understood, language)
    return count_edits(one, other) / len(one)


def _units(text: str, language: str) -> list[str]:
    if language == "zh":
        return [character for character in to_simplified(text) if character.isalnum()]
    return re.findall(r"[a-z0-9']+", text.lower())


def count_edits(one: Sequence[str], other: Sequence[str]) -> int:
    """Levenshtein's distance: insertions, deletions and substitutions."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        diagonal, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (a != b))
    return row[-1]
