"""The results of a run, in the terminal: of a finished one, or so far."""

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from services.launcher.display.durations import format_duration
from services.launcher.display.sparkline import sparkline
from services.launcher.runs.history import SHARPENING, History, accuracies_by_set
from services.launcher.runs.run_dir import RunDirectory
from services.learner.record.tracking import TrackingRecord
from shared.protocol.figures import RunSummary, Shown, StepFigures, figures_in

SPARK_WIDTH = 32
MEASURES = (
    ("avg", "avg_at_k", "standard_error"),
    ("pass", "pass_at_k", "pass_error"),
    ("maj", "maj_at_k", "maj_error"),
)


def render_summary(run: RunDirectory) -> RenderableType:
    """Accuracy before and after, the figures of the whole run or of its last step, its files, and how to go on."""
    summary, history = run.read_summary(), History.read(run.metrics)
    last = history.figures[-1] if history.figures else StepFigures()
    parts: list[RenderableType] = []
    if history.evaluations:
        parts += [_render_accuracy(history), Text()]
    figures = Table.grid(padding=(0, 2))
    figures.add_column(style="dim")
    figures.add_column(style="bold", justify="right")
    for name, figure in figures_in(RunSummary, Shown.OUTCOME).items():
        value = summary.get(name) if run.is_finished else getattr(last, name, None)
        if isinstance(value, int | float):
            figures.add_row(figure.title, figure.text(value))
    parts.append(figures)
    if warning := summary.get("warning"):
        parts += [Text(), Text(f"warning: {warning}", style="yellow")]
    parts += [Text(), _render_paths(run)]
    seconds = summary.get("wall_seconds")
    took = f" in {format_duration(seconds)}" if isinstance(seconds, int | float) else ""
    state = f"finished{took}" if run.is_finished else f"not finished: {last.step} steps"
    title = Text(f"ibtpo · {run.name} · {state}")
    return Panel(Group(*parts), title=title, border_style="green" if run.is_finished else "yellow", padding=(0, 1))


def _render_accuracy(history: History) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    every = accuracies_by_set(history.evaluations)
    for series in every:
        measured = f"{series.values[-1].problems} problems"
        only = f", at step {series.steps[0]} alone" if len(series.steps) == 1 else ""
        table.add_row(Text(series.label, style="dim"), measured + only)
        for name, measure, error_name in MEASURES:
            label, values = f"  {name}@{series.at}", [getattr(one, measure) for one in series.values]
            if None in values:
                continue
            error = getattr(series.values[-1], error_name)
            ending = "" if error is None else f" ± {error:.3f}"
            style = "bold green" if values[-1] > values[0] else "bold yellow"
            before = f"{values[0]:.3f} → " if len(values) > 1 else ""
            change = Text.assemble(before, (f"{values[-1]:.3f}", style if before else ""), ending)
            table.add_row(Text(label, style="dim"), change, Text(sparkline(values, SPARK_WIDTH), style="cyan"))
    if every and every[0].is_sharpening:
        return Group(table, Text(SHARPENING, style="dim"))
    return table


def _render_paths(run: RunDirectory) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    for label, path in (("report", run.report), ("plots", run.plots), ("summary", run.summary), ("policy", run.policy)):
        if run.is_finished or path.exists():
            table.add_row(label, Text(str(path), overflow="fold"))
    if run.policy.exists():
        table.add_row("accuracy", Text(f"ibtpo eval --model {run.policy}", overflow="fold"))
    if run.trees.exists():
        table.add_row("trees", Text(f"ibtpo show {run.root}", overflow="fold"))
    for tracker, text in _describe_trackers(run):
        table.add_row(tracker, Text(text, overflow="fold"))
    if not run.is_finished:
        table.add_row("continue", Text(run.resume_command, overflow="fold"))
    return table


def _describe_trackers(run: RunDirectory) -> Iterator[tuple[str, str]]:
    """Where each tracker shows the run, or how it gets what it has not got."""
    for path in sorted((run.root / "trackers").glob("*.json")):
        record = TrackingRecord.read(path)
        if record.problem:
            yield path.stem, f"has not all of it ({record.problem}); `ibtpo track {run.root}` sends the rest"
        elif path.stem == "tensorboard":
            yield path.stem, f"tensorboard --logdir {run.root.parent}"
        elif record.url:
            yield path.stem, record.url
