from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests import runbooks
from tests.runbooks import CommandFailed, Runbook, read_blocks, read_commands

PAGE = """# Greeting

```sh
echo hello   # says it
```

## Leaving

1. Do this:

   ```sh
   # twice
   cat NAME
   false | true; echo "after"
   ```

```text
hello
```
"""


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "page.md").write_text(PAGE, encoding="utf-8")
    monkeypatch.setattr(runbooks, "FOLDER", tmp_path)
    return "page.md"


def open_page(page: str, folder: Path, **replace: str) -> Runbook:
    return Runbook(page, folder=folder, environment={"PATH": os.environ["PATH"]}, replace=replace)


class TestBlocks:
    def test_are_what_is_for_a_shell(self, page: str) -> None:
        first, second = read_blocks(page)

        assert (first.heading, first.line, first.commands) == ("Greeting", 4, "echo hello   # says it")
        assert (second.heading, second.commands.splitlines()[1]) == ("Leaving", "cat NAME")

    def test_have_commands_without_comments(self, page: str) -> None:
        assert read_commands(page)[1:] == ["cat NAME", 'false | true; echo "after"']


class TestRunbook:
    def test_runs_a_block_in_its_folder(self, page: str, tmp_path: Path) -> None:
        (tmp_path / "name.txt").write_text("Alice\n")
        runbook = open_page(page, tmp_path, NAME="name.txt")

        assert runbook.run("echo hello") == "hello\n"
        assert len(runbook.left) == 1

    def test_stops_at_the_first_error_of_a_block(self, page: str, tmp_path: Path) -> None:
        (tmp_path / "name.txt").write_text("Alice\n")
        runbook = open_page(page, tmp_path, NAME="name.txt")

        with pytest.raises(CommandFailed, match=r"(?s)page\.md:12: code 1.*Alice") as failure:
            runbook.run("cat NAME")

        assert "\nafter" not in str(failure.value)

    def test_does_not_miss_a_command_that_the_page_no_longer_has(self, page: str, tmp_path: Path) -> None:
        with pytest.raises(AssertionError, match="no block left with 'echo goodbye'"):
            open_page(page, tmp_path).run("echo goodbye")


class TestTranslations:
    @pytest.mark.parametrize("path", sorted(runbooks.FOLDER.glob("*.zh-Hant.md")), ids=lambda path: path.name)
    def test_have_the_same_commands(self, path: Path) -> None:
        assert read_commands(path.name) == read_commands(path.name.replace(".zh-Hant", ""))

    def test_exist_of_each_page(self) -> None:
        pages = {path.name for path in runbooks.FOLDER.glob("*.md")}

        assert {name.replace(".zh-Hant", "") for name in pages if ".zh-Hant" in name} == {
            name for name in pages if ".zh-Hant" not in name
        }
