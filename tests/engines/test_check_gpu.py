"""What an owner of a GPU runs, run here on the processor: it finds every engine, and claims nothing of a GPU."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

pytestmark = pytest.mark.timeout(400)


class TestCheckGpu:
    def test_runs_every_engine_and_says_that_no_gpu_was_measured(self, stand_ins: dict[str, str]) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "inference.check_gpu", "--random-weights"],
            env=os.environ | stand_ins,
            capture_output=True,
            text=True,
            timeout=380,
        )

        print(done.stdout)
        assert done.returncode == 0, done.stderr
        assert "NO GPU WAS MEASURED" in done.stdout
        assert "FAIL" not in done.stdout
        _, _, table = done.stdout.partition("\nrole ")
        rows = re.findall(r"^(stt|llm|tts|encoder) +(\S.*?)  +pass +(\S.*)$", table, re.MULTILINE)
        measured = {(role, check): what for role, check, what in rows}
        assert re.match(r"vllm:.* on cpu: [0-9.]+ s, \d+ MiB of the process", measured["llm", "loads"])
        assert "at 24000 Hz" in measured["tts", "fast, one clause"]
        assert "at 24000 Hz" in measured["tts", "high quality, one clause"]
        assert {check for role, check in measured if role == "llm"} == {
            *("loads", "an answer", "one reply", "5 at once", "a caller who leaves", "its process is killed")
        }
        assert f"{len(rows)} passed, 0 failed" in done.stdout

    def test_ends_without_a_gpu_where_one_was_asked_for(self, stand_ins: dict[str, str]) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "inference.check_gpu"],
            env=os.environ | stand_ins | {"AVATAR_DEVICE": "cuda"},
            capture_output=True,
            text=True,
            timeout=60,
        )

        assert done.returncode == 1
        assert "there is no GPU" in done.stderr
