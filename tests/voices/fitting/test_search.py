from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from inference.engines.fake import FakeSpeechToText, FakeTextToSpeech
from inference.interfaces import InferenceError, InferenceUnavailable
from inference.voice_options import parse_blend
from tests.fakes import FakeInference
from voices.build.matching import embed_stock_voices
from voices.fitting.search import HELD_OUT, TRAINING, Fit, Search, Space, count_errors, fit_style

HALF = 128


def to_bytes(values: NDArray[Any]) -> bytes:
    return values.astype("<f4").tobytes()


@pytest.fixture
def styles() -> dict[str, bytes]:
    """Twelve voices that differ in three directions of timbre and two of manner."""
    generator = np.random.default_rng(5)
    timbres, manners = generator.normal(size=(3, HALF)), generator.normal(size=(2, HALF))
    return {
        f"voice{number}": to_bytes(
            np.concatenate([generator.normal(size=3) @ timbres, generator.normal(size=2) @ manners])
        )
        for number in range(12)
    }


class TestSpace:
    def test_has_the_directions_in_which_voices_differ(self, styles: dict[str, bytes]) -> None:
        space = Space.of(styles, "voice3")

        assert space.directions.shape == (5, 256)
        assert (space.directions[:3, HALF:] == 0).all()
        assert (space.directions[3:, :HALF] == 0).all()

    @pytest.mark.parametrize("voice", ["voice3", "voice3:0.7+voice8:0.3"])
    def test_begins_with_the_voice(self, styles: dict[str, bytes], voice: str) -> None:
        space = Space.of(styles, voice)
        expected = sum(np.frombuffer(styles[key], "<f4") * share for key, share in parse_blend(voice).items())

        assert np.frombuffer(space.to_style(space.start), "<f4") == pytest.approx(expected, abs=1e-4)

    def test_keeps_what_of_a_voice_lies_in_no_direction(self, styles: dict[str, bytes]) -> None:
        generator = np.random.default_rng(6)
        many = {f"voice{number}": to_bytes(generator.normal(size=256)) for number in range(60)}

        space = Space.of(many, "voice0")

        assert len(space.directions) == 20
        assert np.frombuffer(space.to_style(space.start), "<f4") == pytest.approx(
            np.frombuffer(many["voice0"], "<f4"), abs=1e-4
        )

    @pytest.mark.parametrize("known", [0, 1])
    def test_needs_styles(self, styles: dict[str, bytes], known: int) -> None:
        with pytest.raises(InferenceError, match="no styles to fit 'voice0' with"):
            Space.of(dict(list(styles.items())[:known]), "voice0")

    def test_needs_the_voice(self, styles: dict[str, bytes]) -> None:
        with pytest.raises(InferenceError, match="no styles to fit 'nobody' with"):
            Space.of(styles, "nobody")

    def test_needs_styles_that_differ(self) -> None:
        with pytest.raises(InferenceError, match="all the same"):
            Space.of({"one": bytes(1024), "two": bytes(1024)}, "one")


class Straight(Search):
    """Goes where the model expects the best, and not to the side as well: so far as it believes it."""

    ASIDE = 0.0


class TestSearch:
    @pytest.mark.parametrize("seed", range(5))
    def test_finds_a_speaker_in_twenty_directions(self, seed: int) -> None:
        """A voice that bends as voices do: an embedding of 256 values, by a curved function of the point."""
        generator = np.random.default_rng(seed)
        slopes, bends = generator.normal(size=(20, 256)) / 20, generator.normal(size=(20, 256)) / 60
        middle = np.abs(generator.normal(size=256))
        middle /= np.linalg.norm(middle)

        def embed(point: NDArray[Any]) -> NDArray[Any]:
            values = np.maximum(middle + point @ slopes + np.tanh(point) ** 2 @ bends, 0)
            return np.asarray(values / np.linalg.norm(values))

        speaker = embed(generator.normal(0, 0.7, 20))
        others = generator.normal(size=(54, 20))
        search = Search(speaker, np.zeros(20), others, 2.5, steps=60, seed=seed)
        before = float(embed(np.zeros(20)) @ speaker)

        for _ in range(60):
            point = search.ask()
            search.tell(point, embed(point))

        assert before < 0.85
        assert search.similarity > 0.97
        assert search.similarity == pytest.approx(float(embed(search.best) @ speaker))

    def test_steps_farther_with_success_and_less_far_without(self) -> None:
        """On a slope without an end, which its model knows exactly, a step is as long as the radius."""

        def embed(point: NDArray[Any]) -> NDArray[Any]:
            return np.array([1.0, *point])

        def measure_step() -> float:
            return float(np.linalg.norm(search.ask() - search.best))

        start, behind = np.array([1.0, 0.0]), np.array([0.5, 0.0])
        search = Straight(np.array([0.0, 1.0, 0.0]), start, np.array([[0.0, 3.0], [0.0, -3.0]]), 99.0, steps=10, seed=0)
        for _ in range(3):
            point = search.ask()
            search.tell(point, embed(point))

        steps = [measure_step()]
        for _ in range(4):
            point = search.ask()
            search.tell(point, embed(point))
            steps.append(measure_step())
        assert steps == pytest.approx([1.5, 2.1, 2.94, 3.0, 3.0])

        steps.clear()
        for _ in range(6):
            search.tell(behind, embed(behind))
            steps.append(measure_step())
        assert steps == pytest.approx([2.25, 1.6875, 1.265625, 0.94921875, 0.8, 0.8])

    def test_gives_the_middle_of_the_best(self) -> None:
        search = Search(np.array([1.0, 0.0]), np.zeros(1), np.zeros((0, 1)), 9.0, steps=6, seed=0)
        # 1.2 was lucky: those around it say that 1.0 is meant.
        for point, angle in ((0.0, 0.9), (0.8, 0.5), (1.2, 0.3), (0.9, 0.4), (1.1, 0.4), (3.0, 0.6)):
            search.tell(np.array([point]), np.array([np.cos(angle), np.sin(angle)]))

        assert search.best == pytest.approx([1.2])
        assert search.compute_result() == pytest.approx([1.0])

    def test_asks_for_the_start_first_and_stays_inside(self) -> None:
        start = np.array([0.5, -4.0])
        search = Search(np.ones(3), start, np.array([[2.0, 0.0], [0.0, 3.0]]), 1.0, steps=30, seed=0)
        asked = []

        for _ in range(30):
            asked.append(search.ask())
            search.tell(asked[-1], np.array([1.0, *asked[-1]]) + 5)

        assert asked[0].tolist() == start.tolist()
        # As far as the limit, or as far as the start already was.
        assert all(abs(point[0]) <= 1 and abs(point[1]) <= 4 for point in asked)

    def test_is_the_same_for_the_same_seed(self) -> None:
        def ask(seed: int) -> list[float]:
            search = Search(np.ones(3), np.zeros(2), np.eye(2), 9.0, steps=5, seed=seed)
            for _ in range(4):
                point = search.ask()
                search.tell(point, np.array([1.0, *point]))
            return search.ask().tolist()

        assert ask(1) == ask(1) != ask(2)


class TestCountErrors:
    @pytest.mark.parametrize(
        ("understood", "errors"),
        [
            ("今天天氣很好", 0),
            ("今天，天氣很好。", 0),
            ("今天天氣真好", 1),
            ("今天很好", 2),
            ("", 6),
            ("今天天氣很好嗎", 1),
        ],
    )
    def test_counts_characters(self, understood: str, errors: int) -> None:
        assert count_errors("今天天氣很好", understood) == errors

    def test_does_not_mind_case(self) -> None:
        assert count_errors("Good morning!", "good Morning") == 0


class Understanding(FakeSpeechToText):
    """Recognises what was synthesised, unless the style is `unintelligible`."""

    def __init__(self, language: str) -> None:
        super().__init__(list(HELD_OUT[language]) * 10)


class TestFitStyle:
    TARGET_VOICE = "zm_yunxi"

    @pytest.fixture
    def inference(self) -> FakeInference:
        return FakeInference(stt=Understanding("zh"), tts=FakeTextToSpeech(ms_per_character=60))

    async def fit(self, inference: FakeInference, **options: Any) -> Fit:
        tts, encoder = inference.tts, inference.encoder
        stock = await embed_stock_voices(
            tts=tts, encoder=encoder, voices=tts.VOICES, on_progress=lambda done, count: None
        )
        chosen: dict[str, Any] = {
            "voice": "zf_xiaoxiao",
            "steps": 12,
            "on_progress": lambda done, count, best: None,
        }
        return await fit_style(
            tts=tts,
            encoder=encoder,
            stt=inference.stt,
            target=stock[self.TARGET_VOICE],
            language="zh",
            **{**chosen, **options},
        )

    async def test_finds_a_style_that_is_more_like_the_speaker(self, inference: FakeInference) -> None:
        fit = await self.fit(inference)

        assert fit.is_better
        assert fit.similarity > 0.95 > fit.baseline
        assert fit.character_error_rate == 0
        assert len(fit.style) == 1024

    async def test_is_judged_by_sentences_that_it_did_not_train_on(self, inference: FakeInference) -> None:
        await self.fit(inference)

        texts = [text for text, _ in inference.tts.requests]
        assert texts.count(TRAINING["zh"]) == 12
        assert tuple(texts[-3:]) == HELD_OUT["zh"]
        assert TRAINING["zh"] not in HELD_OUT["zh"]

    async def test_gives_way_to_live_calls(self, inference: FakeInference) -> None:
        await self.fit(inference)

        assert all(options.is_background for _, options in inference.tts.requests)

    async def test_keeps_nothing_that_is_no_better(self, inference: FakeInference) -> None:
        fit = await self.fit(inference, voice=self.TARGET_VOICE)

        assert not fit.is_better

    async def test_goes_part_of_the_way_back_for_what_is_not_understood(self, inference: FakeInference) -> None:
        sentences = list(HELD_OUT["zh"])
        # The voice itself is understood, the style is not, what lies between them is.
        inference.stt = FakeSpeechToText([*sentences, "啊", "啊", "啊", *sentences])

        fit = await self.fit(inference)

        assert fit.is_better
        assert fit.character_error_rate == 0
        assert fit.similarity > fit.baseline

    async def test_keeps_nothing_that_is_not_understood(self, inference: FakeInference) -> None:
        inference.stt = FakeSpeechToText(list(HELD_OUT["zh"]), default="啊")

        fit = await self.fit(inference)

        assert fit.character_error_rate > 0.9
        assert not fit.is_better

    async def test_tells_how_far_it_is(self, inference: FakeInference) -> None:
        told: list[tuple[int, int, float]] = []

        await self.fit(inference, on_progress=lambda *progress: told.append(progress))

        # The last is told again with each sentence that is judged.
        assert list(dict.fromkeys(done for done, _, _ in told)) == list(range(13))
        assert {count for _, count, _ in told} == {12}
        best = [similarity for _, _, similarity in told]
        assert best == sorted(best)

    async def test_ends_when_its_task_is_cancelled(self, inference: FakeInference) -> None:
        told: list[int] = []

        def cancel(done: int, count: int, best: float) -> None:
            told.append(done)
            if done == 2:
                task.cancel()

        task = asyncio.create_task(self.fit(inference, on_progress=cancel))
        with pytest.raises(asyncio.CancelledError):
            await task

        assert told == [0, 1, 2]
        assert inference.active_calls == 0

    async def test_passes_on_that_the_engine_went_away(self, inference: FakeInference) -> None:
        def leave(done: int, count: int, best: float) -> None:
            if done == 2:
                inference.start_outage()

        with pytest.raises(InferenceUnavailable):
            await self.fit(inference, on_progress=leave)
