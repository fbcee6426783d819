"""
`make bench-load`: how late transcripts come with many calls at once, with scripted engines.

Every caller is a microphone in real time: two seconds of speech, two of silence, over and over, each with an answer.
Calls are held as the web process holds them, without the sockets in front; the engines are a process of their own,
over gRPC. `--turn-ms` holds up each turn of the calls' event loop, as other work in the web process does. Measures from
the last frame of speech to the final transcript, the pause of 600 ms included, with one frame a message to the
recogniser and with what waits joined into one, and prints the machine: figures of different machines or hours are not
to be compared.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from uuid import UUID

import psutil

from inference.address import make_default_address
from inference.client import InferenceClient
from inference.interfaces import InferenceError
from realtime import messages, recogniser
from realtime.call.settings import CallSettings
from realtime.call.turns import CorrectedTurn, SaidTurn
from realtime.call.voice import Voice
from realtime.messages import AudioFormat, ServerMessage
from realtime.runner import CallRunner
from tests.bench.conversation import machine
from tests.fakes import cut_frames, make_silence, make_tone

FRAME_S = 0.02
SPEECH = cut_frames(make_tone(2000))
SILENCE = cut_frames(make_silence(2000))
READY_WITHIN_S = 60.0
ITEM_BYTES = {"a frame a message": 640, "joined": recogniser.MAX_ITEM_BYTES}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--callers", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=40.0, help="how long each kind is measured")
    parser.add_argument("--turn-ms", type=float, default=0.0, help="how long other work holds each turn of the loop up")
    options = parser.parse_args()
    print(f"{machine()}, {options.callers} callers, load {os.getloadavg()[0]:.1f} before")
    # There and back again: a machine that others use as well changes from minute to minute.
    for name in (*ITEM_BYTES, *reversed(ITEM_BYTES)):
        recogniser.MAX_ITEM_BYTES = ITEM_BYTES[name]
        with tempfile.TemporaryDirectory() as folder, running_engines(Path(folder), options.callers) as engines:
            began_s, engines_began_s = time.process_time(), measure_processor_s(engines)
            callers = asyncio.run(call_all(make_default_address(Path(folder)), options))
            used_s = time.process_time() - began_s, measure_processor_s(engines) - engines_began_s
        report(name, callers)
        print(f"{'':18} processor: calls {used_s[0]:.0f} s, engines {used_s[1]:.0f} s")
    return 0


@contextlib.contextmanager
def running_engines(folder: Path, callers: int) -> Iterator[subprocess.Popen[bytes]]:
    """The scripted engines, with room for each caller's speculations as well."""
    environment = os.environ | {
        "AVATAR_PROFILE": "fake",
        "AVATAR_DATA_DIR": str(folder),
        "AVATAR_INFERENCE_ADDRESS": "",
        "AVATAR_INFERENCE_MAX_CALLS": str(4 * callers),
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "inference"], env=environment, stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(30)


def measure_processor_s(process: subprocess.Popen[bytes]) -> float:
    times = psutil.Process(process.pid).cpu_times()
    return float(times.user + times.system)


class Caller:
    """One call and its microphone. `late_ms` are the transcripts that came."""

    def __init__(self, client: InferenceClient) -> None:
        self.late_ms: list[float] = []
        self.errors = 0
        self.spoke_until: list[float] = []
        self.runner = CallRunner(
            stt=client.stt,
            llm=client.llm,
            tts=client.tts,
            send_event=self._take,
            send_audio=self._hear,
            record=self._forget,
            history=(),
            settings=CallSettings(),
            find_voice=self._find_voice,
            find_past=self._find_past,
            decode_audio=self._decode,
            make_audio_url=lambda turn_id: None,
            clock=time.monotonic,
        )

    async def hold(self, seconds: float, starts_after_s: float) -> None:
        """Speak and be silent in turns; hang up once the last transcript had time to come."""
        call = asyncio.create_task(self.runner.run())
        try:
            await asyncio.sleep(starts_after_s)
            ends_at = time.monotonic() + seconds
            async for frame, is_last_of_speech in pace(ends_at):
                self.runner.push_frame(frame)
                if is_last_of_speech:
                    self.spoke_until.append(time.monotonic())
        finally:
            call.cancel()
            await asyncio.wait([call])
        if not call.cancelled():
            call.result()

    async def _take(self, message: ServerMessage) -> None:
        if isinstance(message, messages.ErrorMessage):
            self.errors += 1
        elif isinstance(message, messages.Transcription) and message.is_final and self.spoke_until:
            self.late_ms.append((time.monotonic() - self.spoke_until.pop(0)) * 1000)

    async def _hear(self, pcm: bytes) -> None: ...

    def _forget(self, turn: SaidTurn | CorrectedTurn) -> None: ...

    async def _find_voice(self, voice_profile_id: UUID | None) -> Voice | None:
        return Voice()

    async def _find_past(self, turn_id: UUID) -> None: ...

    async def _decode(self, data: bytes, kind: AudioFormat, max_ms: int) -> bytes:
        return data


async def pace(ends_at: float) -> AsyncGenerator[tuple[bytes, bool]]:
    """Yield frames as a microphone does. After a delay it sends the backlog at once."""
    due_at = time.monotonic()
    while time.monotonic() < ends_at:
        for frames, is_speech in ((SPEECH, True), (SILENCE, False)):
            for number, frame in enumerate(frames):
                yield frame, is_speech and number == len(frames) - 1
                due_at += FRAME_S
                await asyncio.sleep(max(0.0, due_at - time.monotonic()))


async def call_all(address: str, options: argparse.Namespace) -> list[Caller]:
    client = InferenceClient(address)
    try:
        await wait_until_ready(client)
        callers = [Caller(client) for _ in range(options.callers)]
        other_work = asyncio.create_task(hold_up_loop(options.turn_ms / 1000))
        async with asyncio.TaskGroup() as group:
            for number, caller in enumerate(callers):
                # Not all in the same moment, as people are.
                group.create_task(caller.hold(options.seconds, 4 * number / options.callers))
        other_work.cancel()
    finally:
        await client.close()
    return callers


async def hold_up_loop(turn_s: float) -> None:
    while turn_s:
        time.sleep(turn_s)  # noqa: ASYNC251 — blocking is what it is for
        await asyncio.sleep(0)


async def wait_until_ready(client: InferenceClient) -> None:
    async with asyncio.timeout(READY_WITHIN_S):
        while True:
            with contextlib.suppress(InferenceError):
                if (await client.status()).is_ready:
                    return
            await asyncio.sleep(0.1)


def report(name: str, callers: list[Caller]) -> None:
    late_ms = sorted(ms for caller in callers for ms in caller.late_ms)
    missing = sum(len(caller.spoke_until) for caller in callers)
    if not late_ms:
        print(f"{name}: no transcript came, {missing} are missing")
        return
    print(
        f"{name:18} transcripts {len(late_ms)}, median {statistics.median(late_ms):.0f} ms, "
        f"p95 {late_ms[int(len(late_ms) * 0.95)]:.0f}, worst {late_ms[-1]:.0f}; missing {missing}, "
        f"errors {sum(caller.errors for caller in callers)}, load {os.getloadavg()[0]:.1f}"
    )


if __name__ == "__main__":
    sys.exit(main())
