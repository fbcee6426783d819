from __future__ import annotations

from collections.abc import Callable

import pytest

from realtime.limits import BudgetExceeded, Idleness, IdleWatch, SocketBudget, TokenBucket


def make_budget() -> SocketBudget:
    return SocketBudget(max_utterance_bytes=10_000_000, max_utterance_chunks=1000, max_utterance_s=60, now=0.0)


def count_taken(take: Callable[[], None], *, at_most: int) -> int:
    for number in range(at_most):
        try:
            take()
        except BudgetExceeded:
            return number
    return at_most


class TestTokenBucket:
    def test_gives_what_it_holds_and_refills_with_time(self) -> None:
        bucket = TokenBucket(capacity=3, per_s=2, now=10.0)

        assert [bucket.take(1, 10.0) for _ in range(4)] == [True, True, True, False]
        assert not bucket.take(1, 10.4)
        assert bucket.take(1, 10.5)
        assert not bucket.take(1, 10.5)

    def test_never_holds_more_than_its_capacity(self) -> None:
        bucket = TokenBucket(capacity=3, per_s=2, now=0.0)

        assert not bucket.take(3.5, 1_000_000.0)
        assert bucket.take(3, 1_000_000.0)

    def test_keeps_its_tokens_when_they_are_not_enough(self) -> None:
        bucket = TokenBucket(capacity=3, per_s=0, now=0.0)

        assert not bucket.take(4, 0.0)
        assert bucket.take(3, 0.0)


class TestSocketBudget:
    def test_lets_a_page_in_conversation_through_for_an_hour(self) -> None:
        budget = make_budget()

        for tick in range(60 * 60 * 50):
            now = tick / 50
            budget.charge_frame(640, now)
            if tick % 12 == 0:
                budget.charge_json(120, now)
                budget.charge_message(now, is_chunk=False)

    def test_takes_a_whole_utterance_at_once_and_audio_at_four_times_its_speed(self) -> None:
        budget = make_budget()

        assert count_taken(lambda: budget.charge_frame(64_000, 0.0), at_most=100) == 35  # 60 s and 10 s, 2 s each
        assert count_taken(lambda: budget.charge_frame(64_000, 10.0), at_most=100) == 20

    def test_cuts_off_a_flood_of_the_tiniest_frames(self) -> None:
        budget = make_budget()
        count_taken(lambda: budget.charge_frame(2, 0.0), at_most=100_000)

        assert count_taken(lambda: budget.charge_frame(2, 1.0), at_most=36_000) <= 800

    def test_takes_a_hundred_messages_a_second_beside_the_audio(self) -> None:
        budget = make_budget()

        assert count_taken(lambda: budget.charge_message(0.0, is_chunk=False), at_most=36_000) == 200
        assert count_taken(lambda: budget.charge_message(1.0, is_chunk=False), at_most=36_000) == 100
        assert count_taken(lambda: budget.charge_message(1.0, is_chunk=True), at_most=36_000) == 1200

    def test_takes_twenty_errors_and_then_twenty_a_minute(self) -> None:
        budget = make_budget()

        assert count_taken(lambda: budget.charge_error(0.0), at_most=100) == 20
        assert count_taken(lambda: budget.charge_error(59.9), at_most=100) == 19

    def test_counts_json_before_it_is_parsed(self) -> None:
        budget = make_budget()

        assert count_taken(lambda: budget.charge_json(1_000_000, 0.0), at_most=1000) == 20
        assert count_taken(lambda: budget.charge_json(1_000_000, 3.0), at_most=1000) == 3


class TestIdleWatch:
    def test_warns_once_and_then_ends(self) -> None:
        watch = IdleWatch(limit_s=600, now=0.0)

        assert watch.check(539.9) is Idleness.ACTIVE
        assert watch.check(540.0) is Idleness.WARN
        assert watch.compute_rest_s(540.0) == 60.0
        assert watch.check(599.9) is Idleness.ACTIVE
        assert watch.check(600.0) is Idleness.OVER

    def test_begins_again_when_somebody_speaks(self) -> None:
        watch = IdleWatch(limit_s=600, now=0.0)
        watch.check(550.0)
        watch.note_activity(590.0)

        assert watch.check(600.0) is Idleness.ACTIVE
        assert watch.check(1130.0) is Idleness.WARN
        assert watch.check(1190.0) is Idleness.OVER

    def test_warns_before_it_ends_however_late_it_is(self) -> None:
        watch = IdleWatch(limit_s=600, now=0.0)

        assert watch.check(5000.0) is Idleness.WARN
        assert watch.check(5000.0) is Idleness.OVER

    @pytest.mark.parametrize("now", [0.0, 1e9])
    def test_never_ends_anything_without_a_limit(self, now: float) -> None:
        assert IdleWatch(limit_s=0, now=0.0).check(now) is Idleness.ACTIVE

    def test_warns_halfway_where_the_limit_is_short(self) -> None:
        watch = IdleWatch(limit_s=10, now=0.0)

        assert (watch.check(4.9), watch.check(5.0)) == (Idleness.ACTIVE, Idleness.WARN)
