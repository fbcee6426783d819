"""
`make bench-voices`: how like real speakers the voices are that are matched and fitted to them. Makes the table of
docs/voices.md.

The real engines in this process, the real recordings, the code that the worker runs. Half an hour for all six on two
cores; `--speakers taiyi --steps 20` is a look.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inference.audio.pcm import pcm_from_float
from inference.config import InferenceConfig
from inference.engines import faster_whisper, ge2e_onnx, kokoro
from tests.recordings import Recording, read_recordings
from voices.build import matching
from voices.fitting import search


@dataclass(frozen=True, slots=True)
class Row:
    """What was measured of one speaker. Halves: the similarity of the recording's two halves, an upper bound."""

    speaker: str
    language: str
    halves: float
    nearest: str
    nearest_similarity: float
    matched: str
    matched_similarity: float
    baseline: float
    fitted: float
    error_rate: float
    is_better: bool
    match_s: float
    fit_s: float


class Bench:
    def __init__(self, stt: Any, tts: Any, encoder: Any, steps: int) -> None:
        self._stt, self._tts, self._encoder, self._steps = stt, tts, encoder, steps

    async def embed_stock(self) -> dict[str, tuple[float, ...]]:
        voices = await self._tts.list_voices()
        return await matching.embed_stock_voices(
            tts=self._tts,
            encoder=self._encoder,
            voices=voices,
            on_progress=lambda done, count: say(f"  stock {done}/{count}"),
        )

    async def measure(self, recording: Recording, stock: dict[str, tuple[float, ...]]) -> Row:
        rate = recording.sample_rate_hz
        middle = len(recording.samples) // 2
        whole, one, other = [
            np.array((await self._encoder.embed(pcm_from_float(samples), sample_rate_hz=rate)).values)
            for samples in (recording.samples, recording.samples[:middle], recording.samples[middle:])
        ]
        target, started = tuple(whole.tolist()), time.monotonic()
        spoken: dict[str, float] = {}
        match = await matching.match_voice(
            tts=self._tts,
            encoder=self._encoder,
            target=target,
            language=recording.language,
            stock=stock,
            on_progress=lambda done, count: None,
            on_measured=lambda each: spoken.update({each.voice: each.similarity}),
        )
        matched_at = time.monotonic()
        fit = await search.fit_style(
            tts=self._tts,
            encoder=self._encoder,
            stt=self._stt,
            target=target,
            voice=match.voice,
            language=recording.language,
            steps=self._steps,
            on_progress=lambda done, count, best: say(f"  {recording.speaker} {done}/{count} {best:.3f}"),
        )
        nearest = max((voice for voice in spoken if "+" not in voice), key=lambda voice: spoken[voice])
        return Row(
            recording.speaker,
            recording.language,
            float(one @ other),
            nearest,
            spoken[nearest],
            match.voice,
            match.similarity,
            fit.baseline,
            fit.similarity,
            fit.character_error_rate,
            fit.is_better,
            matched_at - started,
            time.monotonic() - matched_at,
        )


def describe(rows: list[Row]) -> list[str]:
    lines = [
        "| speaker | halves | nearest stock voice | best match | match → fitted, held out | wrong characters | kept "
        "| time |",
        "|---|---|---|---|---|---|---|---|",
    ]
    return lines + [
        f"| {row.speaker} ({row.language}) | {row.halves:.2f} | {row.nearest_similarity:.2f} `{row.nearest}` "
        f"| {row.matched_similarity:.2f} `{row.matched}` | {row.baseline:.2f} → {row.fitted:.2f} "
        f"| {row.error_rate:.0%} | {'yes' if row.is_better else 'no'} | {row.match_s:.0f} s + {row.fit_s:.0f} s |"
        for row in rows
    ]


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


Stock = dict[str, tuple[float, ...]]


async def run(options: argparse.Namespace, stock: Stock | None) -> tuple[list[Row], Stock]:
    config = InferenceConfig.from_env({**os.environ, "AVATAR_PROFILE": "cpu"})
    stt = faster_whisper.create_stt(model="whisper-base", config=config)
    tts = kokoro.create_tts(model="kokoro-82m", config=config)
    encoder = ge2e_onnx.create_encoder(model="ge2e-resemblyzer", config=config)
    rows: list[Row] = []
    try:
        bench = Bench(stt, tts, encoder, options.steps)
        stock = stock or await bench.embed_stock()
        for recording in read_recordings():
            if not options.speakers or recording.speaker in options.speakers:
                rows.append(await bench.measure(recording, stock))
                say(json.dumps(asdict(rows[-1])))
    finally:
        for engine in (stt, tts, encoder):
            await engine.close()
    return rows, stock


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.voices", description=__doc__)
    parser.add_argument("--speakers", nargs="*", default=[], help="these only, by name")
    parser.add_argument("--steps", type=int, default=120, help="styles that are tried for each")
    parser.add_argument("--stock", type=Path, help="a file to keep the embeddings of the stock voices in")
    options = parser.parse_args(arguments)
    kept = json.loads(options.stock.read_text()) if options.stock and options.stock.exists() else None
    rows, stock = asyncio.run(run(options, kept))
    if options.stock:
        options.stock.write_text(json.dumps(stock))
    print("\n".join(describe(rows)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
