from __future__ import annotations

import pytest

from realtime.clauses import speak
from realtime.playout import Playout


@pytest.fixture
def playout() -> Playout:
    return Playout(max_ahead_ms=2000)


@pytest.fixture
def two_clauses() -> Playout:
    """Four seconds of audio, two for each clause, sent at second 100."""
    playout = Playout(max_ahead_ms=10_000)
    for text in ["一二三四五六七八九十", "甲乙丙丁戊己庚辛壬癸"]:
        playout.start_clause(speak(text))
        playout.add(2000, 100.0)
        playout.end_clause()
    return playout


class TestPacing:
    def test_sends_two_seconds_at_once_and_then_as_fast_as_it_plays(self, playout: Playout) -> None:
        playout.start_clause(speak("好"))
        for _ in range(10):
            assert playout.compute_delay_s(200, 100.0) == 0
            playout.add(200, 100.0)

        assert playout.compute_delay_s(200, 100.0) == pytest.approx(0.2)
        assert playout.compute_delay_s(200, 100.2) == pytest.approx(0)

    def test_never_gets_further_ahead(self, playout: Playout) -> None:
        playout.start_clause(speak("好"))
        now = 100.0

        for _ in range(100):
            now += playout.compute_delay_s(200, now)
            playout.add(200, now)
            assert playout.sent_ms - playout.estimate_played_ms(now) <= 2000 + 1e-6

        assert now == pytest.approx(100.0 + 18.0)

    def test_believes_a_client_that_plays_late(self, playout: Playout) -> None:
        playout.start_clause(speak("好"))
        playout.add(2000, 100.0)

        playout.report(0, 101.0)

        assert playout.compute_delay_s(200, 101.0) == pytest.approx(0.2)
        assert playout.compute_rest_s(101.0) == pytest.approx(2.0)

    def test_does_not_believe_a_client_that_played_what_it_never_got(self, playout: Playout) -> None:
        playout.start_clause(speak("好"))
        playout.add(500, 100.0)

        playout.report(60_000, 100.1)

        assert playout.estimate_played_ms(100.1) == 500

    def test_does_not_count_silence_between_clauses_as_played(self, playout: Playout) -> None:
        playout.start_clause(speak("好"))
        playout.add(500, 100.0)
        playout.add(500, 110.0)

        assert playout.estimate_played_ms(110.1) == pytest.approx(600)

    def test_is_over_when_the_client_says_so(self, playout: Playout) -> None:
        playout.start_clause(speak("好"))
        playout.add(2000, 100.0)

        playout.report(1900, 100.5, is_finished=True)

        assert playout.compute_rest_s(100.5) == 0


class TestGap:
    def test_is_none_before_the_first_sound_and_while_it_plays(self, playout: Playout) -> None:
        playout.start_clause(speak("好"))
        assert playout.compute_gap_s(100.0) == 0

        playout.add(500, 100.0)

        assert playout.compute_gap_s(100.5) == 0

    def test_is_the_silence_after_what_was_sent(self, playout: Playout) -> None:
        playout.start_clause(speak("好"))
        playout.add(500, 100.0)

        assert playout.compute_gap_s(101.25) == pytest.approx(0.75)

    def test_is_shorter_when_the_client_plays_late(self, playout: Playout) -> None:
        playout.start_clause(speak("好"))
        playout.add(500, 100.0)
        playout.report(100, 101.0)

        assert playout.compute_gap_s(101.25) == 0
        assert playout.compute_gap_s(101.5) == pytest.approx(0.1)


class TestHeard:
    def test_is_nothing_before_any_sound(self, two_clauses: Playout) -> None:
        assert two_clauses.read_heard(0) == ""

    @pytest.mark.parametrize(
        ("heard_ms", "text"),
        [
            (1000, "一二三四五"),
            (2000, "一二三四五六七八九十"),
            (2400, "一二三四五六七八九十甲乙"),
            (4000, "一二三四五六七八九十甲乙丙丁戊己庚辛壬癸"),
            (9999, "一二三四五六七八九十甲乙丙丁戊己庚辛壬癸"),
        ],
    )
    def test_is_whole_clauses_and_a_part_of_one(self, two_clauses: Playout, heard_ms: int, text: str) -> None:
        assert two_clauses.read_heard(heard_ms) == text

    def test_guesses_the_length_of_a_clause_that_is_still_being_made(self, two_clauses: Playout) -> None:
        two_clauses.start_clause(speak("天地玄黃宇宙洪荒日月"))
        two_clauses.add(400, 100.0)

        assert two_clauses.read_heard(4400).endswith("壬癸天地")

    def test_includes_text_that_is_only_displayed(self, playout: Playout) -> None:
        playout.start_clause(speak("😀\n"))
        playout.end_clause()
        playout.start_clause(speak("你好"))
        playout.add(400, 100.0)
        playout.end_clause()

        assert playout.read_heard(400) == "😀\n你好"


class TestFindingTheEndOfASentence:
    @pytest.fixture
    def sentences(self) -> Playout:
        """「你好，今天好嗎？」 in two clauses of a second each, and a sentence whose audio has not all been sent."""
        playout = Playout(max_ahead_ms=10_000)
        for text in ["你好，", "今天好嗎？」", "我很好。"]:
            playout.start_clause(speak(text))
            playout.add(1000, 100.0)
            if text != "我很好。":
                playout.end_clause()
        return playout

    @pytest.mark.parametrize(("heard_ms", "end_ms"), [(0, 2000), (1500, 2000), (2000, 2000), (2001, None)])
    def test_is_that_of_the_sentence_which_is_heard(
        self, sentences: Playout, heard_ms: int, end_ms: int | None
    ) -> None:
        assert sentences.find_sentence_end_ms(heard_ms) == end_ms

    @pytest.mark.parametrize(
        ("text", "ends"), [("好。", True), ("Good. ", True), ("好\n", True), ("好，", False), ("3.5", False)]
    )
    def test_goes_by_punctuation(self, text: str, ends: bool) -> None:
        playout = Playout()
        playout.start_clause(speak(text))
        playout.add(100, 100.0)
        playout.end_clause()

        assert (playout.find_sentence_end_ms(0) is not None) is ends
