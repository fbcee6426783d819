"""
Finds the stock voice, or blend of two, that is most similar to a speaker. Imports the engines' protocols, no Django.

The embedding of a blend is first estimated from those of its parts, without synthesis; the best candidates are then
spoken and measured, as background work that live calls preempt.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.interfaces import InferenceError, SpeakerEncoder, SynthesisOptions, TextToSpeech, VoiceInfo
from inference.offline import embed, speak

#: Spoken to measure a voice: every sound of the language about once. Two sentences, to average over.
SENTENCES = {
    "zh": (
        "昨天傍晚下了一場大雨，我們坐在窗邊喝熱茶，聊起小時候的趣事。",
        "請你先把桌上的書收好，然後去廚房幫我拿三個杯子過來。",
    ),
    "en": (
        "When the sunlight strikes raindrops in the air, they act as a prism and form a rainbow.",
        "Please put the books on the table away, and then bring me three cups from the kitchen.",
    ),
}
#: Shares of the first voice in a blend of two.
SHARES = (0.3, 0.4, 0.5, 0.6, 0.7)
#: Candidates that are spoken and measured. The nearest single voice is always among them.
VERIFIED = 4
MAX_CANDIDATES = 20

Embedding = tuple[float, ...]
Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Match:
    """A voice, or a blend of two ("zf_xiaoxiao:0.6+zm_yunxi:0.4"), and its similarity to the speaker, from 0 to 1."""

    voice: str
    similarity: float


async def embed_stock_voices(
    *,
    tts: TextToSpeech,
    encoder: SpeakerEncoder,
    voices: Sequence[VoiceInfo],
    on_progress: Callable[[int, int], None],
) -> dict[str, Embedding]:
    """
    Return the embedding of every voice by key, from a sentence that it speaks. Three seconds a voice on two cores.

    Raises what the engines raise.
    """
    stock: dict[str, Embedding] = {}
    for number, voice in enumerate(voices):
        on_progress(number, len(voices))
        vector = await embed_voice(
            tts, encoder, SENTENCES[voice.language][:1], SynthesisOptions(voice=voice.key, is_background=True)
        )
        stock[voice.key] = tuple(vector.tolist())
    on_progress(len(voices), len(voices))
    return stock


def rank_candidates(target: Sequence[float], stock: Mapping[str, Sequence[float]]) -> list[Match]:
    """
    Return candidates for `target`, the most similar first: single voices, and the best blend of each pair.

    The similarity of a blend is an estimate. Empty when there is no voice.
    """
    wanted, known = _unit(target), {key: _unit(values) for key, values in stock.items()}
    candidates = [Match(key, float(vector @ wanted)) for key, vector in known.items()]
    for (one, one_vector), (other, other_vector) in itertools.combinations(known.items(), 2):
        blends = [
            Match(
                f"{one}:{share:g}+{other}:{1 - share:g}",
                float(_unit(share * one_vector + (1 - share) * other_vector) @ wanted),
            )
            for share in SHARES
        ]
        candidates.append(max(blends, key=lambda match: match.similarity))
    return sorted(candidates, key=lambda match: -match.similarity)[:MAX_CANDIDATES]


async def match_voice(
    *,
    tts: TextToSpeech,
    encoder: SpeakerEncoder,
    target: Sequence[float],
    language: str,
    stock: Mapping[str, Sequence[float]],
    on_progress: Callable[[int, int], None],
    on_measured: Callable[[Match], None] = lambda match: None,
) -> Match:
    """
    Return the voice or blend that was measured to be most similar to `target`, among those of `language` in `stock`.

    Half a minute on two cores. Raises InferenceError when there is no voice of that language, and what engines raise.
    """
    speaks = {voice.key for voice in await tts.list_voices() if voice.language == language}
    of_language = {key: values for key, values in stock.items() if key in speaks}
    if not of_language:
        raise InferenceError(f"the engine has no voice that speaks {language!r}")
    candidates = choose_candidates(rank_candidates(target, of_language), has_blends=bool(await tts.list_styles()))
    wanted = _unit(target)
    measured: list[Match] = []
    for number, candidate in enumerate(candidates):
        on_progress(number, len(candidates))
        options = SynthesisOptions(voice=candidate.voice, is_background=True)
        vector = await embed_voice(tts, encoder, SENTENCES[language], options)
        measured.append(Match(candidate.voice, float(vector @ wanted)))
        on_measured(measured[-1])
    on_progress(len(candidates), len(candidates))
    return max(measured, key=lambda match: match.similarity)


def choose_candidates(found: Sequence[Match], *, has_blends: bool) -> list[Match]:
    """Return the candidates to be spoken: the best single voice, and the best of the others."""
    singles = [match for match in found if "+" not in match.voice]
    if not has_blends:
        return singles[:VERIFIED]
    nearest = singles[:1]
    others = [match for match in found if match not in nearest]
    return [*nearest, *others[: VERIFIED - len(nearest)]]


async def embed_voice(
    tts: TextToSpeech, encoder: SpeakerEncoder, sentences: Sequence[str], options: SynthesisOptions
) -> Vector:
    """Return the embedding of a voice, from sentences that it speaks."""
    spoken = [await speak(tts, [sentence], options) for sentence in sentences]
    pcm = b"".join(each.pcm for each in spoken)
    if not pcm:
        raise InferenceError(f"the engine says nothing to {sentences!r}")
    embedding = await embed(encoder, pcm, sample_rate_hz=spoken[0].sample_rate_hz)
    return _unit(embedding.values)


def _unit(values: Any) -> Vector:
    vector = np.asarray(values, np.float64)
    return np.asarray(vector / np.linalg.norm(vector))
