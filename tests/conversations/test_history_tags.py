from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from django.utils import timezone, translation

from conversations.templatetags import history

TAIPEI = ZoneInfo("Asia/Taipei")


class TestDayAndTime:
    @pytest.fixture(autouse=True)
    def _chinese(self) -> object:
        with translation.override("zh-hant"):
            yield

    def test_names_today(self, monkeypatch: pytest.MonkeyPatch) -> None:
        now = datetime(2026, 11, 24, 22, 0, tzinfo=TAIPEI)
        monkeypatch.setattr(timezone, "now", lambda: now)

        assert "14:03" in history.day_and_time(now.replace(hour=14, minute=3))
        assert "24" not in history.day_and_time(now.replace(hour=14, minute=3))
        assert "23" in history.day_and_time(now - timedelta(days=1))
        assert "2025" in history.day_and_time(now - timedelta(days=365))

    def test_is_nothing_without_a_time(self) -> None:
        assert history.day_and_time(None) == ""


class TestClock:
    @pytest.mark.parametrize(("ms", "shown"), [(0, "0:00"), (900, "0:01"), (59_600, "1:00"), (83_000, "1:23")])
    def test_counts_minutes_and_seconds(self, ms: int, shown: str) -> None:
        assert history.clock(ms) == shown


class TestStages:
    def test_leaves_out_what_was_not_measured(self) -> None:
        assert [seconds for _, seconds in history.stages({"stt": None, "ttft": 650, "ttfa": 1900})] == ["0.65", "1.90"]


class TestMarked:
    def test_marks_every_word_wherever_it_is(self) -> None:
        assert history.marked("陽明山的山", "山 明") == "陽<mark>明山</mark>的<mark>山</mark>"

    def test_pays_no_heed_to_case(self) -> None:
        assert history.marked("Taipei 101", "taipei") == "<mark>Taipei</mark> 101"

    def test_escapes_what_is_marked_and_what_is_not(self) -> None:
        assert history.marked("<b>a&b", "b") == "&lt;<mark>b</mark>&gt;a&amp;<mark>b</mark>"

    def test_leaves_the_text_alone_without_a_query(self) -> None:
        assert history.marked("a < b", "  ") == "a &lt; b"
