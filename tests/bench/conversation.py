"""
`make bench`: ten spoken turns through the whole product, and what they took.

Starts AVATAR by itself in a folder of its own, has five Mandarin and five English questions of about three seconds
spoken by the stock voices, and asks them with `manage.py talk`, in real time. Prints medians and the worst, and the
machine: figures of different machines or hours are not to be compared.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import psutil

from inference.address import make_default_address
from inference.audio.encode import encode_wav
from inference.client import InferenceClient
from inference.interfaces import SynthesisOptions

QUESTIONS = (
    ("zh-1", "zf_xiaoyi", "請問台灣最高的山是哪一座？有多高？"),
    ("en-1", "af_heart", "Could you tell me what the capital of France is?"),
    ("zh-2", "zm_yunxi", "我今天晚上想吃點熱的，你有什麼建議？"),
    ("en-2", "am_michael", "What is a good way to learn a new language?"),
    ("zh-3", "zf_xiaoxiao", "早上喝咖啡對身體好不好，可以喝幾杯？"),
    ("en-3", "bf_emma", "How many minutes does it take to boil an egg?"),
    ("zh-4", "zm_yunyang", "下雨天的週末，適合帶小朋友去哪裡玩？"),
    ("en-4", "bm_george", "Please give me one idea for a rainy weekend."),
    ("zh-5", "zf_xiaoni", "晚上睡不著的時候，可以做些什麼？"),
    ("en-5", "af_bella", "Why is the sky blue during the day? Please be brief."),
)
QUESTIONS_A_CALLER = 3
STAGES = ("stt", "ttft", "ttfa", "total")
READY_WITHIN_S = 300.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write every turn here as well")
    parser.add_argument("--keep", type=Path, help="keep questions and replies as WAV files in this folder")
    parser.add_argument("--during", choices=tuple(JOBS), help="ask once more while a voice is being built, or fitted")
    parser.add_argument("--callers", type=int, default=1, help="so many people talk at once, three questions each")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, running_avatar(Path(folder)) as environment:
        sounds = options.keep or Path(folder) / "sounds"
        sounds.mkdir(parents=True, exist_ok=True)
        questions = asyncio.run(speak_questions(make_default_address(Path(environment["AVATAR_DATA_DIR"])), sounds))
        if options.callers > 1:
            runs = [ask_together(options.callers, questions, sounds, environment)]
        else:
            runs = [ask(questions, sounds, environment)]
        if options.during:
            JOBS[options.during](environment)
            runs.append(ask(questions, sounds, environment))
            print(f"the voice after the ten: {look_at_voice(environment)}")
    if options.json:
        options.json.write_text("\n".join(json.dumps(turn, ensure_ascii=False) for turns in runs for turn in turns))
    for turns in runs:
        report(turns)
    expected = len(QUESTIONS) if options.callers == 1 else options.callers * QUESTIONS_A_CALLER
    return 0 if all(len(turns) == expected for turns in runs) else 1


def ask(questions: list[Path], sounds: Path, environment: dict[str, str]) -> list[dict[str, object]]:
    command = ["talk", *map(str, questions), "--json", "--out", str(sounds)]
    # It fails when any turn came with an error, such as FELL_BEHIND.
    lines = manage(environment, *command, check=False).splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def ask_together(
    callers: int, questions: list[Path], sounds: Path, environment: dict[str, str]
) -> list[dict[str, object]]:
    """Have several people talk at once, each beginning with another question."""

    def call(number: int) -> list[dict[str, object]]:
        folder = sounds / f"caller-{number}"
        folder.mkdir()
        return ask([*questions[number:], *questions[:number]][:QUESTIONS_A_CALLER], folder, environment)

    with ThreadPoolExecutor(callers) as pool:
        return [turn for turns in pool.map(call, range(callers)) for turn in turns]


def manage(environment: dict[str, str], *arguments: str, check: bool = True) -> str:
    # Our own commands; their words come from this file.
    command = [sys.executable, "manage.py", *arguments]
    return subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=check).stdout


def start_building(environment: dict[str, str]) -> None:
    """Have the worker build a voice from a recording; return once it has claimed the job."""
    run_in_shell(
        environment,
        "from django.contrib.auth.models import User",
        "from tests.recordings import read_recording",
        "from voices import services",
        "audio = read_recording('nature').path.read_bytes()",
        "owner = User.objects.get(is_superuser=True)",
        "services.create_voice_profile(owner=owner, name='Bench', audio=audio, attestation='permission')",
    )
    wait_for_voice(environment, "extracting")


def start_fitting(environment: dict[str, str]) -> None:
    """Have the worker fit a voice once it is built; return once it has claimed the job."""
    start_building(environment)
    wait_for_voice(environment, "ready")
    run_in_shell(
        environment,
        "from voices import services",
        "from voices.models import VoiceProfile",
        "services.start_fitting(profile=VoiceProfile.objects.get(name='Bench'))",
    )
    wait_for_voice(environment, "ready", "running")


JOBS = {"building": start_building, "fitting": start_fitting}


def wait_for_voice(environment: dict[str, str], state: str, fitting: str = "none") -> None:
    began = time.monotonic()
    while not (seen := look_at_voice(environment)).startswith(f"{state} ") or f" fitting {fitting} " not in seen:
        if time.monotonic() - began > READY_WITHIN_S:
            raise TimeoutError(f"the voice is not {state}, fitting {fitting}: {seen}")


def look_at_voice(environment: dict[str, str]) -> str:
    return run_in_shell(
        environment,
        "from voices.models import VoiceProfile",
        "voice = VoiceProfile.objects.get(name='Bench')",
        "from voices.api.serializers import describe_status",
        "now = describe_status(voice, is_own=True)",
        "print('{state} {step} {progress:.0%}, fitting {fitting[state]} {fitting[progress]:.0%}'.format(**now))",
    ).strip()


def run_in_shell(environment: dict[str, str], *lines: str) -> str:
    return manage(environment, "shell", "--no-imports", "--command", "\n".join(lines))


@contextmanager
def running_avatar(folder: Path) -> Iterator[dict[str, str]]:
    """Start the supervisor on free ports, wait until it says that it is ready, and stop it in the end."""
    (port,) = free_ports(1)
    environment = os.environ | {
        "AVATAR_DATA_DIR": str(folder / "data"),
        "AVATAR_PORT": str(port),
        # All of them are the first operator.
        "AVATAR_MAX_CALLS_PER_PERSON": "10",
        "PYTHONUNBUFFERED": "1",
    }
    began = time.monotonic()
    supervisor = subprocess.Popen(
        [sys.executable, "manage.py", "serve", "--prepare"], env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert supervisor.stdout is not None
        for line in supervisor.stdout:
            print(line, end="", flush=True)
            if "AVATAR is ready" in line:
                break
            if time.monotonic() - began > READY_WITHIN_S:
                raise TimeoutError("AVATAR did not get ready")
        else:
            raise RuntimeError("AVATAR ended before it was ready")
        yield environment
    finally:
        supervisor.terminate()
        supervisor.communicate(timeout=60)


async def speak_questions(address: str, folder: Path) -> list[Path]:
    client = InferenceClient(address)
    paths = []
    for name, voice, text in QUESTIONS:
        chunks = [chunk async for chunk in client.tts.synthesise(text, SynthesisOptions(voice=voice))]
        path = folder / f"{name}.wav"
        path.write_bytes(encode_wav(b"".join(chunk.pcm for chunk in chunks), chunks[0].sample_rate_hz))
        paths.append(path)
    await client.close()
    return paths


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


def report(turns: list[dict[str, object]]) -> None:
    for turn in turns:
        print(f"{turn.get('transcript')} → {turn.get('reply')}\n    {turn.get('latency_ms')} gaps {turn.get('gap_ms')}")
    answered = sum(bool(turn.get("reply")) for turn in turns)
    print(f"\n{machine()}, {answered} of {len(turns)} turns answered, load {os.getloadavg()[0]:.1f}")
    for error, count in Counter(str(error).partition(":")[0] for turn in turns for error in turn["errors"]).items():  # type: ignore[attr-defined]
        print(f"{error}: {count}")
    print(f"{'ms':8}{'median':>8}{'worst':>8}")
    for stage in STAGES:
        values = [latency[stage] for turn in turns if (latency := turn["latency_ms"]) and latency[stage] is not None]  # type: ignore[index]
        if values:
            print(f"{stage:8}{statistics.median(values):8.0f}{max(values):8.0f}")
    gaps = [cast(int, turn["gap_ms"]) for turn in turns]
    print(f"{'gaps':8}{statistics.median(gaps):8.0f}{max(gaps):8.0f}")


def machine() -> str:
    try:
        model = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        model = None
    name = model[1] if model else platform.processor() or platform.machine()
    return f"{name}, {psutil.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB"


if __name__ == "__main__":
    sys.exit(main())
