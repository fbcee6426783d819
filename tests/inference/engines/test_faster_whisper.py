from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from inference.config import InferenceConfig
from inference.interfaces import TranscriptionOptions

faster_whisper = pytest.importorskip("inference.engines.faster_whisper")


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


class TestFindLoop:
    @pytest.mark.parametrize(
        ("text", "unit"),
        [
            ("Can you tell me? Can you tell me? Can you t", "Can you tell me?"),
            ("台灣最高的山。台灣最高的山。", "台灣最高的山。"),
            ("好好好", "好"),
            ("Oh, there. Oh, there! oh there", "Oh, there."),
            # Cut off by the most tokens that may be made.
            (
                "Can you tell me the name of a fruit that is yellow? Can you tell me the name of a fruit that is",
                "Can you tell me the name of a fruit that is yellow?",
            ),
        ],
    )
    def test_finds_what_is_repeated(self, text: str, unit: str) -> None:
        assert faster_whisper.find_loop(text) == unit

    @pytest.mark.parametrize("text", ["", "。", "a", "Can you tell me? Can you", "今天天氣很好，我們一起去公園。"])
    def test_finds_none_in_ordinary_speech(self, text: str) -> None:
        assert faster_whisper.find_loop(text) == ""


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
