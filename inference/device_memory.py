"""
Device memory: reads it from the driver, and checks that the engines' budgets fit into it.

Used at start-up, by admission, by engines that load models on demand, and by the status.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from inference.config import InferenceConfig
from inference.interfaces import DeviceMemory, Role

MIB = 1024 * 1024
#: Engines that compute on `config.device`; all others compute on the processor.
DEVICE_ENGINES = frozenset({"faster_whisper", "vllm", "f5_tts"})


class DeviceMemoryReader(Protocol):
    def read(self) -> tuple[DeviceMemory, ...]:
        """Return the devices that this process may use, in order. Empty without devices or without a driver."""
        ...


class NvmlReader:
    """
    Reads from NVIDIA's driver, in about 0.01 ms.

    The driver lists every GPU of the machine; the ones this process may use are those CUDA_VISIBLE_DEVICES names. Where
    GPUs differ, their numbers mean the same to CUDA and to the driver only with CUDA_DEVICE_ORDER=PCI_BUS_ID.
    """

    def __init__(self) -> None:
        import pynvml  # only where there may be a GPU

        self._nvml: Any = pynvml
        self._nvml.nvmlInit()
        handles = [self._nvml.nvmlDeviceGetHandleByIndex(number) for number in range(self._nvml.nvmlDeviceGetCount())]
        uuids = [self._nvml.nvmlDeviceGetUUID(handle) for handle in handles]
        self._handles = [handles[number] for number in find_visible(os.environ.get("CUDA_VISIBLE_DEVICES"), uuids)]

    def read(self) -> tuple[DeviceMemory, ...]:
        devices = []
        for handle in self._handles:
            memory = self._nvml.nvmlDeviceGetMemoryInfo(handle)
            devices.append(DeviceMemory(self._nvml.nvmlDeviceGetName(handle), memory.total, memory.free))
        return tuple(devices)


def find_visible(names: str | None, uuids: Sequence[str]) -> list[int]:
    """
    Return the numbers of the GPUs that CUDA shows a process, given its CUDA_VISIBLE_DEVICES, in its order.

    A GPU is named by its number or by a prefix of its UUID. CUDA ignores everything from the first unknown name on.
    """
    if names is None:
        return list(range(len(uuids)))
    numbers: list[int] = []
    for name in (each.strip() for each in names.split(",")):
        if name.isdecimal():
            matches = [int(name)] if int(name) < len(uuids) else []
        else:
            matches = [number for number, uuid in enumerate(uuids) if name and uuid.startswith(name)]
        if len(matches) != 1:
            break
        numbers += matches
    return numbers


class NoDevices:
    """Reports no devices: everything computes on the processor."""

    def read(self) -> tuple[DeviceMemory, ...]:
        return ()


def get_reader(config: InferenceConfig) -> DeviceMemoryReader:
    """Return a reader of this machine's devices; of none where engines compute on the processor."""
    if config.device != "cuda":
        return NoDevices()
    try:
        return NvmlReader()
    except Exception:  # no library, no driver, no device: the engines report what they miss
        return NoDevices()


def read_free_mib(reader: DeviceMemoryReader) -> int | None:
    """Return the free memory of the first device in MiB; None without a device."""
    devices = reader.read()
    return devices[0].free_bytes // MIB if devices else None


class BudgetError(Exception):
    """The roles' budgets do not fit on the device. The message is the arithmetic."""


@dataclass(frozen=True, slots=True)
class Share:
    """A role's budget of device memory in MiB."""

    role: Role
    engine: str
    mib: int


def list_shares(config: InferenceConfig) -> list[Share]:
    """Return the budgets of the roles whose first engine computes on the device."""
    budgets: Mapping[Role, int] = {
        Role.STT: config.stt_memory_mib,
        Role.LLM: config.llm_memory_mib,
        Role.TTS: config.tts_memory_mib,
    }
    if config.device != "cuda":
        return []
    firsts = ((role, names[0]) for role, names in config.engines.items() if names and role in budgets)
    return [Share(role, name, budgets[role]) for role, name in firsts if name.partition(":")[0] in DEVICE_ENGINES]


def check_budget(shares: Iterable[Share], devices: tuple[DeviceMemory, ...], *, reserve_mib: int) -> None:
    """
    Raise BudgetError, with the arithmetic, when the shares and the reserve exceed the first device's free memory.

    Without a reading nothing is checked: the engines will fail themselves.
    """
    shares = list(shares)
    if not devices or not shares:
        return
    device = devices[0]
    needed = sum(share.mib for share in shares) + reserve_mib
    free = device.free_bytes // MIB
    if needed <= free:
        return
    parts = [
        f"{share.mib:>7} MiB  {share.role.value} ({share.engine}), AVATAR_{share.role.name}_MEMORY_MIB"
        for share in shares
    ]
    lines = [
        *parts,
        f"{reserve_mib:>7} MiB  left to others, AVATAR_MEMORY_RESERVE_MIB",
        f"{needed:>7} MiB  together",
        f"{free:>7} MiB  free of {device.total_bytes // MIB} MiB on {device.name}",
    ]
    raise BudgetError("the engines do not fit on the device:\n" + "\n".join(lines))
