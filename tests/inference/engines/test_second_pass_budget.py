import pytest

from inference.engines.second_pass_budget import SecondPassBudget


class TestSecondPass:
    @pytest.mark.parametrize(
        ("first_s", "elapsed_s", "is_awaited", "is_allowed"),
        [
            (0.3, 0.3, False, True),
            (0.55, 0.55, False, True),
            (0.3, 0.3, True, False),  # another final transcript waits
            (0.9, 0.9, False, False),  # a busy machine: it would be there 4.3 s after the pause
            (0.3, 2.5, False, False),  # it waited long for its turn
        ],
    )
    def test_is_allowed_when_it_is_in_time(
        self, first_s: float, elapsed_s: float, is_awaited: bool, is_allowed: bool
    ) -> None:
        assert SecondPassBudget().allows_second(first_s, elapsed_s=elapsed_s, is_awaited=is_awaited) is is_allowed

    @pytest.mark.parametrize(("second_s", "is_allowed"), [(3.0, False), (0.9, True)])
    def test_is_predicted_from_those_before(self, second_s: float, is_allowed: bool) -> None:
        budget = SecondPassBudget()
        for _ in range(10):
            budget.note_second(second_s, first_s=0.5)

        assert budget.allows_second(0.6, elapsed_s=0.6, is_awaited=False) is is_allowed


class TestWindow:
    @pytest.mark.parametrize(
        ("durations", "is_wide"),
        [
            ([], True),
            ([0.7, 0.7], True),
            ([0.7, 0.7, 0.5, 0.7, 0.7], True),
            ([0.7, 0.7, 0.7], False),
            ([0.7, 0.7, 0.7, 0.5, 0.5, 0.5], False),  # the wide one would overrun again
            ([0.7, 0.7, 0.7, 0.3, 0.3], False),
            ([0.7, 0.7, 0.7, 0.3, 0.3, 0.3], True),
        ],
    )
    def test_is_short_while_the_wide_one_overruns_the_pause(self, durations: list[float], is_wide: bool) -> None:
        budget = SecondPassBudget()
        for took_s in durations:
            budget.note_first(took_s, was_wide=budget.is_wide)

        assert budget.is_wide is is_wide
