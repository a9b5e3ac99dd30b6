"""Curves of runs against steps, generated tokens or time, and their mean over seeds."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from enum import StrEnum
from functools import lru_cache
from itertools import accumulate

from services.launcher.display.durations import format_duration
from services.launcher.report.svg_chart import Point
from services.launcher.runs.history import AccuracySeries, History
from shared.tree.accuracy import standard_error

_PHASES = ("intake_seconds", "update_seconds", "publish_seconds", "checkpoint_seconds")
_WINDOWS = 12
"""A curve is smoothed over this part of its steps."""


class Axis(StrEnum):
    """What curves are drawn against."""

    STEP = "step"
    TOKENS = "generated tokens"
    TIME = "time"

    def text(self, value: float) -> str:
        """A tick's text."""
        if self is Axis.TIME:
            return format_duration(value)
        if value >= 1e6:
            return f"{value / 1e6:g}M"
        return f"{value / 1000:g}k" if value >= 10_000 else f"{value:,.6g}"


@lru_cache(maxsize=256)
def positions(history: History, axis: Axis) -> dict[int, float]:
    """Where each step ends on the axis; step 0 is its start."""
    found, tokens, seconds = {0: 0.0}, 0.0, 0.0
    for figures in history.figures:
        tokens += figures.generated_tokens
        seconds += sum(getattr(figures, phase) for phase in _PHASES)
        if figures.run_seconds is not None:
            seconds = figures.run_seconds
        found[figures.step] = {Axis.STEP: float(figures.step), Axis.TOKENS: tokens, Axis.TIME: seconds}[axis]
    return found


def figure_curve(history: History, name: str, axis: Axis) -> tuple[Point, ...]:
    """A figure of every step that has it."""
    at = positions(history, axis)
    return tuple(Point(at[step], value) for step, value in _series(history, name))


@lru_cache(maxsize=1024)
def _series(history: History, name: str) -> tuple[tuple[int, float], ...]:
    return history.series(name)


def accuracy_curve(history: History, series: AccuracySeries, measure: str, axis: Axis) -> tuple[Point, ...]:
    """avg_at_k, pass_at_k or maj_at_k of one set, each with its error over problems."""
    at, name = positions(history, axis), measure.removesuffix("_at_k")
    error = "standard_error" if name == "avg" else f"{name}_error"
    if axis is Axis.STEP:  # also where the figures of steps are lost
        at = {step: float(step) for step in series.steps}
    return tuple(
        Point(at[step], value, getattr(one, error))
        for step, one in zip(series.steps, series.values, strict=True)
        if (value := getattr(one, measure)) is not None and step in at
    )


def smoothed(points: Sequence[Point]) -> tuple[Point, ...]:
    """The mean of up to a twelfth of the points that end at each one."""
    window = max(1, len(points) // _WINDOWS)
    sums = [0.0, *accumulate(point.y for point in points)]
    starts = [max(0, end - window) for end in range(1, len(points) + 1)]
    return tuple(
        Point(point.x, (sums[end] - sums[start]) / (end - start))
        for end, (point, start) in enumerate(zip(points, starts, strict=True), start=1)
    )


def mean_curve(curves: Sequence[Sequence[Point]]) -> tuple[Point, ...]:
    """One curve as it is; of several, over the stretch that all have, their mean with its error over them."""
    given = [curve for curve in curves if curve]
    if len(given) < 2:
        return tuple(given[0]) if given else ()
    start, end = max(curve[0].x for curve in given), min(curve[-1].x for curve in given)
    grid = sorted({point.x for curve in given for point in curve if start <= point.x <= end} | {start, end})
    if start > end:
        return ()
    values = [[interpolate(curve, x) for curve in given] for x in grid]
    return tuple(
        Point(x, sum(found) / len(found), standard_error(found)) for x, found in zip(grid, values, strict=True)
    )


def interpolate(curve: Sequence[Point], x: float) -> float:
    """The value at x, between the points beside it."""
    index = bisect_left(curve, x, key=lambda point: point.x)
    if index == len(curve):
        return curve[-1].y
    after = curve[index]
    if index == 0 or after.x == x:
        return after.y
    before = curve[index - 1]
    return before.y + (after.y - before.y) * (x - before.x) / (after.x - before.x)


def last_values(curve_of: Mapping[str, Sequence[Point]]) -> str:
    """What a chart comes to, in words."""
    ends = (f"{label} {curve[0].y:.3g} to {curve[-1].y:.3g}" for label, curve in curve_of.items() if curve)
    return "; ".join(ends)
