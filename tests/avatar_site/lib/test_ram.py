from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from avatar_site.lib.ram import Ram, read_ram

MIB = 2**20


def write_files(folder: Path, **contents: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name.replace("__", ".")).write_text(f"{content}\n")


class TestReadRam:
    def test_is_the_machines_without_a_limit(self, tmp_path: Path) -> None:
        ram = read_ram(proc_cgroup=tmp_path / "none")

        assert ram.total_bytes == psutil.virtual_memory().total
        assert 0 < ram.used_bytes < ram.total_bytes

    def test_is_the_cgroups_where_that_is_nearer_to_its_limit(self, tmp_path: Path) -> None:
        (tmp_path / "cgroup").write_text("0::/avatar.slice/maintenance.service\n")
        write_files(
            tmp_path / "fs" / "avatar.slice",
            memory__max=1000 * MIB,
            memory__current=990 * MIB,
            memory__stat=f"anon 1\ninactive_file {20 * MIB}\nactive_file {10 * MIB}\nslab_reclaimable 0",
        )
        write_files(tmp_path / "fs" / "avatar.slice" / "maintenance.service", memory__max="max", memory__current=MIB)

        ram = read_ram(proc_cgroup=tmp_path / "cgroup", cgroups=tmp_path / "fs")

        assert ram == Ram(960 * MIB, 1000 * MIB)

    def test_reads_the_first_version_of_cgroups(self, tmp_path: Path) -> None:
        (tmp_path / "cgroup").write_text("5:cpu,memory:/box\n0::/\n")
        write_files(
            tmp_path / "fs" / "memory" / "box",
            memory__limit_in_bytes=1000 * MIB,
            memory__usage_in_bytes=999 * MIB,
            memory__stat=f"total_inactive_file {4 * MIB}\ntotal_active_file 0",
        )

        ram = read_ram(proc_cgroup=tmp_path / "cgroup", cgroups=tmp_path / "fs")

        assert ram == Ram(995 * MIB, 1000 * MIB)

    @pytest.mark.parametrize("limit", [2**63 - 4096, "max"])
    def test_takes_a_limit_that_is_none_for_none(self, tmp_path: Path, limit: object) -> None:
        (tmp_path / "cgroup").write_text("0::/\n")
        write_files(tmp_path / "fs", memory__max=limit, memory__current=psutil.virtual_memory().total)

        ram = read_ram(proc_cgroup=tmp_path / "cgroup", cgroups=tmp_path / "fs")

        assert ram.used_bytes < psutil.virtual_memory().total * 0.999
