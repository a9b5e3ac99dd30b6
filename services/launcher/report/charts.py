"""Which charts a report has, and what each draws."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from services.launcher.report.accuracy import series_of, set_labels
from services.launcher.report.curves import Axis, accuracy_curve, figure_curve, last_values, mean_curve, smoothed
from services.launcher.report.groups import Group
from services.launcher.report.reported_run import ReportedRun
from services.launcher.report.svg_chart import NUM_LOOKS, Line, Point, render_chart, render_key, render_stack
from shared.protocol.figures import Chart, Figure, Shown, Style, charts

Curve = Callable[[ReportedRun, Axis], Sequence[Point]]
_MEASURES = ("avg_at_k", "pass_at_k", "maj_at_k")


@dataclass(frozen=True, slots=True)
class ChartView:
    """One chart, against each axis."""

    title: str
    description: str
    svgs: tuple[tuple[str, Markup], ...]
    """(name of the axis, picture)."""
    legend: tuple[tuple[Markup, str], ...]
    rows: tuple[tuple[str, str], ...] = ()
    """(line, its values in words), for held-out accuracy."""


def accuracy_charts(groups: Sequence[Group]) -> Iterator[ChartView]:
    """avg@k of every group on every held-out set, with bands of ± one standard error; of one run also pass@k and
    maj@k."""
    for label in set_labels(groups):
        if len(groups) > 1 or len(groups[0].runs) > 1:
            lines = [(group.label, group, _accuracy(label, "avg_at_k")) for group in groups]
            yield _view(f"{label}: avg@k", "Mean reward of k answers.", "avg@k", lines, marked=True)
        else:
            lines = [(f"{one.partition('_')[0]}@k", groups[0], _accuracy(label, one)) for one in _MEASURES]
            yield _view(
                label, "Mean reward of k answers, share of problems with a right one, reward of most.", "share right",
                lines, marked=True,
            )  # fmt: skip


def figure_charts(groups: Sequence[Group]) -> Iterator[ChartView]:
    """The figures of steps: of one run those that belong together in one chart, of several each in its own."""
    is_one = len(groups) == 1 and len(groups[0].runs) == 1
    for chart in charts(Shown.PLOT):
        shown = [
            (name, figure)
            for name, figure in chart.figures.items()
            if any(run.history.series(name) for group in groups for run in group.runs)
        ]
        if shown and is_one:
            yield _of_one_run(chart, shown, groups[0])
        for name, figure in () if is_one else shown:
            title = chart.title if len(chart.figures) == 1 else f"{chart.title}: {figure.label}"
            lines = [(group.label, group, _figure(name)) for group in groups]
            yield _view(title, f"{figure.help}.", figure.unit or figure.label, lines)


def _of_one_run(chart: Chart, shown: Sequence[tuple[str, Figure]], group: Group) -> ChartView:
    lines = [(figure.label, group, _figure(name)) for name, figure in shown]
    unit, style = chart.first.unit or chart.title, chart.first.style
    return _view(chart.title, chart.description, unit, lines, style=style, dotted=True)


def _accuracy(label: str, measure: str) -> Curve:
    def curve(run: ReportedRun, axis: Axis) -> Sequence[Point]:
        series = series_of(run, label)
        return accuracy_curve(run.history, series, measure, axis) if series else ()

    return curve


def _figure(name: str) -> Curve:
    return lambda run, axis: figure_curve(run.history, name, axis)


def _view(
    title: str,
    description: str,
    unit: str,
    given: Sequence[tuple[str, Group, Curve]],
    *,
    marked: bool = False,
    dotted: bool = False,
    style: Style = Style.LINE,
) -> ChartView:
    """`given`: (label, its runs, what is drawn of a run)."""
    svgs, by_step = [], list[Line]()
    for axis in Axis:
        is_smooth = not marked and style is not Style.STACK
        drawn = [
            _line(label, [curve(run, axis) for run in group.runs], look, marked, is_smooth, dotted)
            for look, (label, group, curve) in enumerate(given)
        ]
        lines = [line for line in drawn if line.points]
        by_step = by_step or lines
        words = f"{title}. {last_values({line.label: line.points for line in lines})}"
        render = render_stack if style is Style.STACK else render_chart
        if lines:
            svgs.append((axis.name.lower(), Markup(render(lines, words, axis.value, unit, axis.text))))  # noqa: S704
    is_filled = style is Style.STACK
    keys = [render_key(line.look, marked=marked, filled=is_filled) for line in by_step]
    legend = tuple((Markup(key), line.label) for key, line in zip(keys, by_step, strict=True))  # noqa: S704
    rows = tuple((line.label, _values(line)) for line in by_step) if marked else ()
    return ChartView(title, description, tuple(svgs), legend, rows)


def _line(
    label: str, curves: Sequence[Sequence[Point]], look: int, marked: bool, is_smooth: bool, dotted: bool
) -> Line:
    shown = [smoothed(curve) if is_smooth else tuple(curve) for curve in curves]
    dots = tuple(curves[0]) if dotted and is_smooth else ()
    return Line(label, mean_curve(shown), look % NUM_LOOKS, marked, dots)


def _values(line: Line) -> str:
    return "  ".join(
        f"{point.y:.3f}" + ("" if point.error is None else f" ± {point.error:.3f}") for point in line.points
    )
