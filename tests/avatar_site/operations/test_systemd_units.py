"""The units in docs/deploy/systemd, against the processes that `manage.py serve` starts."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from configparser import RawConfigParser
from pathlib import Path

import pytest
from django.conf import settings

from avatar_site.operations import processes
from avatar_site.operations.supervisor import ChildSpec

FOLDER = Path(settings.BASE_DIR) / "docs" / "deploy" / "systemd"
SPECS = {
    spec.name: spec
    for spec in processes.build_specs(names=processes.NAMES, host="127.0.0.1", port=8000, is_behind_proxy=False)
}
SERVICES = sorted(FOLDER.glob("*.service"))


def read_unit(path: Path) -> RawConfigParser:
    parser = RawConfigParser(strict=True, delimiters="=", comment_prefixes="#")
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # keys of systemd have capitals
    parser.read(path, encoding="utf-8")
    return parser


def read_service(name: str) -> RawConfigParser:
    return read_unit(FOLDER / f"avatar-{name}.service")


class TestUnits:
    def test_are_one_for_each_process_and_one_for_all(self) -> None:
        assert {path.name for path in SERVICES} == {"avatar.service", *(f"avatar-{name}.service" for name in SPECS)}
        wanted = read_unit(FOLDER / "avatar-processes.target")["Unit"]["Wants"].split()
        assert set(wanted) == {f"avatar-{name}.service" for name in SPECS}

    @pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
    def test_run_the_commands_of_serve(self, spec: ChildSpec) -> None:
        command = read_service(spec.name)["Service"]["ExecStart"].replace("%%", "%").split()

        assert command == ["/opt/avatar/.venv/bin/python", *spec.command[1:]]

    @pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
    def test_leave_time_to_stop(self, spec: ChildSpec) -> None:
        assert int(read_service(spec.name)["Service"]["TimeoutStopSec"]) > spec.stop_timeout_s

    def test_leave_serve_time_to_stop_one_after_the_other(self) -> None:
        longest_s = max(SPECS[needy].stop_timeout_s for needy in SPECS["inference"].stops_after)

        service = read_unit(FOLDER / "avatar.service")["Service"]
        assert int(service["TimeoutStopSec"]) > longest_s + SPECS["inference"].stop_timeout_s
        assert service["KillMode"] == "mixed"

    def test_stop_a_process_before_those_that_it_needs(self) -> None:
        # systemd stops in the reverse order of starting.
        for spec in SPECS.values():
            for needy in spec.stops_after:
                assert f"avatar-{spec.name}.service" in read_service(needy)["Unit"]["After"].split()

    @pytest.mark.parametrize("path", SERVICES, ids=lambda path: path.stem)
    def test_have_a_watchdog_and_no_core_dumps(self, path: Path) -> None:
        service = read_unit(path)["Service"]

        assert (service["Type"], service["Restart"], service["LimitCORE"]) == ("notify", "always", "0")
        assert int(service["WatchdogSec"]) == 60
        assert "PYTHONFAULTHANDLER=1" in service["Environment"].split()

    @pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed here")
    def test_are_valid(self, tmp_path: Path) -> None:
        for path in FOLDER.iterdir():
            # The verification wants the program to exist.
            text = path.read_text(encoding="utf-8").replace("/opt/avatar/.venv/bin/python", sys.executable)
            (tmp_path / path.name).write_text(re.sub("^User=.*$", "User=root", text, flags=re.MULTILINE))

        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", *map(str, sorted(tmp_path.iterdir()))],
            env={"SYSTEMD_UNIT_PATH": f"{tmp_path}:", "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            timeout=60,
        )

        ours = [line for line in done.stderr.splitlines() if "avatar" in line]
        assert (done.returncode, ours) == (0, [])


class TestPages:
    @pytest.mark.parametrize("name", ["systemd.md", "systemd.zh-Hant.md"])
    def test_name_every_unit(self, name: str) -> None:
        page = (FOLDER.parent / name).read_text(encoding="utf-8")

        for process in SPECS:
            assert re.search(rf"`(avatar)?-{process}`", page), process
        for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", page):
            assert (FOLDER.parent / link).exists(), link
