"""Memory of this machine, or of the cgroup that limits this process. Imports no Django."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import psutil

PROC_CGROUP = Path("/proc/self/cgroup")
CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Ram:
    """Bytes that cannot be reclaimed, and the limit."""

    used_bytes: int
    total_bytes: int

    @property
    def percent(self) -> float:
        return 100 * self.used_bytes / self.total_bytes


def read_ram(*, proc_cgroup: Path = PROC_CGROUP, cgroups: Path = CGROUPS) -> Ram:
    """
    Return the memory of the machine, or of the cgroup that is nearest to its limit, if that is nearer.

    The cache of files counts as free: the kernel gives it up before it ends a process. Takes under a millisecond.
    """
    machine = psutil.virtual_memory()
    found = [Ram(machine.total - machine.available, machine.total)]
    for folder in _list_cgroups(proc_cgroup, cgroups):
        if (ram := _read_version_2(folder) or _read_version_1(folder)) and ram.total_bytes < machine.total:
            found.append(ram)
    return max(found, key=lambda ram: ram.percent)


def _list_cgroups(proc_cgroup: Path, cgroups: Path) -> list[Path]:
    """Return the folders of this process's cgroup and of those above it, each of which may have a limit."""
    folders: list[Path] = []
    try:
        lines = proc_cgroup.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root = cgroups
        elif "memory" in controllers.split(","):
            root = cgroups / "memory"
        else:
            continue
        folder = root / path.lstrip("/")
        # In a container the path may be the host's, and its own folder is the root.
        folders += [each for each in (folder, *folder.parents) if each == root or root in each.parents]
    return folders


def _read_version_2(folder: Path) -> Ram | None:
    limit = _read_number(folder / "memory.max")
    used = _read_number(folder / "memory.current")
    if limit is None or used is None:
        return None
    cache = _read_statistics(folder, ("inactive_file", "active_file", "slab_reclaimable"))
    return Ram(max(0, used - cache), limit)


def _read_version_1(folder: Path) -> Ram | None:
    limit = _read_number(folder / "memory.limit_in_bytes")
    used = _read_number(folder / "memory.usage_in_bytes")
    if limit is None or used is None:
        return None
    return Ram(max(0, used - _read_statistics(folder, ("total_inactive_file", "total_active_file"))), limit)


def _read_number(path: Path) -> int | None:
    """Return the number in a file; None if there is none: no file, or `max`."""
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _read_statistics(folder: Path, names: tuple[str, ...]) -> int:
    try:
        lines = (folder / "memory.stat").read_text(encoding="ascii").splitlines()
        return sum(int(number) for name, number in (line.split() for line in lines) if name in names)
    except (OSError, ValueError):
        return 0
