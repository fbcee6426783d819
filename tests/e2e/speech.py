"""Speech for and from a browser test, made and understood by the real engines behind the border."""

from __future__ import annotations

import asyncio
import unicodedata
from collections.abc import AsyncIterator, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from inference.audio.pcm import float_from_pcm, pcm_from_float
from inference.audio.resample import resample
from inference.client import InferenceClient
from inference.interfaces import (
    MICROPHONE_SAMPLE_RATE_HZ,
    FinalTranscript,
    Message,
    SynthesisOptions,
    TranscriptionInput,
    TranscriptionOptions,
)

PIECE_BYTES = 6_400  # 200 ms


async def prefill(address: str, opening: Sequence[tuple[str, str]]) -> None:
    """Have the language model read what every conversation begins with: (role, content)."""
    client = InferenceClient(address)
    try:
        await client.llm.prefill([Message(cast(Any, role), content, is_shared=True) for role, content in opening])
    finally:
        await client.close()


async def synthesise(address: str, text: str, *, voice: str) -> tuple[NDArray[np.float32], int]:
    """Return samples and their rate."""
    client = InferenceClient(address)
    try:
        chunks = [chunk async for chunk in client.tts.synthesise(text, SynthesisOptions(voice=voice))]
    finally:
        await client.close()
    return float_from_pcm(b"".join(chunk.pcm for chunk in chunks)), chunks[0].sample_rate_hz


async def recognise(address: str, samples: NDArray[np.floating[Any]], rate_hz: int) -> str:
    """Return what the recogniser understands of all of it, utterance after utterance."""
    heard = resample(samples.astype(np.float32), rate_hz, MICROPHONE_SAMPLE_RATE_HZ)
    pcm = pcm_from_float(np.pad(heard, (0, MICROPHONE_SAMPLE_RATE_HZ)))

    async def feed() -> AsyncIterator[TranscriptionInput]:
        for start in range(0, len(pcm), PIECE_BYTES):
            yield pcm[start : start + PIECE_BYTES]
            await asyncio.sleep(0)

    client = InferenceClient(address)
    try:
        events = [event async for event in client.stt.transcribe(feed(), TranscriptionOptions(pause_ms=700))]
    finally:
        await client.close()
    return " ".join(event.text for event in events if isinstance(event, FinalTranscript))


def measure_character_error_rate(expected: str, actual: str) -> float:
    """Levenshtein distance of letters, digits and Han characters, by the length of what was expected."""
    wanted, got = _reduce(expected), _reduce(actual)
    row = list(range(len(got) + 1))
    for i, want in enumerate(wanted, start=1):
        previous, row[0] = row[0], i
        for j, have in enumerate(got, start=1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (want != have))
    return row[-1] / max(1, len(wanted))


def _reduce(text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFKC", text).lower() if c.isalnum())
