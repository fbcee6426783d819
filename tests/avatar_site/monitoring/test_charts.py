from __future__ import annotations

import re

import pytest

from avatar_site.monitoring import charts
from avatar_site.monitoring.charts import Chart, Rule, Series, Tick


def draw(*values: float | None, top: float = 10, rule: Rule | None = None) -> Chart:
    series = Series("P95", values, [str(value) for value in values])
    times = [str(number) for number in range(len(values))]
    return charts.draw_lines(
        [series], times=times, x_ticks=[Tick(50, "noon")], top=top, ticks=[(0, "0")], rule=rule, is_filled=True
    )


def read_points(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"([\d.]+) ([\d.]+)", path)]


class TestChooseTicks:
    @pytest.mark.parametrize(
        ("largest", "ticks"),
        [
            (4.2, (0, 2, 4, 6)),
            (3.5, (0, 1, 2, 3, 4)),
            (100, (0, 25, 50, 75, 100)),
            (0.07, (0, 0.02, 0.04, 0.06, 0.08)),
            (0, (0, 1e-9)),
        ],
    )
    def test_are_round_and_reach_over_the_largest(self, largest: float, ticks: tuple[float, ...]) -> None:
        found = charts.choose_ticks(largest)

        assert len(found) <= 5
        assert found[-1] >= largest
        if largest:
            assert found == pytest.approx(ticks)

    def test_are_whole_where_people_are_counted(self) -> None:
        assert charts.choose_ticks(5, is_whole=True) == (0, 2, 4, 6)
        assert charts.choose_ticks(1, is_whole=True) == (0, 1)


class TestDrawLines:
    def test_puts_a_value_in_the_middle_of_its_slot(self) -> None:
        (line,) = draw(0, 5, 10, 5).lines

        assert read_points(line.path) == [(125, 100), (375, 50), (625, 0), (875, 50)]
        assert line.end == (87.5, 50)

    def test_interrupts_the_line_where_nothing_was_measured(self) -> None:
        (line,) = draw(1, 2, None, 3, 4).lines

        assert line.path.count("M") == 2
        assert line.area.count("Z") == 2

    def test_draws_a_single_reading_as_a_dot(self) -> None:
        (line,) = draw(None, 2, None).lines

        assert line.dots == "M500.00 80.00h.01"
        assert (line.path, line.area) == ("", "")

    def test_ends_at_the_edge_what_is_higher_than_the_chart(self) -> None:
        (line,) = draw(1, 99).lines

        assert read_points(line.path)[1][1] == 0

    def test_draws_the_rule_at_its_value(self) -> None:
        assert draw(1, rule=Rule(3.5, "target")).rule_percent == 65

    def test_is_empty_without_a_value(self) -> None:
        assert draw(None, None).is_empty
        assert not draw(None, 0).is_empty

    def test_tells_the_tooltip_every_slot(self) -> None:
        assert draw(1, None).points == (("0", "1"), ("1", "None"))

    def test_names_series_only_where_there_are_several(self) -> None:
        one = Series("P95", [1], ["1"])
        drawn = {"times": ["0"], "x_ticks": (), "top": 2, "ticks": ()}

        assert charts.draw_lines([one], **drawn).legend == ()
        assert len(charts.draw_lines([one, Series("median", [1], ["1"], "quiet")], **drawn).legend) == 2
        assert charts.draw_lines([one, Series("turns", [1], ["1"], charts.UNSEEN)], **drawn).legend == ()


class TestDrawBars:
    def test_draws_one_a_slot_and_none_for_nothing(self) -> None:
        series = Series("errors", [0, 2, None, 4], ["0", "2", "—", "4"])
        chart = charts.draw_bars(series, times=["a", "b", "c", "d"], x_ticks=(), top=4, ticks=())

        assert [(bar.y, bar.height) for bar in chart.bars] == [(50, 50), (0, 100)]
        assert chart.bars[0].x > 250
        assert chart.bars[0].x + chart.bars[0].width < 500
