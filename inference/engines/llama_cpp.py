"""
Generation with llama.cpp (through xllamacpp) in this process: continuous batching over slots, a prefix cache per slot.

A call goes to the slot with the longest common prefix, so that a conversation finds its own history in the cache; a
slot that is being prefilled with it is waited for. A system prompt is read once: its state is saved to a file, from
which any slot restores it in milliseconds.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import tempfile
import threading
import urllib.request
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, cast

from inference.config import InferenceConfig
from inference.context_window import fit_messages
from inference.engines.base import Engine
from inference.engines.chinese_script import stream_taiwanese
from inference.interfaces import (
    GenerationEvent,
    GenerationFinished,
    GenerationOptions,
    InferenceError,
    Message,
    TextDelta,
)
from inference.models.store import model_dir

# libgomp reads this when it is loaded. At its default, a thread of llama.cpp spins for milliseconds at each of the
# hundreds of barriers of a token; where other processes compute, it thereby uses up the time that the other thread is
# waiting for. See docs/decisions/0021-let-llama-cpp-wait-without-spinning.md.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import xllamacpp

T = TypeVar("T")

logger = logging.getLogger(__name__)

#: A prompt is read in steps of this many tokens (about a second on two cores), so that cancellation takes effect.
READ_STEP_TOKENS = 32
#: Saved states of system prompts; the least recently used is evicted. 28 kB a token for a model of 1.5B.
MAX_PREAMBLES = 8
#: A slot belongs to a conversation that shares more than this part of the slot's text.
MIN_OWN_SHARE = 0.6
TOKENIZE_TIMEOUT_S = 10.0
#: Niceness, 0 (normal) to 19 (only idle time). With Linux's autogroups it counts within a session only, and the
#: supervisor gives the inference process a session of its own.
BACKGROUND_NICENESS = 10
#: Scripts that no voice here can speak: from Greek to Cherokee (with Cyrillic, Hebrew, Arabic, Thai), kana, Hangul.
#: They are excluded by a grammar, which sees characters: a bias on tokens misses characters made of byte tokens.
#: llama.cpp checks it against the sampled token, and against all tokens only if that one fails.
FOREIGN_SCRIPTS = (
    r"\u0370-\u1dff\u2c00-\u2dff\u3040-\u30ff\u3130-\u318f\u31f0-\u31ff\ua4d0-\uabff\uac00-\ud7ff"
    r"\ufb13-\ufdff\ufe70-\ufefc\uff66-\uffdc"
)
GRAMMAR = f"root ::= [^{FOREIGN_SCRIPTS}]*"


def create_llm(*, model: str, config: InferenceConfig) -> LlamaCpp:
    return LlamaCpp(
        model_dir(config.models_dir, model) / "model.gguf",
        name=model,
        threads=config.threads,
        context_tokens=config.context_tokens,
        slots=config.max_calls,
    )


def _in_background(create: Callable[[], T]) -> T:
    """
    Create an object whose threads run at low priority: threads inherit the niceness of their creator.

    The first clause is synthesised sooner when the language model yields the processor: its next words are needed only
    once that clause has been played.
    """

    def work() -> T:
        with suppress(OSError, AttributeError):  # not on every platform
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), BACKGROUND_NICENESS)
        return create()

    # In a thread of its own, because niceness cannot be lowered again.
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(work).result()


@dataclass(slots=True)
class _Slot:
    number: int
    text: str = ""
    busy: asyncio.Lock = field(default_factory=asyncio.Lock)
    used: int = 0


def choose_slot(slots: Sequence[_Slot], text: str, *, preamble_length: int = 0) -> _Slot:
    """
    Choose the slot for `text`: the one with the longest common prefix, even if it is busy reading it.

    All conversations share the preamble, the first `preamble_length` characters, so ownership of a slot is decided by
    the text after it. A slot that belongs to another conversation is used only if it is the least recently used.
    """
    shared = {slot.number: _shared_length(slot.text, text) for slot in slots}

    def is_own(slot: _Slot) -> bool:
        beyond = len(slot.text) - preamble_length
        if beyond <= 0:
            return bool(slot.text) and shared[slot.number] > MIN_OWN_SHARE * len(slot.text)
        return shared[slot.number] - preamble_length > MIN_OWN_SHARE * beyond

    own = [slot for slot in slots if is_own(slot)]
    if own:
        return max(own, key=lambda slot: (shared[slot.number], slot.used))
    free = [slot for slot in slots if not slot.busy.locked()]
    return min(free or slots, key=lambda slot: slot.used)


class LlamaCpp(Engine):
    """`LanguageModel` on a GGUF file. Each slot has `context_tokens` of its own."""

    device = "cpu"

    def __init__(self, path: Path, *, name: str, threads: int, context_tokens: int, slots: int) -> None:
        self.model_name = name
        self._context_tokens = context_tokens
        self._key = secrets.token_urlsafe(24)
        parameters = xllamacpp.CommonParams()
        parameters.model.path = str(path)
        parameters.n_ctx = context_tokens * slots
        parameters.n_parallel = slots
        parameters.cpuparams.n_threads = threads
        parameters.cpuparams_batch.n_threads = threads
        parameters.n_cache_reuse = 32  # after the oldest messages were dropped, the rest is shifted, not read again
        parameters.cache_ram_mib = 0  # slots are the cache; conversations are few
        parameters.verbosity = 1
        # The library always listens on a port: on the loopback interface, a port chosen by the system, with a random
        # key.
        parameters.hostnames = ["127.0.0.1"]
        parameters.port = 0
        parameters.api_keys = [self._key]
        self._folder = tempfile.TemporaryDirectory(prefix="avatar-llama-")
        parameters.slot_save_path = self._folder.name + os.sep
        self._server = _in_background(lambda: xllamacpp.Server(parameters))
        self._preambles: dict[str, Path] = {}  # saved states of system prompts by their text, least recently used first
        self._slots = [_Slot(number) for number in range(slots)]
        self._calls = 0
        self.grammar = GRAMMAR
        self._threads = ThreadPoolExecutor(max_workers=2 * slots, thread_name_prefix="llama")
        self.count_tokens = lru_cache(maxsize=1024)(self._count_tokens)

    async def warm_up(self) -> None:
        events = self.generate([Message("user", "你好")], GenerationOptions(max_tokens=2))
        async for _ in events:
            pass
        for slot in self._slots:
            slot.text = ""

    async def close(self) -> None:
        # The server's main loop ends with the object; running threads have been cancelled by their callers.
        self._threads.shutdown(wait=True, cancel_futures=True)
        del self._server
        self._folder.cleanup()

    async def generate(
        self, messages: Sequence[Message], options: GenerationOptions
    ) -> AsyncGenerator[GenerationEvent]:
        fitted = await self._fit(messages, options.max_tokens)
        prompt = await self._in_thread(self._render, fitted)
        preamble = extract_preamble(prompt, fitted)
        async with self._slot_for(prompt, preamble) as slot:
            await self._read(slot, prompt, preamble=preamble)
            async with aclosing(stream_taiwanese(self._stream(slot, fitted, options))) as events:
                async for event in events:
                    yield event

    async def prefill(self, messages: Sequence[Message]) -> None:
        if not messages:
            return
        # Fitted as for the reply, so that both have the same prefix.
        fitted = await self._fit(messages, GenerationOptions().max_tokens)
        prompt = await self._in_thread(self._render, fitted)
        content = fitted[-1].content
        end = prompt.rfind(content) + len(content)  # what the template adds after it will differ
        preamble = extract_preamble(prompt, fitted)
        async with self._slot_for(prompt[:end], preamble) as slot:
            await self._read(slot, prompt[:end], preamble=preamble, to_the_end=True)

    async def _fit(self, messages: Sequence[Message], reply_tokens: int) -> list[Message]:
        return await self._in_thread(
            lambda: fit_messages(
                messages, budget_tokens=self._context_tokens - reply_tokens, count_tokens=self.count_tokens
            )
        )

    # --- slots ---

    @asynccontextmanager
    async def _slot_for(self, text: str, preamble: str) -> AsyncIterator[_Slot]:
        self._calls += 1
        slot = choose_slot(self._slots, text, preamble_length=len(preamble))
        async with slot.busy:
            slot.used = self._calls
            yield slot

    # --- blocking work, in threads ---

    async def _in_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

    def _post(self, path: str, body: object) -> Any:
        request = urllib.request.Request(  # noqa: S310 — the library's own listener on this machine
            self._server.listening_address + path,
            json.dumps(body).encode(),
            {"Content-Type": "application/json", "Authorization": f"Bearer {self._key}"},
        )
        with urllib.request.urlopen(request, timeout=TOKENIZE_TIMEOUT_S) as response:  # noqa: S310
            return json.load(response)

    def _tokenize(self, text: str) -> list[int]:
        tokens = self._post("/tokenize", {"content": text, "parse_special": True})["tokens"]
        return cast(list[int], tokens)

    def _count_tokens(self, text: str) -> int:
        return len(self._tokenize(text))

    def _render(self, messages: Sequence[Message]) -> str:
        body = {"messages": [{"role": m.role, "content": m.content} for m in messages]}
        return cast(str, self._post("/apply-template", body)["prompt"])

    async def _read(self, slot: _Slot, prompt: str, *, preamble: str, to_the_end: bool = False) -> None:
        """
        Read the prompt into the slot step by step; the generation itself reads the last step.

        `preamble` is the prefix of `prompt` that all conversations share; it may be empty.
        """
        shared = _shared_length(slot.text, prompt)
        slot.text = prompt  # the next call finds the slot by it
        if shared == len(prompt):
            return
        if shared < len(preamble) and await self._recall(slot, preamble):
            shared = len(preamble)
        tokens = await self._in_thread(self._tokenize, prompt)
        done = await self._in_thread(self.count_tokens, prompt[:shared]) if shared else 0
        preamble_end = await self._in_thread(self.count_tokens, preamble) if shared < len(preamble) else 0
        ends = set(range(done + READ_STEP_TOKENS, len(tokens), READ_STEP_TOKENS))
        if preamble_end:
            ends.add(preamble_end)
        if to_the_end:
            ends.add(len(tokens))
        for end in sorted(ends):
            step = asyncio.ensure_future(self._in_thread(self._read_step, slot.number, tokens[:end]))
            try:
                await asyncio.shield(step)
            except asyncio.CancelledError:
                # The slot is busy until the engine returns from this step.
                await asyncio.wait([step])
                # An estimate of what it has read: the next call reads the rest in steps again.
                slot.text = prompt[: len(prompt) * end // len(tokens)]
                raise
            if end == preamble_end:
                await self._remember(slot, preamble)

    async def _remember(self, slot: _Slot, preamble: str) -> None:
        """Save the slot's state, which is that of the preamble."""
        path = Path(self._folder.name) / secrets.token_hex(8)
        await self._in_thread(self._post, f"/slots/{slot.number}?action=save", {"filename": path.name})
        self._preambles[preamble] = path
        if len(self._preambles) > MAX_PREAMBLES:
            self._preambles.pop(next(iter(self._preambles))).unlink(missing_ok=True)

    async def _recall(self, slot: _Slot, preamble: str) -> bool:
        """Restore the saved state of the preamble into the slot. Return False if there is none."""
        path = self._preambles.pop(preamble, None)
        if path is None:
            return False
        try:
            await self._in_thread(self._post, f"/slots/{slot.number}?action=restore", {"filename": path.name})
        except OSError as error:  # the file is missing or incomplete: the preamble is read again
            logger.warning("the saved state of a system prompt is lost: %s", error)
            return False
        self._preambles[preamble] = path
        return True

    def _read_step(self, slot: int, tokens: list[int]) -> None:
        errors: list[Any] = []

        def receive(answer: Any) -> bool:
            if "error" in answer:
                errors.append(answer)
            return False

        self._server.handle_completions(
            {"prompt": tokens, "n_predict": 0, "cache_prompt": True, "id_slot": slot}, receive
        )
        if errors:
            raise InferenceError(f"llama.cpp: {errors[0]['error']}")

    async def _stream(
        self, slot: _Slot, messages: Sequence[Message], options: GenerationOptions
    ) -> AsyncGenerator[GenerationEvent, None]:
        loop = asyncio.get_running_loop()
        chunks: asyncio.Queue[Any] = asyncio.Queue()  # bounded by max_tokens
        stopped = threading.Event()
        request: dict[str, Any] = {
            "messages": [{"role": m.role, "content": m.content} for m in messages],
            "stream": True,
            "max_tokens": options.max_tokens,
            "temperature": options.temperature,
            "repeat_penalty": options.repeat_penalty,
            "grammar": self.grammar,
            "cache_prompt": True,
            "id_slot": slot.number,
        }
        if options.seed is not None:
            request["seed"] = options.seed

        def receive(chunk: Any) -> bool:
            loop.call_soon_threadsafe(chunks.put_nowait, chunk)
            return stopped.is_set()

        def work() -> None:
            try:
                self._server.handle_chat_completions(request, receive)
            except Exception as error:  # raised in the caller
                loop.call_soon_threadsafe(chunks.put_nowait, error)
            finally:
                loop.call_soon_threadsafe(chunks.put_nowait, None)

        working = loop.run_in_executor(self._threads, work)
        finished = False
        try:
            while (chunk := await chunks.get()) is not None:
                for event in _events(chunk):
                    finished = finished or isinstance(event, GenerationFinished)
                    if isinstance(event, TextDelta):
                        slot.text += event.text
                    yield event
            if not finished:
                raise InferenceError("llama.cpp ended the reply without saying why")
        finally:
            stopped.set()
            # The slot is busy until the engine stops: within one token.
            await asyncio.shield(working)


def _events(chunk: Any) -> list[GenerationEvent]:
    if isinstance(chunk, Exception):
        raise InferenceError(f"llama.cpp: {chunk}") from chunk
    if "error" in chunk:
        raise InferenceError(f"llama.cpp: {chunk['error'].get('message', chunk['error'])}")
    events: list[GenerationEvent] = []
    for choice in chunk.get("choices", ()):
        if text := choice.get("delta", {}).get("content"):
            events.append(TextDelta(text))
        if reason := choice.get("finish_reason"):
            timings = chunk.get("timings", {})
            events.append(
                GenerationFinished(
                    reason="length" if reason == "length" else "stop",
                    prompt_tokens=timings.get("cache_n", 0) + timings.get("prompt_n", 0),
                    completion_tokens=timings.get("predicted_n", 0),
                )
            )
    return events


def extract_preamble(prompt: str, messages: Sequence[Message]) -> str:
    """
    Return the prefix that `prompt`, which is `messages` in the model's template, shares with other conversations.

    It ends with the last shared message, or with the system prompt when no message is marked as shared.
    """
    end = 0
    for place, message in enumerate(messages):
        if not message.is_shared and (place or message.role != "system"):
            break
        content = message.content.strip()
        start = prompt.find(content, end)
        if start < 0:
            return ""
        end = start + len(content)
    return prompt[:end]


def _shared_length(one: str, other: str) -> int:
    """Return the length of the common prefix of two texts."""
    length = min(len(one), len(other))
    if one[:length] == other[:length]:
        return length
    low, high = 0, length
    while low < high:
        middle = (low + high + 1) // 2
        if one[:middle] == other[:middle]:
            low = middle
        else:
            high = middle - 1
    return low
