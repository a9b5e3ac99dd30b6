"""Renders one tree in the terminal: every step with its value, balance and score, in the order it grew."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from services.launcher.display.node_views import NodeView, describe_nodes
from services.launcher.runs.model_files import TokenTable
from services.launcher.runs.shown_values import SHOWN_VALUES
from shared.protocol.tree import ScoredTree
from shared.tree.draw import Finish
from shared.tree.samplers import SAMPLERS

LEGEND = (
    "#n: the n-th answer begins here · p̂: share of right answers below · η₁: p̂ relative to the parent's, − (1 + 1/β) · "
    "η₂: the model's confidence in the step · IB-Score: the next answer begins where it is highest · "
    "n: answers through the step"
)

_HIDDEN = (*range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A), *range(0xD800, 0xE000), 0xFFFE, 0xFFFF)
_SIGNS = {code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\t\n"} | dict.fromkeys(
    _HIDDEN, "\ufffd"
)
"""Control characters, those that turn the direction of text, and what is no character."""


def render_tree(scored: ScoredTree, prompt: str, tokens: TokenTable, *, is_full: bool = False) -> RenderableType:
    """The tree as a table of its nodes, with its figures below. A step's text takes the rest of its line, or, with
    `is_full`, as many lines as it has."""
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim", show_edge=False)
    for name in ("p̂", "η₁", "η₂", "IB-Score", "n"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("tree", overflow="fold")  # the one column that gives way
    for node in describe_nodes(scored, prompt, tokens):
        step = _render_step(node)
        if not is_full:
            step.no_wrap, step.overflow = True, "ellipsis"
        table.add_row(*_render_figures(node), step)
    return Group(table, Text(), Text(summarize_tree(scored)), Text(LEGEND, style="dim"))


def summarize_tree(scored: ScoredTree) -> str:
    """A tree's figures in one line."""
    figures = scored.figures(values_of=SHOWN_VALUES)
    parts = [
        f"{SAMPLERS.kind_of(scored.task.growth.sampler)} tree of {len(scored.draws)} answers",
        f"{scored.usage.generated_tokens} tokens generated",
        _format("root value {:.2f}", figures.root_value),
        _format("reward {:.2f}", figures.avg_rate),
        _format("IB-Score {:+.3f}", figures.ib_score),
        _format("Cov(η₁, η₂) {:+.4f}", figures.cov_eta),
        f"policy {scored.oldest_version.label}",
        "" if figures.trees else "not judged",
        f"no values: {SHOWN_VALUES.reason}" if figures.without_values else "",
    ]
    return " · ".join(part for part in parts if part)


def printable(text: str) -> str:
    """The text with a sign for each character that would act on a terminal or be an error in XML; breaks stay."""
    return text.translate(_SIGNS)


def escape_breaks(text: str) -> str:
    """A step's text on one line: `⏎` for a line break, one for all at the end."""
    text = printable(text.replace("\r", ""))
    return text.rstrip("\n").replace("\n", "⏎") + ("⏎" if text.endswith("\n") else "")


def leaf_mark(node: NodeView) -> str:
    """How a leaf ended: right, wrong, partly right, cut by the limit, or not judged."""
    if node.finish is Finish.LENGTH:
        return "✂"
    if node.reward is None:
        return "·"
    return "✔" if node.reward == 1 else "✘" if node.reward == 0 else f"{node.reward:.2f}"


def _render_step(node: NodeView) -> Text:
    text = Text(node.guide, style="dim")
    if node.draw is not None:
        text.append(f"#{node.draw + 1} ", style="bold magenta")
    text.append(escape_breaks(node.text), style="bold" if node.parent is None else "")
    if node.finish is not None:
        text.append(f" {leaf_mark(node)}", style=_color(node.reward))
    return text


def _render_figures(node: NodeView) -> tuple[Text, ...]:
    score = Text(_format("{:+.3f}", node.ib_score), style="bold cyan" if (node.ib_score or 0) > 0 else "cyan")
    return (
        Text(_format("{:.2f}", node.value), style=_color(node.value)),
        Text(_format("{:+.2f}", node.eta1)),
        Text(_format("{:.2f}", node.eta2)),
        score,
        Text(str(node.num_leaves) if node.num_leaves > 1 else "", style="dim"),
    )


def _format(form: str, value: float | None) -> str:
    return "" if value is None else form.format(value)


def _color(value: float | None) -> str:
    if value is None:
        return "dim"
    return "green" if value >= 0.75 else "yellow" if value >= 0.25 else "red"
