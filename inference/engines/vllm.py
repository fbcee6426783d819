"""
Generation with vLLM on a GPU, in a child process: continuous batching, prefix caching, no hub.

More sequences than the cache has room for are queued. When the engine's process dies (a driver error, no memory), it is
restarted with exponential back-off.
"""

from __future__ import annotations

import asyncio
import logging
import os
import statistics
import tempfile
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from functools import lru_cache
from pathlib import Path
from typing import Any
from uuid import uuid4

# Before vLLM and transformers are imported: they decide by them at import.
for _name, _value in {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    "VLLM_LOGGING_LEVEL": "WARNING",
    # GiB for keys and values where the engine computes on the processor.
    "VLLM_CPU_KVCACHE_SPACE": "1",
}.items():
    os.environ.setdefault(_name, _value)

from transformers import AutoTokenizer  # noqa: E402
from vllm import SamplingParams  # noqa: E402
from vllm.engine.arg_utils import AsyncEngineArgs  # noqa: E402
from vllm.exceptions import VLLMClientError  # noqa: E402
from vllm.sampling_params import RequestOutputKind  # noqa: E402
from vllm.v1.engine.async_llm import AsyncLLM  # noqa: E402
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError  # noqa: E402
from vllm.v1.metrics.loggers import StatLoggerBase  # noqa: E402

from inference.config import InferenceConfig  # noqa: E402
from inference.context_window import fit_messages  # noqa: E402
from inference.device_memory import MIB, get_reader  # noqa: E402
from inference.engines.base import Engine  # noqa: E402
from inference.engines.chinese_script import stream_taiwanese  # noqa: E402
from inference.engines.vllm_worker import OWNER_PID  # noqa: E402
from inference.interfaces import (  # noqa: E402
    KV_CACHE_USE,
    REQUESTS_WAITING,
    GenerationEvent,
    GenerationFinished,
    GenerationOptions,
    InferenceError,
    InferenceUnavailable,
    Message,
    TextDelta,
)
from inference.models.store import model_dir  # noqa: E402

logger = logging.getLogger(__name__)

#: Back-off before a dead engine is restarted: doubled each time it dies before it has settled.
FIRST_RESTART_S = 0.5
LAST_RESTART_S = 30.0
SETTLED_AFTER_S = 60.0
SHUTDOWN_S = 10.0
#: Number of last requests that the figures cover.
FIGURES_OF = 50


class _KvCacheUse(StatLoggerBase):  # type: ignore[misc]  # vLLM is in another environment
    """Hears from vLLM's scheduler, with each step, what share of the KV-cache is in use."""

    def __init__(self, note: Callable[[float], None]) -> None:
        self._note = note

    def record(
        self,
        scheduler_stats: Any,
        iteration_stats: Any,
        mm_cache_stats: Any = None,
        engine_idx: int = 0,
    ) -> None:
        if scheduler_stats is not None:
            self._note(float(scheduler_stats.kv_cache_usage))

    def log_engine_initialized(self) -> None:
        pass


def create_llm(*, model: str, config: InferenceConfig) -> Vllm:
    return Vllm(model_dir(config.models_dir, model), config)


def make_engine_args(folder: Path, config: InferenceConfig) -> AsyncEngineArgs:
    """Return vLLM's arguments for a model folder."""
    arguments: dict[str, Any] = {
        "model": str(folder),
        "enable_prefix_caching": True,
        "max_model_len": config.context_tokens,
        "max_num_seqs": config.llm_max_sequences,
        "tensor_parallel_size": config.llm_tensor_parallel,
        "quantization": config.llm_quantisation or None,
        "dtype": config.llm_dtype,
        "enable_log_requests": False,
        "worker_extension_cls": "inference.engines.vllm_worker.DiesWithOwner",
        "generation_config": "vllm",  # sampling parameters come from the caller, not from the model folder
    }
    if config.device == "cpu":
        # Eager, because compiling every shape takes minutes; float32, because bfloat16 is slower without AMX.
        arguments |= {"enforce_eager": True, "dtype": "float32" if config.llm_dtype == "auto" else config.llm_dtype}
    elif devices := get_reader(config).read():
        arguments["gpu_memory_utilization"] = config.llm_memory_mib * MIB / devices[0].total_bytes
    return AsyncEngineArgs(**arguments)


class Vllm(Engine):
    """`LanguageModel` on a Hugging Face model folder. The constructor blocks until the engine's process is up."""

    def __init__(self, folder: Path, config: InferenceConfig) -> None:
        self.model_name = folder.name
        self.device = config.device
        self._arguments = make_engine_args(folder, config)
        self._context_tokens = config.context_tokens
        self._tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        self._count_tokens = lru_cache(maxsize=4096)(lambda text: len(self._encode(text)))
        # vLLM removes none of its sockets.
        self._sockets = tempfile.TemporaryDirectory(prefix="avatar-vllm-")
        self._kv_cache_use = 0.0
        self._engine: AsyncLLM | None = self._start()
        self._started_at = time.monotonic()
        self._deaths = 0
        self._restart: asyncio.Task[None] | None = None
        self._closed = False
        self._active = 0
        self._waiting = 0
        self._first_token_s: deque[float] = deque(maxlen=FIGURES_OF)
        self._queue_s: deque[float] = deque(maxlen=FIGURES_OF)

    def _start(self) -> AsyncLLM:
        os.environ[OWNER_PID] = str(os.getpid())
        os.environ["VLLM_RPC_BASE_PATH"] = self._sockets.name
        return AsyncLLM.from_engine_args(self._arguments, stat_loggers=[lambda *_: _KvCacheUse(self._note_kv_cache)])

    async def warm_up(self) -> None:
        async for _ in self.generate([Message("user", "你好")], GenerationOptions(max_tokens=2)):
            pass

    async def close(self) -> None:
        self._closed = True
        if self._restart is not None:
            # A start in progress runs in a thread and cannot be cancelled: its engine is shut down afterwards.
            await asyncio.wait([self._restart])
        if self._engine is not None:
            engine, self._engine = self._engine, None
            await asyncio.to_thread(engine.shutdown, SHUTDOWN_S)
        self._sockets.cleanup()

    # --- the border ---

    async def generate(
        self, messages: Sequence[Message], options: GenerationOptions
    ) -> AsyncGenerator[GenerationEvent]:
        tokens = self._render(self._fit(messages, options.max_tokens))
        async with aclosing(stream_taiwanese(self._stream(tokens, options))) as events:
            async for event in events:
                yield event

    async def prefill(self, messages: Sequence[Message]) -> None:
        if not messages:
            return
        fitted = self._fit(messages, GenerationOptions().max_tokens)
        text = self._tokenizer.apply_chat_template(_plain(fitted), tokenize=False)
        content = fitted[-1].content.strip()
        tokens = self._encode(text[: text.rfind(content) + len(content)])
        # Generate one token and discard it: vLLM reads the prompt into its prefix cache.
        async with aclosing(self._stream(tokens, GenerationOptions(max_tokens=1), is_counted=False)) as events:
            async for _ in events:
                pass

    # --- the engine ---

    def diagnose(self) -> str:
        """Return why there is no engine at the moment, or "". Schedules the restart of a dead engine."""
        if self._engine is not None and not self._engine.errored:
            return ""
        if self._restart is None and not self._closed:
            self._restart = asyncio.get_running_loop().create_task(self._restart_engine())
        return "the engine has died and is being started again"

    async def _restart_engine(self) -> None:
        dead, self._engine = self._engine, None
        if dead is not None:
            await asyncio.to_thread(dead.shutdown, SHUTDOWN_S)
        while self._engine is None and not self._closed:
            has_lived = time.monotonic() - self._started_at > SETTLED_AFTER_S
            self._deaths = 1 if has_lived else self._deaths + 1
            delay_s = min(FIRST_RESTART_S * 2 ** (self._deaths - 1), LAST_RESTART_S)
            logger.error("vLLM has died; starting it again in %g s", delay_s)
            await asyncio.sleep(delay_s)
            try:
                self._engine = await asyncio.to_thread(self._start)
            except Exception:  # the cause may be gone at the next attempt
                logger.exception("vLLM does not start")
            self._started_at = time.monotonic()
        self._restart = None

    async def _stream(
        self, tokens: list[int], options: GenerationOptions, *, is_counted: bool = True
    ) -> AsyncGenerator[GenerationEvent]:
        if trouble := self.diagnose():
            raise InferenceUnavailable(trouble)
        assert self._engine is not None  # noqa: S101 — for the type checker: no trouble, so it is there
        try:
            parameters = SamplingParams(
                max_tokens=options.max_tokens,
                temperature=options.temperature,
                seed=options.seed,
                repetition_penalty=options.repeat_penalty,
                output_kind=RequestOutputKind.DELTA,
            )
        except VLLMClientError as error:
            raise InferenceError(f"vLLM: {error}") from error
        began = time.monotonic()
        is_waiting = is_counted
        self._active += is_counted
        self._waiting += is_waiting
        outputs = self._engine.generate({"prompt_token_ids": tokens}, parameters, uuid4().hex)
        completion_tokens = 0
        try:
            # Closing the generator aborts the request in the scheduler.
            async with aclosing(outputs) as stream:
                async for output in stream:
                    if is_waiting:
                        is_waiting = False
                        self._waiting -= 1
                        self._first_token_s.append(time.monotonic() - began)
                        self._note_queue(output.metrics)
                    (completion,) = output.outputs
                    completion_tokens += len(completion.token_ids)
                    if completion.text:
                        yield TextDelta(completion.text)
                    if output.finished:
                        yield GenerationFinished(
                            reason="length" if completion.finish_reason == "length" else "stop",
                            prompt_tokens=len(tokens),
                            completion_tokens=completion_tokens,
                        )
        except EngineDeadError as error:
            raise InferenceUnavailable(self.diagnose() or "vLLM has died") from error
        except (EngineGenerateError, VLLMClientError) as error:
            raise InferenceError(f"vLLM: {error.__cause__ or error}") from error
        finally:
            self._active -= is_counted
            self._waiting -= is_waiting

    def _note_kv_cache(self, use: float) -> None:
        self._kv_cache_use = use

    def _note_queue(self, metrics: Any) -> None:
        if metrics is not None and metrics.scheduled_ts and metrics.queued_ts:
            self._queue_s.append(metrics.scheduled_ts - metrics.queued_ts)

    @property
    def figures(self) -> dict[str, float]:
        """
        TTFT and time in the queue, median and worst of the last requests; the number of requests by state; the share of
        the KV-cache in use.
        """
        figures = {
            "requests_running": float(self._active - self._waiting),
            REQUESTS_WAITING: float(self._waiting),
            # vLLM reports it with each step, and takes none while it has no request.
            KV_CACHE_USE: self._kv_cache_use if self._active else 0.0,
        }
        for name, times in (("first_token", self._first_token_s), ("queue", self._queue_s)):
            if times:
                figures |= {f"{name}_median_s": statistics.median(times), f"{name}_worst_s": max(times)}
        return figures

    # --- the prompt ---

    def _fit(self, messages: Sequence[Message], reply_tokens: int) -> list[Message]:
        return fit_messages(
            messages, budget_tokens=self._context_tokens - reply_tokens, count_tokens=self._count_tokens
        )

    def _render(self, messages: Sequence[Message]) -> list[int]:
        return self._encode(
            self._tokenizer.apply_chat_template(_plain(messages), tokenize=False, add_generation_prompt=True)
        )

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False))


def _plain(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]
