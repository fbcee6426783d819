"""Runs the commands of the pages in docs/runbooks/ as an operator would: by copying them from the page."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings

FOLDER = settings.BASE_DIR / "docs" / "runbooks"
#: Blocks fenced with ```sh are for the operator's shell; other languages are output or settings.
_FENCE = re.compile(r"^ *```(\w*) *$")
#: What make hands to the makes that it starts: the ARGS of a `make test` that runs a test would win over the test's.
OF_MAKE = frozenset({"MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS", "ARGS"})
_HEADING = re.compile(r"^#+ +(.*?) *$")


@dataclass(frozen=True, slots=True)
class Block:
    """Commands that a page has in one place, to be copied together."""

    page: str
    line: int
    heading: str
    commands: str

    def __str__(self) -> str:
        return f"docs/runbooks/{self.page}:{self.line}"


class CommandFailed(AssertionError):
    """A command of a page failed, or one that should fail did not. The message has its place and output."""


class Runbook:
    """
    A page, whose blocks are run one by one, in a folder and an environment.

    `replace` are the page's examples (the name of a backup, an address) and what to put in their places; `prefix` is a
    program that runs the shell. A test ends with `assert runbook.left == []`: each block was run.
    """

    def __init__(
        self,
        page: str,
        *,
        folder: Path,
        environment: Mapping[str, str],
        replace: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
        timeout_s: float = 120,
    ) -> None:
        self.left = read_blocks(page)
        self.replace = dict(replace or {})
        self.environment = dict(environment)
        self._page = page
        self._folder = folder
        self._prefix = prefix
        self._timeout_s = timeout_s

    def take(self, words: str) -> str:
        """Return the commands of the first block left that has these words, for a test that runs them itself."""
        return self._fill_in(self._take(words))

    def run(self, words: str, *, stdin: str = "", code: int = 0) -> str:
        """Run the first remaining block that has these words. Return its output. Raises CommandFailed."""
        block = self._take(words)
        commands = self._fill_in(block)
        # -e: as careful as an operator, who does not go on after an error.
        done = subprocess.run(
            [*self._prefix, "bash", "-euo", "pipefail", "-c", commands],
            cwd=self._folder,
            env=self.environment,
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=self._timeout_s,
        )
        if done.returncode != code:
            raise CommandFailed(f"{block}: code {done.returncode} instead of {code}\n{commands}\n{done.stdout}")
        return done.stdout

    def run_all(self) -> str:
        """Run the remaining blocks in order. Return their output."""
        return "".join(self.run(block.commands) for block in list(self.left))

    def _take(self, words: str) -> Block:
        for block in self.left:
            if words in block.commands:
                self.left.remove(block)
                return block
        raise AssertionError(f"{self._page} has no block left with {words!r}: {[each.commands for each in self.left]}")

    def _fill_in(self, block: Block) -> str:
        commands = block.commands
        for example, value in self.replace.items():
            commands = commands.replace(example, value)
        return commands


def read_blocks(page: str) -> list[Block]:
    """Return what docs/runbooks/`page` has for a shell, in order."""
    blocks: list[Block] = []
    heading, language, begins_at = "", None, 0
    lines: list[str] = []
    for number, line in enumerate((FOLDER / page).read_text(encoding="utf-8").splitlines(), start=1):
        if match := _FENCE.match(line):
            if language is None:
                language, lines, begins_at = match[1], [], number + 1
            else:
                if language == "sh":
                    blocks.append(Block(page, begins_at, heading, "\n".join(lines)))
                language = None
        elif language is not None:
            lines.append(line.strip())
        elif match := _HEADING.match(line):
            heading = match[1]
    assert language is None, f"{page}: the fence before line {begins_at} is not closed"
    return blocks


def read_commands(page: str) -> list[str]:
    """Return a page's commands without comments, to compare with those of its translation."""
    return [
        line for block in read_blocks(page) for line in block.commands.splitlines() if line and not line.startswith("#")
    ]
