"""How this site is: probed in the background of each web process, and read from memory by whoever asks."""

from __future__ import annotations

import asyncio
import datetime as dt
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from django.conf import settings
from django.db import DatabaseError, connection, transaction
from django.db import Error as AnyDatabaseError
from django.db.migrations.recorder import MigrationRecorder
from django.utils import timezone

from avatar_site.lib.inference_client import get_inference
from avatar_site.lib.own_thread import OwnThread
from avatar_site.lib.ram import read_ram
from avatar_site.operations.models import BackupRun, Restore, RunKind, RunState
from avatar_site.operations.serve_state import ServeState, read_state
from inference import device_memory
from inference.config import ConfigurationError, InferenceConfig
from inference.interfaces import (
    CONVERSATION_ROLES,
    KV_CACHE_USE,
    InferenceError,
    InferenceStatus,
    Role,
    RoleState,
)
from realtime.admission import admission
from realtime.models import CallState, LiveCall

if TYPE_CHECKING:
    from inference.interfaces import Inference

#: Between two probes. A probe takes 10 ms of processor.
INTERVAL_S = 2.0
INFERENCE_TIMEOUT_S = 2.0
DATABASE_TIMEOUT_S = 2.0
MACHINE_TIMEOUT_S = 2.0
#: How long the write lock of SQLite may be held before the database counts as locked. Below DATABASE_TIMEOUT_S.
LOCK_TIMEOUT_S = 1.0
#: A snapshot that is older was made by a prober that has stopped.
MAX_AGE_S = 15.0
#: The supervisor writes its state every few seconds: an older one is of a supervisor that is gone.
MAX_SERVE_STATE_AGE_S = 60.0
#: Heartbeats missed in a row: such a process hangs, and is about to be restarted.
MISSED = 3


@dataclass(frozen=True, slots=True)
class Limits:
    """From which on the site is degraded: the same as of alerts (AVATAR_ALERT_…)."""

    memory_percent: float = 90.0
    #: The night makes a backup a day.
    backup_age: dt.timedelta = dt.timedelta(hours=26)
    #: What the engines' shares take of each accelerator, in order.
    shares_bytes: tuple[int, ...] = ()


DEFAULT_LIMITS = Limits()


class Health(StrEnum):
    HEALTHY = "healthy"
    #: Conversations are possible, and something is missing: see `judge`.
    DEGRADED = "degraded"
    #: No conversation is possible.
    UNHEALTHY = "unhealthy"


@dataclass(frozen=True, slots=True)
class InferenceReport:
    """The status of the inference process, or why there is none."""

    status: InferenceStatus | None
    reason: str = ""

    @property
    def is_ready(self) -> bool:
        return self.status is not None and self.status.is_ready


@dataclass(frozen=True, slots=True)
class DatabaseReport:
    """What the database says, or why it does not answer."""

    problem: str = ""
    #: It answers, and no row can be written: another connection holds the lock for longer than LOCK_TIMEOUT_S.
    is_locked: bool = False
    active: int = 0
    waiting: int = 0
    #: When the state was taken that the newest verified backup has. None: there is none.
    backed_up_at: dt.datetime | None = None
    #: When this database was created.
    created_at: dt.datetime | None = None


class MemoryKind(StrEnum):
    VRAM = "vram"
    RAM = "ram"


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes in use, and in all."""

    used: int
    total: int

    @property
    def percent(self) -> float:
        return round(100 * self.used / self.total, 1) if self.total else 0.0


@dataclass(frozen=True, slots=True)
class MachineReport:
    """The machine of this process."""

    ram: Usage
    disk: Usage
    serve: ServeState | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the last probe found. `taken_s` is on the prober's clock."""

    health: Health
    #: Codes, what ends conversations first. Empty: healthy.
    reasons: tuple[str, ...]
    taken_s: float = float("-inf")
    database: DatabaseReport = DatabaseReport(problem="not asked yet")
    inference: InferenceReport = InferenceReport(None, "not asked yet")
    machine: MachineReport | None = None

    @property
    def vram(self) -> Usage | None:
        """The memory of the accelerators together. None: there are none, or the inference process does not answer."""
        devices = () if self.inference.status is None else self.inference.status.devices
        if not devices:
            return None
        total = sum(device.total_bytes for device in devices)
        return Usage(total - sum(device.free_bytes for device in devices), total)

    @property
    def memory(self) -> tuple[MemoryKind, Usage] | None:
        """The memory that models are in. None if it could not be read."""
        if self.vram is not None:
            return MemoryKind.VRAM, self.vram
        return (MemoryKind.RAM, self.machine.ram) if self.machine is not None else None


UNPROBED = Snapshot(Health.UNHEALTHY, ("starting",))


class Prober:
    """
    Asks the database, the inference process and the machine every INTERVAL_S, each with a deadline.

    The database has a thread of its own: a query that hangs there blocks no call.
    """

    def __init__(
        self,
        inference: Inference,
        *,
        data_dir: Path,
        limits: Limits = DEFAULT_LIMITS,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], dt.datetime] = timezone.now,
    ) -> None:
        self._inference = inference
        self._data_dir = data_dir
        self._limits = limits
        self._clock = clock
        self._now = now
        self._database = OwnThread("health of the database")
        self._machine = OwnThread("health of the machine")
        self._snapshot = UNPROBED

    @property
    def snapshot(self) -> Snapshot:
        """What is known, at once: the last probe's, which is unhealthy if the prober has stopped."""
        if self._snapshot is not UNPROBED and self._clock() - self._snapshot.taken_s > MAX_AGE_S:
            return replace(self._snapshot, health=Health.UNHEALTHY, reasons=("prober_stopped",))
        return self._snapshot

    async def run(self) -> None:
        """Probe until cancelled."""
        try:
            while True:
                await self.probe()
                await asyncio.sleep(INTERVAL_S)
        finally:
            self._snapshot = UNPROBED

    async def probe(self) -> Snapshot:
        """Ask all three at once. Takes as long as the slowest, two seconds at most."""
        async with asyncio.TaskGroup() as group:
            database = group.create_task(self._ask_database())
            inference = group.create_task(self._ask_inference())
            machine = group.create_task(self._ask_machine())
        health, reasons = judge(
            database.result(),
            inference.result(),
            machine.result(),
            now=self._now(),
            limits=self._limits,
        )
        self._snapshot = Snapshot(
            health, reasons, self._clock(), database.result(), inference.result(), machine.result()
        )
        return self._snapshot

    def close(self) -> None:
        """End the threads, once what they wait for has answered."""
        self._database.close()
        self._machine.close()

    async def _ask_database(self) -> DatabaseReport:
        try:
            return await self._database.run(read_database, DATABASE_TIMEOUT_S, now=self._now())
        except TimeoutError:
            return DatabaseReport(f"no answer within {DATABASE_TIMEOUT_S:g} s", active=admission.active)
        except AnyDatabaseError as error:
            return DatabaseReport(type(error).__name__, active=admission.active)

    async def _ask_inference(self) -> InferenceReport:
        try:
            async with asyncio.timeout(INFERENCE_TIMEOUT_S):
                return InferenceReport(await self._inference.status())
        except TimeoutError:
            return InferenceReport(None, f"no answer within {INFERENCE_TIMEOUT_S:g} s")
        except InferenceError as error:
            return InferenceReport(None, str(error))

    async def _ask_machine(self) -> MachineReport | None:
        try:
            return await self._machine.run(read_machine, MACHINE_TIMEOUT_S, self._data_dir)
        except (TimeoutError, OSError):  # a network disk that hangs, say
            return None


@cache
def get_prober() -> Prober:
    """Return this process's prober. `avatar_site.web.background` runs it."""
    return make_prober(get_inference())


def make_prober(inference: Inference) -> Prober:
    return Prober(inference, data_dir=Path(settings.AVATAR_DATA_DIR), limits=read_limits())


def judge(
    database: DatabaseReport,
    inference: InferenceReport,
    machine: MachineReport | None,
    *,
    now: dt.datetime,
    limits: Limits = DEFAULT_LIMITS,
) -> tuple[Health, tuple[str, ...]]:
    """
    Return the health and the reasons for it.

    Unhealthy: the database does not answer, or a role that a call needs has no engine. Degraded: the database takes no
    writes, the speaker encoder is away, a role is on its fallback, memory is short, no verified backup is
    young enough, or a process of `serve` is not running.
    """
    missing = [*_find_missing(database, inference)]
    reasons = [*_find_degradations(database, inference, machine, now=now, limits=limits)]
    health = Health.UNHEALTHY if missing else Health.DEGRADED if reasons else Health.HEALTHY
    return health, (*missing, *reasons)


def _find_missing(database: DatabaseReport, inference: InferenceReport) -> list[str]:
    missing = ["database_unavailable"] if database.problem else []
    if inference.status is None:
        return [*missing, "inference_unreachable"]
    states = {role.role: role.state for role in inference.status.roles}
    return missing + [
        f"{role.value}_{states.get(role, RoleState.UNAVAILABLE).value}"
        for role in Role
        if role in CONVERSATION_ROLES and states.get(role) is not RoleState.READY
    ]


def _find_degradations(
    database: DatabaseReport,
    inference: InferenceReport,
    machine: MachineReport | None,
    *,
    now: dt.datetime,
    limits: Limits,
) -> list[str]:
    reasons = ["database_locked"] if database.is_locked else []
    if inference.status is not None:
        for role in inference.status.roles:
            if role.role is Role.ENCODER and role.state is not RoleState.READY:
                reasons.append(f"encoder_{role.state.value}")
            elif role.state is RoleState.READY and role.reason:
                # An engine that runs and has a reason runs instead of another.
                reasons.append(f"{role.role.value}_on_fallback")
        if _is_vram_short(inference.status, limits):
            reasons.append("vram_short")
    if machine is not None and machine.ram.percent > limits.memory_percent:
        reasons.append("ram_short")
    if not database.problem and _is_backup_stale(database, now, limits):
        reasons.append("backup_stale")
    serve = machine.serve if machine is not None else None
    if serve is not None and now.timestamp() - serve.written_at <= MAX_SERVE_STATE_AGE_S:
        reasons += [f"{child.name}_down" for child in serve.children if child.pid is None or child.missed >= MISSED]
    return reasons


def _is_backup_stale(database: DatabaseReport, now: dt.datetime, limits: Limits) -> bool:
    """Whether the newest verified backup is too old. A new site is given as long for its first."""
    since = database.backed_up_at or database.created_at
    return since is not None and now - since > limits.backup_age


def _is_vram_short(status: InferenceStatus, limits: Limits) -> bool:
    """
    Whether too little is free of what the engines' shares leave, or of the KV cache.

    The shares themselves are taken at the start, 93 % of the device by default: that is no shortage.
    """
    for device, share_bytes in zip(status.devices, limits.shares_bytes, strict=False):
        left_bytes = device.total_bytes - share_bytes
        if left_bytes > 0 and 100 * (1 - device.free_bytes / left_bytes) > limits.memory_percent:
            return True
    return any(100 * role.figures.get(KV_CACHE_USE, 0) > limits.memory_percent for role in status.roles)


def read_limits() -> Limits:
    """Read the settings."""
    return Limits(
        memory_percent=settings.AVATAR_ALERT_MEMORY_PERCENT,
        backup_age=dt.timedelta(hours=settings.AVATAR_ALERT_BACKUP_HOURS),
        shares_bytes=tuple(list_shares_bytes()),
    )


def list_shares_bytes() -> list[int]:
    """Return what the engines may take of each GPU. vLLM takes its share of each GPU that its model lies on."""
    try:
        config = InferenceConfig.from_env()
    except ConfigurationError:
        return []  # the inference process says what is wrong
    shares = device_memory.list_shares(config)
    model = sum(share.mib for share in shares if share.role is Role.LLM)
    further = [model] * (config.llm_tensor_parallel - 1) if model else []
    return [mib * device_memory.MIB for mib in (sum(share.mib for share in shares), *further)] if shares else []


def read_machine(data_dir: Path) -> MachineReport:
    """Read memory, disk, and what the supervisor knows. Raises OSError."""
    ram, disk = read_ram(), shutil.disk_usage(data_dir)
    return MachineReport(
        ram=Usage(ram.used_bytes, ram.total_bytes),
        # What only root may use counts as used.
        disk=Usage(disk.total - disk.free, disk.total),
        serve=read_state(data_dir),
    )


def read_database(*, now: dt.datetime) -> DatabaseReport:
    """Read calls and backups, and try the write lock. Writes nothing. Raises DatabaseError."""
    report = DatabaseReport(backed_up_at=find_backed_up_at(), created_at=find_created_at())
    states = list(LiveCall.objects.fresh(now).values_list("state", flat=True))
    return replace(
        report,
        active=states.count(CallState.ACTIVE),
        waiting=states.count(CallState.WAITING),
        is_locked=_is_locked(),
    )


def find_backed_up_at() -> dt.datetime | None:
    """Return when the newest state was taken that a verified backup has: since then nothing is saved. None: never."""
    verified = BackupRun.objects.filter(kind=RunKind.VERIFICATION, state=RunState.DONE).values("name")
    run = (
        BackupRun.objects.filter(kind=RunKind.BACKUP, state=RunState.DONE, name__in=verified)
        .order_by("-started_at", "-pk")
        .first()
    )
    restore = Restore.objects.order_by("-restored_at", "-pk").first()
    # What was restored is in a backup.
    moments = [run.started_at if run else None, restore.restored_at if restore else None]
    return max((moment for moment in moments if moment is not None), default=None)


def find_created_at() -> dt.datetime | None:
    """Return when the database was made."""
    migrations = MigrationRecorder.Migration.objects.order_by("applied")
    return migrations.values_list("applied", flat=True).first()


def _is_locked() -> bool:
    """Whether another connection holds SQLite's one write lock. PostgreSQL has none."""
    if connection.vendor != "sqlite":
        return False
    connection.ensure_connection()
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA busy_timeout")
        (usual_ms,) = cursor.fetchone()
        cursor.execute(f"PRAGMA busy_timeout = {round(LOCK_TIMEOUT_S * 1000)}")
        try:
            with transaction.atomic():  # takes the lock at once (`transaction_mode`), and writes nothing
                return False
        except DatabaseError:
            return True
        finally:
            cursor.execute(f"PRAGMA busy_timeout = {usual_ms}")
