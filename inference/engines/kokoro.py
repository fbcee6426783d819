"""
Synthesis with Kokoro-82M on ONNX Runtime: Mandarin and English, also mixed in one sentence.

Text → normalised text → phonemes (misaki for Mandarin, espeak-ng for English) → tokens → prosody → 24 kHz audio. The
graph is the rewritten one (`kokoro_graph`), in two parts: the silence that Kokoro plans around every clause is cropped
before the decoder, which takes most of the time.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import onnxruntime
from misaki import espeak, zh
from numpy.typing import NDArray

from inference.audio.durations import count_bytes
from inference.audio.pcm import pcm_from_float
from inference.config import InferenceConfig
from inference.engines import clause_edges
from inference.engines.background_gate import BackgroundGate
from inference.engines.base import Engine
from inference.engines.chinese_script import has_chinese, to_simplified
from inference.engines.clause_edges import trim
from inference.engines.preemptible_onnx import run_preemptible
from inference.engines.priority_worker import Priority, Worker
from inference.interfaces import REQUESTS_WAITING, AudioChunk, Quality, SynthesisOptions, VoiceInfo
from inference.models.store import model_dir
from inference.text_normalisation import normalise_mandarin
from inference.voice_options import choose_shares, read_style

SAMPLE_RATE_HZ = 24_000
#: Kokoro reads at most 510 tokens between its two padding tokens.
MAX_TOKENS = 510
CHUNK_MS = 200
#: Kokoro's planned energy is about 8 in speech and -9 in silence; this is some -70 dB of full scale.
SILENT_ENERGY = -3.0
#: Silent frames (25 ms) kept around speech: the decoder's convolutions read them for the first and the last sound.
MARGIN_FRAMES = 4

#: The token of each phoneme: `vocab` of hexgrad/Kokoro-82M's config.json (Apache-2.0).
PHONEMES = {
    **{character: index for index, character in enumerate(";:,.!?", 1)},
    **{"—": 9, "…": 10, '"': 11, "(": 12, ")": 13, "“": 14, "”": 15, " ": 16, "\u0303": 17, "ʣ": 18, "ʥ": 19},
    **{"ʦ": 20, "ʨ": 21, "ᵝ": 22, "\uab67": 23, "A": 24, "I": 25, "O": 31, "Q": 33, "S": 35, "T": 36, "W": 39, "Y": 41},
    **{"ᵊ": 42, "a": 43, "b": 44, "c": 45, "d": 46, "e": 47, "f": 48, "h": 50, "i": 51, "j": 52, "k": 53, "l": 54},
    **{"m": 55, "n": 56, "o": 57, "p": 58, "q": 59, "r": 60, "s": 61, "t": 62, "u": 63, "v": 64, "w": 65, "x": 66},
    **{"y": 67, "z": 68, "ɑ": 69, "ɐ": 70, "ɒ": 71, "æ": 72, "β": 75, "ɔ": 76, "ɕ": 77, "ç": 78, "ɖ": 80, "ð": 81},
    **{"ʤ": 82, "ə": 83, "ɚ": 85, "ɛ": 86, "ɜ": 87, "ɟ": 90, "ɡ": 92, "ɥ": 99, "ɨ": 101, "ɪ": 102, "ʝ": 103},
    **{"ɯ": 110, "ɰ": 111, "ŋ": 112, "ɳ": 113, "ɲ": 114, "ɴ": 115, "ø": 116, "ɸ": 118, "θ": 119, "œ": 120, "ɹ": 123},
    **{"ɾ": 125, "ɻ": 126, "ʁ": 128, "ɽ": 129, "ʂ": 130, "ʃ": 131, "ʈ": 132, "ʧ": 133, "ʊ": 135, "ʋ": 136, "ʌ": 138},
    **{"ɣ": 139, "ɤ": 140, "χ": 142, "ʎ": 143, "ʒ": 147, "ʔ": 148, "ˈ": 156, "ˌ": 157, "ː": 158, "ʰ": 162, "ʲ": 164},
    **{"↓": 169, "→": 171, "↗": 172, "↘": 173, "ᵻ": 177},
}

#: Key, name, language, gender.
VOICES = (
    VoiceInfo("zf_xiaoxiao", "曉曉", "zh", "female"),
    VoiceInfo("zf_xiaoni", "曉妮", "zh", "female"),
    VoiceInfo("zf_xiaoyi", "曉伊", "zh", "female"),
    VoiceInfo("zf_xiaobei", "曉貝", "zh", "female"),
    VoiceInfo("zm_yunxi", "雲希", "zh", "male"),
    VoiceInfo("zm_yunyang", "雲揚", "zh", "male"),
    VoiceInfo("zm_yunjian", "雲健", "zh", "male"),
    VoiceInfo("zm_yunxia", "雲夏", "zh", "male"),
    VoiceInfo("af_heart", "Heart", "en", "female"),
    VoiceInfo("af_bella", "Bella", "en", "female"),
    VoiceInfo("am_michael", "Michael", "en", "male"),
    VoiceInfo("am_fenrir", "Fenrir", "en", "male"),
    VoiceInfo("bf_emma", "Emma", "en", "female"),
    VoiceInfo("bm_george", "George", "en", "male"),
)
#: The row of a voice's styles (one per number of tokens) that a fitted style replaces: of middle length.
FITTED_ROW = 60
DEFAULT_VOICE = {"zh": "zf_xiaoxiao", "en": "af_heart"}


class Phrase(NamedTuple):
    tokens: list[int]
    language: Literal["zh", "en"]


def create_tts(*, model: str, config: InferenceConfig) -> Kokoro:
    return Kokoro(model_dir(config.models_dir, model), threads=config.threads)


class Kokoro(Engine):
    """`TextToSpeech` on ONNX Runtime. One thread synthesises; a cancelled run stops between two operators."""

    device = "cpu"

    def __init__(self, folder: Path, *, threads: int) -> None:
        self.model_name = folder.name
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Waiting threads sleep: spinning ones would occupy the language model's cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._prosody, self._decoder = (
            onnxruntime.InferenceSession(str(folder / name), options, providers=["CPUExecutionProvider"])
            for name in ("prosody.onnx", "decoder.onnx")
        )
        # One style per number of tokens: 510 rows of 256.
        self._styles = {
            path.stem: np.fromfile(path, dtype=np.float32).reshape(-1, 256)
            for path in sorted((folder / "voices").glob("*.bin"))
        }
        self._phonemiser = Phonemiser()
        self._worker = Worker("kokoro")
        self.gate = BackgroundGate()

    async def warm_up(self) -> None:
        for text in ("你好，今天有 25 度。", "Hello there."):
            async for _ in self.synthesise(text, SynthesisOptions()):
                pass

    @property
    def figures(self) -> dict[str, float]:
        """The number of steps that wait for the thread."""
        return {REQUESTS_WAITING: float(self._worker.waiting)}

    async def close(self) -> None:
        await asyncio.to_thread(self._worker.close)

    async def list_voices(self) -> tuple[VoiceInfo, ...]:
        return tuple(voice for voice in VOICES if voice.key in self._styles)

    async def list_styles(self) -> dict[str, bytes]:
        return {key: styles[FITTED_ROW].astype("<f4").tobytes() for key, styles in self._styles.items()}

    async def synthesise(self, text: str, options: SynthesisOptions) -> AsyncGenerator[AudioChunk]:
        voices = {language: self._compose_styles(options, voice) for language, voice in DEFAULT_VOICE.items()}
        # High quality here is the speaker's own style, which takes no longer than another.
        quality = options.quality if options.style else Quality.FAST
        with self.gate.admit(Priority.of(options)) as work:
            phrases = await self._worker.run(lambda: self._phonemiser.phrases(text), work.priority)
            for number, phrase in enumerate(phrases):
                is_last = options.is_last and number == len(phrases) - 1
                speak = partial(self._speak, phrase, voices[phrase.language], options.speed, is_last=is_last)
                samples = await run_preemptible(self._worker, work, speak)
                pcm = pcm_from_float(samples)
                step = count_bytes(CHUNK_MS, SAMPLE_RATE_HZ)
                for start in range(0, len(pcm), step):
                    yield AudioChunk(pcm[start : start + step], SAMPLE_RATE_HZ, quality)

    def _compose_styles(self, options: SynthesisOptions, default: str) -> NDArray[np.float32]:
        """Return a style for every number of tokens. Raises InferenceError for an invalid blend or style."""
        shares = choose_shares(options.voice, self._styles, default=default)
        parts = [self._styles[key] * np.float32(weight) for key, weight in shares.items()]
        styles = np.asarray(np.sum(parts, axis=0), np.float32)
        if options.style:
            fitted = read_style(options.style)
            # Kokoro's style vector depends on the number of tokens, by as much as two voices differ.
            styles = np.asarray(styles - styles[FITTED_ROW] + fitted, np.float32)
        return styles

    def _speak(
        self, phrase: Phrase, styles: NDArray[np.float32], speed: float, run_options: Any, *, is_last: bool
    ) -> NDArray[np.float32]:
        style = styles[min(len(phrase.tokens), len(styles) - 1)][None]
        tokens, pace = np.array([[0, *phrase.tokens, 0]], np.int64), np.array([speed], np.float32)
        planned = self._prosody.run(None, {"tokens": tokens, "style": style, "speed": pace}, run_options)
        features, pitch, energy = crop_to_speech(*planned)
        if features.shape[-1] == 0:
            return np.zeros(0, np.float32)
        (samples,) = self._decoder.run(
            None, {"features": features, "pitch": pitch, "energy": energy, "style": style}, run_options
        )
        return trim(samples, sample_rate_hz=SAMPLE_RATE_HZ, pause_ms=_pause_ms(phrase.tokens, is_last=is_last))


def crop_to_speech(
    features: NDArray[np.float32], pitch: NDArray[np.float32], energy: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """
    Crop the planned silence on both sides, except for a margin.

    Takes and returns features (1, 512, n), pitch and energy (1, 2n) of n frames; 0 frames when everything is silent.
    """
    loud = np.flatnonzero(energy[0] > SILENT_ENERGY) // 2
    if len(loud) == 0:
        return features[:, :, :0], pitch[:, :0], energy[:, :0]
    start, end = max(0, loud[0] - MARGIN_FRAMES), loud[-1] + 1 + MARGIN_FRAMES
    halves = slice(2 * start, 2 * end)
    return features[:, :, start:end], pitch[:, halves], energy[:, halves]


def _pause_ms(tokens: list[int], *, is_last: bool) -> int:
    """Return the silence after a phrase, as a reader leaves at its punctuation."""
    if is_last:
        return clause_edges.END_PAUSE_MS
    last = tokens[-1] if tokens else 0
    if last in (PHONEMES["."], PHONEMES["!"], PHONEMES["?"], PHONEMES["…"]):
        return clause_edges.SENTENCE_PAUSE_MS
    if last in (PHONEMES[","], PHONEMES[";"], PHONEMES[":"], PHONEMES["—"]):
        return clause_edges.CLAUSE_PAUSE_MS
    return clause_edges.WORD_PAUSE_MS


class Phonemiser:
    """Converts text to Kokoro's tokens, in phrases that fit the model."""

    def __init__(self) -> None:
        self._mandarin = zh.ZHG2P()
        self._english = espeak.EspeakG2P(language="en-us")

    def phrases(self, text: str) -> list[Phrase]:
        """Return the phrases of a text; none without words. Not thread-safe: espeak-ng has global state."""
        language: Literal["zh", "en"] = "zh" if has_chinese(text) else "en"
        phonemes = self._mixed(text) if language == "zh" else self._english_phonemes(text)
        tokens = [PHONEMES[character] for character in phonemes if character in PHONEMES]
        if not any(token > PHONEMES[" "] for token in tokens):
            return []
        return [Phrase(piece, language) for piece in _pieces(tokens)]

    def _mixed(self, text: str) -> str:
        """Phonemise Mandarin with English words in it: each run of either script by its own phonemiser."""
        spoken = normalise_mandarin(to_simplified(text))
        phonemes: list[str] = []
        for run in re.findall(r"[A-Za-z][A-Za-z'’\- ]*[A-Za-z]|[A-Za-z]|[^A-Za-z]+", spoken):
            if run[0].isascii() and run[0].isalpha():
                phonemes.append(f" {self._english_phonemes(run)} ")
            else:
                phonemes.append(self._mandarin(run)[0])
        return re.sub(r" +", " ", re.sub(r" +([,.!?])", r"\1", "".join(phonemes))).strip()

    def _english_phonemes(self, text: str) -> str:
        words = re.sub(r"[*_#`~<>\[\]{}|\\^]", " ", text)
        words = "".join(c for c in words if c.isascii() or c.isalpha() or c in "’“”—…£€°")
        return str(self._english(words.replace("’", "'"))[0]).strip() if words.strip() else ""


def _pieces(tokens: list[int]) -> list[list[int]]:
    """Split at the last pause before the model's limit; without one at a space, or anywhere."""
    pieces: list[list[int]] = []
    while len(tokens) > MAX_TOKENS:
        head = tokens[:MAX_TOKENS]
        cut = next((i + 1 for i in range(len(head) - 1, 0, -1) if head[i] <= PHONEMES["…"]), 0)
        cut = cut or next((i + 1 for i in range(len(head) - 1, 0, -1) if head[i] == PHONEMES[" "]), len(head))
        pieces.append(tokens[:cut])
        tokens = tokens[cut:]
    return [*pieces, tokens] if tokens else pieces
