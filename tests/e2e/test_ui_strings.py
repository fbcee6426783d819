"""The UI strings that scripts use are in the catalogues that their pages pass to them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest

from conversations.ui_strings import CALL_STRINGS, HISTORY_STRINGS
from tests.e2e.stack import ROOT
from voices.ui_strings import VOICE_STRINGS

SCRIPTS = ROOT / "static" / "js"


def find_scripts(entry: str) -> set[str]:
    """`entry` and all that it imports."""
    found: set[str] = set()
    waiting = [entry]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            # At the beginning of a line: in comments, only types are imported.
            waiting += re.findall(r'^(?:import|}).* from "\./([\w-]+\.js)"', (SCRIPTS / name).read_text(), re.MULTILINE)
    return found


class TestCatalogues:
    @pytest.mark.parametrize(
        ("entry", "strings"),
        [
            ("call.js", CALL_STRINGS),
            ("history.js", HISTORY_STRINGS),
            ("voices.js", VOICE_STRINGS),
            ("voice-new.js", VOICE_STRINGS),
            ("voice-detail.js", VOICE_STRINGS),
        ],
    )
    def test_hold_what_the_scripts_say(self, entry: str, strings: Mapping[str, Any]) -> None:
        said: set[str] = set()
        for name in find_scripts(entry):
            said |= set(re.findall(r'\bsay\(\s*"(\w+)"', (SCRIPTS / name).read_text()))

        assert said - strings.keys() == set()
