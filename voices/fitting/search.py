"""
Searches for the style in which an engine sounds most like a speaker. Knows engines by their protocols alone.

A style is a point in a space of a few dimensions: the directions in which the engine's own voices differ, their timbre
(the first half of a style) and their manner (the second half) apart. Every sound that is made there says 256 things
about where it lies, its embedding, not one: so the search keeps a linear model of the embedding around the best point
so far, steps to where that model is most like the target, and believes it within a radius that grows with success and
shrinks without. No gradient is needed, and a tenth of the sounds that a search by one number would take.

What is found has to hold on sentences that the search never heard, and to be understood as well as before.
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

#: What is said while searching (four seconds: the time goes into speaking), and what the result is judged by.
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
#: How far from the middle of the voices a style may lie, in standard deviations: farther, speech falls apart.
MAX_DEVIATION = 2.5
#: Similarity, from 0 to 1, below which a gain may be chance; and errors per character that may be more than before.
LEAST_GAIN = 0.01
MORE_ERRORS = 0.05
#: Parts of the way back to the start, where the whole way is not understood well enough.
WAYS = (1.0, 0.7, 0.4)

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Fit:
    """
    A style and what it is worth: measured on sentences that the search never heard.

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
    is_cancelled: Callable[[], bool],
    seed: int = 0,
) -> Fit | None:
    """
    Search `steps` styles, from `voice` (a key or a blend) on, for one that is more like `target`. None when cancelled.

    A step is one sentence spoken and embedded, two to four seconds on two cores, and gives way to live calls. Tells
    steps made, steps in all, and the best similarity so far. Raises InferenceError when the engine has no styles, and
    what the engines raise.
    """
    space = Space.of(await tts.list_styles(), voice)
    wanted = np.asarray(target, np.float64)
    search = Search(wanted, space.start, space.others, space.limit, steps=steps, seed=seed)
    for step in range(steps):
        if is_cancelled():
            return None
        on_progress(step, steps, search.similarity)
        point = search.ask()
        options = SynthesisOptions(voice=_first_voice(voice), style=space.to_style(point), is_background=True)
        search.tell(point, await embed_voice(tts, encoder, [TRAINING[language]], options))
    on_progress(steps, steps, search.similarity)

    judge = _Judge(tts, encoder, stt, wanted, language, on_answer=lambda: on_progress(steps, steps, search.similarity))
    before = await judge.measure(SynthesisOptions(voice=voice, is_background=True))
    fit: Fit | None = None
    for way in WAYS:
        if is_cancelled():
            return None
        style = space.to_style(space.start + way * (search.find_result() - space.start))
        after = await judge.measure(SynthesisOptions(voice=_first_voice(voice), style=style, is_background=True))
        is_better = (
            after.similarity >= before.similarity + LEAST_GAIN and after.error_rate <= before.error_rate + MORE_ERRORS
        )
        fit = Fit(style, after.similarity, before.similarity, after.error_rate, is_better)
        if is_better or after.similarity < before.similarity + LEAST_GAIN:
            break
    return fit


def _first_voice(voice: str) -> str:
    """The voice whose way of speaking short and long clauses a style keeps: that with the largest share."""
    return pick_heaviest(parse_blend(voice))


@dataclass(frozen=True, slots=True)
class Space:
    """
    The styles that are searched: `start` and the directions (rows) from `middle`, one standard deviation long each.

    A point is a coordinate for each direction; `others` are the points of the engine's voices. What of the first voice
    lies in none of the directions is kept as it is.
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
                find_directions(matrix, slice(0, half), TIMBRE_DIRECTIONS),
                find_directions(matrix, slice(half, STYLE_VALUES), MANNER_DIRECTIONS),
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


def find_directions(matrix: Vector, part: slice, count: int) -> Vector:
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
    Asks for points and is told the embedding of each; keeps the one most like `target`. Decides, and does nothing else.

    First the start and half the way to `others`, for a fifth of the steps, in random order: real voices say most
    about what is possible. Then where the model expects the best.

    Steps are long. What is said is a little shorter or longer at every point, which moves a similarity by 0.01, as much
    as a standard deviation in one direction does; within a radius of 0.15 the search followed chance.
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
        # And to the side, so that the model goes on learning about directions it has stopped moving in.
        aside = self._generator.normal(0, self.ASIDE * self._radius / np.sqrt(len(guess)), len(guess))
        return self._inside(guess + aside)

    def find_result(self) -> Vector:
        """Return the middle of the best points: chance has lifted each of them, and not all the same way."""
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


# --- judging the result ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Verdict:
    similarity: float
    error_rate: float


class _Judge:
    """Says the held-out sentences in a voice, and finds how like the target they are and how well understood."""

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

    async def measure(self, options: SynthesisOptions) -> _Verdict:
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
        return _Verdict(float(np.asarray(embedding.values) @ self._target), wrong / expected)

    async def _recognise(self, said: Spoken) -> str:
        rate_hz = said.sample_rate_hz or MICROPHONE_SAMPLE_RATE_HZ
        heard = pcm_from_float(resample(float_from_pcm(said.pcm), rate_hz, MICROPHONE_SAMPLE_RATE_HZ))
        text, _ = await recognise(self._stt, heard, language=self._language)
        return text


def to_characters(text: str) -> list[str]:
    return re.findall(r"\w", text.lower())


def count_errors(expected: str, understood: str) -> int:
    """Return how many characters have to be changed, punctuation aside."""
    one, other = to_characters(expected), to_characters(understood)
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        diagonal, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (a != b))
    return row[-1]
