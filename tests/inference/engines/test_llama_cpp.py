"""What llama.cpp's engine decides by itself, without a model. What it does with one is in test_engines.py."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import Any

import pytest

llama_cpp: Any = pytest.importorskip("inference.engines.llama_cpp")

from inference.interfaces import Message  # noqa: E402 — after the skip

SHARED = [
    Message("system", "Be brief.", is_shared=True),
    Message("user", "Hi", is_shared=True),
    Message("assistant", "Hello.", is_shared=True),
]


def render(messages: list[Message]) -> str:
    return "".join(f"<{message.role}>{message.content}</>" for message in messages) + "<assistant>"


class TestFindPreamble:
    def test_is_all_that_conversations_share(self) -> None:
        messages = [*SHARED, Message("system", "It is noon."), Message("user", "Hi")]

        assert (
            llama_cpp.extract_preamble(render(messages), messages) == "<system>Be brief.</><user>Hi</><assistant>Hello."
        )

    def test_is_the_system_prompt_where_nothing_is_said_to_be_shared(self) -> None:
        messages = [Message("system", "Be brief."), Message("user", "Hi")]

        assert llama_cpp.extract_preamble(render(messages), messages) == "<system>Be brief."

    def test_is_nothing_without_either(self) -> None:
        messages = [Message("user", "Hi")]

        assert llama_cpp.extract_preamble(render(messages), messages) == ""

    def test_is_nothing_where_the_template_changes_a_message(self) -> None:
        assert llama_cpp.extract_preamble("<system>BE BRIEF.</>", SHARED) == ""


class TestChooseSlot:
    PREAMBLE = "p" * 500

    def make_slots(self, *texts: str) -> list[Any]:
        return [llama_cpp._Slot(number, text, used=number) for number, text in enumerate(texts)]

    def choose(self, slots: list[Any], text: str) -> int:
        chosen: int = llama_cpp.choose_slot(slots, text, preamble_length=len(self.PREAMBLE)).number
        return chosen

    def test_leaves_a_conversation_its_slot_however_long_the_preamble_is(self) -> None:
        slots = self.make_slots("", self.PREAMBLE + "Alice asks about tea.")

        assert self.choose(slots, self.PREAMBLE + "Bob wants to know the time.") == 0

    def test_finds_the_conversation_again(self) -> None:
        slots = self.make_slots(self.PREAMBLE + "Bob", self.PREAMBLE + "Alice asks about tea.")

        assert self.choose(slots, self.PREAMBLE + "Alice asks about tea. And cake?") == 1

    def test_takes_a_slot_that_has_read_the_preamble_only(self) -> None:
        slots = self.make_slots("something else", self.PREAMBLE)

        assert self.choose(slots, self.PREAMBLE + "Bob wants to know the time.") == 1


class TestForeignScripts:
    @pytest.mark.parametrize("text", ["Привет", "ありがとう", "カ", "감사", "مرحبا", "สวัสดี", "שלום", "Γειά", "ｶﾅ"])
    def test_covers(self, text: str) -> None:
        assert re.search(f"[{llama_cpp.FOREIGN_SCRIPTS}]", text)

    @pytest.mark.parametrize(
        "text", ["今天「玉山」3,952 公尺，好嗎？…—", "ㄅㄆㄇˇ", "café naïve Xièxie xiǎng", "℃ × ÷ ½ 😀", "，！？：（）"]
    )
    def test_leaves(self, text: str) -> None:
        assert not re.search(f"[{llama_cpp.FOREIGN_SCRIPTS}]", text)


class TestThreads:
    @pytest.mark.parametrize(("chosen", "expected"), [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7")])
    def test_soon_sleep_at_a_barrier(self, chosen: dict[str, str], expected: str) -> None:
        environment = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
        done = subprocess.run(  # libgomp prints the settings in effect when it is loaded
            [sys.executable, "-c", "import inference.engines.llama_cpp"],
            env={**environment, **chosen, "OMP_DISPLAY_ENV": "verbose"},
            capture_output=True,
            text=True,
            check=True,
        )

        assert f"GOMP_SPINCOUNT = '{expected}'" in done.stderr
