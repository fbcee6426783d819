"""Measures the machine and the processes: the "system" sample of a minute."""

from __future__ import annotations

import datetime as dt
import hashlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from django.conf import settings
from django.db import DatabaseError, connection

from avatar_site.lib.inference_client import ask, get_inference
from avatar_site.lib.ram import read_ram
from avatar_site.monitoring.models import Resolution, Sample
from avatar_site.monitoring.samples import Gauge, SampleValues
from avatar_site.operations import heartbeat_files, queues
from avatar_site.operations.processes import measure_memory_bytes
from avatar_site.operations.serve_state import ServeState, read_state
from avatar_site.operations.status import find_backed_up_at, list_shares_bytes
from inference.interfaces import KV_CACHE_USE, InferenceError, InferenceStatus, RoleState

if TYPE_CHECKING:
    from redis import Redis

logger = logging.getLogger(__name__)

SOURCE = "system"
INFERENCE_TIMEOUT_S = 5.0
REDIS_TIMEOUT_S = 5.0
#: Media are tens of thousands of files.
MEDIA_EVERY_S = 60 * 60.0
#: The supervisor writes its state every few seconds: an older one is of a supervisor that hangs, or was killed.
STATE_IS_OLD_S = 120.0
#: A sample is written when its minute is over.
WEB_IS_SILENT_AFTER = dt.timedelta(minutes=4)
WEB_IS_GONE_AFTER = dt.timedelta(days=1)
#: Heartbeats in the data folder are 5 s apart. A unit of systemd is started again within some seconds.
HEARTBEAT_IS_OLD_S = 60.0
PROCESS_IS_GONE_S = WEB_IS_GONE_AFTER.total_seconds()
#: Heartbeats missed in a row: then the supervisor restarts a process.
MISSED = 3


@dataclass(frozen=True, slots=True)
class Observed:
    """What was asked of others in this minute. None: it did not answer, or does not exist here."""

    serve_state: ServeState | None
    inference: InferenceStatus | None
    #: Why the inference process did not answer.
    inference_problem: str = ""
    gauges: dict[str, float] = field(default_factory=dict)


def observe(*, now: dt.datetime) -> Observed:
    """
    Measure everything. What cannot be measured is left out, and logged.

    Takes some 20 ms, and up to INFERENCE_TIMEOUT_S + REDIS_TIMEOUT_S where one does not answer.
    """
    state = read_state(Path(settings.AVATAR_DATA_DIR))
    inference, problem = ask_inference()
    return Observed(state, inference, problem, measure(state, inference, now=now))


def measure(state: ServeState | None, inference: InferenceStatus | None, *, now: dt.datetime) -> dict[str, float]:
    """Return the gauges of the site. What cannot be measured is left out, and logged."""
    gauges: dict[str, float] = {}
    for part in (
        measure_disk,
        measure_ram,
        measure_database,
        measure_media,
        lambda: measure_queues(now),
        lambda: measure_backup_age(now),
        lambda: measure_web(now),
        # What the supervisor knows of a process is better.
        lambda: measure_heartbeats(now),
        lambda: measure_processes(state, now),
        lambda: measure_roles(inference),
        lambda: measure_devices(inference),
    ):
        try:
            gauges |= part()
        except (OSError, DatabaseError) as error:
            logger.warning("something could not be measured: %s", error)
    return gauges


def write_system_sample(observed: Observed, *, now: dt.datetime) -> bool:
    """Write the sample of this minute. Return False if another process has."""
    values = SampleValues(gauges={name: Gauge(value, value) for name, value in observed.gauges.items()})
    # After the clock was set back, samples of minutes that come again would be taken for the newest.
    Sample.objects.filter(source=SOURCE, resolution=Resolution.MINUTE, began_at__gt=now).delete()
    _, is_new = Sample.objects.get_or_create(
        source=SOURCE,
        resolution=Resolution.MINUTE,
        began_at=now.replace(second=0, microsecond=0),
        defaults={"values": values.to_json()},
    )
    return is_new


def ask_inference() -> tuple[InferenceStatus | None, str]:
    """Return the status of the inference process, or None and why."""
    try:
        return ask(get_inference().status(), timeout_s=INFERENCE_TIMEOUT_S), ""
    except TimeoutError:
        return None, f"no answer within {INFERENCE_TIMEOUT_S:g} s"
    except InferenceError as error:
        return None, str(error)


def measure_disk() -> dict[str, float]:
    data_dir = Path(settings.AVATAR_DATA_DIR)
    usage = shutil.disk_usage(data_dir)
    gauges: dict[str, float] = {"disk_free_bytes": usage.free, "disk_total_bytes": usage.total}
    gauges["log_bytes"] = sum(sizes(data_dir / "logs"))
    target = find_local_target()
    if target is not None and target.stat().st_dev != data_dir.stat().st_dev:
        gauges["backup_disk_free_bytes"] = shutil.disk_usage(target).free
    return gauges


def find_local_target() -> Path | None:
    """Return the folder of backups; None if it is a bucket, or not there."""
    if "://" in settings.AVATAR_BACKUP_TARGET:
        return None
    folder = Path(settings.AVATAR_BACKUP_TARGET)
    return folder if folder.is_dir() else None


def sizes(folder: Path) -> Iterator[int]:
    """Yield the sizes of the files under a folder; none if there is no folder."""
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # removed or rotated in between
                yield (Path(parent) / name).lstat().st_size


def measure_ram() -> dict[str, float]:
    ram = read_ram()
    return {
        "ram_used_bytes": ram.used_bytes,
        "ram_total_bytes": ram.total_bytes,
        "memory_percent.ram": ram.percent,
    }


def measure_database() -> dict[str, float]:
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_database_size(current_database())")
            return {"database_bytes": float(cursor.fetchone()[0])}
    path = Path(str(connection.settings_dict["NAME"]))
    return {"database_bytes": sum(each.stat().st_size for each in (path, Path(f"{path}-wal")) if each.exists())}


class MediaSize:
    """The size of the folder of media, measured once an hour."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._measured_at: float | None = None
        self._bytes = 0

    def __call__(self) -> dict[str, float]:
        """Return nothing where media lie in a bucket."""
        if settings.AVATAR_STORAGE != "folder":
            return {}
        if self._measured_at is None or self._clock() - self._measured_at >= MEDIA_EVERY_S:
            self._bytes = sum(sizes(Path(settings.MEDIA_ROOT)))
            self._measured_at = self._clock()
        return {"media_bytes": self._bytes}


measure_media = MediaSize()


def measure_queues(now: dt.datetime) -> dict[str, float]:
    """Return the length of each queue, and for how long its oldest message has waited."""
    if settings.REDIS_URL:
        return _measure_redis_queues(now)
    gauges: dict[str, float] = {}
    names = [path.name for path in _list_messages()]
    for queue in (queues.DEFAULT, queues.MAINTENANCE):
        waiting = sorted(name for name in names if name.endswith(f".{queue}.msg"))
        gauges[f"queue.{queue}"] = len(waiting)
        # A name begins with nanoseconds since the epoch; see `celery_broker`.
        sent_s = int(waiting[0].partition("_")[0]) / 1e9 if waiting else now.timestamp()
        gauges[f"queue_wait_s.{queue}"] = max(0.0, now.timestamp() - sent_s)
    return gauges


def _list_messages() -> list[Path]:
    folder = Path(str(settings.CELERY_BROKER_TRANSPORT_OPTIONS["data_folder_in"]))
    return [path for path in folder.iterdir() if path.name[:1].isdigit()] if folder.is_dir() else []


#: In Redis a message does not say when it was sent: of each queue, the digest of its oldest message, and since when.
_oldest: dict[str, tuple[bytes, dt.datetime]] = {}


def _measure_redis_queues(now: dt.datetime) -> dict[str, float]:
    """Raises OSError."""
    # Imported only where it is used: 7 MiB in each process.
    import redis

    try:
        with redis.Redis.from_url(settings.REDIS_URL, socket_timeout=REDIS_TIMEOUT_S) as server:
            return _measure_queues_of(server, now)
    except redis.RedisError as error:
        raise OSError(f"the queues cannot be read: {error}") from error


def _measure_queues_of(server: Redis, now: dt.datetime) -> dict[str, float]:
    gauges: dict[str, float] = {}
    for queue in (queues.DEFAULT, queues.MAINTENANCE):
        length: int = server.llen(queue)
        # Sent to the left, taken from the right.
        message = server.lindex(queue, -1)
        gauges[f"queue.{queue}"] = length
        gauges[f"queue_wait_s.{queue}"] = 0.0
        if message is None:
            _oldest.pop(queue, None)
            continue
        digest = hashlib.sha256(message.encode() if isinstance(message, str) else message).digest()
        if _oldest.get(queue, (b"", now))[0] != digest:
            _oldest[queue] = digest, now
        gauges[f"queue_wait_s.{queue}"] = (now - _oldest[queue][1]).total_seconds()
    return gauges


def measure_backup_age(now: dt.datetime) -> dict[str, float]:
    backed_up_at = find_backed_up_at()
    return {} if backed_up_at is None else {"backup_age_s": (now - backed_up_at).total_seconds()}


def measure_processes(state: ServeState | None, now: dt.datetime) -> dict[str, float]:
    """Return the memory of each process of `serve`, and which of them are down; nothing without a supervisor."""
    if state is None or not is_of_a_supervisor(state):
        return {}
    gauges: dict[str, float] = {"down.supervisor": float(now.timestamp() - state.written_at > STATE_IS_OLD_S)}
    pids = {"supervisor": state.supervisor_pid, **{child.name: child.pid for child in state.children}}
    for name, pid in pids.items():
        size = measure_memory_bytes(pid, with_children=name != "supervisor") if pid is not None else None
        if size is not None:
            gauges[f"rss_bytes.{name}"] = size
    for child in state.children:
        gauges[f"down.{child.name}"] = float(child.pid is None or child.missed >= MISSED)
    return gauges


def measure_web(now: dt.datetime) -> dict[str, float]:
    """
    Return whether no web process reports any more, on any machine; nothing where none has within a day.

    A supervisor knows better; without one there is no other sign.
    """
    newest = (
        Sample.objects.filter(
            resolution=Resolution.MINUTE, began_at__gte=now - WEB_IS_GONE_AFTER, source__startswith="web "
        )
        .order_by("-began_at")
        .first()
    )
    return {} if newest is None else {"down.web": float(now - newest.began_at > WEB_IS_SILENT_AFTER)}


def measure_heartbeats(now: dt.datetime) -> dict[str, float]:
    """Return which workers are silent, and whether beat is; nothing of those that were never here, or left for good."""
    ages = heartbeat_files.read_ages(Path(settings.AVATAR_DATA_DIR), now_s=now.timestamp())
    return {f"down.{name}": float(age_s > HEARTBEAT_IS_OLD_S) for name, age_s in ages if age_s < PROCESS_IS_GONE_S}


def is_of_a_supervisor(state: ServeState) -> bool:
    """Whether its supervisor still runs. A pid may be another process's by now, after a restart of the machine say."""
    try:
        return bool(psutil.Process(state.supervisor_pid).create_time() <= state.written_at)
    except psutil.NoSuchProcess:
        return False


def measure_roles(status: InferenceStatus | None) -> dict[str, float]:
    """Return which roles are unavailable or on their fallback, and the use of devices."""
    if status is None:
        return {"down.inference": 1.0}
    gauges: dict[str, float] = {"down.inference": 0.0}
    for role in status.roles:
        is_ready = role.state is RoleState.READY
        gauges[f"unavailable.{role.role.value}"] = float(role.state is RoleState.UNAVAILABLE)
        gauges[f"loading.{role.role.value}"] = float(role.state in (RoleState.LOADING, RoleState.WARMING))
        # One that runs and has a reason runs instead of another.
        gauges[f"fallback.{role.role.value}"] = float(is_ready and bool(role.reason))
        if KV_CACHE_USE in role.figures:
            gauges["memory_percent.kv_cache"] = 100 * role.figures[KV_CACHE_USE]
    return gauges


def measure_devices(status: InferenceStatus | None) -> dict[str, float]:
    """
    Return the memory of GPUs, and of each how much is used of what the engines' shares leave free.

    The shares themselves are in use by design: 93 % of a GPU of 24 GB. A GPU without a share is not ours.
    """
    if status is None or not status.devices:
        return {}
    gauges: dict[str, float] = {
        "vram_total_bytes": sum(device.total_bytes for device in status.devices),
        "vram_used_bytes": sum(device.total_bytes - device.free_bytes for device in status.devices),
    }
    for number, (device, share_bytes) in enumerate(zip(status.devices, list_shares_bytes(), strict=False)):
        left_bytes = device.total_bytes - share_bytes
        if left_bytes > 0:
            gauges[f"memory_percent.gpu{number}"] = max(0.0, 100 * (1 - device.free_bytes / left_bytes))
    return gauges
