"""The figures of a run as pictures."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import cycle
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from services.launcher.runs.history import AccuracySeries, History, accuracies_by_set
from shared.protocol.figures import Shown, Style, charts

INK, GREY = "#1f2933", "#9aa5b1"
BLUE, ORANGE, GREEN, PURPLE, RED = COLORS = ("#2f6fde", "#e07b24", "#1d9a6c", "#8a4fcf", "#c8374a")
STYLE = {
    "font.family": "sans-serif",
    "font.size": 10,
    "text.parse_math": False,  # a file's name may have $ in it
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e7eb",
    "grid.linewidth": 0.8,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "figure.dpi": 130,
    "savefig.facecolor": "white",
}
Series = Sequence[tuple[int, float]]


def write_plots(history: History, directory: Path) -> list[tuple[str, Path]]:
    """Writes a PNG for held-out accuracy and for each chart of the figures that the history has values of.

    Returns their captions and paths in the order to be read.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(STYLE):
        return list(_write_plots(history, directory))


def _write_plots(history: History, directory: Path) -> Iterator[tuple[str, Path]]:
    if history.evaluations:
        caption = "Mean over k independent answers, and share of problems with a right one, on held-out problems."
        every = accuracies_by_set(history.evaluations)
        if every and not every[0].name:
            plot = partial(_plot_accuracy, series=every[0])
            yield caption, _write_plot(directory, "Held-out accuracy", "share right", plot)
        if of_sets := [series for series in every if series.name]:
            plot = partial(_plot_sets, sets=of_sets)
            yield (
                "Mean over k independent answers to the problems of each held-out set; bands of ± 2 standard errors.",
                _write_plot(directory, "Held-out accuracy by set", "share right", plot),
            )
    for chart in charts(Shown.PLOT):
        series = {declared.label: history.series(name) for name, declared in chart.figures.items()}
        if any(series.values()):
            plot = partial(_plot_stack if chart.first.style is Style.STACK else _plot_lines, series=series)
            yield chart.description, _write_plot(directory, chart.title, chart.first.unit or chart.title, plot)


def _write_plot(directory: Path, title: str, unit: str, plot: Callable[[Axes], None]) -> Path:
    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    plot(figure.add_subplot(title=title, xlabel="step", ylabel=unit))
    path = directory / f"{re.sub(r'[^a-z0-9-]+', '_', title.lower()).strip('_')}.png"
    figure.savefig(path)
    return path


def smoothed(values: Sequence[float], window: int) -> list[float]:
    """The mean of up to `window` values that end at each one."""
    return [sum(values[max(0, i + 1 - window) : i + 1]) / min(window, i + 1) for i in range(len(values))]


def _plot_lines(axes: Axes, series: Mapping[str, Series]) -> None:
    """Each figure's values as dots and their running mean as a line."""
    for (label, points), color in zip(series.items(), COLORS, strict=False):
        if points:
            steps, values = zip(*points, strict=True)
            axes.plot(steps, values, ".", color=color, alpha=0.45, markersize=5, markeredgewidth=0)
            axes.plot(steps, smoothed(values, max(1, len(values) // 12)), color=color, linewidth=2, label=label)
    if len(series) > 1:
        axes.legend()


def _plot_stack(axes: Axes, series: Mapping[str, Series]) -> None:
    """Areas that add up; every figure has a value for every step."""
    steps = [step for step, _ in next(iter(series.values()))]
    stacks = [[value for _, value in points] for points in series.values()]
    axes.stackplot(steps, stacks, labels=list(series), colors=COLORS, alpha=0.85)
    axes.set_ylim(0, 1.3 * max(map(sum, zip(*stacks, strict=True))) or 1)
    axes.legend(loc="upper right", ncols=3)


def _plot_accuracy(axes: Axes, series: AccuracySeries) -> None:
    average = _plot_average(axes, series, BLUE, f"avg@{series.at} ± 2 s.e.")
    for name, color, marker in (("pass", GREEN, "s"), ("maj", PURPLE, "^")):
        found = [
            (step, value)
            for step, one in zip(series.steps, series.values, strict=True)
            if (value := getattr(one, f"{name}_at_k")) is not None
        ]
        if found:
            axes.plot(*zip(*found, strict=True), color=color, marker=marker, linewidth=2, label=f"{name}@{series.at}")
    for step, value in ((series.steps[0], average[0]), (series.steps[-1], average[-1])):
        axes.annotate(
            f"{value:.2f}", (step, value), xytext=(0, -16), textcoords="offset points", ha="center", color=BLUE
        )
    axes.set_ylim(0, 1)
    axes.legend(loc="lower right")


def _plot_sets(axes: Axes, sets: Sequence[AccuracySeries]) -> None:
    for series, color in zip(sets, cycle(COLORS), strict=False):
        _plot_average(axes, series, color, f"{series.name}, avg@{series.at}")
    axes.set_ylim(0, 1)
    axes.legend(fontsize="small")


def _plot_average(axes: Axes, series: AccuracySeries, color: str, label: str) -> list[float]:
    average = [one.avg_at_k for one in series.values]
    low, high = ([one.avg_at_k + sign * 2 * one.standard_error for one in series.values] for sign in (-1, 1))
    axes.fill_between(series.steps, low, high, color=color, alpha=0.15, linewidth=0)
    axes.plot(series.steps, average, color=color, marker="o", linewidth=2, label=label)
    return average
