"""
Searches the style in which an engine sounds most like a speaker. Imports the engines' protocols, no Django.

The search space has a few dimensions: the principal components of the stock voices' styles, those of timbre (the first
half of a style) and of prosody (the second half) apart. A synthesised sentence gives an embedding, 256 values, rather
than one similarity: so the search fits a linear model of the embedding around the best point so far and steps to the
point where the model is most similar to the target, within a trust region that grows with success and shrinks without.
It needs no gradient of the engine, and a tenth of the sentences of a search by similarity alone.

The result is validated on held-out sentences: it must be more similar, and as intelligible as before.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference.audio.pcm import float_from_pcm, pcm_from_float
from inference.audio.resample import resample
from inference.interfaces import (
    MICROPHONE_SAMPLE_RATE_HZ,
    STYLE_VALUES,
    InferenceError,
    SpeakerEncoder,
    SpeechToText,
    SynthesisOptions,
    TextToSpeech,
)
from inference.offline import Spoken, embed, recognise, speak
from inference.voice_options import parse_blend, pick_heaviest
from voices.build.matching import embed_voice

#: Spoken while searching (four seconds: synthesis takes most of the time), and to validate the result.
TRAINING = {
    "zh": "昨天下了一場大雨，我們在家裡喝茶聊天。",
    "en": "The sunlight on the rain makes a rainbow in the evening sky.",
}
HELD_OUT = {
    "zh": (
        "今天天氣很好，我們一起去公園散步吧。",
        "請問明天下午三點的火車還有座位嗎？",
        "他把剛買回來的水果放在廚房的桌上。",
    ),
    "en": (
        "Good morning, could you tell me where the station is?",
        "She bought some fresh bread and cheese at the market.",
        "We are going to walk along the river this afternoon.",
    ),
}
TIMBRE_DIRECTIONS, MANNER_DIRECTIONS = 14, 6
#: The largest coordinate of a style, in standard deviations: beyond it speech becomes unintelligible.
MAX_DEVIATION = 2.5
#: A smaller gain of similarity may be chance; and the increase of the character error rate that is accepted.
LEAST_GAIN = 0.01
MORE_ERRORS = 0.05
#: Fractions of the way from the start to the result: tried in turn while it is not intelligible.
WAYS = (1.0, 0.7, 0.4)

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Fit:
    """
    A style, and its measures on held-out sentences.

    `similarity` is of the style, `baseline` of the voice it began with. `character_error_rate` is what the recogniser
    gets wrong of the style: 0 is best. `is_better`: more like the speaker than the baseline, and as intelligible.
    """

    style: bytes
    similarity: float
    baseline: float
    character_error_rate: float
    is_better: bool


async def fit_style(
    *,
    tts: TextToSpeech,
    encoder: SpeakerEncoder,
    stt: SpeechToText,
    target: Sequence[float],
    voice: str,
    language: str,
    steps: int,
    on_progress: Callable[[int, int, float], None],
    seed: int = 0,
) -> Fit:
    """
    Search a style that is more similar to `target` than `voice` (a key or a blend), in `steps` steps.

    A step is one sentence synthesised and embedded, two to four seconds on two cores; live calls preempt it. Reports
    steps done, steps in all, and the best similarity so far. Raises InferenceError when the engine has no styles, and
    what the engines raise.
    """
    space = Space.of(await tts.list_styles(), voice)
    wanted = np.asarray(target, np.float64)
    search = Search(wanted, space.start, space.others, space.limit, steps=steps, seed=seed)
    for step in range(steps):
        on_progress(step, steps, search.similarity)
        point = search.ask()
        options = SynthesisOptions(voice=_first_voice(voice), style=space.to_style(point), is_background=True)
        search.tell(point, await embed_voice(tts, encoder, [TRAINING[language]], options))
    on_progress(steps, steps, search.similarity)

    validator = _Validator(
        tts, encoder, stt, wanted, language, on_answer=lambda: on_progress(steps, steps, search.similarity)
    )
    before = await validator.measure(SynthesisOptions(voice=voice, is_background=True))
    for way in WAYS:
        style = space.to_style(space.start + way * (search.compute_result() - space.start))
        after = await validator.measure(SynthesisOptions(voice=_first_voice(voice), style=style, is_background=True))
        is_better = (
            after.similarity >= before.similarity + LEAST_GAIN and after.error_rate <= before.error_rate + MORE_ERRORS
        )
        fit = Fit(style, after.similarity, before.similarity, after.error_rate, is_better)
        if is_better or after.similarity < before.similarity + LEAST_GAIN:
            break
    return fit


def _first_voice(voice: str) -> str:
    """Return the voice with the largest share: a fitted style keeps its dependence on clause length."""
    return pick_heaviest(parse_blend(voice))


@dataclass(frozen=True, slots=True)
class Space:
    """
    The search space: `start`, and directions (rows) from `middle`, one standard deviation long each.

    A point is a coordinate for each direction; `others` are the points of the stock voices. `rest` is the part of the
    first voice outside of the space: it is added to every style.
    """

    middle: Vector
    rest: Vector
    directions: Vector
    start: Vector
    others: Vector
    limit: float = MAX_DEVIATION

    @classmethod
    def of(cls, styles: Mapping[str, bytes], voice: str) -> Space:
        """Raises InferenceError when there are too few styles to have directions, or none for `voice`."""
        known = {key: np.frombuffer(style, "<f4").astype(np.float64) for key, style in styles.items()}
        shares = parse_blend(voice)
        if len(known) < 2 or not set(shares) <= set(known):
            raise InferenceError(f"the engine has no styles to fit {voice!r} with")
        matrix = np.stack(list(known.values()))
        half = STYLE_VALUES // 2
        directions = np.concatenate(
            [
                compute_directions(matrix, slice(0, half), TIMBRE_DIRECTIONS),
                compute_directions(matrix, slice(half, STYLE_VALUES), MANNER_DIRECTIONS),
            ]
        )
        if len(directions) == 0:
            raise InferenceError("the engine's styles are all the same")
        middle = matrix.mean(axis=0)
        first = sum((known[key] * weight for key, weight in shares.items()), start=np.zeros(STYLE_VALUES))
        lengths = (directions**2).sum(axis=1)
        start = (directions @ (first - middle)) / lengths
        others = (matrix - middle) @ directions.T / lengths
        return cls(middle, first - middle - start @ directions, directions, start, others)

    def to_style(self, point: Vector) -> bytes:
        return (self.middle + self.rest + point @ self.directions).astype("<f4").tobytes()


def compute_directions(matrix: Vector, part: slice, count: int) -> Vector:
    """Return the principal components of one part of the styles: rows of full width, a standard deviation long."""
    differences = matrix[:, part] - matrix[:, part].mean(axis=0)
    _, sizes, components = np.linalg.svd(differences, full_matrices=False)
    deviations = sizes / np.sqrt(len(matrix))
    count = min(count, int((deviations > 1e-6).sum()))
    directions = np.zeros((count, matrix.shape[1]))
    directions[:, part] = components[:count] * deviations[:count, None]
    return directions


class Search:
    """
    Asks for points and is told the embedding of each; keeps the most similar. Pure: it synthesises nothing.

    A fifth of the steps goes to the start and to points half the way to `others`, in random order: real voices are the
    best samples of the space. The others go to where the model expects the best point.

    Steps are long. The length of what is spoken varies from point to point, which changes a similarity by 0.01, as
    much as a standard deviation in one direction does: within a radius of 0.15 the search followed noise.
    """

    WAY_TO_OTHERS = 0.5
    RADIUS, MIN_RADIUS, MAX_RADIUS = 1.5, 0.8, 3.0
    PENALTY = 0.5
    ASIDE = 0.5
    BEST_POINTS = 4

    def __init__(self, target: Vector, start: Vector, others: Vector, limit: float, *, steps: int, seed: int) -> None:
        self._target = target / np.linalg.norm(target)
        self._limit = np.maximum(limit, np.abs(start))
        self._generator = np.random.default_rng(seed)
        self._points: list[Vector] = []
        self._embeddings: list[Vector] = []
        self._radius = self.RADIUS
        self.best = start
        self.similarity = 0.0
        probes = self._generator.permutation(others)[: steps // 5]
        self._planned = [start, *(start + self.WAY_TO_OTHERS * (other - start) for other in probes)]
        self._planned_count = len(self._planned)

    def ask(self) -> Vector:
        if self._planned:
            return self._inside(self._planned.pop(0))
        guess = self._climb()
        # With noise, so that the model still learns about directions in which it does not move.
        aside = self._generator.normal(0, self.ASIDE * self._radius / np.sqrt(len(guess)), len(guess))
        return self._inside(guess + aside)

    def compute_result(self) -> Vector:
        """Return the mean of the best points: each of them is partly noise."""
        order = np.argsort([-self._measure(embedding) for embedding in self._embeddings], kind="stable")
        near = [self._points[i] for i in order if np.linalg.norm(self._points[i] - self.best) <= self.MAX_RADIUS]
        return np.asarray(np.mean(near[: self.BEST_POINTS], axis=0))

    def _measure(self, embedding: Vector) -> float:
        return float(embedding @ self._target / np.linalg.norm(embedding))

    def tell(self, point: Vector, embedding: Vector) -> None:
        similarity = self._measure(embedding)
        is_searching = len(self._points) >= self._planned_count
        self._points.append(point)
        self._embeddings.append(embedding)
        if similarity > self.similarity:
            self.best, self.similarity = point, similarity
            change = 1.4
        else:
            change = 0.75
        if is_searching:
            self._radius = float(np.clip(self._radius * change, self.MIN_RADIUS, self.MAX_RADIUS))

    def _inside(self, point: Vector) -> Vector:
        return np.asarray(np.clip(point, -self._limit, self._limit))

    def _climb(self) -> Vector:
        """Follow the model's gradient from the best point, within the radius."""
        offset, slopes = self._fit_model()
        moved = np.zeros(len(self.best))
        rate = self._radius / 10
        for _ in range(60):
            expected = offset + moved @ slopes
            size = np.linalg.norm(expected)
            along = expected @ self._target / size
            gradient = slopes @ (self._target - along * expected / size) / size
            moved = moved + rate * gradient / max(float(np.linalg.norm(gradient)), 1e-12)
            length = float(np.linalg.norm(moved))
            if length > self._radius:
                moved *= self._radius / length
            moved = self._inside(self.best + moved) - self.best
            rate *= 0.97
        return np.asarray(self.best + moved)

    def _fit_model(self) -> tuple[Vector, Vector]:
        """Ridge regression of the embedding on the point, the near counting more: at the best point, and its slopes."""
        away = np.stack(self._points) - self.best
        distances = np.linalg.norm(away, axis=1)
        near = np.maximum(1.5 * self._radius, float(np.sort(distances)[min(len(self.best), len(distances) - 1)]))
        weights = np.exp(-0.5 * (distances / near) ** 2)[:, None]
        columns = np.hstack([np.ones((len(away), 1)), away])
        penalty = self.PENALTY * np.eye(columns.shape[1])
        penalty[0, 0] = 0.0
        weighted = columns * weights
        solved = np.linalg.solve(columns.T @ weighted + penalty, weighted.T @ np.stack(self._embeddings))
        return solved[0], solved[1:]


@dataclass(frozen=True, slots=True)
class _Measures:
    similarity: float
    error_rate: float


class _Validator:
    """Measures a voice on held-out sentences: its similarity to the target, and its character error rate."""

    def __init__(
        self,
        tts: TextToSpeech,
        encoder: SpeakerEncoder,
        stt: SpeechToText,
        target: Vector,
        language: str,
        *,
        on_answer: Callable[[], None],
    ) -> None:
        self._on_answer = on_answer
        self._tts, self._encoder, self._stt = tts, encoder, stt
        self._target, self._language = target / np.linalg.norm(target), language

    async def measure(self, options: SynthesisOptions) -> _Measures:
        spoken, wrong, expected = b"", 0, 0
        sample_rate_hz = MICROPHONE_SAMPLE_RATE_HZ
        for sentence in HELD_OUT[self._language]:
            said = await speak(self._tts, [sentence], options)
            spoken, sample_rate_hz = spoken + said.pcm, said.sample_rate_hz or sample_rate_hz
            understood = await self._recognise(said)
            self._on_answer()
            wrong += count_errors(sentence, understood)
            expected += len(to_characters(sentence))
        embedding = await embed(self._encoder, spoken, sample_rate_hz=sample_rate_hz)
        return _Measures(float(np.asarray(embedding.values) @ self._target), wrong / expected)

    async def _recognise(self, said: Spoken) -> str:
        rate_hz = said.sample_rate_hz or MICROPHONE_SAMPLE_RATE_HZ
        heard = pcm_from_float(resample(float_from_pcm(said.pcm), rate_hz, MICROPHONE_SAMPLE_RATE_HZ))
        text, _ = await recognise(self._stt, heard, language=self._language)
        return text


def to_characters(text: str) -> list[str]:
    return re.findall(r"\w", text.lower())


def count_errors(expected: str, understood: str) -> int:
    """Return the edit distance in characters, punctuation aside."""
    one, other = to_characters(expected), to_characters(understood)
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        diagonal, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (a != b))
    return row[-1]
