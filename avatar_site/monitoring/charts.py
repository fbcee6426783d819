"""Geometry of charts as the server draws them: plain values to points, ticks and paths. Imports no Django."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

#: Charts are stretched to the width of their card: strokes and labels are not, see static/css/dashboard.css.
WIDTH = 1000.0
HEIGHT = 100.0
#: Of a slot's width, free between two bars.
_BAR_GAP = 0.28
#: Intervals between grid lines, at most.
_INTERVALS = 4
#: The style of a series that the tooltip alone tells.
UNSEEN = "unseen"


@dataclass(frozen=True, slots=True)
class Tick:
    """A label on an axis, at a share of its length in per cent: from the left, or from the top."""

    percent: float
    label: str
    #: Left out where there is little room.
    is_minor: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """A horizontal line that means something: a target, a limit."""

    value: float
    label: str
    #: "above" or "below": on which side of it a value is bad.
    bad_side: str = "above"


@dataclass(frozen=True, slots=True)
class Series:
    """Values of one quantity, one a slot; None where nothing was measured."""

    name: str
    values: Sequence[float | None]
    #: As the legend and the tooltip say them.
    labels: Sequence[str]
    #: A class of static/css/dashboard.css: main, quiet, second, forecast, danger; "unseen" is in the tooltip alone.
    style: str = "main"


@dataclass(frozen=True, slots=True)
class Line:
    name: str
    style: str
    path: str
    #: Readings without neighbours, drawn as dots.
    dots: str
    #: Closed along the bottom; empty if it is not filled.
    area: str
    #: Where it ends, in per cent from left and top; None without values.
    end: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Bar:
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Chart:
    """All that a template needs to draw one."""

    lines: tuple[Line, ...] = ()
    bars: tuple[Bar, ...] = ()
    bar_style: str = "main"
    y_ticks: tuple[Tick, ...] = ()
    x_ticks: tuple[Tick, ...] = ()
    rule: Rule | None = None
    #: The rule's place from the top, in per cent.
    rule_percent: float = 0.0
    #: One list a slot: its time, then the label of each series. For the tooltip.
    points: tuple[tuple[str, ...], ...] = ()
    #: Name and style of each series, as in `points`.
    names: tuple[tuple[str, str], ...] = ()

    @property
    def is_empty(self) -> bool:
        return not self.bars and not any(line.path or line.dots for line in self.lines)

    @property
    def legend(self) -> tuple[tuple[str, str], ...]:
        """Name and style of each series that is drawn; empty if it is one, which the title names."""
        drawn = tuple(each for each in self.names if each[1] != UNSEEN)
        return drawn if len(drawn) > 1 else ()

    @property
    def tooltip(self) -> dict[str, Any]:
        """Return what static/js/dashboard.js reads: the names of the series, and the labels of each slot."""
        return {"names": self.names, "points": self.points}

    @property
    def over_height(self) -> float:
        """The height of what lies above the rule, from a little above the chart: strokes have a width."""
        return round(self.rule_percent * HEIGHT / 100 + 5, 3)

    @property
    def is_bad_above(self) -> bool:
        return self.rule is not None and self.rule.bad_side == "above"


def choose_ticks(largest: float, *, is_whole: bool = False) -> tuple[float, ...]:
    """Return round numbers from 0 to the first that is not below `largest`: at most five."""
    largest = max(largest, 1e-9)
    rough = largest / _INTERVALS
    magnitude = 10 ** math.floor(math.log10(rough))
    steps = [factor * magnitude for factor in (1, 2, 2.5, 5, 10)]
    if is_whole:
        steps = [step for step in steps if step == int(step)] or [1.0]
    step = next((each for each in steps if each * _INTERVALS >= largest * (1 - 1e-9)), steps[-1])
    intervals = max(1, math.ceil(largest / step - 1e-9))
    return tuple(round(step * number, 10) for number in range(intervals + 1))


def draw_lines(
    series: Sequence[Series],
    *,
    times: Sequence[str],
    x_ticks: Iterable[Tick],
    top: float,
    ticks: Sequence[tuple[float, str]],
    rule: Rule | None = None,
    is_filled: bool = False,
) -> Chart:
    """Draw lines from slot to slot; a slot without a value interrupts them. Values above `top` end at the edge."""
    return Chart(
        lines=tuple(
            _draw_line(each, top=top, is_filled=is_filled and not number) for number, each in enumerate(series)
        ),
        y_ticks=tuple(Tick(_to_percent(value, top), label) for value, label in ticks),
        x_ticks=tuple(x_ticks),
        rule=rule,
        rule_percent=_to_percent(rule.value, top) if rule else 0.0,
        points=_collect_points(series, times),
        names=tuple((each.name, each.style) for each in series),
    )


def draw_bars(
    bars: Series,
    *,
    others: Sequence[Series] = (),
    times: Sequence[str],
    x_ticks: Iterable[Tick],
    top: float,
    ticks: Sequence[tuple[float, str]],
) -> Chart:
    """Draw one bar a slot. `others` are named in the tooltip and not drawn."""
    width = WIDTH / max(1, len(bars.values))
    return Chart(
        bars=tuple(
            Bar(
                x=round(number * width + width * _BAR_GAP / 2, 2),
                y=round(_to_percent(value, top) * HEIGHT / 100, 2),
                width=round(width * (1 - _BAR_GAP), 2),
                height=round(HEIGHT - _to_percent(value, top) * HEIGHT / 100, 2),
            )
            for number, value in enumerate(bars.values)
            if value
        ),
        bar_style=bars.style,
        y_ticks=tuple(Tick(_to_percent(value, top), label) for value, label in ticks),
        x_ticks=tuple(x_ticks),
        points=_collect_points([bars, *others], times),
        names=tuple((each.name, each.style) for each in (bars, *others)),
    )


def _draw_line(series: Series, *, top: float, is_filled: bool) -> Line:
    width = WIDTH / max(1, len(series.values))
    path: list[str] = []
    dots: list[str] = []
    area: list[str] = []
    end = None
    for run in _find_runs(series.values):
        points = [((number + 0.5) * width, _to_percent(value, top) * HEIGHT / 100) for number, value in run]
        if len(points) == 1:
            # A line of no length with round ends.
            dots.append(f"M{points[0][0]:.2f} {points[0][1]:.2f}h.01")
        else:
            path.append("M" + "L".join(f"{x:.2f} {y:.2f}" for x, y in points))
        if is_filled and len(points) > 1:
            area.append(f"{path[-1]}L{points[-1][0]:.2f} {HEIGHT:g}L{points[0][0]:.2f} {HEIGHT:g}Z")
        end = (round(points[-1][0] * 100 / WIDTH, 3), round(points[-1][1] * 100 / HEIGHT, 3))
    return Line(series.name, series.style, "".join(path), "".join(dots), "".join(area), end)


def _find_runs(values: Sequence[float | None]) -> list[list[tuple[int, float]]]:
    """Return stretches of slots with values, each with the number of its slot."""
    runs: list[list[tuple[int, float]]] = []
    is_open = False
    for number, value in enumerate(values):
        if value is None:
            is_open = False
            continue
        if not is_open:
            runs.append([])
            is_open = True
        runs[-1].append((number, value))
    return runs


def _to_percent(value: float, top: float) -> float:
    """Return how far from the top a value lies, in per cent."""
    return round(100 * (1 - min(max(value / top, 0.0), 1.0)), 3) if top else 100.0


def _collect_points(series: Sequence[Series], times: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    return tuple((time, *(each.labels[number] for each in series)) for number, time in enumerate(times))
