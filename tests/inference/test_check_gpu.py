from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import numpy as np
import pytest

from inference import check_gpu, device_memory
from inference.check_gpu import CheckFailed, Report, expect_words, to_microphone
from inference.config import InferenceConfig
from inference.device_memory import MIB, BudgetError
from inference.engines.fake import FakeLanguageModel, FakeSpeechToText, FakeTextToSpeech
from inference.interfaces import DeviceMemory, Role
from tests.fakes import make_tone
from tests.inference.conftest import ScriptedEngines
from tests.inference.scripted_reader import ScriptedReader

GPU = (DeviceMemory("NVIDIA GeForce RTX 4090", 24_564 * MIB, 24_000 * MIB),)

Run = Callable[..., Awaitable[Report]]


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def run(config: InferenceConfig, said: list[str]) -> Run:
    async def run_checks(*, are_words_judged: bool = False, **settings: object) -> Report:
        report = Report(said.append)
        changed = replace(config, max_calls=8, **settings)  # type: ignore[arg-type]
        await check_gpu.run(changed, report, speech=make_tone(1000), are_words_judged=are_words_judged)
        return report

    return run_checks


def found(report: Report, role: Role, check: str) -> check_gpu.Result:
    return next(result for result in report.results if (result.role, result.check) == (role, check))


class TestRun:
    async def test_asks_every_engine_for_everything(self, run: Run, said: list[str]) -> None:
        report = await run()

        assert report.is_passed
        assert [(result.role.value, result.check) for result in report.results] == [
            *((role.value, "loads") for role in Role),
            *(("stt", "one utterance"), ("stt", "5 at once")),
            *(("llm", "an answer"), ("llm", "one reply"), ("llm", "5 at once"), ("llm", "a caller who leaves")),
            *(("tts", "fast, one clause"), ("tts", "high quality, one clause"), ("tts", "fast, 5 at once")),
        ]
        assert "TTFT" in found(report, Role.LLM, "one reply").measured
        assert "RTF" in found(report, Role.TTS, "fast, one clause").measured
        assert "NO GPU WAS MEASURED" in said[0]
        assert said[1:] == report.list_rows()[1:]

    async def test_passes_no_engine_that_another_stands_in_for(self, run: Run, engines: ScriptedEngines) -> None:
        engines["tts:bad"] = RuntimeError("no kernel image for this device")

        report = await run(
            engines=dict.fromkeys(Role, ("scripted:good",)) | {Role.TTS: ("scripted:bad", "scripted:good")}
        )

        result = found(report, Role.TTS, "loads")
        assert not result.is_passed
        assert "instead of scripted:bad: scripted:bad: no kernel image for this device" in result.measured

    async def test_goes_on_where_an_engine_does_not_load(self, run: Run, engines: ScriptedEngines) -> None:
        engines["llm:good"] = RuntimeError("out of memory")

        report = await run()

        assert not report.is_passed
        assert "out of memory" in found(report, Role.LLM, "loads").measured
        assert found(report, Role.TTS, "fast, 5 at once").is_passed
        assert {result.check for result in report.results if result.role is Role.LLM} == {"loads"}

    async def test_fails_what_fails(self, run: Run, llm: FakeLanguageModel) -> None:
        llm.answer = lambda messages: "Rome"

        report = await run(are_words_judged=True)

        assert not report.is_passed
        assert "'Rome'" in found(report, Role.LLM, "an answer").measured
        assert found(report, Role.LLM, "one reply").is_passed

    async def test_fails_speech_that_is_not_understood(self, run: Run, stt: FakeSpeechToText) -> None:
        stt.default = "嗯"

        report = await run(are_words_judged=True)

        assert not found(report, Role.STT, "one utterance").is_passed
        assert "heard '嗯'" in found(report, Role.TTS, "is understood").measured

    async def test_fails_a_quality_that_was_not_asked_for(self, run: Run, tts: FakeTextToSpeech) -> None:
        tts.is_short_of_memory = True

        report = await run()

        assert "was given fast" in found(report, Role.TTS, "high quality, one clause").measured
        assert not report.is_passed


class TestDevices:
    @pytest.fixture
    def reader(self, monkeypatch: pytest.MonkeyPatch) -> ScriptedReader:
        reader = ScriptedReader(GPU)
        monkeypatch.setattr(device_memory, "get_reader", lambda config: reader)
        return reader

    async def test_are_named(self, run: Run, reader: ScriptedReader, said: list[str]) -> None:
        await run(device="cuda")

        assert said[0] == "NVIDIA GeForce RTX 4090: 24564 MiB, 24000 free"
        assert not any("NO GPU" in line for line in said)

    async def test_must_be_there(self, run: Run, reader: ScriptedReader) -> None:
        reader.set(())

        with pytest.raises(CheckFailed, match="there is no GPU"):
            await run(device="cuda")

    async def test_must_have_room(self, run: Run, reader: ScriptedReader, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(device_memory, "DEVICE_ENGINES", {"scripted"})

        with pytest.raises(BudgetError, match="30000 MiB  llm"):
            await run(device="cuda", llm_memory_mib=30_000)

    async def test_must_be_what_the_engines_use(
        self, run: Run, reader: ScriptedReader, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(device_memory, "DEVICE_ENGINES", {"scripted"})

        report = await run(device="cuda")

        assert not found(report, Role.TTS, "loads").is_passed
        assert "on cpu" in found(report, Role.TTS, "loads").measured


class TestReport:
    async def test_says_what_takes_too_long(self, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(check_gpu, "PATIENCE_S", 0.01)

        async def never() -> str:
            await asyncio.Event().wait()
            return ""

        report = Report(said.append)
        await report.check(Role.LLM, "one reply", never())

        assert report.results[0].measured == "not within 0.01 s"
        assert "FAIL" in said[0]


class TestExpectWords:
    @pytest.mark.parametrize("heard", ["今天天氣很好，我們去公園散步吧", "今天天氣真好我們一起去公園"])
    def test_is_content_with_most_of_them(self, heard: str) -> None:
        expect_words(heard, "今天天氣很好，我們一起去公園散步吧。")

    @pytest.mark.parametrize("heard", ["", "謝謝觀看", "公園"])
    def test_refuses_others(self, heard: str) -> None:
        with pytest.raises(CheckFailed, match="said"):
            expect_words(heard, "今天天氣很好，我們一起去公園散步吧。")


class TestToMicrophone:
    def test_keeps_length_and_loudness(self) -> None:
        tone = np.sin(np.arange(24_000) / 24_000 * 2 * np.pi * 440).astype(np.float32) * 0.5

        pcm = np.frombuffer(to_microphone(tone, 24_000), "<i2")

        assert len(pcm) == pytest.approx(16_000, abs=64)
        assert np.sqrt((pcm.astype(float) ** 2).mean()) == pytest.approx(0.5 / np.sqrt(2) * 32767, rel=0.02)
