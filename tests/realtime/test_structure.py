"""What keeps the call's code in pieces that can be read at once."""

from __future__ import annotations

import ast
from pathlib import Path

import realtime

MAX_METHODS = 25
MAX_RUNNER_LINES = 250
FOLDER = Path(realtime.__file__).parent


def count_methods(source: str) -> dict[str, int]:
    return {
        node.name: sum(isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) for each in node.body)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ClassDef)
    }


def test_no_class_has_more_methods_than_one_can_keep_in_mind() -> None:
    counts = {
        f"{path.relative_to(FOLDER)}: {name}": count
        for path in FOLDER.rglob("*.py")
        for name, count in count_methods(path.read_text(encoding="utf-8")).items()
    }

    assert "call/machine.py: CallMachine" in counts
    assert {name: count for name, count in counts.items() if count > MAX_METHODS} == {}


def test_the_runner_is_thin() -> None:
    lines = (FOLDER / "runner.py").read_text(encoding="utf-8").count("\n")

    assert lines <= MAX_RUNNER_LINES
    assert not (FOLDER / "pipeline.py").exists()
