"""The figures of a run as pictures."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from services.launcher.runs.history import History

INK, BLUE, ORANGE, GREEN, PURPLE, GREY = "#1f2933", "#2f6fde", "#e07b24", "#1d9a6c", "#8a4fcf", "#9aa5b1"
STYLE = {
    "font.family": "sans-serif",
    "font.size": 10,
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


@dataclass(frozen=True, slots=True)
class Plot:
    """One picture: its file's name, what it says in a sentence, and how it is drawn."""

    name: str
    caption: str
    draw: Callable[[Axes, History], bool]
    """Draws what the history has of it; False when that is nothing."""


def write_plots(history: History, directory: Path) -> tuple[tuple[Plot, Path], ...]:
    """Writes a PNG for every plot that the history has something for; returns them in the order to be read."""
    directory.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(STYLE):
        return tuple(_written(history, directory))


def _written(history: History, directory: Path) -> Iterator[tuple[Plot, Path]]:
    for plot in PLOTS:
        figure = Figure(figsize=(6.4, 3.4), layout="constrained")
        axes = figure.add_subplot()
        if plot.draw(axes, history):
            axes.set_title(plot.name.replace("_", " "))
            axes.set_xlabel("step")
            path = directory / f"{plot.name}.png"
            figure.savefig(path)
            yield plot, path


def smoothed(values: Sequence[float], window: int) -> list[float]:
    """The mean of up to `window` values that end at each one."""
    return [sum(values[max(0, i + 1 - window) : i + 1]) / min(window, i + 1) for i in range(len(values))]


def _line(axes: Axes, series: Series, color: str, label: str | None = None) -> bool:
    """The values as dots and their running mean as a line."""
    if not series:
        return False
    steps, values = [step for step, _ in series], [value for _, value in series]
    axes.plot(steps, values, ".", color=color, alpha=0.45, markersize=5, markeredgewidth=0)
    axes.plot(steps, smoothed(values, max(1, len(values) // 12)), color=color, linewidth=2, label=label)
    return True


def _with_legend(axes: Axes, is_drawn: bool, place: str) -> bool:
    if is_drawn:
        axes.legend(loc=place)
    return is_drawn


def _accuracy(axes: Axes, history: History) -> bool:
    evaluations = history.evaluations
    if not evaluations:
        return False
    k, steps = evaluations[0].k, [one.step for one in evaluations]
    average = [one.avg_at_k for one in evaluations]
    errors = [2 * one.standard_error for one in evaluations]
    axes.errorbar(
        steps, average, yerr=errors, color=BLUE, marker="o", linewidth=2, capsize=3, label=f"avg@{k} ± 2 s.e."
    )
    axes.plot(steps, [one.pass_at_k for one in evaluations], color=GREEN, marker="s", linewidth=2, label=f"pass@{k}")
    for step, value in ((steps[0], average[0]), (steps[-1], average[-1])):
        axes.annotate(
            f"{value:.2f}", (step, value), xytext=(0, -16), textcoords="offset points", ha="center", color=BLUE
        )
    axes.set_ylim(0, 1)
    axes.set_ylabel("share right")
    axes.legend(loc="lower right")
    return True


def _reward(axes: Axes, history: History) -> bool:
    drawn = [
        _line(axes, history.series("avg_rate"), BLUE, "mean over answers (biased on trees)"),
        _line(axes, history.series("root_value"), ORANGE, "root value (unbiased)"),
    ]
    axes.set_ylabel("reward")
    return _with_legend(axes, any(drawn), "lower right")


def _eff_rate(axes: Axes, history: History) -> bool:
    axes.set_ylabel("share of trees")
    axes.set_ylim(0, 1)
    return _line(axes, history.series("eff_rate"), GREEN)


def _balance(axes: Axes, history: History) -> bool:
    drawn = _line(axes, history.series("ib_score"), PURPLE, "IB-Score (left)")
    axes.set_ylabel("IB-Score", color=PURPLE)
    right = axes.twinx()
    right.spines["right"].set_visible(True)
    right.grid(visible=False)
    drawn = _line(right, history.series("cov_eta"), ORANGE, "Cov(η₁, η₂) (right)") or drawn
    right.set_ylabel("Cov(η₁, η₂)", color=ORANGE)
    return drawn


def _entropy(axes: Axes, history: History) -> bool:
    axes.set_ylabel("nats per token")
    return _line(axes, history.series("entropy"), PURPLE)


def _drift(axes: Axes, history: History) -> bool:
    drawn = [
        _line(axes, history.series("kl"), BLUE, "KL to the initial policy, nats per token"),
        _line(axes, history.series("clip_share"), ORANGE, "share of tokens clipped"),
    ]
    axes.set_ylabel("per token")
    return _with_legend(axes, any(drawn), "upper left")


def _throughput(axes: Axes, history: History) -> bool:
    axes.set_ylabel("generated tokens per second")
    rates = [
        (one.step, one.generated_tokens / seconds)
        for one in history.figures
        if (seconds := one.intake_seconds + one.update_seconds + one.publish_seconds) > 0
    ]
    return _line(axes, rates, GREEN)


def _seconds(axes: Axes, history: History) -> bool:
    figures = history.figures
    if not figures:
        return False
    parts = ("intake_seconds", "update_seconds", "publish_seconds")
    stacks = [[getattr(one, part) for one in figures] for part in parts]
    labels = ["waiting for trees", "update", "publishing weights"]
    axes.stackplot([one.step for one in figures], stacks, labels=labels, colors=[GREY, BLUE, ORANGE], alpha=0.85)
    axes.set_ylabel("seconds")
    axes.set_ylim(0, 1.3 * max(map(sum, zip(*stacks, strict=True))) or 1)
    axes.legend(loc="upper right", ncols=3)
    return True


def _reuse(axes: Axes, history: History) -> bool:
    axes.set_ylabel("trajectories per 1,000 tokens")
    return _line(axes, history.series("trajectories_per_1k_tokens"), BLUE)


def _staleness(axes: Axes, history: History) -> bool:
    axes.set_ylabel("updates behind the learner")
    return _line(axes, history.series("staleness"), ORANGE)


PLOTS = (
    Plot(
        "held-out_accuracy",
        "Held-out accuracy: the mean over k independent answers, and at least one right.",
        _accuracy,
    ),
    Plot("reward", "Reward in training; the mean of a tree's first answers is the unbiased one.", _reward),
    Plot("Eff-Rate", "Share of trees whose answers are not all equally right: only those teach.", _eff_rate),
    Plot(
        "IB-Score_and_balance", "IB-Score of nodes with several draws, and the covariance of its two factors.", _balance
    ),
    Plot("entropy", "Entropy of the policy where it was sampled.", _entropy),
    Plot("drift", "How far the policy has moved, and how much of a step was clipped.", _drift),
    Plot("throughput", "Tokens that the engines generated, per second of a step.", _throughput),
    Plot("time_of_a_step", "Where a step's time went.", _seconds),
    Plot("reuse", "Answers for the tokens generated; shared prefixes are generated once.", _reuse),
    Plot("staleness", "Age of the trees that were learned from.", _staleness),
)
