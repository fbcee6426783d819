"""
`python -m inference.check_gpu`: run every engine as production does and print measurements, for owners of a GPU.

The real server listens on a free port, with the engines that the environment names (profile gpu by default), and is
called through the client. Each engine serves one call, then five concurrent ones, and is cancelled.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import logging
import os
import secrets
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, TypeVar

import psutil

from inference import device_memory
from inference.audio.decode import decode
from inference.audio.durations import compute_duration_s
from inference.audio.pcm import Samples, float_from_pcm, pcm_from_float
from inference.audio.resample import resample
from inference.client import InferenceClient
from inference.config import ConfigurationError, InferenceConfig
from inference.device_memory import MIB, BudgetError, DeviceMemoryReader
from inference.host import InferenceServer
from inference.interfaces import (
    BYTES_PER_SAMPLE,
    MICROPHONE_SAMPLE_RATE_HZ,
    AudioChunk,
    EndOfUtterance,
    FinalTranscript,
    GenerationOptions,
    InferenceError,
    Message,
    Quality,
    Role,
    RoleState,
    RoleStatus,
    SynthesisOptions,
    TextDelta,
    TranscriptionInput,
    TranscriptionOptions,
)

T = TypeVar("T")

AT_ONCE = 5
#: Longer than any check takes on two cores; on a GPU each takes seconds.
PATIENCE_S = 300.0
#: Minimum similarity of a transcript: enough to tell speech from noise, not to compare recognisers.
MIN_LIKENESS = 0.5
#: An example recording that f5-tts ships, and its transcript.
RECORDING = "infer/examples/basic/basic_ref_zh.wav"
TRANSCRIPT = "對，這就是我，萬人敬仰的太乙真人。"
SENTENCE = "今天天氣很好，我們一起去公園散步吧。"
QUESTION = (Message("user", "What is the capital of France? Answer in one word."),)
STORY = (Message("user", "Tell me a long story about a lighthouse."),)
FIRST_CLAUSE = SynthesisOptions(is_last=False)


class CheckFailed(Exception):
    """An engine misbehaved. The message says how."""


@dataclass(frozen=True, slots=True)
class Result:
    role: Role
    check: str
    measured: str
    is_passed: bool


@dataclass(slots=True)
class Report:
    """The results so far. Prints each row at once: some checks take a minute."""

    say: Callable[[str], None] = print
    results: list[Result] = field(default_factory=list)

    async def check(self, role: Role, check: str, measure: Awaitable[str]) -> None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                self.add(Result(role, check, await measure, True))
        except (CheckFailed, InferenceError) as error:
            self.add(Result(role, check, str(error), False))
        except TimeoutError:
            self.add(Result(role, check, f"not within {PATIENCE_S:g} s", False))

    def add(self, result: Result) -> None:
        self.results.append(result)
        self.say(describe(result))

    def list_rows(self) -> list[str]:
        """Return the whole table: the libraries print their own lines between its rows."""
        return [row("role", "check", "measured", "result"), *map(describe, self.results)]

    @property
    def is_passed(self) -> bool:
        return all(result.is_passed for result in self.results)


def row(role: str, check: str, measured: str, result: str) -> str:
    return f"{role:<7}  {check:<26}  {result:<6}  {measured}"


def describe(result: Result) -> str:
    return row(result.role.value, result.check, result.measured, "pass" if result.is_passed else "FAIL")


@dataclass(slots=True)
class Checks:
    """The checks of each role, over one client. `are_words_judged` is off for random weights."""

    client: InferenceClient
    report: Report
    speech: bytes
    are_words_judged: bool = True

    async def check_recognition(self) -> None:
        check = self.report.check
        await check(Role.STT, "one utterance", self._hear_one())
        await check(Role.STT, f"{AT_ONCE} at once", self._hear_several())

    async def check_generation(self) -> None:
        check = self.report.check
        await check(Role.LLM, "an answer", self._answer())
        await check(Role.LLM, "one reply", self._reply(1))
        await check(Role.LLM, f"{AT_ONCE} at once", self._reply(AT_ONCE))
        await check(Role.LLM, "a caller who leaves", self._leave())

    async def check_synthesis(self) -> None:
        check = self.report.check
        for quality in Quality:
            await check(Role.TTS, f"{quality.value.replace('_', ' ')}, one clause", self._say_clause(quality))
        await check(Role.TTS, f"fast, {AT_ONCE} at once", self._say_several())
        if self.are_words_judged:
            await check(Role.TTS, "is understood", self._be_understood())

    async def check_restart(self) -> None:
        """Kill the language model's child process, if it has one, and wait until it is restarted."""
        if cores := [child for child in psutil.Process().children(recursive=True) if _is_engine_core(child)]:
            await self.report.check(Role.LLM, "its process is killed", self._come_back(cores))

    # --- recognition ---

    async def _transcribe(self, pcm: bytes) -> tuple[str, float]:
        """Return the transcript, and the seconds from the end of the audio to it."""
        sent_at = time.monotonic()

        async def audio() -> AsyncIterator[TranscriptionInput]:
            nonlocal sent_at
            block = MICROPHONE_SAMPLE_RATE_HZ * BYTES_PER_SAMPLE
            for start in range(0, len(pcm), block):
                yield pcm[start : start + block]
            sent_at = time.monotonic()
            yield EndOfUtterance()

        options = TranscriptionOptions(endpointing=False)
        events = self.client.stt.transcribe(audio(), options)
        texts = [event.text async for event in events if isinstance(event, FinalTranscript)]
        return " ".join(texts), time.monotonic() - sent_at

    async def _hear_one(self) -> str:
        text, took_s = await self._transcribe(self.speech)
        if self.are_words_judged:
            expect_words(text, TRANSCRIPT)
        return f"{self._speech_s:.1f} s of speech, final after {took_s:.2f} s: {text}"

    async def _hear_several(self) -> str:
        heard = await _gather(self._transcribe(self.speech) for _ in range(AT_ONCE))
        if self.are_words_judged:
            for text, _ in heard:
                expect_words(text, TRANSCRIPT)
        return f"finals after {_range(took_s for _, took_s in heard)} s"

    @property
    def _speech_s(self) -> float:
        return compute_duration_s(self.speech, MICROPHONE_SAMPLE_RATE_HZ)

    # --- generation ---

    async def _generate(self, messages: Sequence[Message], options: GenerationOptions) -> tuple[str, float, float]:
        """Return the reply, its TTFT in seconds, and pieces per second after the first."""
        began = time.monotonic()
        times, text = [], ""
        async for event in self.client.llm.generate(messages, options):
            if isinstance(event, TextDelta):
                times.append(time.monotonic())
                text += event.text
        if not times:
            raise CheckFailed("not a word")
        return text, times[0] - began, (len(times) - 1) / max(times[-1] - times[0], 1e-3)

    async def _answer(self) -> str:
        text, first_s, _ = await self._generate(QUESTION, GenerationOptions(max_tokens=32, temperature=0))
        if self.are_words_judged and not any(name in text for name in ("Paris", "巴黎")):
            raise CheckFailed(f"the capital of France is said to be {text!r}")
        return f"TTFT {first_s:.2f} s: {text.strip()}"

    async def _reply(self, count: int) -> str:
        options = GenerationOptions(max_tokens=64, temperature=0)
        # Different prefixes, or the prefix cache would hold them already.
        stories = [[Message("user", f"{number}. {STORY[0].content}")] for number in range(count)]
        made = await _gather(self._generate(story, options) for story in stories)
        return (
            f"TTFT {_range(first_s for _, first_s, _ in made)} s, {sum(rate for *_, rate in made):.0f} pieces/s in all"
        )

    async def _leave(self) -> str:
        began = time.monotonic()
        events = self.client.llm.generate(STORY, GenerationOptions(max_tokens=1000, temperature=0))
        async with aclosing(events):
            await anext(events)
        left_at = time.monotonic()
        await self._follow(lambda status: not (status.active_calls or status.figures.get("requests_running")))
        return f"left after {left_at - began:.2f} s, nothing under way {time.monotonic() - left_at:.2f} s later"

    async def _come_back(self, cores: Sequence[psutil.Process]) -> str:
        began = time.monotonic()
        for core in cores:
            core.kill()
        await self._follow(lambda status: status.state is not RoleState.READY)
        noticed_s = time.monotonic() - began
        await self._follow(lambda status: status.state is RoleState.READY)
        came_back_s = time.monotonic() - began
        await self._generate(QUESTION, GenerationOptions(max_tokens=4))
        return f"noticed after {noticed_s:.1f} s, answers again after {came_back_s:.0f} s"

    # --- synthesis ---

    async def _synthesise(self, text: str, options: SynthesisOptions) -> tuple[list[AudioChunk], float, float]:
        """Return the audio, its TTFA in seconds, and the RTF."""
        began = time.monotonic()
        chunks, first_s = [], 0.0
        async for chunk in self.client.tts.synthesise(text, options):
            first_s = first_s or time.monotonic() - began
            chunks.append(chunk)
        took_s = time.monotonic() - began
        if not chunks:
            raise CheckFailed("not a sound")
        if wrong := {chunk.quality for chunk in chunks} - {options.quality}:
            raise CheckFailed(f"asked for {options.quality.value}, was given {', '.join(wrong)}: no memory for more?")
        return chunks, first_s, took_s / _seconds(chunks)

    async def _say_clause(self, quality: Quality) -> str:
        chunks, first_s, factor = await self._synthesise(SENTENCE, replace(FIRST_CLAUSE, quality=quality))
        sound = f"{_seconds(chunks):.1f} s at {chunks[0].sample_rate_hz} Hz"
        return f"{sound}, first sound after {first_s:.2f} s, RTF {factor:.2f}"

    async def _say_several(self) -> str:
        said = await _gather(
            self._synthesise(f"第{number}次，{SENTENCE}", FIRST_CLAUSE) for number in range(1, AT_ONCE + 1)
        )
        return f"first sounds after {_range(first_s for _, first_s, _ in said)} s"

    async def _be_understood(self) -> str:
        chunks, _, _ = await self._synthesise(SENTENCE, FIRST_CLAUSE)
        samples = float_from_pcm(b"".join(chunk.pcm for chunk in chunks))
        text, _ = await self._transcribe(to_microphone(samples, chunks[0].sample_rate_hz))
        expect_words(text, SENTENCE)
        return f"heard: {text}"

    async def _follow(self, is_over: Callable[[RoleStatus], bool]) -> None:
        """Poll the language model's status until the condition holds."""
        while True:
            status = await self.client.status()
            if is_over(next(each for each in status.roles if each.role is Role.LLM)):
                return
            await asyncio.sleep(0.02)


def _is_engine_core(process: psutil.Process) -> bool:
    try:
        return "EngineCore" in process.name() or "EngineCore" in " ".join(process.cmdline())
    except psutil.Error:
        return False


async def _gather(works: Iterable[Awaitable[T]]) -> list[T]:
    return list(await asyncio.gather(*works))


def _range(seconds: Iterable[float]) -> str:
    ordered = sorted(seconds)
    return f"{ordered[0]:.2f}" if len(ordered) == 1 else f"{ordered[0]:.2f} to {ordered[-1]:.2f}"


def _seconds(chunks: Sequence[AudioChunk]) -> float:
    return sum(compute_duration_s(chunk.pcm, chunk.sample_rate_hz) for chunk in chunks)


def expect_words(heard: str, said: str) -> None:
    """Raise CheckFailed when the transcript differs too much from the text."""
    a, b = ("".join(character for character in text if character.isalnum()) for text in (heard, said))
    if SequenceMatcher(None, a, b, autojunk=False).ratio() < MIN_LIKENESS:
        raise CheckFailed(f"said {said!r}, heard {heard!r}")


def to_microphone(samples: Samples, rate_hz: int) -> bytes:
    """Return float samples as PCM16 at the microphone's rate."""
    return pcm_from_float(resample(samples, rate_hz, MICROPHONE_SAMPLE_RATE_HZ))


def read_recording() -> bytes:
    """Return the example recording as PCM16 at the microphone's rate. Raises CheckFailed without f5-tts."""
    found = importlib.util.find_spec("f5_tts")  # located, not imported: the server imports it
    folders = found.submodule_search_locations if found is not None else None
    if not folders:
        raise CheckFailed("f5-tts is not installed: install requirements/gpu.txt")
    recording = (Path(next(iter(folders))) / RECORDING).read_bytes()
    return pcm_from_float(decode(recording, max_s=60, sample_rate_hz=MICROPHONE_SAMPLE_RATE_HZ).samples)


def describe_devices(config: InferenceConfig, reader: DeviceMemoryReader) -> list[str]:
    """Describe the devices. Raises CheckFailed when there is no GPU although one is configured."""
    devices = reader.read()
    if config.device == "cpu":
        return ["NO GPU WAS MEASURED: AVATAR_DEVICE=cpu. All of this ran on the processor, and says nothing of a GPU."]
    if not devices:
        raise CheckFailed("there is no GPU: does `nvidia-smi` see one? AVATAR_DEVICE=cpu runs the code without")
    return [f"{d.name}: {d.total_bytes // MIB} MiB, {d.free_bytes // MIB} free" for d in devices]


def describe_load(config: InferenceConfig, status: RoleStatus) -> Result:
    """Return the row of a role's start: passed if its first engine loaded on the configured device."""
    wanted = config.engines[status.role][0]
    module, _, _ = wanted.partition(":")
    where = "of the device" if status.device.startswith("cuda") else "of the process"
    measured = f"{wanted} on {status.device}: {status.load_s:.1f} s, {status.memory_bytes // MIB} MiB {where}"
    if status.state is not RoleState.READY or status.engine != module or status.reason:
        return Result(status.role, "loads", f"{status.engine or 'nothing'} instead of {wanted}: {status.reason}", False)
    is_on_device = module not in device_memory.DEVICE_ENGINES or status.device.startswith(config.device)
    return Result(status.role, "loads", measured, is_on_device)


async def run(config: InferenceConfig, report: Report, *, speech: bytes, are_words_judged: bool) -> None:
    """Load the engines, check them, and stop them again. Raises BudgetError, CheckFailed."""
    reader = device_memory.get_reader(config)
    for line in describe_devices(config, reader):
        report.say(line)
    device_memory.check_budget(device_memory.list_shares(config), reader.read(), reserve_mib=config.memory_reserve_mib)
    secret = secrets.token_urlsafe()
    server = InferenceServer(replace(config, address="127.0.0.1:0", secret=secret), reader)
    await server.start()
    client = InferenceClient(f"127.0.0.1:{server.port}", secret=secret)
    try:
        await server.load()
        ready = set()
        for status in (await client.status()).roles:
            report.add(describe_load(config, status))
            if status.state is RoleState.READY:
                ready.add(status.role)
        checks = Checks(client, report, speech, are_words_judged)
        steps: dict[Role, Callable[[], Coroutine[Any, Any, None]]] = {
            Role.STT: checks.check_recognition,
            Role.LLM: checks.check_generation,
            Role.TTS: checks.check_synthesis,
        }
        for role, step in steps.items():
            if role in ready:
                await step()
        for device in reader.read():
            report.say(f"{device.name}: {device.free_bytes // MIB} MiB free with everything loaded")
        await checks.check_restart()
    finally:
        await client.close()
        await server.stop()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m inference.check_gpu", description="Check every engine on the GPU.")
    parser.add_argument(
        "--random-weights", action="store_true", help="judge no words: the weights are stand-ins, the sound is noise"
    )
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.ERROR, stream=sys.stderr)
    report = Report(lambda line: print(line, flush=True))
    try:
        config = InferenceConfig.from_env({"AVATAR_PROFILE": "gpu"} | os.environ)
        asyncio.run(run(config, report, speech=read_recording(), are_words_judged=not options.random_weights))
    except (BudgetError, CheckFailed, ConfigurationError) as error:
        print(f"check-gpu: {error}", file=sys.stderr)
        return 1
    print("", *report.list_rows(), "", sep="\n")
    failed = sum(not result.is_passed for result in report.results)
    print(f"{len(report.results) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
