"""Speech for and from a browser test, made and understood by the real engines behind the border."""

from __future__ import annotations

import asyncio
import unicodedata
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.client import InferenceClient
from inference.interfaces import (
    MICROPHONE_SAMPLE_RATE_HZ,
    FinalTranscript,
    SynthesisOptions,
    TranscriptionInput,
    TranscriptionOptions,
)

PIECE_BYTES = 6_400  # 200 ms


async def synthesise(address: str, text: str, *, voice: str) -> tuple[NDArray[np.float32], int]:
    """Return samples and their rate."""
    client = InferenceClient(address)
    try:
        chunks = [chunk async for chunk in client.tts.synthesise(text, SynthesisOptions(voice=voice))]
    finally:
        await client.close()
    pcm = np.frombuffer(b"".join(chunk.pcm for chunk in chunks), dtype="<i2")
    return (pcm / 32_768).astype(np.float32), chunks[0].sample_rate_hz


async def recognise(address: str, samples: NDArray[np.floating[Any]], rate_hz: int) -> str:
    """Return what the recogniser understands of all of it, utterance after utterance."""
    count = len(samples) * MICROPHONE_SAMPLE_RATE_HZ // rate_hz
    positions = np.arange(count) * rate_hz / MICROPHONE_SAMPLE_RATE_HZ
    # Averaging over the samples that fall into one is filter enough for a recogniser.
    width = max(1, rate_hz // MICROPHONE_SAMPLE_RATE_HZ)
    smooth = np.convolve(samples, np.ones(width) / width, mode="same")
    heard = np.concatenate([np.interp(positions, np.arange(len(samples)), smooth), np.zeros(16_000)])
    pcm = (heard * 32_767).clip(-32_768, 32_767).astype("<i2").tobytes()

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
