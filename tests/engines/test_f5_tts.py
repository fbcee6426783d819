"""F5-TTS's own code with random weights: noise by nature. Lengths, rates, order, cancelling and memory, never words."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
import torch

from inference.config import InferenceConfig
from inference.device_memory import MIB
from inference.engines.f5_tts import F5Tts
from inference.engines.priority_worker import Priority
from inference.interfaces import (
    AudioChunk,
    DeviceMemory,
    InferenceError,
    Quality,
    SynthesisOptions,
    VoiceReference,
)
from tests.inference.scripted_reader import ScriptedReader

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

PARK = "今天天氣很好，我們一起去公園散步。"
LATER = SynthesisOptions(is_first=False)
PLENTY = (DeviceMemory("scripted", 24_000 * MIB, 20_000 * MIB),)
LITTLE = (DeviceMemory("scripted", 24_000 * MIB, 100 * MIB),)


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory) -> InferenceConfig:
    return InferenceConfig(
        profile="gpu", device="cpu", models_dir=tmp_path_factory.mktemp("models"), tts_high_quality_steps=12, tts_seed=3
    )


@pytest.fixture(scope="session")
def reader() -> ScriptedReader:
    return ScriptedReader(PLENTY)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def engine(tiny_f5: Path, config: InferenceConfig, reader: ScriptedReader) -> AsyncIterator[F5Tts]:
    made = F5Tts(tiny_f5, config, high_quality_folder=None, reader=reader)
    await made.warm_up()
    yield made
    await made.close()


@pytest.fixture(autouse=True)
def _plenty_of_memory(reader: ScriptedReader) -> None:
    reader.set(PLENTY)


@pytest.fixture
def steps(engine: F5Tts, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """What every call of the model was asked for: pieces of text, steps."""
    calls: list[tuple[int, int]] = []
    speak = engine._model.speak

    def note(voice: Any, tokens: Any, frames: Any, **options: Any) -> Any:
        calls.append((len(tokens), options["steps"]))
        return speak(voice, tokens, frames, **options)

    monkeypatch.setattr(engine._model, "speak", note)
    return calls


async def say(engine: F5Tts, text: str = PARK, **options: Any) -> list[AudioChunk]:
    return [chunk async for chunk in engine.synthesise(text, SynthesisOptions(**options))]


def samples(chunks: list[AudioChunk]) -> np.ndarray[Any, Any]:
    return np.frombuffer(b"".join(chunk.pcm for chunk in chunks), "<i2")


def seconds(chunks: list[AudioChunk]) -> float:
    return len(samples(chunks)) / 24_000


def make_reference(length_s: float = 4.0, transcript: str = "這是一段錄音。") -> VoiceReference:
    noise = np.random.default_rng(1).normal(0, 3000, int(length_s * 16_000))
    return VoiceReference(noise.astype("<i2").tobytes(), 16_000, transcript)


class TestSynthesise:
    @pytest.mark.parametrize("text", [PARK, "The weather is nice today, let us go to the park."])
    async def test_speaks_as_long_as_the_text_takes(self, engine: F5Tts, text: str) -> None:
        chunks = await say(engine, text)

        assert 1.5 < seconds(chunks) < 8
        assert {chunk.sample_rate_hz for chunk in chunks} == {24_000}
        assert all(len(chunk.pcm) == 2 * 4800 for chunk in chunks[:-1])
        assert np.abs(samples(chunks)).max() > 100

    @pytest.mark.parametrize("text", ["", "。！", "😀", "***"])
    async def test_is_silent_where_there_is_nothing_to_say(self, engine: F5Tts, text: str) -> None:
        assert await say(engine, text) == []

    async def test_speaks_slower_and_faster(self, engine: F5Tts) -> None:
        slow, fast = await say(engine, speed=0.5), await say(engine, speed=2.0)

        assert seconds(slow) / seconds(fast) == pytest.approx(4, rel=0.25)

    async def test_takes_the_steps_of_its_quality(self, engine: F5Tts, steps: list[tuple[int, int]]) -> None:
        fast, high = await say(engine), await say(engine, quality=Quality.HIGH_QUALITY)

        assert steps == [(1, 7), (1, 12)]
        assert {chunk.quality for chunk in fast} == {Quality.FAST}
        assert {chunk.quality for chunk in high} == {Quality.HIGH_QUALITY}

    async def test_says_the_same_with_the_same_seed(self, engine: F5Tts) -> None:
        first, again = await say(engine), await say(engine)

        np.testing.assert_array_equal(samples(first), samples(again))

    async def test_says_another_text_otherwise(self, engine: F5Tts) -> None:
        one, other = samples(await say(engine, "今天下雨嗎")), samples(await say(engine, "明天晴天嗎"))

        # As many bytes, so as long: what differs comes from the text, little as it is with random weights.
        assert not np.array_equal(one, other)

    async def test_speaks_in_pieces_what_is_longer_than_the_model_can(
        self, engine: F5Tts, steps: list[tuple[int, int]]
    ) -> None:
        chunks = await say(engine, PARK * 10, speed=1.0)

        assert len(steps) >= 2
        assert seconds(chunks) > 30

    async def test_ends_where_a_character_lasts_longer_than_the_model_can(self, engine: F5Tts) -> None:
        # Twelve seconds of which one word was understood.
        reference = make_reference(12, transcript="好")

        async with asyncio.timeout(250):
            chunks = await say(engine, "對不起", reference=reference, speed=0.5)

        assert 0 < seconds(chunks) < 3 * 20

    async def test_has_voices_of_both_languages(self, engine: F5Tts) -> None:
        assert {voice.language for voice in await engine.list_voices()} == {"zh", "en"}

    @pytest.mark.parametrize(
        ("voice", "text", "spoken"),
        [
            ("zf_xiaoxiao:0.6+zm_yunxi:0.4", PARK, "basic_zh"),
            ("nobody", "Hello.", "basic_en"),
            ("nobody:0.6+basic_en:0.3+basic_zh:0.1", PARK, "basic_en"),
        ],
    )
    async def test_speaks_in_the_heaviest_share_it_has_of_a_voice(
        self, engine: F5Tts, monkeypatch: pytest.MonkeyPatch, voice: str, text: str, spoken: str
    ) -> None:
        voices: list[Any] = []
        speak = engine._model.speak
        monkeypatch.setattr(
            engine._model, "speak", lambda voice, *rest, **named: voices.append(voice) or speak(voice, *rest, **named)
        )

        assert await say(engine, text, voice=voice, style=b"\1" * 1024)

        assert voices == [engine._voices[spoken]]


class TestReference:
    async def test_is_prepared_once(self, engine: F5Tts, monkeypatch: pytest.MonkeyPatch) -> None:
        from inference.engines import f5_tts

        prepared: list[VoiceReference] = []
        prepare = f5_tts._prepare

        def note(reference: VoiceReference, device: str) -> Any:
            prepared.append(reference)
            return prepare(reference, device)

        monkeypatch.setattr(f5_tts, "_prepare", note)
        reference = make_reference(transcript="第一段錄音。")

        await say(engine, reference=reference)
        await say(engine, "再說一次。", reference=replace(reference))
        await say(engine, reference=replace(reference, transcript="另一段錄音。"))

        assert [each.transcript for each in prepared] == ["第一段錄音。", "另一段錄音。"]

    @pytest.mark.parametrize(
        ("reference", "said"),
        [
            (make_reference(transcript=""), "needs the transcript"),
            (make_reference(transcript=" 。"), "needs the transcript"),
            (make_reference(13), "13.0 s is too long: at most 12 s"),
            (VoiceReference(bytes(64_000), 16_000, "好"), "silence"),
        ],
    )
    async def test_must_be_one(self, engine: F5Tts, reference: VoiceReference, said: str) -> None:
        with pytest.raises(InferenceError, match=said):
            await say(engine, reference=reference)

        assert await say(engine)


class TestForgetting:
    @pytest_asyncio.fixture(loop_scope="session")
    async def forgetful(self, tiny_f5: Path, config: InferenceConfig, reader: ScriptedReader) -> AsyncIterator[F5Tts]:
        made = F5Tts(tiny_f5, replace(config, tts_forget_voice_s=2.0), high_quality_folder=None, reader=reader)
        yield made
        await made.close()

    async def test_takes_what_was_made_of_a_recording_out_of_memory_though_nobody_asks(
        self, forgetful: F5Tts, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from inference.engines import f5_tts

        made: list[weakref.ref[Any]] = []
        prepare = f5_tts._prepare

        def note(reference: VoiceReference, device: str) -> Any:
            voice = prepare(reference, device)
            made.append(weakref.ref(voice.samples))
            return voice

        monkeypatch.setattr(f5_tts, "_prepare", note)

        assert await say(forgetful, "你好。", reference=make_reference())

        async with asyncio.timeout(60):
            while made[0]() is not None:  # noqa: ASYNC110 — there is no event to wait for
                await asyncio.sleep(0.05)
        assert not forgetful._voices
        assert await say(forgetful, "你好。", reference=make_reference())
        assert len(made) == 2

    async def test_keeps_what_is_used(self, forgetful: F5Tts) -> None:
        async def use(transcript: str) -> Any:
            options = SynthesisOptions(reference=make_reference(transcript=transcript))
            return await forgetful._prepare_voice("你好。", options, Priority.CLAUSE)

        used, left = await use("有人用。"), weakref.ref((await use("沒人用。")).samples)

        async with asyncio.timeout(60):
            while left() is not None:
                assert await use("有人用。") is used
                await asyncio.sleep(0.05)

        assert await use("有人用。") is used


class TestBackground:
    async def test_prepares_a_voice_after_those_that_are_listened_for(
        self, engine: F5Tts, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from inference.engines import f5_tts

        prepared: list[str] = []
        prepare = f5_tts._prepare

        def note(reference: VoiceReference, device: str) -> Any:
            prepared.append(reference.transcript)
            return prepare(reference, device)

        monkeypatch.setattr(f5_tts, "_prepare", note)

        held = asyncio.create_task(say(engine))
        await asyncio.sleep(0.05)
        await asyncio.gather(
            say(engine, "你好。", reference=make_reference(transcript="不急。"), is_background=True),
            say(engine, "你好。", reference=make_reference(transcript="很急。"), is_first=False),
        )
        await held

        assert prepared == ["很急。", "不急。"]

    async def test_is_preempted_by_a_live_call_and_restarted(self, engine: F5Tts, steps: list[tuple[int, int]]) -> None:
        order: list[str] = []
        passed: list[int] = []

        async def speak(name: str, **options: Any) -> list[AudioChunk]:
            chunks = await say(engine, **options)
            order.append(name)
            return chunks

        expected = samples(await say(engine, quality=Quality.HIGH_QUALITY))
        steps.clear()
        hook = engine._model.cfm.transformer.register_forward_hook(lambda *_: passed.append(1))
        background = asyncio.create_task(speak("background", quality=Quality.HIGH_QUALITY, is_background=True))
        async with asyncio.timeout(60):
            while len(passed) < 2:  # noqa: ASYNC110 — counted in another thread
                await asyncio.sleep(0.001)
        await speak("live", is_first=False)
        chunks = await background
        hook.remove()

        assert order == ["live", "background"]
        assert steps == [(1, 12), (1, 7), (1, 12)]
        assert len(passed) < 12 + 7 + 12
        np.testing.assert_array_equal(samples(chunks), expected)

    async def test_is_not_spoken_in_one_step_with_a_live_clause(
        self, engine: F5Tts, steps: list[tuple[int, int]]
    ) -> None:
        held = asyncio.create_task(say(engine))
        await asyncio.sleep(0.05)
        await asyncio.gather(say(engine, is_first=False, is_background=True), say(engine, is_first=False))
        await held

        assert steps == [(1, 7)] * 3


class TestTogether:
    async def test_speaks_in_one_step_what_waits_for_one_voice(
        self, engine: F5Tts, steps: list[tuple[int, int]]
    ) -> None:
        texts = ("今天早上我去市場買了很多水果。", "中午在家裡煮牛肉麵。", "下午跟朋友到圖書館看書。")
        alone = [seconds(await say(engine, text, is_first=False)) for text in texts]
        steps.clear()

        held = asyncio.create_task(say(engine))
        await asyncio.sleep(0.05)
        together = await asyncio.gather(*(say(engine, text, is_first=False) for text in texts))
        await held

        assert steps == [(1, 7), (3, 7)]
        assert [seconds(chunks) for chunks in together] == pytest.approx(alone, abs=0.3)

    async def test_speaks_a_clause_among_longer_ones_as_it_does_alone(self, engine: F5Tts) -> None:
        texts = ("我還在這裡。", "今天早上我去市場買了很多水果，中午在家裡煮牛肉麵。")
        alone = [samples(await say(engine, text, is_first=False)) for text in texts]

        held = asyncio.create_task(say(engine))
        await asyncio.sleep(0.05)
        together = await asyncio.gather(*(say(engine, text, is_first=False) for text in texts))
        await held

        for chunks, expected in zip(together, alone, strict=True):
            np.testing.assert_allclose(samples(chunks), expected, atol=0.005 * np.abs(expected).max())

    async def test_speaks_first_clauses_first_and_by_themselves(
        self, engine: F5Tts, steps: list[tuple[int, int]]
    ) -> None:
        order: list[str] = []

        async def speak(name: str, **options: Any) -> None:
            await say(engine, **options)
            order.append(name)

        held = asyncio.create_task(speak("held"))
        await asyncio.sleep(0.05)
        await asyncio.gather(
            speak("later", is_first=False), speak("slow", is_first=False, speed=0.9), speak("first", is_first=True)
        )
        await held

        assert order[:2] == ["held", "first"]
        assert steps == [(1, 7)] * 4

    async def test_speaks_long_clauses_by_themselves(self, engine: F5Tts, steps: list[tuple[int, int]]) -> None:
        held = asyncio.create_task(say(engine))
        await asyncio.sleep(0.05)
        await asyncio.gather(*(say(engine, PARK * 3, is_first=False) for _ in range(2)))
        await held

        assert steps == [(1, 7)] * 3


class TestCancel:
    async def test_ends_within_a_step(self, engine: F5Tts) -> None:
        expected = samples(await say(engine))
        passed: list[int] = []
        hook = engine._model.cfm.transformer.register_forward_hook(lambda *_: passed.append(1))
        options = SynthesisOptions(quality=Quality.HIGH_QUALITY)
        speaking = asyncio.create_task(anext(aiter(engine.synthesise(PARK * 3, options))))
        async with asyncio.timeout(60):
            while len(passed) < 2:  # noqa: ASYNC110 — counted in another thread
                await asyncio.sleep(0.001)

        speaking.cancel()
        await asyncio.wait([speaking])
        chunks = await say(engine)
        hook.remove()

        # Of twelve steps those until it was noticed, and then the seven of the next text.
        assert len(passed) <= 4 + 7
        # What the library remembers of the text that was broken off is gone: the next sounds as it always does.
        np.testing.assert_array_equal(samples(chunks), expected)

    async def test_leaves_others_alone(self, engine: F5Tts) -> None:
        async with aclosing(engine.synthesise(PARK, LATER)) as leaving:  # type: ignore[type-var]
            other = asyncio.create_task(say(engine, "我還在。", is_first=False))
            await anext(leaving)

        assert await other
        assert engine._waiting == []


class TestMemory:
    async def test_short_makes_it_fast_and_says_so(
        self, engine: F5Tts, reader: ScriptedReader, steps: list[tuple[int, int]]
    ) -> None:
        reader.set(LITTLE)

        chunks = await say(engine, quality=Quality.HIGH_QUALITY)

        assert {chunk.quality for chunk in chunks} == {Quality.FAST}
        assert steps == [(1, 7)]

    async def test_run_out_makes_one_call_fast_and_leaves_others_alone(
        self, engine: F5Tts, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        speak = engine._model.speak
        failures = [torch.OutOfMemoryError("scripted")]

        def fail_once(*arguments: Any, **options: Any) -> Any:
            if options["steps"] == 12 and failures:
                raise failures.pop()
            return speak(*arguments, **options)

        monkeypatch.setattr(engine._model, "speak", fail_once)

        large, other = await asyncio.gather(say(engine, quality=Quality.HIGH_QUALITY), say(engine, "我還在。"))

        assert {chunk.quality for chunk in large} == {Quality.FAST}
        assert other
        assert {chunk.quality for chunk in await say(engine, quality=Quality.HIGH_QUALITY)} == {Quality.HIGH_QUALITY}

    async def test_run_out_is_freed_before_the_call_is_made_again(
        self, engine: F5Tts, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        speak = engine._model.speak
        held: list[weakref.ref[Any]] = []
        is_freed: list[bool] = []

        def fail_once(*arguments: Any, **options: Any) -> Any:
            if not held:
                activations = torch.zeros(8)
                held.append(weakref.ref(activations))
                raise torch.OutOfMemoryError("scripted")
            is_freed.append(held[0]() is None)
            return speak(*arguments, **options)

        monkeypatch.setattr(engine._model, "speak", fail_once)

        assert await say(engine)
        # While an error is handled, the frames it came through are kept, with all that is in them.
        assert is_freed == [True]

    async def test_run_out_with_several_clauses_leaves_each_its_own_turn(
        self, engine: F5Tts, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        speak = engine._model.speak
        sizes: list[int] = []

        def fail_with_several(voice: Any, tokens: Any, frames: Any, **options: Any) -> Any:
            sizes.append(len(tokens))
            if len(tokens) > 1:
                raise torch.OutOfMemoryError("scripted")
            return speak(voice, tokens, frames, **options)

        monkeypatch.setattr(engine._model, "speak", fail_with_several)

        held = asyncio.create_task(say(engine))
        await asyncio.sleep(0.05)
        later = await asyncio.gather(
            *(say(engine, text, is_first=False) for text in ("一個人。", "兩個人。", "三個人。"))
        )
        await held

        assert all(later)
        assert sizes == [1, 3, 1, 2, 1, 1]

    async def test_run_out_with_several_clauses_keeps_the_quality_of_each(
        self, engine: F5Tts, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        speak = engine._model.speak

        def fail_with_several(voice: Any, tokens: Any, frames: Any, **options: Any) -> Any:
            if len(tokens) > 1:
                raise torch.OutOfMemoryError("scripted")
            return speak(voice, tokens, frames, **options)

        monkeypatch.setattr(engine._model, "speak", fail_with_several)

        held = asyncio.create_task(say(engine))
        await asyncio.sleep(0.05)
        later = await asyncio.gather(
            *(say(engine, text, is_first=False, quality=Quality.HIGH_QUALITY) for text in ("一個人。", "兩個人。"))
        )
        await held

        assert {chunk.quality for chunks in later for chunk in chunks} == {Quality.HIGH_QUALITY}

    async def test_run_out_twice_is_said(self, engine: F5Tts, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*arguments: Any, **options: Any) -> Any:
            raise torch.OutOfMemoryError("scripted")

        with monkeypatch.context() as patch:
            patch.setattr(engine._model, "speak", fail)
            with pytest.raises(InferenceError, match="memory does not suffice"):
                await say(engine)

        assert await say(engine)


class TestHighQualityModel:
    @pytest_asyncio.fixture(loop_scope="session")
    async def two(self, tiny_f5: Path, config: InferenceConfig, reader: ScriptedReader) -> AsyncIterator[F5Tts]:
        made = F5Tts(tiny_f5, replace(config, tts_idle_unload_s=0.5), high_quality_folder=tiny_f5, reader=reader)
        yield made
        await made.close()

    async def test_is_loaded_when_asked_for_and_unloaded_when_idle(self, two: F5Tts) -> None:
        await say(two)
        assert two.figures["is_high_quality_loaded"] == 0

        assert {chunk.quality for chunk in await say(two, quality=Quality.HIGH_QUALITY)} == {Quality.HIGH_QUALITY}
        assert two.figures["is_high_quality_loaded"] == 1

        async with asyncio.timeout(20):
            while two.figures["is_high_quality_loaded"]:  # noqa: ASYNC110 — there is no event to wait for
                await asyncio.sleep(0.05)

    async def test_is_unloaded_when_memory_is_short(self, two: F5Tts, reader: ScriptedReader) -> None:
        await say(two, quality=Quality.HIGH_QUALITY)
        reader.set(LITTLE)

        await say(two)

        assert two.figures["is_high_quality_loaded"] == 0

    async def test_is_not_loaded_where_it_does_not_fit(
        self, two: F5Tts, tiny_f5: Path, config: InferenceConfig, reader: ScriptedReader
    ) -> None:
        half = (tiny_f5 / "model.safetensors").stat().st_size // 2
        reader.set((DeviceMemory("scripted", 24_000 * MIB, config.memory_reserve_mib * MIB + half),))

        chunks = await say(two, quality=Quality.HIGH_QUALITY)

        assert {chunk.quality for chunk in chunks} == {Quality.FAST}
        assert two.figures["is_high_quality_loaded"] == 0
