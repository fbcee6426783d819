from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from inference import device_memory
from inference.__main__ import main
from inference.address import make_default_address, parse_socket_path
from inference.client import InferenceClient
from inference.config import InferenceConfig
from inference.device_memory import MIB
from inference.engines.fake import FakeLanguageModel, FakeTextToSpeech
from inference.host import WHOLE_PROCESS, InferenceServer
from inference.interfaces import (
    DeviceMemory,
    EndOfUtterance,
    GenerationFinished,
    GenerationOptions,
    InferenceBusy,
    InferenceError,
    InferenceUnavailable,
    Role,
    RoleState,
    TranscriptionOptions,
)
from inference.services import SERVICE_OF_ROLE
from tests.inference.calls import (
    HELLO,
    HUM,
    NOT_SERVING,
    SERVING,
    endless_speech,
    generate,
    health,
    read_to_the_end,
    synthesise,
    transcribe,
)
from tests.inference.conftest import PATIENCE_S, SECRET, ScriptedEngines, eventually
from tests.inference.scripted_reader import ScriptedReader


@pytest.fixture
async def running() -> AsyncIterator[Callable[..., Any]]:
    """Starts and loads servers whose device's memory is scripted, and stops them in the end."""
    servers: list[InferenceServer] = []

    async def start(config: InferenceConfig, reader: ScriptedReader) -> InferenceServer:
        servers.append(InferenceServer(config, reader))
        await servers[-1].start()
        await servers[-1].load()
        return servers[-1]

    yield start
    for server in servers:
        await server.stop()


class SlowToWarm(FakeLanguageModel):
    def __init__(self) -> None:
        super().__init__()
        self.is_warming = asyncio.Event()
        self.may_be_warm = asyncio.Event()

    async def warm_up(self) -> None:
        self.is_warming.set()
        await self.may_be_warm.wait()


class TestStart:
    async def test_answers_before_anything_is_loaded(
        self, start_server: Callable[..., Any], connect: Callable[[int], InferenceClient], config: InferenceConfig
    ) -> None:
        server: InferenceServer = await start_server(config, is_loaded=False)
        client = connect(server.port)

        status = await client.status()

        assert [role.state for role in status.roles] == [RoleState.LOADING] * 4
        assert not status.is_ready
        for service in (*SERVICE_OF_ROLE.values(), WHOLE_PROCESS):
            assert await health(server.port, service) == NOT_SERVING
        for call in (
            generate(client),
            synthesise(client),
            transcribe(client),
            client.llm.prefill(HELLO),
            client.tts.list_styles(),
            client.encoder.embed(HUM),
        ):
            with pytest.raises(InferenceUnavailable, match="is loading: not ready yet"):
                await call

    async def test_serves_a_role_as_soon_as_it_is_warm(
        self,
        engines: ScriptedEngines,
        start_server: Callable[..., Any],
        connect: Callable[[int], InferenceClient],
        config: InferenceConfig,
    ) -> None:
        engines["llm:good"] = slow = SlowToWarm()
        server: InferenceServer = await start_server(config, is_loaded=False)
        client = connect(server.port)
        loading = asyncio.create_task(server.load())
        await asyncio.wait_for(slow.is_warming.wait(), PATIENCE_S)

        states = {role.role: role.state for role in (await client.status()).roles}

        assert states == {
            Role.STT: RoleState.READY,
            Role.LLM: RoleState.WARMING,
            Role.TTS: RoleState.LOADING,
            Role.ENCODER: RoleState.LOADING,
        }
        assert await health(server.port, SERVICE_OF_ROLE[Role.STT]) == SERVING
        assert await health(server.port, SERVICE_OF_ROLE[Role.LLM]) == NOT_SERVING
        assert await health(server.port, WHOLE_PROCESS) == NOT_SERVING
        assert await transcribe(client, EndOfUtterance())
        with pytest.raises(InferenceUnavailable, match="llm is warming"):
            await generate(client)

        slow.may_be_warm.set()
        await asyncio.wait_for(loading, PATIENCE_S)

        assert (await client.status()).is_ready
        for service in (*SERVICE_OF_ROLE.values(), WHOLE_PROCESS):
            assert await health(server.port, service) == SERVING

    async def test_refuses_a_port_that_is_taken(
        self, server: InferenceServer, start_server: Callable[..., Any], config: InferenceConfig
    ) -> None:
        with pytest.raises(RuntimeError, match=str(server.port)):
            await start_server(replace(config, address=f"127.0.0.1:{server.port}"))


class TestUnixSocket:
    async def test_is_open_to_its_owner_alone(
        self, start_server: Callable[..., Any], connect: Callable[[str], InferenceClient], unix_config: InferenceConfig
    ) -> None:
        await start_server(unix_config)

        path = parse_socket_path(unix_config.address)
        assert path is not None
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert await generate(connect(unix_config.address))

    @pytest.mark.parametrize("folder", ["a#b", "a%41b", "100%", "a?b", "a b", "資料", "a:b@c"])
    async def test_is_where_its_path_says(
        self,
        start_server: Callable[..., Any],
        connect: Callable[[str], InferenceClient],
        unix_config: InferenceConfig,
        tmp_path: Path,
        folder: str,
    ) -> None:
        address = make_default_address(tmp_path / folder)

        await start_server(replace(unix_config, address=address))

        assert (tmp_path / folder / "inference.sock").is_socket()
        assert await generate(connect(address))

    async def test_takes_the_place_of_one_that_a_killed_process_left(
        self, start_server: Callable[..., Any], connect: Callable[[str], InferenceClient], unix_config: InferenceConfig
    ) -> None:
        path = parse_socket_path(unix_config.address)
        assert path is not None
        path.parent.mkdir()
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(path))

        await start_server(unix_config)

        assert await generate(connect(unix_config.address))

    async def test_is_not_made_where_another_file_is(
        self, start_server: Callable[..., Any], unix_config: InferenceConfig
    ) -> None:
        path = parse_socket_path(unix_config.address)
        assert path is not None
        path.parent.mkdir()
        path.write_text("somebody's notes")

        with pytest.raises(RuntimeError, match="is there and is not a socket"):
            await start_server(unix_config)

        assert path.read_text() == "somebody's notes"

    async def test_is_refused_to_a_second_server(
        self, start_server: Callable[..., Any], connect: Callable[[str], InferenceClient], unix_config: InferenceConfig
    ) -> None:
        await start_server(unix_config)

        with pytest.raises(RuntimeError, match="is another process there"):
            await start_server(unix_config)

        assert await generate(connect(unix_config.address))

    @pytest.fixture
    def unix_config(self, config: InferenceConfig, tmp_path: Path) -> InferenceConfig:
        return replace(config, address=make_default_address(tmp_path / "data"), secret="")


class TestStatus:
    async def test_says_what_there_is_of_every_role(self, client: InferenceClient) -> None:
        status = await client.status()

        assert status.profile == "fake"
        assert status.is_ready
        assert status.resident_bytes > 1_000_000
        assert [role.role for role in status.roles] == list(Role)
        for role in status.roles:
            assert (role.state, role.engine, role.device) == (RoleState.READY, "scripted", "cpu")
            assert role.model == "scripted"
            assert role.load_s >= 0
            assert role.reason == ""

    async def test_counts_the_calls_under_way(self, client: InferenceClient, llm: FakeLanguageModel) -> None:
        llm.hold_after(1)
        talking = asyncio.create_task(generate(client))
        await asyncio.wait_for(llm.is_holding.wait(), PATIENCE_S)

        assert [role.active_calls for role in (await client.status()).roles] == [0, 1, 0, 0]

        llm.release()
        await talking
        assert [role.active_calls for role in (await client.status()).roles] == [0, 0, 0, 0]


class TestAnEngineThatFailsToLoad:
    async def test_is_replaced_by_the_next(
        self,
        engines: ScriptedEngines,
        start_server: Callable[..., Any],
        connect: Callable[[int], InferenceClient],
        config: InferenceConfig,
    ) -> None:
        engines["llm:huge"] = MemoryError("no room")
        config = replace(config, engines={**config.engines, Role.LLM: ("scripted:huge", "scripted:good")})

        client = connect((await start_server(config)).port)

        status = await client.status()
        assert status.is_ready
        assert status.roles[1].reason == "scripted:huge: no room"
        assert await generate(client)

    async def test_leaves_the_others_serving(
        self,
        engines: ScriptedEngines,
        start_server: Callable[..., Any],
        connect: Callable[[int], InferenceClient],
        config: InferenceConfig,
    ) -> None:
        engines["tts:one"] = OSError("file is missing")
        engines["tts:two"] = ValueError("wrong format")
        config = replace(config, engines={**config.engines, Role.TTS: ("scripted:one", "scripted:two", "nonsense")})
        server: InferenceServer = await start_server(config)
        client = connect(server.port)

        status = await client.status()

        assert not status.is_ready
        assert status.roles[2].state is RoleState.UNAVAILABLE
        for reason in ("scripted:one: file is missing", "scripted:two: wrong format", "nonsense: No module named"):
            assert reason in status.roles[2].reason
        with pytest.raises(InferenceUnavailable, match="file is missing"):
            await synthesise(client)
        assert await generate(client)
        assert await transcribe(client, EndOfUtterance())
        assert await health(server.port, SERVICE_OF_ROLE[Role.TTS]) == NOT_SERVING
        assert await health(server.port, SERVICE_OF_ROLE[Role.LLM]) == SERVING
        assert await health(server.port, WHOLE_PROCESS) == NOT_SERVING

    async def test_may_fail_while_it_warms_up(
        self,
        engines: ScriptedEngines,
        start_server: Callable[..., Any],
        connect: Callable[[int], InferenceClient],
        config: InferenceConfig,
    ) -> None:
        class Cold(FakeTextToSpeech):
            is_closed = False

            async def warm_up(self) -> None:
                raise RuntimeError("too cold")

            async def close(self) -> None:
                self.is_closed = True

        engines["tts:cold"] = cold = Cold()
        config = replace(config, engines={**config.engines, Role.TTS: ("scripted:cold", "scripted:good")})

        client = connect((await start_server(config)).port)

        assert (await client.status()).roles[2].reason == "scripted:cold: too cold"
        assert await synthesise(client)
        assert cold.is_closed

    async def test_may_be_none_at_all(
        self,
        start_server: Callable[..., Any],
        connect: Callable[[int], InferenceClient],
        config: InferenceConfig,
    ) -> None:
        config = replace(config, engines={**config.engines, Role.LLM: ()})

        client = connect((await start_server(config)).port)

        with pytest.raises(InferenceUnavailable, match="llm is unavailable: no engine named"):
            await generate(client)


class TestAdmission:
    async def test_is_refused_beyond_max_calls(self, client: InferenceClient, llm: FakeLanguageModel) -> None:
        llm.hold_after(0)
        talking = [asyncio.create_task(generate(client)) for _ in range(2)]
        await eventually(lambda: llm.calls.active == 2)

        with pytest.raises(InferenceBusy, match="llm has 2 calls"):
            await generate(client)

        llm.release()
        assert all(await asyncio.gather(*talking))
        assert await generate(client)

    async def test_of_one_role_does_not_depend_on_another(
        self, client: InferenceClient, llm: FakeLanguageModel
    ) -> None:
        llm.hold_after(0)
        talking = [asyncio.create_task(generate(client)) for _ in range(2)]
        await eventually(lambda: llm.calls.active == 2)

        assert await synthesise(client)

        llm.release()
        await asyncio.gather(*talking)

    async def test_is_given_back_by_calls_that_failed(self, client: InferenceClient, llm: FakeLanguageModel) -> None:
        for _ in range(5):
            llm.fail_next(InferenceError("broken"))
            with pytest.raises(InferenceError):
                await generate(client)

        assert await generate(client)


class TestStop:
    async def test_lets_a_call_under_way_finish(
        self, server: InferenceServer, client: InferenceClient, llm: FakeLanguageModel
    ) -> None:
        llm.hold_after(2)
        talking = asyncio.create_task(generate(client))
        await asyncio.wait_for(llm.is_holding.wait(), PATIENCE_S)

        stopping = asyncio.create_task(server.stop())
        await asyncio.sleep(0.05)
        llm.release()

        assert "hello" in await asyncio.wait_for(talking, PATIENCE_S)
        await asyncio.wait_for(stopping, PATIENCE_S)

    async def test_ends_a_call_that_takes_too_long(
        self,
        start_server: Callable[..., Any],
        connect: Callable[[int], InferenceClient],
        config: InferenceConfig,
        llm: FakeLanguageModel,
    ) -> None:
        server: InferenceServer = await start_server(replace(config, drain_s=0.1))
        llm.hold_after(2)
        talking = asyncio.create_task(generate(connect(server.port)))
        await asyncio.wait_for(llm.is_holding.wait(), PATIENCE_S)

        await asyncio.wait_for(server.stop(), PATIENCE_S)

        with pytest.raises(InferenceUnavailable):
            await asyncio.wait_for(talking, PATIENCE_S)
        assert llm.calls.cancelled == 1

    async def test_closes_the_engines(
        self, engines: ScriptedEngines, start_server: Callable[..., Any], config: InferenceConfig
    ) -> None:
        class Closable(FakeLanguageModel):
            is_closed = False

            async def close(self) -> None:
                self.is_closed = True

        engines["llm:good"] = engine = Closable()
        server: InferenceServer = await start_server(config)

        await server.stop()

        assert engine.is_closed


class Process:
    """`python -m inference` with scripted engines."""

    def __init__(self, address: str, **environment: str) -> None:
        self.address = address
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "inference"],
            env={
                **{name: value for name, value in os.environ.items() if not name.startswith("AVATAR_")},
                "AVATAR_PROFILE": "fake",
                "AVATAR_INFERENCE_ADDRESS": address,
                **environment,
            },
            cwd=Path(__file__).parents[2],
            stderr=subprocess.PIPE,
            text=True,
        )

    async def is_ready(self, client: InferenceClient) -> None:
        async with asyncio.timeout(30):
            while True:
                assert self.popen.poll() is None, self.popen.communicate()[1]
                try:
                    if (await client.status()).is_ready:
                        return
                except InferenceUnavailable:
                    pass
                await asyncio.sleep(0.05)

    def end(self) -> tuple[int, str]:
        _, error = self.popen.communicate(timeout=20)
        return self.popen.returncode, error


@pytest.fixture
def address(tmp_path: Path) -> str:
    return make_default_address(tmp_path)


@pytest.fixture
def start_process(address: str) -> Iterator[Callable[..., Process]]:
    processes: list[Process] = []

    def start(**environment: str) -> Process:
        processes.append(Process(address, **environment))
        return processes[-1]

    yield start
    for process in processes:
        if process.popen.poll() is None:
            process.popen.kill()
        process.popen.communicate()


class TestProcess:
    async def test_drains_on_sigterm(
        self, start_process: Callable[..., Process], connect: Callable[[str], InferenceClient], address: str
    ) -> None:
        process = start_process(AVATAR_FAKE_TOKENS_PER_S="20")
        client = connect(address)
        await process.is_ready(client)
        events: Any = client.llm.generate(HELLO, GenerationOptions(max_tokens=20))
        async with asyncio.timeout(PATIENCE_S), aclosing(events):
            await anext(events)

            process.popen.send_signal(signal.SIGTERM)
            rest = [event async for event in events]

        assert isinstance(rest[-1], GenerationFinished)
        code, error = await asyncio.to_thread(process.end)
        assert code == 0, error
        assert "inference drains" in error
        assert "Traceback" not in error

    async def test_that_is_killed_in_mid_call_can_come_back(
        self, start_process: Callable[..., Process], connect: Callable[[str], InferenceClient], address: str
    ) -> None:
        process = start_process(AVATAR_FAKE_TOKENS_PER_S="5")
        client = connect(address)
        await process.is_ready(client)
        events: Any = client.llm.generate(HELLO, GenerationOptions())
        hearing: Any = client.stt.transcribe(endless_speech(), TranscriptionOptions())
        async with asyncio.timeout(PATIENCE_S), aclosing(events), aclosing(hearing):
            await anext(events)
            await anext(hearing)

            process.popen.kill()

            for stream in (events, hearing):
                with pytest.raises(InferenceUnavailable):
                    await read_to_the_end(stream)
        with pytest.raises(InferenceUnavailable):
            await client.status()
        with pytest.raises(InferenceUnavailable):
            await generate(client)

        await start_process().is_ready(client)

        assert "hello" in await generate(client)

    async def test_says_that_its_port_is_taken(self, start_process: Callable[..., Process]) -> None:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            taken = f"127.0.0.1:{listener.getsockname()[1]}"

            process = start_process(AVATAR_INFERENCE_ADDRESS=taken, AVATAR_INFERENCE_SECRET=SECRET)
            code, error = await asyncio.to_thread(process.end)

        assert code == 1
        assert f"inference: cannot listen on {taken}" in error
        assert "Traceback" not in error

    async def test_leaves_the_socket_to_the_process_that_listens_on_it(
        self, start_process: Callable[..., Process], connect: Callable[[str], InferenceClient], address: str
    ) -> None:
        client = connect(address)
        await start_process().is_ready(client)

        code, error = await asyncio.to_thread(start_process().end)

        assert code == 1
        assert f"inference: cannot listen on {address}: is another process there?" in error
        assert (await client.status()).is_ready

    async def test_names_a_variable_that_is_wrong(self, start_process: Callable[..., Process]) -> None:
        code, error = await asyncio.to_thread(start_process(AVATAR_INFERENCE_THREADS="many").end)

        assert code == 1
        assert error == "inference: AVATAR_INFERENCE_THREADS=many: expected a whole number above 0\n"


class Moody(FakeLanguageModel):
    """An engine that can get into trouble."""

    trouble = ""
    figures: dict[str, float] = {"ttft_s": 0.25}  # noqa: RUF012 — read only

    def diagnose(self) -> str:
        return self.trouble


class TestDevice:
    GPU = DeviceMemory("scripted", 24_000 * MIB, 8000 * MIB)

    async def test_is_told_with_the_status(self, config: InferenceConfig, connect: Any, running: Any) -> None:
        client = connect((await running(config, ScriptedReader((self.GPU,)))).port)

        assert (await client.status()).devices == (self.GPU,)

    async def test_counts_what_an_engine_on_it_holds(
        self, config: InferenceConfig, tts: FakeTextToSpeech, connect: Any, running: Any
    ) -> None:
        tts.device = "cuda:0"
        # Before and after stt and llm are not asked for: their engines are on the processor.
        readings = [(replace(self.GPU, free_bytes=mib * MIB),) for mib in (8000, 8000, 8000, 5000)]
        client = connect((await running(config, ScriptedReader(*readings))).port)

        (held,) = [role.memory_bytes for role in (await client.status()).roles if role.role is Role.TTS]
        assert held == 3000 * MIB

    async def test_without_memory_refuses_a_call_and_takes_the_next_when_there_is_some(
        self, config: InferenceConfig, tts: FakeTextToSpeech, connect: Any, running: Any
    ) -> None:
        tts.device = "cuda:0"
        reader = ScriptedReader((self.GPU,))
        client = connect((await running(config, reader)).port)

        reader.set((replace(self.GPU, free_bytes=63 * MIB),))
        with pytest.raises(InferenceBusy, match="63 MiB"):
            await synthesise(client)
        assert await generate(client)  # its memory it has had from the start
        reader.set((replace(self.GPU, free_bytes=64 * MIB),))
        assert await synthesise(client)

    def test_that_is_too_small_stops_the_process_at_its_start(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("AVATAR_PROFILE", "gpu")
        monkeypatch.setattr(device_memory, "get_reader", lambda config: ScriptedReader((self.GPU,)))

        assert main() == 1
        said = capsys.readouterr().err
        assert "22800 MiB  together" in said
        assert "8000 MiB  free of 24000 MiB on scripted" in said


class TestTrouble:
    async def test_makes_the_role_unavailable_until_it_is_over(
        self, config: InferenceConfig, engines: ScriptedEngines, connect: Any, running: Any
    ) -> None:
        engine = engines["llm:good"] = Moody()
        server = await running(config, ScriptedReader(()))
        client = connect(server.port)
        watching = asyncio.create_task(server.watch())
        try:
            engine.trouble = "the engine has died; it is started again"
            with pytest.raises(InferenceUnavailable, match="has died"):
                await generate(client)
            assert not (await client.status()).is_ready
            await eventually_async(lambda: is_serving(server.port, False))

            engine.trouble = ""
            assert await generate(client)
            assert (await client.status()).is_ready
            await eventually_async(lambda: is_serving(server.port, True))
        finally:
            watching.cancel()

    async def test_leaves_a_fallback_known_as_one(
        self, config: InferenceConfig, engines: ScriptedEngines, connect: Any, running: Any
    ) -> None:
        engines["llm:huge"] = MemoryError("no room")
        engine = engines["llm:good"] = Moody()
        config = replace(config, engines={**config.engines, Role.LLM: ("scripted:huge", "scripted:good")})
        client = connect((await running(config, ScriptedReader(()))).port)

        reasons = []
        for engine.trouble in ("the engine has died", ""):
            with suppress(InferenceUnavailable):
                await generate(client)
            reasons.append((await client.status()).roles[1].reason)

        assert reasons == ["the engine has died", "scripted:huge: no room"]

    async def test_leaves_the_other_roles_alone(
        self, config: InferenceConfig, engines: ScriptedEngines, connect: Any, running: Any
    ) -> None:
        engines["llm:good"] = Moody()
        engines["llm:good"].trouble = "gone"
        client = connect((await running(config, ScriptedReader(()))).port)

        assert await synthesise(client)

    async def test_and_figures_are_told_with_the_status(
        self, config: InferenceConfig, engines: ScriptedEngines, connect: Any, running: Any
    ) -> None:
        engines["llm:good"] = Moody()
        client = connect((await running(config, ScriptedReader(()))).port)

        figures = {role.role: dict(role.figures) for role in (await client.status()).roles}
        assert figures == {Role.STT: {}, Role.LLM: {"ttft_s": 0.25}, Role.TTS: {}, Role.ENCODER: {}}


class TestCloning:
    @pytest.mark.parametrize("can_clone", [True, False])
    async def test_is_told_with_the_status(
        self, can_clone: bool, tts: FakeTextToSpeech, start_server: Any, connect: Any, config: InferenceConfig
    ) -> None:
        tts.can_clone = can_clone
        status = await connect((await start_server(config)).port).status()

        assert status.clones is can_clone
        assert [role.clones for role in status.roles] == [False, False, can_clone, False]


async def is_serving(port: int, expected: bool) -> bool:
    answers = [await health(port, service) for service in (SERVICE_OF_ROLE[Role.LLM], WHOLE_PROCESS)]
    return answers == [SERVING if expected else NOT_SERVING] * 2


async def eventually_async(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await condition():  # noqa: ASYNC110 — there is no event to wait for
            await asyncio.sleep(0.02)
