"""One suite for the production language models: vLLM, and OpenAI-compatible servers of llama.cpp and of vLLM."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import pytest_asyncio

from inference.config import InferenceConfig
from inference.device_memory import MIB
from inference.engines.openai_chat import OpenAiChat
from inference.engines.vllm_worker import OWNER_PID
from inference.interfaces import (
    KV_CACHE_USE,
    DeviceMemory,
    GenerationFinished,
    GenerationOptions,
    InferenceError,
    InferenceUnavailable,
    LanguageModel,
    Message,
    TextDelta,
)
from tests.inference.scripted_reader import ScriptedReader
from tests.processes import OutputProcess, tie_to_tests

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

CONFIG = InferenceConfig(profile="gpu", device="cpu", context_tokens=512, llm_max_sequences=4)
STORY = (Message("system", "You are a storyteller."), Message("user", "Tell me a long story about a lighthouse."))
PATIENCE_S = 120


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def vllm_engine(smollm2_folder: Path) -> AsyncIterator[Any]:
    from inference.engines.vllm import Vllm

    engine = await asyncio.to_thread(Vllm, smollm2_folder, CONFIG)
    await engine.warm_up()
    yield engine
    await engine.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def llama_cpp_server(smollm2_gguf: Path) -> AsyncIterator[OpenAiChat]:
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(smollm2_gguf)
    parameters.n_ctx, parameters.n_parallel = 4 * 512, 4
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 2
    parameters.verbosity = 1
    parameters.hostnames, parameters.port, parameters.api_keys = ["127.0.0.1"], 0, ["sesame"]
    server = xllamacpp.Server(parameters)
    engine = OpenAiChat(server.listening_address + "/v1", api_key="sesame", context_tokens=512)
    await engine.warm_up()
    yield engine
    await engine.close()
    del server


@pytest.fixture(scope="session")
def vllm_address(smollm2_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [
        *(sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", str(smollm2_folder), "--port", str(port)),
        *("--host", "127.0.0.1", "--max-model-len", "512", "--dtype", "float32", "--enforce-eager"),
        *("--max-num-seqs", "4", "--served-model-name", "smol"),
        *("--worker-extension-cls", "inference.engines.vllm_worker.DiesWithOwner"),
    ]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
    environment[OWNER_PID] = str(os.getpid())
    log = tmp_path_factory.mktemp("vllm") / "serve.log"
    with log.open("w") as output:
        server = subprocess.Popen(tie_to_tests(command), env=environment, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + 240
        while True:
            assert server.poll() is None, log.read_text()[-4000:]
            assert time.monotonic() < deadline, log.read_text()[-4000:]
            try:
                if httpx.get(f"http://127.0.0.1:{port}/health", timeout=2).is_success:
                    break
            except httpx.TransportError:
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.send_signal(signal.SIGINT)
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def vllm_server(vllm_address: str) -> AsyncIterator[OpenAiChat]:
    engine = OpenAiChat(vllm_address, context_tokens=512)
    await engine.warm_up()
    yield engine
    await engine.close()


# In this order, so that two engines of vLLM's are not there together for longer than they must.
@pytest.fixture(scope="session", params=["llama_cpp_server", "vllm_engine", "vllm_server"])
def llm(request: pytest.FixtureRequest) -> LanguageModel:
    engine: LanguageModel = request.getfixturevalue(request.param)
    return engine


async def generate(llm: LanguageModel, *messages: Message, **options: Any) -> tuple[str, GenerationFinished]:
    events = [event async for event in llm.generate(messages, GenerationOptions(**{"seed": 1, **options}))]
    *deltas, finished = events
    assert isinstance(finished, GenerationFinished)
    assert all(isinstance(delta, TextDelta) and delta.text for delta in deltas)
    return "".join(delta.text for delta in deltas if isinstance(delta, TextDelta)), finished


async def take_some(llm: LanguageModel, messages: Sequence[Message], pieces: int) -> int:
    """Take a few pieces of a long reply and leave. Return how many there were."""
    taken = 0
    options = GenerationOptions(max_tokens=400, temperature=0)
    async with aclosing(llm.generate(messages, options)) as events:  # type: ignore[type-var]
        async for _ in events:
            taken += 1
            if taken == pieces:
                break
    return taken


class TestLanguageModel:
    async def test_streams_its_reply(self, llm: LanguageModel) -> None:
        events = [event async for event in llm.generate(STORY, GenerationOptions(max_tokens=24, temperature=0))]

        assert len(events) > 8
        assert isinstance(events[-1], GenerationFinished)
        assert events[-1].prompt_tokens > 15
        assert events[-1].completion_tokens == 24

    async def test_is_cut_at_max_tokens(self, llm: LanguageModel) -> None:
        _, finished = await generate(llm, *STORY, max_tokens=5)

        assert (finished.reason, finished.completion_tokens) == ("length", 5)

    async def test_ends_by_itself(self, llm: LanguageModel) -> None:
        text, finished = await generate(
            llm, Message("user", "What is the capital of France? One word."), max_tokens=64, temperature=0
        )

        assert "Paris" in text
        assert finished.reason == "stop"

    async def test_takes_a_request_after_one_whose_caller_left(self, llm: LanguageModel) -> None:
        assert await take_some(llm, STORY, 3) == 3

        began = time.monotonic()
        text, _ = await generate(llm, *STORY, max_tokens=4)
        assert text
        # The one that was left would have gone on for 400 tokens, a minute on two cores, in one of four places.
        assert time.monotonic() - began < PATIENCE_S

    async def test_reads_ahead_without_a_word(self, llm: LanguageModel) -> None:
        await llm.prefill(STORY)
        await llm.prefill([])

        assert (await generate(llm, *STORY, max_tokens=3))[0]

    async def test_keeps_five_replies_apart(self, llm: LanguageModel) -> None:
        words = ("banana", "giraffe", "violin", "volcano", "umbrella")
        async with asyncio.timeout(PATIENCE_S):
            replies = await asyncio.gather(
                *(
                    generate(
                        llm, Message("user", f"Repeat this word three times: {word}"), max_tokens=16, temperature=0
                    )
                    for word in words
                )
            )

        for word, (text, _) in zip(words, replies, strict=True):
            assert word in text.lower()
            assert not any(other in text.lower() for other in words if other != word)

    async def test_answers_after_a_history_that_does_not_fit(self, llm: LanguageModel) -> None:
        history = [
            message
            for number in range(40)
            for message in (
                Message("user", f"Question {number}: what is there to see by the sea in winter, when it rains?"),
                Message("assistant", f"Answer {number}: the lighthouse, the museum, and the old harbour."),
            )
        ]

        text, finished = await generate(llm, *STORY[:1], *history, Message("user", "Hello"), max_tokens=16)

        assert text
        assert finished.prompt_tokens <= 512 - 16


class TestVllm:
    async def test_leaves_nothing_with_the_scheduler_when_the_caller_goes(self, vllm_engine: Any) -> None:
        await asyncio.gather(*(take_some(vllm_engine, STORY, 2) for _ in range(3)))

        assert vllm_engine._engine.get_num_unfinished_requests() == 0
        # The scheduler itself lives in the other process, and refuses to empty its cache while it has a request.
        assert await vllm_engine._engine.reset_prefix_cache()
        assert vllm_engine.figures["requests_running"] == vllm_engine.figures["requests_waiting"] == 0

    async def test_leaves_nothing_when_reading_ahead_is_cancelled(self, vllm_engine: Any) -> None:
        reading = asyncio.create_task(vllm_engine.prefill([Message("user", "word " * 300)]))
        await asyncio.sleep(0.05)
        reading.cancel()
        await asyncio.wait([reading])

        assert vllm_engine._engine.get_num_unfinished_requests() == 0

    async def test_lets_wait_what_the_cache_has_no_room_for(self, vllm_engine: Any) -> None:
        # Ten at once, of which four may run.
        async with asyncio.timeout(PATIENCE_S):
            replies = await asyncio.gather(*(generate(vllm_engine, *STORY, max_tokens=12) for _ in range(10)))

        assert all(finished.completion_tokens == 12 for _, finished in replies)
        figures = vllm_engine.figures
        assert figures["queue_worst_s"] > figures["queue_median_s"] >= 0
        assert figures["first_token_worst_s"] >= figures["queue_worst_s"]

    async def test_tells_how_much_of_its_cache_is_in_use(self, vllm_engine: Any) -> None:
        async with asyncio.timeout(PATIENCE_S):
            uses = [
                vllm_engine.figures[KV_CACHE_USE]
                async for _ in vllm_engine.generate(STORY, GenerationOptions(max_tokens=24))
            ]

        assert 0 < max(uses) < 1
        assert vllm_engine.figures[KV_CACHE_USE] == 0

    async def test_refuses_what_is_no_request(self, vllm_engine: Any) -> None:
        with pytest.raises(InferenceError):
            await generate(vllm_engine, *STORY, max_tokens=0)

    async def test_is_started_again_after_its_process_has_died(self, vllm_engine: Any) -> None:
        # Of our own children: that of `vllm serve` is a grandchild.
        (core,) = [child for child in psutil.Process().children() if _is_engine_core(child)]
        speaking = asyncio.create_task(generate(vllm_engine, *STORY, max_tokens=400))
        await asyncio.sleep(1)

        core.kill()

        with pytest.raises(InferenceUnavailable):
            await asyncio.wait_for(speaking, PATIENCE_S)
        assert "has died" in vllm_engine.diagnose()
        with pytest.raises(InferenceUnavailable):
            await generate(vllm_engine, *STORY, max_tokens=4)
        async with asyncio.timeout(240):
            while vllm_engine.diagnose():  # noqa: ASYNC110 — as the server asks
                await asyncio.sleep(0.5)
        assert (await generate(vllm_engine, *STORY, max_tokens=4))[0]

    async def test_leaves_no_process_behind_when_its_owner_is_killed(self, smollm2_folder: Path) -> None:
        owner = OutputProcess(tie_to_tests([sys.executable, "-c", OWNER, str(smollm2_folder)]), patience_s=PATIENCE_S)
        try:
            await asyncio.to_thread(owner.wait_for, "^ready$")
            (core,) = [child for child in psutil.Process(owner.process.pid).children() if _is_engine_core(child)]
        finally:
            owner.process.kill()

        _, left = await asyncio.to_thread(psutil.wait_procs, [core], timeout=30)
        for process in left:
            process.kill()
        await asyncio.to_thread(owner.close)
        assert left == []


#: A process with an engine, which does nothing more.
OWNER = """
import sys, time
from pathlib import Path
from inference.config import InferenceConfig
from inference.engines.vllm import Vllm

if __name__ == "__main__":
    config = InferenceConfig(profile="gpu", device="cpu", context_tokens=512, llm_max_sequences=4)
    engine = Vllm(Path(sys.argv[1]), config)
    print("ready", flush=True)
    time.sleep(600)
"""


class TestArguments:
    async def test_are_what_the_settings_say(self, smollm2_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from inference.engines import vllm

        reader = ScriptedReader((DeviceMemory("scripted", 24_000 * MIB, 23_000 * MIB),))
        monkeypatch.setattr(vllm, "get_reader", lambda config: reader)
        config = replace(
            CONFIG,
            device="cuda",
            context_tokens=4096,
            llm_memory_mib=12_000,
            llm_quantisation="awq",
            llm_tensor_parallel=2,
            llm_dtype="float16",
        )

        arguments = vllm.make_engine_args(smollm2_folder, config)

        assert arguments.gpu_memory_utilization == 0.5
        assert (arguments.quantization, arguments.tensor_parallel_size, arguments.dtype) == ("awq", 2, "float16")
        assert (arguments.max_model_len, arguments.max_num_seqs) == (4096, 4)
        assert arguments.enable_prefix_caching
        assert not arguments.enforce_eager
        assert vllm.make_engine_args(smollm2_folder, replace(config, llm_quantisation="")).quantization is None


class TestShutDown:
    async def test_leaves_no_process_behind_and_waits_when_keys_and_values_do_not_fit(
        self, smollm2_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from inference.engines import vllm

        before = set(psutil.Process().children(recursive=True))
        arguments = vllm.make_engine_args(smollm2_folder, replace(CONFIG, context_tokens=256))
        # Room for two such requests; what comes beyond is put off, and read again when there is room.
        arguments.num_gpu_blocks_override = 2 * 256 // 128 + 1
        monkeypatch.setattr(vllm, "make_engine_args", lambda *_: arguments)
        engine = await asyncio.to_thread(vllm.Vllm, smollm2_folder, replace(CONFIG, context_tokens=256))
        try:
            async with asyncio.timeout(PATIENCE_S):
                replies = await asyncio.gather(
                    *(
                        generate(
                            engine, Message("user", f"{number} " + "sea and sand " * 30), max_tokens=80, temperature=1
                        )
                        for number in range(5)
                    )
                )
            assert all(finished.completion_tokens > 0 for _, finished in replies)
            children = set(psutil.Process().children(recursive=True)) - before
            # Python's own tracker of shared memory lives as long as the tests do.
            started = [child for child in children if "resource_tracker" not in " ".join(child.cmdline())]
        finally:
            await engine.close()

        assert started
        # vLLM kills those that take their time; the kernel needs a moment to take them down.
        _, left = await asyncio.to_thread(psutil.wait_procs, started, timeout=10)
        assert left == []


def _is_engine_core(process: psutil.Process) -> bool:
    try:
        return "EngineCore" in process.name() or "EngineCore" in " ".join(process.cmdline())
    except psutil.Error:
        return False
