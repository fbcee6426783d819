from __future__ import annotations

import asyncio
import gc
import itertools
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from inference.config import InferenceConfig
from inference.interfaces import (
    FinalTranscript,
    InferenceError,
    SpeechStarted,
    TranscriptionInput,
    TranscriptionOptions,
)

faster_whisper = pytest.importorskip("inference.engines.faster_whisper")

SAMPLES = np.zeros(3 * 16_000, np.float32)


class TestCreateStt:
    @pytest.fixture
    def made(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        """What Whisper is loaded with: a GPU that is not there would refuse it."""
        made: dict[str, Any] = {}
        monkeypatch.setattr(
            faster_whisper.faster_whisper, "WhisperModel", lambda folder, **options: made.update(options, folder=folder)
        )
        return made

    @pytest.mark.parametrize(
        ("device", "setting", "arithmetic"),
        [
            ("cpu", "", "int8"),
            ("cuda", "", "float16"),
            ("cuda", "int8_float16", "int8_float16"),
        ],
    )
    def test_computes_as_suits_the_device_or_as_it_is_told(
        self, made: dict[str, Any], tmp_path: Path, device: str, setting: str, arithmetic: str
    ) -> None:
        config = InferenceConfig(device=device, stt_compute_type=setting)

        engine = faster_whisper.create_stt(model=str(tmp_path), config=config)

        # A folder of the operator's own: Breeze ASR, converted elsewhere.
        assert made["folder"] == str(tmp_path)
        assert (made["device"], made["compute_type"], made["local_files_only"]) == (device, arithmetic, True)
        assert (engine.device, engine._draft_batch) == (device, 8 if device == "cuda" else 1)

    def test_finds_the_library_that_comes_in_a_package(
        self, made: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        library = tmp_path / "nvidia" / "cublas" / "lib" / "libcublas.so.12"
        library.parent.mkdir(parents=True)
        library.touch()
        monkeypatch.syspath_prepend(tmp_path)
        opened: list[str] = []
        monkeypatch.setattr(faster_whisper.ctypes, "CDLL", opened.append)

        faster_whisper.create_stt(model=str(tmp_path), config=InferenceConfig(device="cpu"))
        assert opened == []

        faster_whisper.create_stt(model=str(tmp_path), config=InferenceConfig(device="cuda"))
        assert opened == [str(library)]


class TestLooks:
    """What is decoded how, with Whisper's answers written down."""

    @pytest.fixture
    def passes(self) -> list[dict[str, Any]]:
        return []

    @pytest.fixture
    def start(
        self, passes: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> Iterator[Callable[..., Any]]:
        """Start an engine that gives these answers in turn: a text with its log probability, or an exception."""
        monkeypatch.setattr(faster_whisper.faster_whisper, "WhisperModel", lambda folder, **options: None)
        engine = faster_whisper.FasterWhisper(tmp_path, threads=1)

        def start(*answers: tuple[str, float] | Exception) -> Any:
            left = iter(answers)

            def decode(utterances: Any, language: str | None, **options: Any) -> Any:
                passes.append(options)
                answer = next(left)
                if isinstance(answer, Exception):
                    raise answer
                return [faster_whisper._Decoding(answer[0], "zh", answer[1], len(answer[0]), 3.0)]

            monkeypatch.setattr(engine, "_decode", decode)
            return engine

        yield start
        engine._worker.close()

    async def test_are_one_when_nothing_is_doubtful(
        self, start: Callable[..., Any], passes: list[dict[str, Any]]
    ) -> None:
        recognition = await start(("一年有幾個季節？", -0.2)).recognise_soon(SAMPLES, None)

        assert recognition.text == "一年有幾個季節？"
        # The speech plus four seconds, ten at least.
        assert passes == [{"beam_size": 2, "window_frames": 1000}]

    async def test_are_two_when_the_first_is_a_guess(
        self, start: Callable[..., Any], passes: list[dict[str, Any]]
    ) -> None:
        engine = start(("不知痛的時候該去什麼？", -0.8), ("肚子痛的時候該吃什麼？", -0.7))

        recognition = await engine.recognise_soon(SAMPLES, None)

        assert recognition.text == "肚子痛的時候該吃什麼？"
        assert passes[1:] == [{"beam_size": 5, "window_frames": 3000, "in_words": False}]

    async def test_write_words_where_the_first_wrote_an_operator(
        self, start: Callable[..., Any], passes: list[dict[str, Any]]
    ) -> None:
        engine = start(("36-19是多少？", -0.3), ("36減19是多少？", -0.3))

        assert (await engine.recognise_soon(SAMPLES, None)).text == "36減19是多少？"
        assert [each.get("in_words") for each in passes] == [None, True]

    async def test_write_words_where_only_the_second_wrote_an_operator(
        self, start: Callable[..., Any], passes: list[dict[str, Any]]
    ) -> None:
        engine = start(("36.19是多少？", -0.8), ("36-19是多少？", -0.3), ("36減19是多少？", -0.3))

        assert (await engine.recognise_soon(SAMPLES, None)).text == "36減19是多少？"
        assert [each.get("in_words") for each in passes] == [None, False, True]

    async def test_say_once_what_even_the_second_says_twice(self, start: Callable[..., Any]) -> None:
        loop = ("144除以12是多少。144除以12是多少。", -0.4)

        assert (await start(loop, loop).recognise_soon(SAMPLES, None)).text == "144除以12是多少。"

    async def test_spare_the_second_when_the_speaker_goes_on(
        self, start: Callable[..., Any], passes: list[dict[str, Any]]
    ) -> None:
        engine = start(("不知痛", -0.8), ("肚子痛", -0.7))
        begun, go_on = threading.Event(), threading.Event()
        decode = engine._decode

        def wait(*arguments: Any, **options: Any) -> Any:
            begun.set()
            assert go_on.wait(10)
            return decode(*arguments, **options)

        engine._decode = wait
        recognising = asyncio.create_task(engine.recognise_soon(SAMPLES, None))
        await asyncio.to_thread(begun.wait, 10)

        recognising.cancel()
        go_on.set()
        await asyncio.gather(recognising, return_exceptions=True)

        await engine._worker.run(lambda: None)
        assert len(passes) == 1

    async def test_spare_the_second_when_it_would_come_late(
        self, start: Callable[..., Any], passes: list[dict[str, Any]]
    ) -> None:
        engine = start(("不知痛", -0.8), ("不知痛", -0.8), ("肚子痛", -0.7))
        times = itertools.count()  # asked, begun, done, judged
        engine._clock = lambda: next(times)

        assert (await engine.recognise_soon(SAMPLES, None)).text == "不知痛"
        assert len(passes) == 1

        # Background recognition has no deadline.
        assert (await engine.recognise_in_background(SAMPLES, None)).text == "肚子痛"

    async def test_read_a_short_window_once_the_pause_is_overrun(
        self, start: Callable[..., Any], passes: list[dict[str, Any]]
    ) -> None:
        engine = start(*[("一年有幾個季節？", -0.2)] * 4)
        times = itertools.count(step=0.4)
        engine._clock = lambda: next(times)

        for _ in range(4):
            await engine.recognise_soon(SAMPLES, None)

        assert [each["window_frames"] for each in passes] == [1000, 1000, 1000, 600]

    async def test_keep_the_first_when_the_memory_is_too_small_for_the_second(self, start: Callable[..., Any]) -> None:
        engine = start(("不知痛", -0.8), RuntimeError("CUDA failed with error out of memory"))

        assert (await engine.recognise_soon(SAMPLES, None)).text == "不知痛"


class TestPartials:
    """With the probabilities of speech written down, and an engine that notes what it is asked for."""

    @pytest.fixture
    def drafts(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        return []

    @pytest.fixture
    def feed(self, drafts: list[int]) -> Callable[[str], Awaitable[None]]:
        """Feed windows: "x" is speech, "." is none."""

        class Engine:
            is_busy = False

            def voice_activity(self) -> Any:
                return SimpleNamespace(probability=lambda window: float(window[0]))

            async def draft(self, samples: Any, language: str | None) -> Any:
                drafts.append(len(samples))
                return faster_whisper.Recognition("你好", "zh")

            async def recognise_soon(self, samples: Any, language: str | None) -> Any:
                return faster_whisper.Recognition("你好", "zh")

        session = faster_whisper._Session(Engine(), TranscriptionOptions())

        async def feed(windows: str) -> None:
            for window in windows:
                await session._feed_window(np.full(512, 0.9 if window == "x" else 0.0, np.float32))
                await asyncio.sleep(0)
                await asyncio.sleep(0)

        return feed

    async def test_come_while_somebody_speaks(self, feed: Callable[[str], Awaitable[None]], drafts: list[int]) -> None:
        await feed("x" * 60)

        assert len(drafts) == 3  # 1.9 s, of which the first 0.2 decide that it is speech

    async def test_do_not_delay_the_recognition_of_what_a_pause_may_end(
        self, feed: Callable[[str], Awaitable[None]], drafts: list[int]
    ) -> None:
        await feed("x" * 20)
        assert drafts == []

        await feed("....")

        assert drafts == []
        await feed("xx")
        assert len(drafts) == 1


class TestRecording:
    def test_is_what_was_added_less_what_was_dropped(self) -> None:
        recording, expected = faster_whisper._Recording(), np.zeros(0, np.float32)
        generator = np.random.default_rng(0)
        for _ in range(3000):
            samples = generator.random(512, np.float32)
            recording.append(samples)
            expected = np.concatenate([expected, samples])
            if generator.random() < 0.01:
                surplus = int(generator.integers(0, 2 * len(expected)))
                recording.drop(surplus)
                expected = expected[surplus:]
            if generator.random() < 0.05:
                start, stop = sorted(generator.integers(0, len(expected) + 600, 2))
                np.testing.assert_array_equal(recording.read(start, stop), expected[start:stop])
        assert len(recording) == len(expected)


class ScriptedEngine:
    """Probabilities of speech are the samples themselves; a draft and a recognition do what the test has them do."""

    is_busy = False

    def __init__(self) -> None:
        self.probed = 0
        self.draft: Callable[..., Awaitable[Any]] = self.hear
        self.recognise_soon: Callable[..., Awaitable[Any]] = self.hear

    async def hear(self, samples: Any, language: str | None) -> Any:
        return faster_whisper.Recognition("你好", "zh")

    async def fail(self, samples: Any, language: str | None) -> Any:
        raise RuntimeError("out of order")

    def voice_activity(self) -> Any:
        return SimpleNamespace(probability=self.probe)

    def probe(self, window: Any) -> float:
        self.probed += 1
        return float(window[0])

    def transcribe(self, windows: str) -> AsyncIterator[Any]:
        """Hear windows one by one: "x" is speech, "." is none."""

        async def audio() -> AsyncIterator[TranscriptionInput]:
            for window in windows:
                yield to_item(window)
                for _ in range(4):  # tasks that were started have their turns
                    await asyncio.sleep(0)

        return faster_whisper.FasterWhisper.transcribe(self, audio(), TranscriptionOptions())


def to_item(windows: str) -> bytes:
    levels = [0.9 * 32767 if window == "x" else 0.0 for window in windows]
    return np.repeat(np.array(levels), 512).astype("<i2").tobytes()


@pytest.fixture
async def unretrieved() -> AsyncIterator[list[str]]:
    """What the event loop complains of: exceptions of tasks that were never retrieved."""
    complaints: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: complaints.append(str(context.get("exception"))))
    yield complaints
    loop.set_exception_handler(None)


class TestTasks:
    @pytest.fixture
    def engine(self) -> ScriptedEngine:
        return ScriptedEngine()

    async def test_log_what_a_partial_transcript_fails_with_and_go_on(
        self, engine: ScriptedEngine, unretrieved: list[str], caplog: pytest.LogCaptureFixture
    ) -> None:
        engine.draft = engine.fail

        events = [event async for event in engine.transcribe("x" * 60 + "." * 30)]

        gc.collect()
        assert unretrieved == []
        assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == ["out of order"] * 3
        assert [type(event) for event in events if not isinstance(event, SpeechStarted)][-1] is FinalTranscript

    async def test_log_the_failure_of_a_recognition_that_the_speaker_made_useless(
        self, engine: ScriptedEngine, unretrieved: list[str], caplog: pytest.LogCaptureFixture
    ) -> None:
        failures = iter([engine.fail, engine.hear, engine.hear])
        engine.recognise_soon = lambda *arguments: next(failures)(*arguments)

        events = [event async for event in engine.transcribe("x" * 10 + "." * 9 + "x" * 5 + "." * 30)]

        gc.collect()
        assert unretrieved == []
        assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == ["out of order"]
        assert events[-1].text == "你好"

    async def test_tell_the_caller_when_the_final_transcript_fails(
        self, engine: ScriptedEngine, unretrieved: list[str]
    ) -> None:
        engine.recognise_soon = engine.fail

        with pytest.raises(InferenceError, match="out of order"):
            async for _ in engine.transcribe("x" * 10 + "." * 30):
                pass

        gc.collect()
        assert unretrieved == []

    async def test_do_not_outlive_the_stream(self, engine: ScriptedEngine) -> None:
        running: set[asyncio.Task[Any]] = set()

        async def wait(samples: Any, language: str | None) -> None:
            task = asyncio.current_task()
            assert task is not None
            running.add(task)
            task.add_done_callback(running.discard)
            await asyncio.Event().wait()

        engine.draft = engine.recognise_soon = wait
        events: Any = engine.transcribe("x" * 20 + "." * 9)

        async with aclosing(events):
            async for _ in events:
                while not running:  # noqa: ASYNC110 — the engine sets no event
                    await asyncio.sleep(0)
                break
            assert running

        assert not running

    async def test_let_others_go_on_while_a_large_item_is_searched_for_speech(self, engine: ScriptedEngine) -> None:
        session = faster_whisper._Session(engine, TranscriptionOptions())
        feeding = asyncio.create_task(session.feed(one_item(to_item("." * 500))))
        most = 0
        while not feeding.done():
            before = engine.probed
            await asyncio.sleep(0)
            most = max(most, engine.probed - before)

        assert engine.probed == 500
        assert most <= faster_whisper.WINDOWS_PER_SLICE


async def one_item(item: bytes) -> AsyncIterator[TranscriptionInput]:
    yield item
