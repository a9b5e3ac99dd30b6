"""The results of a finished run, in the terminal."""

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from services.launcher.display.sparkline import sparkline
from services.launcher.display.view import format_duration
from services.launcher.runs.history import History
from services.launcher.runs.run_dir import RunDirectory
from shared.protocol.figures import RunSummary, Shown, figures_in

SPARK_WIDTH = 32


def render_summary(run: RunDirectory) -> RenderableType:
    """Accuracy before and after, the figures of the whole run, and where its files are."""
    summary, history = run.read_summary(), History.read(run.metrics)
    parts: list[RenderableType] = []
    if history.evaluations:
        parts += [_render_accuracy(history), Text()]
    figures = Table.grid(padding=(0, 2))
    figures.add_column(style="dim")
    figures.add_column(style="bold", justify="right")
    for name, figure in figures_in(RunSummary, Shown.OUTCOME).items():
        value = summary.get(name)
        if isinstance(value, int | float):
            figures.add_row(figure.title, figure.text(value))
    parts += [figures, Text(), _render_paths(run)]
    seconds = summary.get("wall_seconds")
    took = f" in {format_duration(seconds)}" if isinstance(seconds, int | float) else ""
    title = f"ibtpo · {run.name} · finished{took}"
    return Panel(Group(*parts), title=title, border_style="green", padding=(1, 2))


def _render_accuracy(history: History) -> RenderableType:
    first, last = history.evaluations[0], history.evaluations[-1]
    k = last.k
    table = Table.grid(padding=(0, 2))
    for label, before, after, values in (
        (f"held-out avg@{k}", first.avg_at_k, last.avg_at_k, [one.avg_at_k for one in history.evaluations]),
        (f"held-out pass@{k}", first.pass_at_k, last.pass_at_k, [one.pass_at_k for one in history.evaluations]),
    ):
        change = Text.assemble(f"{before:.3f} → ", (f"{after:.3f}", "bold green" if after > before else "bold yellow"))
        table.add_row(Text(label, style="dim"), change, Text(sparkline(values, SPARK_WIDTH), style="cyan"))
    table.add_row(Text(f"{last.problems} problems, ± {last.standard_error:.3f}", style="dim"))
    return table


def _render_paths(run: RunDirectory) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    for label, text in (
        ("report", str(run.report)),
        ("plots", f"{run.plots}/"),
        ("summary", str(run.summary)),
        ("policy", f"{run.policy}/  (transformers loads it; ibtpo eval --model {run.policy})"),
        ("trees", f"ibtpo show {run.root}"),
    ):
        table.add_row(label, text)
    return table
