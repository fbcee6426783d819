from __future__ import annotations

import asyncio
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from inference.client import InferenceClient
from inference.engines.fake import FakeLanguageModel, FakeTextToSpeech
from inference.interfaces import (
    DeviceMemory,
    EndOfUtterance,
    InferenceError,
    InferenceStatus,
    Role,
    RoleState,
    RoleStatus,
    SynthesisOptions,
    TranscriptionOptions,
)
from inference.telemetry.metrics import AudioClock, EngineMetrics
from tests.fakes import SPEECH
from tests.inference.calls import generate, synthesise, transcribe
from tests.inference.conftest import eventually


def parse(text: bytes) -> dict[str, float]:
    """Return the samples as they are written: name{label="value"}."""
    return {
        sample.name + "".join(f" {name}={sample.labels[name]}" for name in sorted(sample.labels)): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


class TestReadMetrics:
    """Over gRPC, from a server with scripted engines."""

    async def test_counts_each_kind_of_work(self, client: InferenceClient) -> None:
        await generate(client)
        await client.llm.prefill([])
        await synthesise(client)
        await transcribe(client, TranscriptionOptions(endpointing=False), SPEECH, EndOfUtterance())

        found = parse(await client.read_metrics())

        for work in (
            "role=llm work=generate",
            "role=llm work=prefill",
            "role=tts work=synthesise",
            "role=stt work=transcript",
        ):
            assert found[f"avatar_inference_seconds_count engine=scripted priority=live {work}"] == 1, work
        assert found["avatar_inference_first_result_seconds_count engine=scripted priority=live role=llm"] == 1

    async def test_tells_background_work_from_live(self, client: InferenceClient) -> None:
        async for _ in client.tts.synthesise("好", SynthesisOptions(is_background=True)):
            pass

        found = parse(await client.read_metrics())

        assert found["avatar_inference_seconds_count engine=scripted priority=background role=tts work=synthesise"] == 1

    async def test_counts_failures_by_reason(self, client: InferenceClient, tts: FakeTextToSpeech) -> None:
        tts.fail_next(InferenceError("broken"))
        with pytest.raises(InferenceError, match="broken"):
            await synthesise(client)

        found = parse(await client.read_metrics())

        assert found["avatar_inference_failures_total reason=failed role=tts"] == 1
        assert not [name for name in found if "work=synthesise" in name]

    async def test_does_not_count_what_is_cancelled_as_done(
        self, client: InferenceClient, llm: FakeLanguageModel
    ) -> None:
        llm.first_token_s = 60
        asking = asyncio.create_task(generate(client))
        await eventually(lambda: llm.calls.active == 1)
        asking.cancel()
        await asyncio.wait([asking])
        await eventually(lambda: llm.calls.active == 0)

        assert not [name for name in parse(await client.read_metrics()) if "work=generate" in name]

    async def test_says_nothing_of_what_was_said(self, client: InferenceClient) -> None:
        async for _ in client.tts.synthesise("芝麻開門", SynthesisOptions(voice="zf_secret")):
            pass

        text = (await client.read_metrics()).decode()

        assert "芝麻" not in text
        assert "zf_secret" not in text


class TestRender:
    def make_status(self, **figures: float) -> InferenceStatus:
        role = RoleStatus(
            Role.LLM, RoleState.READY, "vllm", "qwen", "cuda:0", 12.5, 17, figures=figures, active_calls=3
        )
        return InferenceStatus("gpu", (role,), 5000, 1.0, (DeviceMemory("H100", 100, 40),))

    def test_has_roles_and_devices(self) -> None:
        found = parse(EngineMetrics().render(self.make_status()))

        assert found["avatar_inference_role_ready device=cuda:0 engine=vllm model=qwen role=llm"] == 1
        assert found["avatar_inference_active_calls role=llm"] == 3
        assert found["avatar_inference_load_seconds role=llm"] == 12.5
        assert found["avatar_inference_resident_bytes"] == 5000
        assert found["avatar_inference_device_free_bytes device=0 H100"] == 40

    def test_has_the_engines_queue_and_figures(self) -> None:
        found = parse(EngineMetrics().render(self.make_status(requests_waiting=2, kv_cache_use=0.75)))

        assert found["avatar_inference_queue_length role=llm"] == 2
        assert found["avatar_inference_figure name=kv_cache_use role=llm"] == 0.75


class TestAudioClock:
    def make(self, *times: float) -> Any:
        moments = iter(times)
        return AudioClock(lambda: next(moments))

    def test_knows_when_a_position_had_come(self) -> None:
        clock = self.make(1.0, 2.0, 3.0, 5.0)
        for _ in range(3):
            clock.add(640)

        assert clock.find_age_s(1280) == 3.0

    def test_does_not_know_what_has_not_come(self) -> None:
        clock = self.make(1.0)
        clock.add(640)

        assert clock.find_age_s(641) is None

    def test_forgets_what_is_old(self) -> None:
        clock = self.make(*range(1000))
        for _ in range(AudioClock.KEPT + 1):
            clock.add(10)

        assert len(clock._came) == AudioClock.KEPT
