from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import Any

import pytest

from avatar_site.operations import startup
from avatar_site.operations.serving import ServePlan, Serving
from inference.interfaces import Message
from realtime.call.prompt import (
    EXAMPLES,
    SYSTEM_PROMPT,
    Language,
    Scene,
    choose_reply_language,
    compose,
    compose_shared,
    judge_beginning,
    name_languages,
)
from realtime.entry import make_call_settings
from tests.fakes import make_inference

NOON = datetime(2026, 3, 12, 12, 10)  # noqa: DTZ001 — as somebody there reads it
HELLO = [Message("user", "早安"), Message("assistant", "早安！")]


def make_scene(now: datetime = NOON) -> Scene:
    return Scene("請簡短。", (("嗨", "嗨，你好。"),), "台灣台北", lambda: now)


class TestCompose:
    def test_begins_with_what_all_calls_share(self) -> None:
        scene = make_scene()

        messages = compose(scene, HELLO, "晚餐吃什麼？")

        assert compose_shared(scene) == messages[:3]
        assert [message.is_shared for message in messages] == [True] * 3 + [False] * 4
        assert messages[3].content.startswith("地點是台灣台北，今天是2026年")
        assert messages[4:] == [*HELLO, Message("user", "晚餐吃什麼？")]

    def test_changes_nothing_before_the_conversation_within_an_hour(self) -> None:
        earlier, later = make_scene(), make_scene(NOON.replace(minute=59))

        assert compose(later, HELLO, "現在幾點？")[:-1] == compose(earlier, HELLO)
        assert compose(later, HELLO, "現在幾點？")[-1].content == "現在幾點？\n（計算結果：現在是中午十二點五十九分）"

    def test_says_neither_place_nor_time_without_a_clock(self) -> None:
        assert compose(Scene("請簡短。"), [], "現在幾點？") == [
            Message("system", "請簡短。", is_shared=True),
            Message("user", "現在幾點？"),
        ]

    def test_keeps_a_sum_where_it_was_asked(self) -> None:
        asked = Message("user", "一杯珍珠奶茶六十五元，三杯多少錢？")
        said = [asked, Message("assistant", "三杯一百九十五元。")]

        messages = compose(Scene(), said, "那五杯呢？")

        assert messages[0].content == f"{asked.content}\n（計算結果：65 × 3 = 195 元，一百九十五）"
        assert messages[-1].content == "那五杯呢？\n（計算結果：65 × 5 = 325 元，三百二十五）"

    def test_joins_a_turn_that_was_never_answered(self) -> None:
        messages = compose(Scene(), [Message("user", "等一下")], "我想問")

        assert messages == [Message("user", "等一下\n我想問")]

    def test_has_examples_that_end_in_chinese(self) -> None:
        """So that the first Chinese question needs no hint."""
        assert 5 <= len(EXAMPLES) <= 12
        assert choose_reply_language(EXAMPLES[-1][1]) == "zh"
        assert "不知道" not in SYSTEM_PROMPT


class TestNameLanguages:
    def test_looks_at_the_avatars_last_answer(self) -> None:
        """It had answered a Chinese question in English, and went on so."""
        messages = [Message("user", "早"), Message("assistant", "Good morning, Jim."), Message("user", "你好")]

        named = name_languages(messages, is_expected_chinese=True)

        assert [message.content for message in named] == ["早", "Good morning, Jim.", "（請用中文回答。）你好"]

    def test_keeps_the_language_through_a_number(self) -> None:
        messages = [Message("user", "Hello"), Message("assistant", "Hello!"), Message("user", "42")]

        named = name_languages(messages, is_expected_chinese=True)

        assert named[-1].content == "42"


class TestFindWantedLanguage:
    @pytest.mark.parametrize(
        ("question", "language"),
        [
            ("晚餐吃什麼？", "zh"),
            ("Netflix 是什麼？", "zh"),
            ("Good morning.", "en"),
            ("42", None),
            ("用英文怎麼說「我餓了」？", None),
            ("請翻譯：good morning", None),
            ("How do I say thank you in Mandarin?", None),
        ],
    )
    def test_is_the_questions_unless_another_is_asked_for(self, question: str, language: Language | None) -> None:
        assert choose_reply_language(question) == language


class TestJudgeBeginning:
    @pytest.mark.parametrize(
        ("beginning", "wanted", "is_wanted"),
        [
            ("", "zh", None),
            ("早", "zh", True),
            ("Good", "zh", None),
            ("Good morning.", "zh", False),
            ("Good morning to you my", "zh", False),
            ("OpenAI", "zh", None),
            ("OpenAI 是", "zh", True),
            ("42", "zh", None),
            ("Good", "en", True),
            ("早安", "en", None),
            ("早安！", "en", False),
            ("台北 means Taipei", "en", True),
            ("今天天氣很好", "en", False),
            ("早安！", None, True),
        ],
    )
    def test_waits_until_it_is_clear(self, beginning: str, wanted: Language | None, is_wanted: bool | None) -> None:
        assert judge_beginning(beginning, wanted) is is_wanted


PLAN = ServePlan(
    names=("inference",),
    data_dir="/nowhere",
    profile="fake",
    host="127.0.0.1",
    port=8000,
    is_behind_proxy=False,
    inference_address="unix:/nowhere/inference.sock",
    inference_secret="",
    opening=(),
    admin_username="admin",
    new_password="",
    is_verbose=False,
    began_s=0.0,
)


class TestWhatIsReadBeforeTheFirstCall:
    async def test_is_what_calls_begin_with(self) -> None:
        inference: Any = make_inference()
        serving = Serving(dataclasses.replace(PLAN, opening=startup.make_opening()))

        await serving.read_opening(inference)

        call = make_call_settings()
        scene = Scene(call.system_prompt, call.examples, call.place, call.read_time)
        (read,) = inference.llm.prefills
        assert len(read) == 1 + 2 * len(EXAMPLES)
        assert compose(scene, [], "早安")[: len(read)] == list(read)
        assert all(message.is_shared for message in read)

    def test_has_no_examples_with_a_prompt_of_ones_own(self, settings: Any) -> None:
        settings.AVATAR_EXAMPLES = False

        assert make_call_settings().examples == ()
