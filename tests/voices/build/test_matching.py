from __future__ import annotations

import numpy as np
import pytest

from inference.engines.fake import FakeSpeakerEncoder, FakeTextToSpeech
from inference.interfaces import InferenceError, InferenceUnavailable, VoiceInfo
from voices.build.matching import Match, choose_candidates, embed_stock_voices, match_voice, rank_candidates

#: Voices as far apart as they can be: each all in a direction of its own.
LOW, HIGH, OTHER = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)


@pytest.fixture
def tts() -> FakeTextToSpeech:
    return FakeTextToSpeech(ms_per_character=60)


@pytest.fixture
def encoder() -> FakeSpeakerEncoder:
    return FakeSpeakerEncoder()


class Progress(list[tuple[int, int]]):
    def __call__(self, done: int, count: int) -> None:
        self.append((done, count))


class TestFindMatch:
    def test_names_the_nearest_voice_first(self) -> None:
        assert rank_candidates(HIGH, {"low": LOW, "high": HIGH})[0] == Match("high", 1.0)

    def test_finds_the_blend_between_two(self) -> None:
        first = rank_candidates((0.6, 0.4, 0.0), {"low": LOW, "high": HIGH, "other": OTHER})[0]

        assert first.voice == "low:0.6+high:0.4"
        assert first.similarity == pytest.approx(1)

    def test_takes_embeddings_of_any_length(self) -> None:
        assert rank_candidates((0.0, 5.0, 0.0), {"high": (0.0, 0.2, 0.0)}) == [Match("high", 1.0)]

    def test_has_each_voice_and_each_pair_once(self) -> None:
        found = rank_candidates((0.5, 0.4, 0.3), {"low": LOW, "high": HIGH, "other": OTHER})

        assert len(found) == 6
        assert [match.similarity for match in found] == sorted((match.similarity for match in found), reverse=True)
        for match in found:
            if "+" in match.voice:
                assert sum(float(share.partition(":")[2]) for share in match.voice.split("+")) == pytest.approx(1)

    def test_finds_nothing_among_no_voices(self) -> None:
        assert rank_candidates(LOW, {}) == []


class TestChooseCandidates:
    FOUND = (Match("a:0.5+b:0.5", 0.9), Match("a:0.5+c:0.5", 0.8), Match("b", 0.7), Match("a", 0.6), Match("c", 0.5))

    def test_has_the_nearest_single_voice_among_them(self) -> None:
        chosen = choose_candidates(self.FOUND, has_blends=True)

        assert [match.voice for match in chosen] == ["b", "a:0.5+b:0.5", "a:0.5+c:0.5", "a"]

    def test_has_no_blend_where_the_engine_cannot(self) -> None:
        assert [match.voice for match in choose_candidates(self.FOUND, has_blends=False)] == ["b", "a", "c"]


class TestEmbedStockVoices:
    async def test_lets_every_voice_speak_its_language(
        self, tts: FakeTextToSpeech, encoder: FakeSpeakerEncoder
    ) -> None:
        progress = Progress()

        stock = await embed_stock_voices(tts=tts, encoder=encoder, voices=tts.VOICES, on_progress=progress)

        assert list(stock) == [voice.key for voice in tts.VOICES]
        assert all(np.linalg.norm(values) == pytest.approx(1) for values in stock.values())
        assert progress == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]
        said = {options.voice: text for text, options in tts.requests}
        assert said["zf_xiaoxiao"] == said["zm_yunxi"] != said["af_heart"]

    async def test_gives_way_to_live_calls(self, tts: FakeTextToSpeech, encoder: FakeSpeakerEncoder) -> None:
        await embed_stock_voices(tts=tts, encoder=encoder, voices=tts.VOICES, on_progress=Progress())

        assert all(options.is_background for _, options in tts.requests)

    async def test_raises_that_the_engine_is_unavailable(
        self, tts: FakeTextToSpeech, encoder: FakeSpeakerEncoder
    ) -> None:
        encoder.start_outage()

        with pytest.raises(InferenceUnavailable):
            await embed_stock_voices(tts=tts, encoder=encoder, voices=tts.VOICES, on_progress=Progress())


class TestMatchVoice:
    @pytest.fixture
    async def stock(self, tts: FakeTextToSpeech, encoder: FakeSpeakerEncoder) -> dict[str, tuple[float, ...]]:
        return await embed_stock_voices(tts=tts, encoder=encoder, voices=tts.VOICES, on_progress=Progress())

    @pytest.mark.parametrize(("voice", "language"), [("zm_yunxi", "zh"), ("am_michael", "en")])
    async def test_finds_a_voice_again(
        self,
        tts: FakeTextToSpeech,
        encoder: FakeSpeakerEncoder,
        stock: dict[str, tuple[float, ...]],
        voice: str,
        language: str,
    ) -> None:
        progress = Progress()

        match = await match_voice(
            tts=tts, encoder=encoder, target=stock[voice], language=language, stock=stock, on_progress=progress
        )

        assert match.voice == voice
        assert match.similarity > 0.99
        assert progress[0] == (0, 3)
        assert progress[-1] == (3, 3)

    async def test_believes_what_it_hears_not_what_it_guessed(
        self, tts: FakeTextToSpeech, encoder: FakeSpeakerEncoder, stock: dict[str, tuple[float, ...]]
    ) -> None:
        # The stock voices were measured wrongly: each for the other.
        swapped = stock | {"zf_xiaoxiao": stock["zm_yunxi"], "zm_yunxi": stock["zf_xiaoxiao"]}

        match = await match_voice(
            tts=tts,
            encoder=encoder,
            target=stock["zf_xiaoxiao"],
            language="zh",
            stock=swapped,
            on_progress=Progress(),
        )

        assert match.voice == "zf_xiaoxiao"

    async def test_takes_no_voice_of_another_language(
        self, tts: FakeTextToSpeech, encoder: FakeSpeakerEncoder, stock: dict[str, tuple[float, ...]]
    ) -> None:
        match = await match_voice(
            tts=tts, encoder=encoder, target=stock["af_heart"], language="zh", stock=stock, on_progress=Progress()
        )

        assert "af_" not in match.voice

    async def test_says_that_there_is_no_voice_of_the_language(
        self, tts: FakeTextToSpeech, encoder: FakeSpeakerEncoder, stock: dict[str, tuple[float, ...]]
    ) -> None:
        with pytest.raises(InferenceError, match="no voice that speaks 'zh'"):
            await match_voice(
                tts=tts,
                encoder=encoder,
                target=stock["af_heart"],
                language="zh",
                stock={"af_heart": stock["af_heart"]},
                on_progress=Progress(),
            )

    async def test_says_that_the_engine_is_mute(
        self, tts: FakeTextToSpeech, encoder: FakeSpeakerEncoder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tts, "measure_ms", lambda text: 0)

        with pytest.raises(InferenceError, match="says nothing"):
            await embed_stock_voices(
                tts=tts, encoder=encoder, voices=[VoiceInfo("a", "A", "en", "male")], on_progress=Progress()
            )
