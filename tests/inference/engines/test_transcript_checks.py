from __future__ import annotations

import pytest

from inference.engines.transcript_checks import (
    Defect,
    check_transcript,
    count_syllables,
    drop_near_repeat,
    drop_repetition,
    extract_loop,
    has_operator,
)


class TestCheckTranscript:
    @pytest.mark.parametrize(
        ("text", "log_probability", "duration_s", "defect"),
        [
            ("今天天氣很好，我們一起去公園。", -0.2, 3.0, None),
            ("What is 12 times 8?", -0.17, 1.9, None),
            ("好", -0.3, 0.9, None),
            # Seen: 一百二十五加三百七十八等於多少？
            ("125×378等於多少？", -0.4, 4.0, Defect.OPERATOR),
            ("36-19是多少？", -0.4, 3.0, Defect.OPERATOR),
            ("125 x 378", -0.4, 3.0, Defect.OPERATOR),
            # Said slowly enough for two.
            ("125加378等於多少？125加378等於多少？", -0.4, 8.0, Defect.SAID_TWICE),
            ("不知痛的時候該去什麼？", -0.82, 2.3, Defect.UNLIKELY),
            ("，".join("天地" * 16), -0.1, 12.0, Defect.SAID_TWICE),
            ("先是" + "天地" * 60, -0.1, 20.0, Defect.COMPRESSIBLE),
            ("從台北到高雄坐高鐵要多久我想明天早上就去", -0.1, 2.0, Defect.TOO_FAST),
            ("嗯", -0.1, 4.0, Defect.TOO_SLOW),
        ],
    )
    def test_names_the_first_reason(
        self, text: str, log_probability: float, duration_s: float, defect: Defect | None
    ) -> None:
        assert check_transcript(text, log_probability=log_probability, duration_s=duration_s) is defect

    def test_takes_no_email_and_no_plan_x_for_arithmetic(self) -> None:
        assert not has_operator("我的e-mail寫在Plan X的第3頁，twenty-one")


class TestCountSyllables:
    def test_counts_characters_digits_and_thirds_of_english(self) -> None:
        assert count_syllables("我有3個App。") == pytest.approx(5)


class TestDropRepetition:
    def test_says_a_loop_once_when_nobody_could_have_said_it_all(self) -> None:
        text = "台灣最高的山。台灣最高的山。"

        assert drop_repetition(text, tokens=16, duration_s=1.5) == "台灣最高的山。"
        assert drop_repetition(text, tokens=16, duration_s=4.0) == text

    def test_says_once_what_was_heard_twice_a_little_differently(self) -> None:
        text = "125加378等於多少？125加378等多少？"

        assert drop_repetition(text, tokens=28, duration_s=2.5) == "125加378等於多少？"


class TestDropNearRepeat:
    @pytest.mark.parametrize(
        ("text", "first"),
        [
            ("125×378等於多少？125加378等於多少？", "125×378等於多少？"),
            ("How many minutes? I forgot. How many minute? I forget.", "How many minutes? I forgot."),
        ],
    )
    def test_finds_a_second_half_like_the_first(self, text: str, first: str) -> None:
        assert drop_near_repeat(text) == first

    @pytest.mark.parametrize(
        "text", ["", "。", "好。好。", "今天星期一。明天會下雨嗎？", "七加八等於多少？", "一。二。三。"]
    )
    def test_finds_none_in_ordinary_speech(self, text: str) -> None:
        assert drop_near_repeat(text) == ""


class TestExtractLoop:
    @pytest.mark.parametrize(
        ("text", "unit"),
        [
            ("Can you tell me? Can you tell me? Can you t", "Can you tell me?"),
            ("台灣最高的山。台灣最高的山。", "台灣最高的山。"),
            ("好好好", "好"),
            ("Oh, there. Oh, there! oh there", "Oh, there."),
            # Cut off by the most tokens that may be made.
            (
                "Can you tell me the name of a fruit that is yellow? Can you tell me the name of a fruit that is",
                "Can you tell me the name of a fruit that is yellow?",
            ),
        ],
    )
    def test_finds_what_is_repeated(self, text: str, unit: str) -> None:
        assert extract_loop(text) == unit

    @pytest.mark.parametrize("text", ["", "。", "a", "Can you tell me? Can you", "今天天氣很好，我們一起去公園。"])
    def test_finds_none_in_ordinary_speech(self, text: str) -> None:
        assert extract_loop(text) == ""
