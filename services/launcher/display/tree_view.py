"""Draws one tree in the terminal: every step with its value, balance and score, in the order it grew."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from services.launcher.display.tree_rows import TreeRow, settings_of, tree_rows
from shared.protocol.tree import ScoredTree
from shared.tree.diagnostics import diagnose
from shared.tree.draw import Finish
from shared.tree.node import build_tree

LEGEND = (
    "#n: the n-th answer begins here · p̂: share of right answers below · η₁: p̂ relative to the parent's, − (1 + 1/β) · "
    "η₂: the model's confidence in the step · IB-Score: the next answer begins where it is highest"
)


def tree_picture(scored: ScoredTree, prompt: str, bytes_of_token: Sequence[bytes]) -> RenderableType:
    """The tree as a table of its nodes, with its figures below."""
    table = Table(box=None, padding=(0, 1), header_style="dim", show_edge=False)
    table.add_column("tree", no_wrap=True, overflow="ellipsis", ratio=1)
    for name in ("p̂", "η₁", "η₂", "IB-Score", "answers"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in tree_rows(scored, prompt, bytes_of_token):
        table.add_row(_drawn(row), *_figures(row))
    return Group(table, Text(), Text(summary(scored)), Text(LEGEND, style="dim"))


def summary(scored: ScoredTree) -> str:
    """One tree's figures in a line."""
    growth = scored.task.growth
    figures = diagnose(build_tree(scored.draws, growth.merge), settings_of(scored), growth.sampler.first)
    usage = scored.usage
    parts = [
        f"{growth.sampler.kind} tree of {len(scored.draws)} answers",
        f"{usage.generated_tokens} tokens generated",
        _named("root value", figures.root_value, "{:.2f}"),
        _named("reward", figures.avg_rate, "{:.2f}"),
        _named("IB-Score", figures.ib_score, "{:+.3f}"),
        _named("Cov(η₁, η₂)", figures.cov_eta, "{:+.4f}"),
        f"policy {scored.oldest_version}",
        "" if figures.trees else "not judged",
    ]
    return " · ".join(part for part in parts if part)


def visible(text: str) -> str:
    """A step's text on one line."""
    return text.replace("\r", "").rstrip("\n").replace("\n", "⏎") + ("⏎" if text.endswith("\n") else "")


def ending(row: TreeRow) -> str:
    """How a leaf ended: right, wrong, partly right, cut, or not judged."""
    if row.finish is Finish.LENGTH:
        return "✂"
    if row.reward is None:
        return "·"
    return "✔" if row.reward == 1 else "✘" if row.reward == 0 else f"{row.reward:.2f}"


def _named(name: str, value: float | None, form: str) -> str:
    return "" if value is None else f"{name} {form.format(value)}"


def _drawn(row: TreeRow) -> Text:
    text = Text(row.guide, style="dim")
    if row.draw is not None:
        text.append(f"#{row.draw + 1} ", style="bold magenta")
    text.append(visible(row.text), style="bold" if row.parent is None else "")
    if row.finish is not None:
        text.append(f" {ending(row)}", style=_color(row.reward))
    return text


def _figures(row: TreeRow) -> tuple[Text, ...]:
    score = Text(_text(row.ib_score, "{:+.3f}"), style="bold cyan" if (row.ib_score or 0) > 0 else "cyan")
    return (
        Text(_text(row.value, "{:.2f}"), style=_color(row.value)),
        Text(_text(row.eta1, "{:+.2f}")),
        Text(_text(row.eta2, "{:.2f}")),
        score,
        Text(str(row.num_leaves) if row.num_leaves > 1 else "", style="dim"),
    )


def _text(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def _color(value: float | None) -> str:
    if value is None:
        return "dim"
    return "green" if value >= 0.75 else "yellow" if value >= 0.25 else "red"
