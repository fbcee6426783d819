"""An inference server in this process, on a port of its own, with scripted engines behind real gRPC."""

from __future__ import annotations

import asyncio
import sys
import types
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from inference.client import InferenceClient
from inference.config import InferenceConfig
from inference.engines.fake import FakeLanguageModel, FakeSpeakerEncoder, FakeSpeechToText, FakeTextToSpeech
from inference.host import InferenceServer
from inference.interfaces import Role

#: Long enough for a busy machine; nothing waits so long unless it is broken.
PATIENCE_S = 10.0
SECRET = "for tests, not to be guessed"


async def eventually(condition: Callable[[], bool]) -> None:
    """Poll `condition` until it holds: it depends on another task that sets no event."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 — there is no event to wait for
            await asyncio.sleep(0.005)


class ScriptedEngines(dict[str, Any]):
    """
    What `inference.engines.scripted` loads: engines by "role:variant", or exceptions to fail with.

    A variant is asked for as an engine is in the settings: "scripted:variant".
    """

    def module(self) -> types.ModuleType:
        module = types.ModuleType("inference.engines.scripted")
        for role in Role:
            setattr(module, f"create_{role.value}", self._creator(role))
        return module

    def _creator(self, role: Role) -> Callable[..., Any]:
        def create(*, model: str, config: InferenceConfig) -> Any:
            made = self[f"{role.value}:{model}"]
            if isinstance(made, Exception):
                raise made
            return made

        return create


@pytest.fixture
def stt() -> FakeSpeechToText:
    return FakeSpeechToText()


@pytest.fixture
def llm() -> FakeLanguageModel:
    return FakeLanguageModel()


@pytest.fixture
def tts() -> FakeTextToSpeech:
    return FakeTextToSpeech()


@pytest.fixture
def encoder() -> FakeSpeakerEncoder:
    return FakeSpeakerEncoder()


@pytest.fixture
def engines(
    stt: FakeSpeechToText,
    llm: FakeLanguageModel,
    tts: FakeTextToSpeech,
    encoder: FakeSpeakerEncoder,
    monkeypatch: pytest.MonkeyPatch,
) -> ScriptedEngines:
    engines = ScriptedEngines({"stt:good": stt, "llm:good": llm, "tts:good": tts, "encoder:good": encoder})
    monkeypatch.setitem(sys.modules, "inference.engines.scripted", engines.module())
    return engines


@pytest.fixture
def config(engines: ScriptedEngines, tmp_path: Path) -> InferenceConfig:
    return InferenceConfig(
        profile="fake",
        address="127.0.0.1:0",
        secret=SECRET,
        models_dir=tmp_path,
        engines=dict.fromkeys(Role, ("scripted:good",)),
        max_calls=2,
        drain_s=5.0,
    )


@pytest.fixture
async def start_server() -> AsyncIterator[Callable[..., Any]]:
    """Starts servers, loaded or not, and stops them in the end."""
    servers: list[InferenceServer] = []

    async def start(config: InferenceConfig, *, is_loaded: bool = True) -> InferenceServer:
        server = InferenceServer(config)
        servers.append(server)
        await server.start()
        if is_loaded:
            await server.load()
        return server

    yield start
    for server in servers:
        await server.stop()


@pytest.fixture
async def server(start_server: Callable[..., Any], config: InferenceConfig) -> InferenceServer:
    started: InferenceServer = await start_server(config)
    return started


@pytest.fixture
async def connect() -> AsyncIterator[Callable[[int | str], InferenceClient]]:
    """Connects to a port of this machine, or to an address, and closes all connections in the end."""
    clients: list[InferenceClient] = []

    def make(where: int | str) -> InferenceClient:
        address = where if isinstance(where, str) else f"127.0.0.1:{where}"
        clients.append(InferenceClient(address, secret=SECRET))
        return clients[-1]

    yield make
    for client in clients:
        await client.close()


@pytest.fixture
async def client(server: InferenceServer, connect: Callable[[int], InferenceClient]) -> InferenceClient:
    return connect(server.port)
