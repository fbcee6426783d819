"""A whole conversation through the gpu profile's code: every process, the real socket, small weights, no GPU."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import psutil
import pytest
import soundfile
from websockets.asyncio.client import ClientConnection, connect

from avatar_site.operations.talk_client import FRAME_SAMPLES, read_speech
from inference.address import make_default_address
from inference.client import InferenceClient
from inference.interfaces import InferenceStatus, RoleStatus
from tests.ports import find_free_port
from tests.processes import tie_to_tests

pytestmark = pytest.mark.timeout(400)

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "correct horse battery staple"
READY_TIMEOUT_S = 240
#: Deadline of a wait on two shared cores.
PATIENCE_S = 90.0


def manage(environment: dict[str, str], *arguments: str, statuses: tuple[int, ...] = (0,)) -> str:
    command = [sys.executable, "manage.py", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode in statuses, done.stdout + done.stderr
    return done.stdout


@dataclass(frozen=True, slots=True)
class Product:
    url: str
    inference_address: str
    environment: dict[str, str]
    process: subprocess.Popen[str]

    def manage(self, *arguments: str) -> str:
        return manage(self.environment, *arguments)

    def say(self, recording: Path, folder: Path) -> dict[str, Any]:
        """
        Return what `manage.py talk` says of a recording.

        A machine that is too busy leaves a turn unanswered, and says so: it is said again then.
        """
        for _ in range(4):
            command = ("talk", str(recording), "--json", "--out", str(folder), "--url", self.url)
            said = manage(self.environment, *command, statuses=(0, 1))
            exchange: dict[str, Any] = next(json.loads(line) for line in said.splitlines() if line.startswith("{"))
            if not any("FELL_BEHIND" in error for error in exchange["errors"]):
                break
        return exchange


@pytest.fixture(scope="module")
def product(stand_ins: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """AVATAR as `manage.py serve` runs it: web, worker, maintenance, beat and inference."""
    data_dir = tmp_path_factory.mktemp("data")
    port, inference_address = find_free_port(), make_default_address(data_dir)
    kept = {
        k: v for k, v in os.environ.items() if not k.startswith(("AVATAR_", "DATABASE_URL", "REDIS_URL", "DJANGO_"))
    }
    environment = kept | stand_ins
    environment |= {
        "AVATAR_ENV_FILE": "",
        "AVATAR_DATA_DIR": str(data_dir),
        "AVATAR_PORT": str(port),
        "AVATAR_ADMIN_PASSWORD": PASSWORD,
        "AVATAR_SYSTEM_PROMPT": "You are a storyteller.",
        "AVATAR_MAX_REPLY_TOKENS": "40",
    }
    log = data_dir / "serve.log"
    with log.open("w") as output:
        manage(environment, "migrate", "--verbosity", "0")
        manage(environment, "createcachetable")
        manage(environment, "ensure_operator")
        process = subprocess.Popen(
            tie_to_tests([sys.executable, "manage.py", "serve", "--verbosity", "2"]),
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=output,
            text=True,
        )
    try:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while "AVATAR is ready" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()[-6000:]
            time.sleep(0.25)
        yield Product(f"http://127.0.0.1:{port}", inference_address, environment, process)
    finally:
        process.terminate()
        try:
            process.wait(40)
        except subprocess.TimeoutExpired:
            process.kill()


async def read_status(product: Product) -> InferenceStatus:
    client = InferenceClient(product.inference_address)
    try:
        return await client.status()
    finally:
        await client.close()


def by_role(status: InferenceStatus) -> dict[str, RoleStatus]:
    return {each.role.value: each for each in status.roles}


def example(language: str) -> Path:
    """A recording of a person, from f5-tts."""
    return Path(str(files("f5_tts").joinpath(f"infer/examples/basic/basic_ref_{language}.wav")))


class TestConversation:
    async def test_is_held_by_the_production_engines(self, product: Product) -> None:
        roles = by_role(await read_status(product))

        assert {role: (each.engine, each.reason) for role, each in roles.items()} == {
            "stt": ("faster_whisper", ""),
            "llm": ("vllm", ""),
            "tts": ("f5_tts", ""),
            "encoder": ("ge2e_onnx", ""),
        }

    def test_answers_what_is_said_over_the_socket(self, product: Product, tmp_path: Path) -> None:
        exchanges = [product.say(example(language), tmp_path / language) for language in ("en", "zh")]

        for exchange in exchanges:
            print(json.dumps(exchange, ensure_ascii=False))
            assert exchange["errors"] == []
            assert exchange["transcript"]
            assert exchange["reply"]
            latency = exchange["latency_ms"]
            assert 0 < latency["stt"] <= latency["ttft"] < latency["ttfa"] <= latency["total"] < PATIENCE_S * 1000
            saved = soundfile.info(exchange["saved_as"])
            assert (saved.samplerate, saved.channels, saved.subtype) == (24_000, 1, "PCM_16")
            # Noise as long as the reply would take to say: a letter in a tenth of a second, a character in a third.
            assert saved.duration == pytest.approx(exchange["reply_seconds"], abs=0.01)
            assert 0.02 * len(exchange["reply"]) < saved.duration < 0.5 * len(exchange["reply"]) + 2
        # The recogniser's weights are no stand-in.
        assert "nature" in exchanges[0]["transcript"]

    async def test_stops_when_it_is_interrupted(self, product: Product) -> None:
        async with call(product) as connection:
            await connection.send(json.dumps({"type": "text", "text": "Tell me a long story about a lighthouse."}))
            turn_id = (await read_until(connection, "tts_ready"))["turn_id"]

            await connection.send(json.dumps({"type": "interrupt"}))

            assert (await read_until(connection, "interrupted"))["turn_id"] == turn_id
            # All that comes after is text: the turn's end, and that it listens.
            async with asyncio.timeout(PATIENCE_S):
                while (message := await connection.recv()) and '"listening"' not in str(message):
                    assert isinstance(message, str)
            await nothing_is_under_way(product)

    async def test_stops_when_it_is_spoken_to(self, product: Product) -> None:
        speech = read_speech(example("en")).astype("<i2").tobytes()
        async with call(product) as connection:
            await connection.send(json.dumps({"type": "text", "text": "Tell me a long story about a lighthouse."}))
            turn_id = (await read_until(connection, "tts_ready"))["turn_id"]

            speaking = asyncio.create_task(speak(connection, speech))
            try:
                interrupted = await read_until(connection, "interrupted")
            finally:
                speaking.cancel()

            assert interrupted["turn_id"] == turn_id

    async def test_ends_in_the_engines_when_the_caller_hangs_up(self, product: Product) -> None:
        async with call(product) as connection:
            await connection.send(json.dumps({"type": "text", "text": "Tell me a long story about a lighthouse."}))
            await read_until(connection, "llm_response")

        await nothing_is_under_way(product)

    def test_leaves_no_process_behind(self, product: Product) -> None:
        family = psutil.Process(product.process.pid).children(recursive=True)
        assert any("EngineCore" in child.name() for child in family)

        product.process.send_signal(signal.SIGTERM)

        assert product.process.wait(40) == 0
        # vLLM's worker ends by itself once its parent has; on a busy machine that takes seconds.
        _, left = psutil.wait_procs(family, timeout=30)
        assert left == []


@asynccontextmanager
async def call(product: Product) -> AsyncIterator[ClientConnection]:
    command = (
        "from avatar_site.operations.management.commands.talk import make_session; print(make_session().session_key)"
    )
    shell = await asyncio.to_thread(product.manage, "shell", "--no-imports", "--command", command)
    url = product.url.replace("http", "ws") + "/ws/chat"
    headers = {"Cookie": f"sessionid={shell.split()[-1]}"}
    async with connect(url, additional_headers=headers, max_size=None, proxy=None) as connection:
        await read_until(connection, "status")
        yield connection


async def read_until(connection: ClientConnection, kind: str) -> dict[str, Any]:
    """Return the next message of a kind; what comes before it is passed over."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            data = await connection.recv()
            if isinstance(data, str) and (message := json.loads(data))["type"] == kind:
                return dict(message)


async def speak(connection: ClientConnection, pcm: bytes) -> None:
    """Be a microphone, in real time, until closed."""
    due_at = time.monotonic()
    while True:
        for start in range(0, len(pcm) - FRAME_SAMPLES * 2, FRAME_SAMPLES * 2):
            await connection.send(pcm[start : start + FRAME_SAMPLES * 2])
            due_at += 0.02
            await asyncio.sleep(max(0.0, due_at - time.monotonic()))


async def nothing_is_under_way(product: Product) -> None:
    """Wait until no engine has a call, and vLLM no request."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            roles = by_role(await read_status(product))
            if not (roles["llm"].figures["requests_running"] or roles["llm"].active_calls or roles["tts"].active_calls):
                return
            await asyncio.sleep(0.1)
