"""
The life of the inference process: loading engines with fallbacks, their state, admission, draining.

Knows no engine by name, and no protobuf message: `inference.services` translates.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import cast

import grpc.aio
import psutil
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from inference import device_memory, sd_notify
from inference.address import AddressTaken, hold_socket, make_target, parse_socket_path, private_files
from inference.client import make_server_options
from inference.config import InferenceConfig
from inference.device_memory import DeviceMemoryReader
from inference.engines.background_gate import BackgroundGate
from inference.engines.base import Engine
from inference.interfaces import InferenceBusy, InferenceStatus, InferenceUnavailable, Role, RoleState, RoleStatus
from inference.services import SERVICE_OF_ROLE, SecretInterceptor, add_services
from inference.telemetry import tracing
from inference.telemetry.metrics import EngineMetrics

logger = logging.getLogger(__name__)

#: The health service's name of the whole process: SERVING when a call is possible.
WHOLE_PROCESS = ""
WATCH_EVERY_S = 1.0
#: With less device memory free, a call would fail in its first layers.
MIN_FREE_MIB = 64
#: How long background jobs stay away from the processor after a live call used it: a call passes from one engine to the
#: next with gaps in between.
PAUSE_S = 2.0


@dataclass(slots=True)
class Slot:
    """One role: its engine, once loaded, and its status."""

    status: RoleStatus
    engine: Engine | None = None
    #: Why engines before this one did not load; empty for the first.
    fallback_reason: str = ""


class EngineHost:
    """
    Loads the engines, best first, and counts active calls.

    When an engine fails to load, its role falls back to the next in the list, or becomes unavailable with the reasons;
    other roles are not affected.
    """

    def __init__(self, config: InferenceConfig, reader: DeviceMemoryReader | None = None) -> None:
        self.config = config
        self.reader = reader or device_memory.get_reader(config)
        self.started_at = time.time()
        #: Shared by all engines on the processor. A GPU has room for both, and is left to its engines' own gates.
        self.gate = BackgroundGate(pause_s=PAUSE_S)
        self.metrics = EngineMetrics()
        self._process = psutil.Process()
        self._slots = {
            role: Slot(RoleStatus(role, RoleState.LOADING, "", "", "", load_s=0.0, memory_bytes=0)) for role in Role
        }

    async def load(self, on_change: Callable[[Role, RoleState], Awaitable[None]] | None = None) -> None:
        """Load and warm every role. Calls `on_change(role, state)` at every change."""
        for role in Role:
            await self._load_role(role)
            if on_change is not None:
                await on_change(role, self._slots[role].status.state)

    async def _load_role(self, role: Role) -> None:
        slot = self._slots[role]
        reasons: list[str] = []
        for name in self.config.engines.get(role, ()):
            module, _, model = name.partition(":")
            slot.status = replace(slot.status, state=RoleState.LOADING, engine=module, model=model)
            resident_before, held_before = self._process.memory_info().rss, self._read_held_bytes()
            started = time.monotonic()
            engine: Engine | None = None
            try:
                engine = await asyncio.to_thread(create_engine, role, module, model, self.config)
                slot.status = replace(
                    slot.status, state=RoleState.WARMING, model=engine.model_name, device=engine.device
                )
                await engine.warm_up()
                if engine.is_on_processor:
                    engine.gate = self.gate
            except Exception as error:  # an engine may raise anything its library defines; the role falls back
                logger.exception("engine %s failed to load", name)
                reasons.append(f"{name}: {error}")
                if engine is not None:
                    await self._close(engine)  # its memory is needed by the next
                continue
            slot.engine = engine
            slot.fallback_reason = "; ".join(reasons)
            slot.status = replace(
                slot.status,
                state=RoleState.READY,
                load_s=time.monotonic() - started,
                memory_bytes=max(
                    0,
                    self._read_held_bytes() - held_before
                    if engine.is_on_gpu
                    else self._process.memory_info().rss - resident_before,
                ),
                reason=slot.fallback_reason,
                clones=engine.can_clone,
            )
            logger.info("%s is ready: %s on %s, %.1f s", role, name, engine.device, slot.status.load_s)
            return
        slot.status = replace(slot.status, state=RoleState.UNAVAILABLE, reason="; ".join(reasons) or "no engine named")
        logger.error("%s is unavailable: %s", role, slot.status.reason)

    @contextmanager
    def call(self, role: Role) -> Iterator[Engine]:
        """
        Count one call while the context lasts.

        Raises InferenceUnavailable while the role has no engine, InferenceBusy when it has `max_calls` calls.
        """
        self.refresh_state(role)
        slot = self._slots[role]
        if slot.engine is None or slot.status.state is not RoleState.READY:
            raise InferenceUnavailable(f"{role} is {slot.status.state}: {slot.status.reason or 'not ready yet'}")
        self._check_free_memory(role, slot.engine)
        if slot.status.active_calls >= self.config.max_calls:
            raise InferenceBusy(f"{role} has {slot.status.active_calls} calls under way")
        slot.status = replace(slot.status, active_calls=slot.status.active_calls + 1)
        try:
            yield slot.engine
        finally:
            slot.status = replace(slot.status, active_calls=slot.status.active_calls - 1)

    @contextmanager
    def live_call(self, engine: Engine) -> Iterator[None]:
        """Preempt the background jobs on the processor while this engine, if it computes there, serves a live call."""
        if not engine.is_on_processor:
            yield
            return
        with self.gate.live_call():
            yield

    def refresh_state(self, role: Role) -> RoleState:
        """Update and return the role's state from its engine's `diagnose`."""
        slot = self._slots[role]
        if slot.engine is not None and slot.status.state in (RoleState.READY, RoleState.UNAVAILABLE):
            trouble = slot.engine.diagnose()
            state = RoleState.UNAVAILABLE if trouble else RoleState.READY
            if state is not slot.status.state:
                logger.log(logging.ERROR if trouble else logging.INFO, "%s is %s %s", role, state, trouble)
                slot.status = replace(slot.status, state=state, reason=trouble or slot.fallback_reason)
        return slot.status.state

    def _check_free_memory(self, role: Role, engine: Engine) -> None:
        """Refuse calls that would run out of device memory. A language model allocates all of it when loaded."""
        if role is Role.LLM or not engine.is_on_gpu:
            return
        free_mib = device_memory.read_free_mib(self.reader)
        if free_mib is not None and free_mib < MIN_FREE_MIB:
            raise InferenceBusy(f"{role}: {free_mib} MiB of the device's memory are free, {MIN_FREE_MIB} are needed")

    def _read_held_bytes(self) -> int:
        return sum(device.total_bytes - device.free_bytes for device in self.reader.read())

    def status(self) -> InferenceStatus:
        for role in Role:
            self.refresh_state(role)
        return InferenceStatus(
            profile=self.config.profile,
            roles=tuple(
                replace(slot.status, figures=dict(slot.engine.figures if slot.engine is not None else {}))
                for slot in self._slots.values()
            ),
            resident_bytes=self._process.memory_info().rss,
            started_at=self.started_at,
            devices=self.reader.read(),
        )

    async def close(self) -> None:
        for slot in self._slots.values():
            if slot.engine is not None:
                await self._close(slot.engine)
                slot.engine = None

    async def _close(self, engine: Engine) -> None:
        try:
            await engine.close()
        except Exception:  # close the other engines nevertheless
            logger.exception("engine %s did not close", engine.model_name)


def create_engine(role: Role, module: str, model: str, config: InferenceConfig) -> Engine:
    """Import `inference.engines.<module>` and have it load `model`. Raises any exception of the engine."""
    library = importlib.import_module(f"inference.engines.{module}")
    return cast(Engine, getattr(library, f"create_{role.value}")(model=model, config=config))


class InferenceServer:
    """The gRPC server: answers status and health at once, serves a role as soon as it is warm."""

    def __init__(self, config: InferenceConfig, reader: DeviceMemoryReader | None = None) -> None:
        self.config = config
        self.host = EngineHost(config, reader)
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]  # grpc-stubs does not know it
        self._server: grpc.aio.Server | None = None
        self._held = ExitStack()
        #: Every engine was tried.
        self.is_loaded = False
        #: The TCP port; 1 for a Unix socket.
        self.port = 0

    async def start(self) -> None:
        """
        Listen, so that the status can be read while the models load. Call `load` next.

        Raises RuntimeError when the address is taken.
        """
        interceptors = [SecretInterceptor(self.config.secret)] if self.config.secret else []
        # Without SO_REUSEPORT, a second process on the same port fails instead of receiving half of the calls.
        options = (*make_server_options(), ("grpc.so_reuseport", 0))
        self._server = grpc.aio.server(interceptors=interceptors, options=options)
        add_services(self._server, self.host)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        for service in (*SERVICE_OF_ROLE.values(), WHOLE_PROCESS):
            await self._health.set(service, health_pb2.HealthCheckResponse.NOT_SERVING)
        try:
            if (path := parse_socket_path(self.config.address)) is not None:
                self._held.enter_context(hold_socket(path))
            with private_files():
                self.port = self._server.add_insecure_port(make_target(self.config.address))
        except (AddressTaken, RuntimeError) as error:
            raise RuntimeError(f"cannot listen on {self.config.address}: is another process there?") from error
        except OSError as error:
            raise RuntimeError(f"cannot listen on {self.config.address}: {error}") from error
        await self._server.start()

    async def load(self) -> None:
        """Load and warm the engines; health becomes SERVING role by role, and for the process at the end."""
        await self.host.load(self._note_state)
        await self._set_health(WHOLE_PROCESS, is_serving=self.host.status().is_ready)
        self.is_loaded = True

    async def watch(self) -> None:
        """Update the health service from the engines every second, until cancelled. Call it after `load`."""
        while True:
            await asyncio.sleep(WATCH_EVERY_S)
            for role in Role:
                await self._note_state(role, self.host.refresh_state(role))
            await self._set_health(WHOLE_PROCESS, is_serving=self.host.status().is_ready)

    async def _note_state(self, role: Role, state: RoleState) -> None:
        await self._set_health(SERVICE_OF_ROLE[role], is_serving=state is RoleState.READY)

    async def _set_health(self, service: str, *, is_serving: bool) -> None:
        status = health_pb2.HealthCheckResponse
        await self._health.set(service, status.SERVING if is_serving else status.NOT_SERVING)

    async def stop(self) -> None:
        """Drain: refuse new calls, let active ones finish for `drain_s`, then end them and free the engines."""
        await self._health.enter_graceful_shutdown()
        if self._server is not None:
            await self._server.stop(grace=self.config.drain_s)
        await self.host.close()
        self._held.close()


async def serve(config: InferenceConfig) -> None:
    """
    Serve until SIGTERM or SIGINT.

    Raises BudgetError when the engines are configured to use more device memory than there is.
    """
    reader = device_memory.get_reader(config)
    device_memory.check_budget(device_memory.list_shares(config), reader.read(), reserve_mib=config.memory_reserve_mib)
    tracing.configure("inference")
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    server = InferenceServer(config, reader)
    await server.start()
    logger.info("inference listens on %s, profile %s", config.address, config.profile)
    loading = asyncio.create_task(_load_and_watch(server))
    waiting = asyncio.create_task(stopping.wait())
    # From the event loop that serves every call. Not ready before: loading a model may hold the interpreter for long.
    beating = asyncio.create_task(sd_notify.send_heartbeats(is_ready=lambda: server.is_loaded))
    try:
        await asyncio.wait({loading, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if loading.done():
            loading.result()
        await waiting
    finally:
        loading.cancel()
        waiting.cancel()
        logger.info("inference drains")
        await server.stop()
        beating.cancel()
        await asyncio.to_thread(tracing.shut_down)


async def _load_and_watch(server: InferenceServer) -> None:
    await server.load()
    await server.watch()
