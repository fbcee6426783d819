"""The rules of `make bench-answers`, without its model."""

from __future__ import annotations

import argparse
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import FakeLanguageModel

bench: Any = pytest.importorskip("tests.bench.answers")
RULES = {"max_characters": 20, "max_words": 6}


class TestQuestions:
    def test_are_sixty_and_more_and_each_rule_is_a_pattern(self) -> None:
        turns = [
            turn
            for path in bench.PARTS.values()
            for call in tomllib.loads(path.read_text(encoding="utf-8"))["call"]
            for turn in call["turns"]
        ]

        assert len(turns) >= 60
        for turn in turns:
            assert turn["must"]
            for pattern in [*turn["must"], *turn.get("must_not", ())]:
                re.compile(pattern)


class TestJudge:
    @pytest.mark.parametrize(
        ("answer", "language", "faults"),
        [
            ("三杯一百九十五元。", "zh", []),
            ("三杯一百八十元。", "zh", ["lacks 195|一百九十五"]),
            ("It is 195 dollars.", "zh", ["language"]),
            ("三杯一百九十五元。", "en", ["language"]),
            ("三杯一百九十五元，这样对吗？", "zh", ["simplified 吗对样这"]),
            ("三杯 195 元，спасибо。", "zh", ["foreign script"]),
            ("三杯一百九十五元，謝謝你來問我，我很高興。", "zh", ["long"]),
            ("三杯一百九十五元，不知道。", "zh", ["has 不知道"]),
        ],
    )
    def test_names_what_is_wrong(self, answer: str, language: str, faults: list[str]) -> None:
        turn = {"must": ["195|一百九十五"], "must_not": ["不知道"]}

        assert bench.judge(answer, turn, RULES, language) == faults

    @pytest.mark.parametrize("text", ["台灣後面只有一里，吃麵、台北", "OK 👌 195"])
    def test_takes_nothing_traditional_for_simplified(self, text: str) -> None:
        assert bench.find_simplified(text) == ""


class TestAskAll:
    async def test_asks_only_what_has_no_answer_yet(self, tmp_path: Path) -> None:
        options = argparse.Namespace(
            parts=["open"], calls=["morning"], at_once=2, seed=1, seconds=60.0, show=False, show_held_out=False,
            json=tmp_path / "answers.json",
        )  # fmt: skip
        llm: Any = FakeLanguageModel(answer=lambda messages: "早安。")
        settings = [bench.BEFORE, bench.make_after(0.2, 1.05)]

        answers = await bench.ask_all(llm, settings, options)
        requests = len(llm.requests)
        again = await bench.ask_all(llm, settings, options)

        assert len(answers) == requests == 12
        assert again == answers
        assert len(llm.requests) == requests
