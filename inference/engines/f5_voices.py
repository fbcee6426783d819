"""Prepares F5-TTS when its weights are fetched: writes its architecture, and synthesises references of stock voices."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from inference.audio.encode import encode_wav
from inference.config import InferenceConfig
from inference.interfaces import SynthesisOptions, VoiceInfo

#: F5TTS_v1_Base, from the library's configs/F5TTS_v1_Base.yaml.
ARCHITECTURE = {
    **{"dim": 1024, "depth": 22, "heads": 16, "ff_mult": 2, "text_dim": 512, "text_mask_padding": True},
    **{"qk_norm": None, "conv_layers": 4, "pe_attn_head": None, "attn_backend": "torch", "attn_mask_enabled": False},
}
#: Five to six seconds with the sounds that characterise a voice in each language.
SENTENCES = {
    "zh": "今天天氣很好，我想去公園走走，順便買一杯熱咖啡，坐下來看看書。",
    "en": "It is a lovely day, so I would like to take a walk in the park and read a good book there.",
}


def write_architecture(folder: Path, models_dir: Path) -> None:
    """Write config.json into the folder of the published weights."""
    (folder / "config.json").write_text(json.dumps({"arch": ARCHITECTURE}))


def speak_references(folder: Path, models_dir: Path, *, voices: Sequence[VoiceInfo] | None = None) -> None:
    """
    Synthesise a sentence in each of Kokoro's stock voices: <key>.wav, and voices.json with names and transcripts.

    This gives F5-TTS the same stock voices under the same keys. Needs model kokoro-82m in `models_dir`.
    """
    asyncio.run(_speak_references(folder, replace(InferenceConfig.from_env(os.environ), models_dir=models_dir), voices))


async def _speak_references(folder: Path, config: InferenceConfig, voices: Sequence[VoiceInfo] | None) -> None:
    from inference.engines import kokoro  # half a gigabyte, needed only here

    engine = kokoro.create_tts(model="kokoro-82m", config=config)
    try:
        entries = []
        for voice in voices or await engine.list_voices():
            sentence = SENTENCES[voice.language]
            chunks = [c async for c in engine.synthesise(sentence, SynthesisOptions(voice=voice.key))]
            wav = encode_wav(b"".join(chunk.pcm for chunk in chunks), chunks[0].sample_rate_hz)
            (folder / f"{voice.key}.wav").write_bytes(wav)
            entries.append(asdict(voice) | {"transcript": sentence})
        (folder / "voices.json").write_text(json.dumps(entries, ensure_ascii=False, indent=1), encoding="utf-8")
    finally:
        await engine.close()
