"""
Synthesis with F5-TTS: clones any voice from a few seconds of it and their transcript, in Mandarin and English.

Text → normalised text → pinyin and letters → spectrogram, by flow matching in a few steps → 24 kHz audio (Vocos).
Clauses that wait for the same voice are one batch; the first clause of a reply is synthesised at once and by itself.
Nothing is downloaded: the library would fetch a recogniser for a reference without a transcript, so one is required.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import re
import statistics
import time
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from f5_tts.infer.utils_infer import hop_length, load_model, load_vocoder, target_rms, target_sample_rate
from f5_tts.model import DiT
from f5_tts.model.utils import convert_char_to_pinyin
from numpy.typing import NDArray

from inference import device_memory
from inference.audio.decode import decode
from inference.audio.durations import count_bytes
from inference.audio.pcm import float_from_pcm, pcm_from_float
from inference.audio.resample import resample
from inference.config import ConfigurationError, InferenceConfig
from inference.device_memory import MIB, DeviceMemoryReader
from inference.engines.background_gate import BackgroundGate, GatedWork
from inference.engines.base import Engine
from inference.engines.chinese_script import has_chinese, to_simplified
from inference.engines.clause_edges import choose_pause_ms, trim
from inference.engines.f5_step import quicken
from inference.engines.priority_worker import Priority, Worker
from inference.interfaces import (
    REQUESTS_WAITING,
    AudioChunk,
    InferenceError,
    Quality,
    SynthesisOptions,
    VoiceInfo,
    VoiceReference,
)
from inference.models.store import ModelError, model_dir
from inference.text_normalisation import normalise_mandarin
from inference.voice_options import MAX_REFERENCE_S, check_reference, choose_shares, pick_heaviest

logger = logging.getLogger(__name__)

SAMPLE_RATE_HZ: int = target_sample_rate
FRAMES_PER_S: float = target_sample_rate / hop_length
CHUNK_MS = 200
#: Length of F5-TTS's training samples: the reference and the speech after it, together.
MAX_TOTAL_S = 30.0
#: Clauses of a batch, and how long each may be with the reference: four of 20 s, twice for the guidance, take 0.5 GB
#: in half precision.
MAX_BATCH = 4
MAX_BATCH_S = 20.0
#: Below this many bytes of text the library speaks at 0.3 of its pace: very short words are slurred otherwise.
SHORT_TEXT_BYTES = 10
SHORT_TEXT_SPEED = 0.3
#: The library's own, for the published weights.
SWAY_SAMPLING_COEFFICIENT = -1.0
#: Size of the cache of preprocessed voices (LRU).
MAX_VOICES = 32
#: Device memory of a model relative to its files: kernels, fragmentation, activations of one call.
LOADED_PER_FILE = 1.3
VOICES = "f5-voices"
FIGURES_OF = 50


def create_tts(*, model: str, config: InferenceConfig) -> F5Tts:
    high_quality = config.tts_high_quality_model
    return F5Tts(
        model_dir(config.models_dir, model),
        config,
        high_quality_folder=model_dir(config.models_dir, high_quality) if high_quality else None,
        reader=device_memory.get_reader(config),
    )


class _Stopped(Exception):
    """The synthesis was cancelled or preempted."""


@dataclass(eq=False, slots=True)
class _Voice:
    """A reference in the model's form: levelled samples (1, n) at 24 kHz on the device, and the transcript."""

    samples: torch.Tensor
    transcript: str
    used_at: float = 0.0

    @property
    def frames(self) -> int:
        return int(self.samples.shape[-1]) // int(hop_length)


@dataclass(eq=False, slots=True)
class _Request:
    """A piece of text that waits for synthesis, and its samples afterwards."""

    text: str
    voice: _Voice
    options: SynthesisOptions
    is_cancelled: bool = False
    is_preempted: bool = False
    samples: NDArray[np.float32] | None = None
    quality: Quality = Quality.FAST

    @property
    def frames(self) -> int:
        return min(_estimate_frames(self.text, self.voice, self.options.speed), _max_frames(self.voice))

    @property
    def may_be_batched(self) -> bool:
        is_short = self.voice.frames + self.frames <= MAX_BATCH_S * FRAMES_PER_S
        return is_short and not self.options.is_first and not self.is_stopped and self.samples is None

    def is_like(self, other: _Request) -> bool:
        return self.voice is other.voice and self._manner == other._manner

    @property
    def _manner(self) -> tuple[Quality, float, bool]:
        # A live clause must not wait for the longer clause of a background job in its batch.
        return self.options.quality, self.options.speed, self.options.is_background

    @property
    def is_stopped(self) -> bool:
        return self.is_cancelled or self.is_preempted

    def preempt(self) -> None:
        self.is_preempted = True


class _Model:
    """A checkpoint and its vocoder on the device. Raises torch.OutOfMemoryError, when made and when used."""

    def __init__(self, folder: Path, device: str) -> None:
        settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        vocabulary = folder / "vocab.txt"
        self.cfm = load_model(
            DiT,
            # The published weights were trained without, but in a batch a short clause must not attend to its padding.
            settings["arch"] | {"attn_mask_enabled": True},
            str(folder / "model.safetensors"),
            mel_spec_type="vocos",
            vocab_file=str(vocabulary) if vocabulary.exists() else "",
            device=device,
        )
        self.cfm.transformer = quicken(self.cfm.transformer)
        self.vocoder = load_vocoder(is_local=True, local_path=str(folder / "vocoder"), device=device)

    def speak(
        self,
        voice: _Voice,
        tokens: Sequence[list[str]],
        frames: Sequence[int],
        *,
        steps: int,
        cfg_strength: float,
        seed: int | None,
        check: Callable[[], None],
    ) -> list[NDArray[np.float32]]:
        """Synthesise a batch of pieces of `frames` each. `check` is called before every step and may raise."""
        hook = self.cfm.transformer.register_forward_pre_hook(lambda *_: check())
        with torch.inference_mode():
            try:
                spectrograms, _ = self.cfm.sample(
                    cond=voice.samples.repeat(len(tokens), 1),
                    text=list(tokens),
                    duration=torch.tensor([voice.frames + each for each in frames], device=voice.samples.device),
                    steps=steps,
                    cfg_strength=cfg_strength,
                    sway_sampling_coef=SWAY_SAMPLING_COEFFICIENT,
                    seed=seed,
                )
            finally:
                hook.remove()
                # The library clears its text cache only after a complete call: the next text would use this one's.
                self.cfm.transformer.clear_cache()
            made = []
            for spectrogram, length in zip(spectrograms, frames, strict=True):
                own = spectrogram[voice.frames : voice.frames + length].to(torch.float32).T[None]
                made.append(self.vocoder.decode(own)[0].cpu().numpy().astype(np.float32))
        return made


class F5Tts(Engine):
    """`TextToSpeech` on F5-TTS. One thread synthesises, first clauses before others, background jobs last."""

    can_clone = True

    def __init__(
        self, folder: Path, config: InferenceConfig, *, high_quality_folder: Path | None, reader: DeviceMemoryReader
    ) -> None:
        self.model_name = folder.name
        self.device = config.device
        self._config = config
        self._reader = reader
        self._pronunciations = Pronunciations.read(config.tts_pronunciations)
        self._model = _Model(folder, config.device)
        self._high_folder = high_quality_folder
        self._high: _Model | None = None
        self._high_used_at = 0.0
        self._unloading: asyncio.Task[None] | None = None
        self._stock = _read_stock_voices(config)
        #: Least recently used first.
        self._voices: OrderedDict[str, _Voice] = OrderedDict()
        self._forgetting: asyncio.Task[None] | None = None
        self.gate = BackgroundGate()
        self._waiting: list[_Request] = []
        self._worker = Worker("f5-tts")
        self._real_time_factors: deque[float] = deque(maxlen=FIGURES_OF)
        self._batches: deque[int] = deque(maxlen=FIGURES_OF)

    async def warm_up(self) -> None:
        for text in ("你好，今天有 25 度。", "Hello there."):
            async for _ in self.synthesise(text, SynthesisOptions()):
                pass

    async def close(self) -> None:
        for task in (self._unloading, self._forgetting):
            if task is not None:
                task.cancel()
        await asyncio.to_thread(self._worker.close)

    async def list_voices(self) -> tuple[VoiceInfo, ...]:
        return tuple(stock.info for stock in self._stock.values())

    async def list_styles(self) -> dict[str, bytes]:
        return {}

    @property
    def figures(self) -> dict[str, float]:
        """RTF, the largest batch, the clauses that wait, and whether the model of high quality is loaded."""
        figures = {"is_high_quality_loaded": float(self._high is not None), REQUESTS_WAITING: float(len(self._waiting))}
        if self._real_time_factors:
            figures["real_time_factor_median"] = statistics.median(self._real_time_factors)
            figures["real_time_factor_worst"] = max(self._real_time_factors)
            figures["batch_largest"] = float(max(self._batches))
        return figures

    async def synthesise(self, text: str, options: SynthesisOptions) -> AsyncGenerator[AudioChunk]:
        spoken = to_spoken(text)
        if not any(character.isalnum() for character in spoken):
            return
        with self.gate.admit(Priority.of(options)) as work:
            voice = await self._prepare_voice(spoken, options, work.priority)
            pieces = _split(spoken, voice, options.speed)
            for number, piece in enumerate(pieces):
                request = _Request(piece, voice, options)
                samples = await self._speak_preemptibly(work, request)
                is_last = options.is_last and number == len(pieces) - 1
                trimmed = trim(samples, sample_rate_hz=SAMPLE_RATE_HZ, pause_ms=choose_pause_ms(piece, is_last=is_last))
                pcm = pcm_from_float(trimmed)
                step = count_bytes(CHUNK_MS, SAMPLE_RATE_HZ)
                for start in range(0, len(pcm), step):
                    yield AudioChunk(pcm[start : start + step], SAMPLE_RATE_HZ, request.quality)

    async def _speak_preemptibly(self, work: GatedWork, request: _Request) -> NDArray[np.float32]:
        """Speak when the gate lets the work pass; again from the start after preemption."""
        while True:
            await work.wait_for_turn()
            request.is_preempted = False
            work.preempt = request.preempt
            try:
                return await self._speak_soon(request, work.priority)
            except _Stopped:
                if not request.is_preempted:
                    raise
            finally:
                work.preempt = None

    async def _speak_soon(self, request: _Request, priority: Priority) -> NDArray[np.float32]:
        self._waiting.append(request)
        try:
            samples = await self._worker.run(lambda: self._do(request), priority)
        except asyncio.CancelledError:
            request.is_cancelled = True
            raise
        finally:
            self._waiting.remove(request)
        if self._high is not None and self._unloading is None:
            self._unloading = asyncio.create_task(self._unload_when_idle())
        return samples

    # --- in the engine's thread ---

    def _do(self, request: _Request) -> NDArray[np.float32]:
        if request.samples is None:
            batch = [request]
            if request.may_be_batched:
                others = [other for other in list(self._waiting) if other is not request and other.may_be_batched]
                batch += [other for other in others if other.is_like(request)][: MAX_BATCH - 1]
            self._speak(batch, request.options.quality)
        assert request.samples is not None  # noqa: S101 — for the type checker: set by `_speak`
        return request.samples

    def _speak(self, batch: Sequence[_Request], wanted: Quality) -> None:
        """
        Synthesise a batch in one step; out of device memory, its first request alone, and then that one fast.

        The other requests have their own entries in the queue.
        """
        attempts = [(wanted, batch), (Quality.FAST, batch[:1])]
        if len(batch) > 1:
            attempts.insert(1, (wanted, batch[:1]))
        for quality, part in attempts:
            if self._has_room_for(lambda: self._speak_with(*self._choose(quality), part)):  # noqa: B023 — called here
                return
            logger.warning("out of the device's memory with %d clauses of %s quality", len(part), quality)
        raise InferenceError("the device's memory does not suffice for this clause")

    def _has_room_for(self, work: Callable[[], None]) -> bool:
        """Run the work. Out of device memory, free what can be freed and return False."""
        try:
            work()
        except torch.OutOfMemoryError:
            # Free memory outside the except block: the exception's frames hold the tensors.
            has_room = False
        else:
            has_room = True
        if not has_room:
            self._unload()
        return has_room

    def _speak_with(self, model: _Model, quality: Quality, batch: Sequence[_Request]) -> None:
        def check() -> None:
            if all(request.is_stopped for request in batch):
                raise _Stopped

        config, voice = self._config, batch[0].voice
        began = time.monotonic()
        made = model.speak(
            voice,
            [self._tokens(voice.transcript + request.text) for request in batch],
            [request.frames for request in batch],
            steps=config.tts_fast_steps if quality is Quality.FAST else config.tts_high_quality_steps,
            cfg_strength=config.tts_cfg_strength,
            seed=config.tts_seed,
            check=check,
        )
        seconds = sum(len(samples) for samples in made) / SAMPLE_RATE_HZ
        self._real_time_factors.append((time.monotonic() - began) / seconds)
        self._batches.append(len(batch))
        for request, samples in zip(batch, made, strict=True):
            request.samples, request.quality = samples, quality

    def _choose(self, wanted: Quality) -> tuple[_Model, Quality]:
        """Return the model and its quality: fast where memory does not suffice for more."""
        free_mib = device_memory.read_free_mib(self._reader)
        reserve_mib = self._config.memory_reserve_mib
        is_short = free_mib is not None and free_mib < reserve_mib
        if wanted is Quality.FAST or is_short:
            if is_short and self._high is not None:
                self._unload()
            return self._model, Quality.FAST
        if self._high_folder is None:
            return self._model, Quality.HIGH_QUALITY
        if self._high is None:
            needed_mib = int(_size_mib(self._high_folder) * LOADED_PER_FILE) + reserve_mib
            if free_mib is not None and free_mib < needed_mib:
                logger.info("high quality needs %d MiB, %d are free: fast instead", needed_mib, free_mib)
                return self._model, Quality.FAST
            self._high = _Model(self._high_folder, self.device)
        self._high_used_at = time.monotonic()
        return self._high, Quality.HIGH_QUALITY

    def _unload(self) -> None:
        self._high = None
        self._free_memory()

    def _free_memory(self) -> None:
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()

    async def _unload_when_idle(self) -> None:
        while self._high is not None:
            rest_s = self._high_used_at + self._config.tts_idle_unload_s - time.monotonic()
            if rest_s <= 0:
                await self._worker.run(self._unload, Priority.PARTIAL)
            else:
                await asyncio.sleep(rest_s)
        self._unloading = None

    # --- voices ---

    async def _prepare_voice(self, spoken: str, options: SynthesisOptions, priority: Priority) -> _Voice:
        reference = options.reference
        name = self._choose_stock_voice(spoken, options) if reference is None else _digest(reference)
        voice = self._voices.get(name)
        if voice is None:
            made = await self._worker.run(
                lambda: _prepare(reference or self._stock[name].read(), self.device), priority
            )
            # Of two that were prepared at once one is kept: only clauses of the same object are batched.
            voice = self._voices.setdefault(name, made)
            if len(self._voices) > MAX_VOICES:
                self._voices.popitem(last=False)
        voice.used_at = time.monotonic()
        self._voices.move_to_end(name)
        if self._forgetting is None:
            self._forgetting = asyncio.create_task(self._forget_when_unused())
        return voice

    def _choose_stock_voice(self, spoken: str, options: SynthesisOptions) -> str:
        default = _default_voice(self._stock, "zh" if has_chinese(spoken) else "en")
        return pick_heaviest(choose_shares(options.voice, self._stock, default=default))

    async def _forget_when_unused(self) -> None:
        """Evict unused voices, so that a deleted voice does not stay in memory for long."""
        while self._voices:
            unused = next(iter(self._voices.values()))
            rest_s = unused.used_at + self._config.tts_forget_voice_s - time.monotonic()
            if rest_s > 0:
                del unused
                await asyncio.sleep(rest_s)
            else:
                self._voices.popitem(last=False)
        self._forgetting = None

    def _tokens(self, text: str) -> list[str]:
        return self._pronunciations.tokens(text)


def _digest(reference: VoiceReference) -> str:
    digest = hashlib.sha256(reference.pcm)
    digest.update(f"\n{reference.sample_rate_hz}\n{reference.transcript}".encode())
    return digest.hexdigest()


def _prepare(reference: VoiceReference, device: str) -> _Voice:
    transcript = to_spoken(reference.transcript)
    check_reference(replace(reference, transcript=transcript))
    recorded = resample(float_from_pcm(reference.pcm), reference.sample_rate_hz, SAMPLE_RATE_HZ)
    samples = torch.from_numpy(recorded)[None]
    level = float(samples.square().mean().sqrt())
    samples = samples * max(1.0, target_rms / level)  # raises quiet recordings only, as the library does
    if transcript[-1] not in ".!?。！？，,":
        transcript += "。" if has_chinese(transcript) else "."
    return _Voice(samples.to(device), transcript if has_chinese(transcript[-2:]) else transcript + " ")


def _estimate_frames(text: str, voice: _Voice, speed: float) -> int:
    """Estimate the frames of a text in this voice from the bytes of both texts, as the library does."""
    pace = SHORT_TEXT_SPEED if len(text.encode()) < SHORT_TEXT_BYTES else 1.0
    return max(1, int(voice.frames / len(voice.transcript.encode()) * len(text.encode()) / (speed * pace)))


def _max_frames(voice: _Voice) -> int:
    """Return how many frames the model can synthesise at once in this voice."""
    return int(MAX_TOTAL_S * FRAMES_PER_S) - voice.frames


def _split(text: str, voice: _Voice, speed: float) -> list[str]:
    """Split text that is too long for the model: at a sentence's end, a comma, a blank, or anywhere."""
    most = _max_frames(voice)
    pieces: list[str] = []
    # With a long reference of few words a single character may be too long: it is then cut off in synthesis.
    while len(text) > 1 and _estimate_frames(text, voice, speed) > most:
        fits = max(1, len(text) * most // _estimate_frames(text, voice, speed))
        while fits > 1 and _estimate_frames(text[:fits], voice, speed) > most:
            fits -= 1
        head = text[:fits]
        ends = (
            max((m.end() for m in re.finditer(p, head)), default=0) for p in (r"[。！？.!?]", r"[，、；：,;:]", r"\s")
        )
        cut = next((end for end in ends if end >= max(1, fits // 3)), fits)
        pieces.append(text[:cut])
        text = text[cut:].lstrip()
    return [*pieces, text] if text else pieces


def to_spoken(text: str) -> str:
    """Normalise a text for F5-TTS: numbers and units in words, Simplified characters, no markup."""
    if has_chinese(text):
        return normalise_mandarin(to_simplified(text)).strip()
    return re.sub(r"\s+", " ", re.sub(r"[*_#`~<>\[\]{}|\\^]", " ", text)).strip()


# --- pronunciations ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pronunciations:
    """A site's own readings of words: names, and polyphones that the dictionary reads wrongly."""

    words: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path | None) -> Pronunciations:
        """
        Read a JSON file of words and their pinyin with tone numbers: {"重慶": "chong2 qing4"}.

        Raises ConfigurationError, naming the word, when there is not one syllable for each character.
        """
        if path is None:
            return cls()
        try:
            entries = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"AVATAR_TTS_PRONUNCIATIONS={path}: {error}") from error
        words: dict[str, tuple[str, ...]] = {}
        for word, reading in entries.items() if isinstance(entries, dict) else [("", entries)]:
            syllables = tuple(reading.split()) if isinstance(reading, str) else ()
            if not word or len(syllables) != len(word) or not all(re.fullmatch(r"[a-zü]+[1-5]?", s) for s in syllables):
                raise ConfigurationError(
                    f"AVATAR_TTS_PRONUNCIATIONS={path}: {word!r}: expected one syllable for each character, "
                    'such as {"重慶": "chong2 qing4"}'
                )
            words[to_simplified(word)] = tuple(s.removesuffix("5").replace("ü", "v") for s in syllables)
        return cls(words)

    def tokens(self, text: str) -> list[str]:
        """Return the model's tokens of a text: pinyin, each after a blank, and letters."""
        if not self.words:
            return list(convert_char_to_pinyin([text])[0])
        longest_first = sorted(self.words, key=len, reverse=True)
        tokens: list[str] = []
        for run in re.split(f"({'|'.join(map(re.escape, longest_first))})", text):
            if run in self.words:
                tokens += [token for syllable in self.words[run] for token in (" ", syllable)]
            elif run:
                tokens += convert_char_to_pinyin([run])[0]
        return tokens


# --- stock voices ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Stock:
    info: VoiceInfo
    recording: Path
    transcript: str

    def read(self) -> VoiceReference:
        recording = decode(self.recording.read_bytes(), max_s=MAX_REFERENCE_S)
        return VoiceReference(pcm_from_float(recording.samples), recording.sample_rate_hz, self.transcript)


def _read_stock_voices(config: InferenceConfig) -> dict[str, _Stock]:
    """Return the stock voices prepared for this engine; without any, the library's two example recordings."""
    try:
        folder = model_dir(config.models_dir, VOICES)
    except ModelError:
        examples = Path(str(files("f5_tts").joinpath("infer/examples/basic")))
        return {
            "basic_zh": _Stock(
                VoiceInfo("basic_zh", "F5 中文", "zh", "male"),
                examples / "basic_ref_zh.wav",
                "对，这就是我，万人敬仰的太乙真人。",
            ),
            "basic_en": _Stock(
                VoiceInfo("basic_en", "F5 English", "en", "female"),
                examples / "basic_ref_en.wav",
                "Some call me nature, others call me mother nature.",
            ),
        }
    entries = json.loads((folder / "voices.json").read_text(encoding="utf-8"))
    return {
        entry["key"]: _Stock(
            VoiceInfo(entry["key"], entry["name"], entry["language"], _gender(entry["gender"])),
            folder / f"{entry['key']}.wav",
            entry["transcript"],
        )
        for entry in entries
    }


def _gender(text: str) -> Literal["female", "male"]:
    return "female" if text == "female" else "male"


def _default_voice(stock: dict[str, _Stock], language: str) -> str:
    return next((key for key, voice in stock.items() if voice.info.language == language), next(iter(stock)))


def _size_mib(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) // MIB
