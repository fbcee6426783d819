from __future__ import annotations

from datetime import datetime

import pytest

from realtime.call.hints.dates import compute_date_fact, say_moment

NOW = datetime(2026, 3, 12, 14, 25)  # noqa: DTZ001 — as somebody there reads it


class TestComputeDateFact:
    @pytest.mark.parametrize(
        ("question", "fact"),
        [
            ("現在幾點？", "現在是下午兩點二十五分"),
            ("請問現在幾點了？", "現在是下午兩點二十五分"),
            ("再過五十分鐘是幾點？", "現在是下午兩點二十五分，到時候是下午三點十五分"),
            ("今天星期幾？", "今天是3月12日星期四"),
            ("今天是幾月幾號", "今天是3月12日星期四"),
            ("明天禮拜幾", "明天是3月13日星期五"),
            ("大後天是幾號", "大後天是3月15日星期日"),
            ("再過三天是幾月幾號？", "今天是3月12日星期四，三天後是3月15日星期日"),
            ("兩個星期後是幾號", "今天是3月12日星期四，兩個星期後是3月26日星期四"),
            ("三天前是星期幾", "今天是3月12日星期四，三天前是3月9日星期一"),
            ("今年是民國幾年？", "今年是西元 2026 年，民國 115 年"),
            ("What time is it?", "it is 2:25 PM now"),
            ("What day is it today?", "today is Thursday, March 12, 2026"),
            ("What's the date tomorrow?", "tomorrow is Friday, March 13, 2026"),
        ],
    )
    def test_says(self, question: str, fact: str) -> None:
        found = compute_date_fact(question, NOW)

        assert found is not None
        assert found.text == fact

    @pytest.mark.parametrize(
        "question",
        [
            "郵局幾點開？",
            "你的生日是幾月幾號？",
            "中秋節是農曆幾月幾號？",
            "國慶日是哪一天？",
            "下星期三是幾號？",
            "你今年幾歲？",
            "今天天氣好嗎？",
            "What time does the museum open?",
        ],
    )
    def test_leaves_alone(self, question: str) -> None:
        assert compute_date_fact(question, NOW) is None


class TestSayMoment:
    def test_is_the_same_for_an_hour(self) -> None:
        assert say_moment(NOW, "台灣台北") == say_moment(NOW.replace(minute=59), "台灣台北")

    def test_says_place_date_and_hour(self) -> None:
        said = say_moment(NOW, "台灣台北")

        assert said == "地點是台灣台北，今天是2026年（民國115年）3月12日星期四，現在是下午兩點多。"
