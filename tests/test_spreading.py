"""Runs with several processes, as `make test` starts them, on small suites that hang and crash."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import spreading

ROOT = Path(__file__).parents[1]
SETTINGS = """
[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
timeout = 60
timeout_method = signal
faulthandler_timeout = 3
faulthandler_exit_on_timeout = true
"""
PASSES = """
import pytest
@pytest.mark.parametrize("number", range(3))
def test_passes(number): pass
"""


def run(folder: Path, **files: str) -> tuple[str, dict[str, int]]:
    """Return the output of a run of `files` in two processes, and the counts of its last line."""
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    (folder / "pytest.ini").write_text(SETTINGS)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:django", "-p", "tests.spreading"]
    finished = subprocess.run(
        [*command, "-n", "2", "--dist", "loadfile", "--no-loadscope-reorder", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    summary = finished.stdout.splitlines()[-1]
    return finished.stdout, {
        kind: int(count) for count, kind in re.findall(r"(\d+) (\w+)", summary.partition(" in ")[0])
    }


class TestARun:
    def test_goes_on_after_a_test_that_hangs(self, tmp_path: Path) -> None:
        hangs = """
import asyncio, threading, pytest
@pytest.mark.timeout(1)
def test_hangs_in_a_thread(): threading.Event().wait()
@pytest.mark.timeout(1)
async def test_hangs_in_a_loop(): await asyncio.Event().wait()
def test_passes(): pass
"""

        output, counts = run(tmp_path, test_a=hangs, test_b=PASSES)

        assert counts == {"failed": 2, "passed": 4}, output
        assert "Timeout (>1.0s)" in output

    def test_goes_on_in_another_process_after_a_test_that_no_signal_ends(self, tmp_path: Path) -> None:
        hangs = """
import asyncio, pytest
async def be_stubborn():
    while True:
        try: await asyncio.Event().wait()
        except asyncio.CancelledError: pass
@pytest.mark.timeout(1)
async def test_cannot_be_cancelled():
    task = asyncio.create_task(be_stubborn())
    await asyncio.sleep(0)
    await task
def test_passes(): pass
"""

        output, counts = run(tmp_path, test_a=hangs, test_b=PASSES)

        assert counts == {"failed": 2, "passed": 4}, output
        assert "replacing crashed worker" in output

    def test_blames_only_the_test_that_ended_a_process(self, tmp_path: Path) -> None:
        crashes = "import os\ndef test_crashes(): os._exit(3)\ndef test_passes(): pass\n"

        output, counts = run(tmp_path, test_a=PASSES, test_b=crashes, test_c=PASSES)

        assert counts == {"failed": 1, "passed": 7}, output


class TestGroups:
    @pytest.mark.parametrize("file", ["tests/voices/test_with_engines.py", "tests/inference/engines/test_engines.py"])
    def test_of_tests_with_models_are_one(self, file: str) -> None:
        assert spreading.choose_group(f"{file}::test_a[x::y]") == "models"

    def test_are_files_otherwise(self) -> None:
        assert spreading.choose_group("tests/e2e/test_call.py::TestA::test_b[c/d]") == "tests/e2e/test_call.py"

    @pytest.mark.parametrize(
        ("arguments", "count"), [(["tests/test_a.py::test_b", "tests/test_a.py"], 0), (["tests"], None), ([], None)]
    )
    def test_of_a_single_file_need_no_other_process(
        self, arguments: list[str], count: int | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("PYTEST_XDIST_AUTO_NUM_WORKERS", raising=False)
        monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1})

        assert spreading.choose_process_count(arguments) == (3 if count is None else count)

    def test_of_long_files_name_files_that_exist(self) -> None:
        assert [name for name in spreading.LONG if not (ROOT / name).is_file()] == []
