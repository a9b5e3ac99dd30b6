"""The accuracy of models on held-out sets, as the tables of papers have it."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from shared.protocol.status import AccuracyFigures, SetAccuracy
from shared.tree.accuracy import Estimate

_NAME_WIDTH = 18


@dataclass(frozen=True, slots=True)
class ModelAccuracy:
    """A model's figures: of each set, and their average."""

    model: str
    sets: tuple[SetAccuracy, ...]
    average: AccuracyFigures


@dataclass(frozen=True, slots=True)
class ModelDifference:
    """How much more a model has than another on the same problems: of each set, and on average."""

    model: str
    other: str
    avg: dict[str, Estimate]
    maj: dict[str, Estimate]
    problems: dict[str, int]


AVERAGE = "average"


def render_accuracy(accuracy: ModelAccuracy) -> RenderableType:
    """A row per set, an average where there are several, and pass@j for the other j."""
    table = _table("n", "k", "avg@k ± SE", "pass@k", "maj@k", "tokens", "cut", "no answer")
    for one in accuracy.sets:
        table.add_row(_name(one.name), str(one.problems), str(one.k), *_figures(one))
    if len(accuracy.sets) > 1:
        sizes = {one.k for one in accuracy.sets}
        k = str(sizes.pop()) if len(sizes) == 1 else ""
        table.add_row(AVERAGE, str(accuracy.average.problems), k, *_figures(accuracy.average), style="bold")
    return Group(Text(accuracy.model, style="bold"), table, *(Text(one, style="dim") for one in _passes(accuracy.sets)))


def render_difference(difference: ModelDifference) -> RenderableType:
    """A row per set, and an average where there are several."""
    title = f"{difference.model} less {difference.other}, over the same problems"
    table = _table("n", "avg@k ± SE", "maj@k ± SE")
    for name, estimate in difference.avg.items():
        maj = difference.maj.get(name)
        style = "bold" if name == AVERAGE else ""
        table.add_row(_name(name), str(difference.problems[name]), _change(estimate), _change(maj), style=style)
    return Group(Text(title, style="bold"), table)


def _table(*columns: str) -> Table:
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("set", overflow="fold", max_width=_NAME_WIDTH)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _name(name: str) -> Text:
    return Text(name)


def _figures(accuracy: AccuracyFigures) -> tuple[str, ...]:
    return (
        f"{accuracy.avg_at_k:.3f} ± {accuracy.standard_error:.3f}",
        _number(accuracy.pass_at_k, ".3f"),
        _number(accuracy.maj_at_k, ".3f"),
        _number(accuracy.answer_tokens, ",.0f"),
        _number(accuracy.truncated_share, ".1%"),
        _number(accuracy.no_answer_share, ".1%"),
    )


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _change(estimate: Estimate | None) -> str:
    return "–" if estimate is None else f"{estimate.value:+.3f} ± {estimate.error:.3f}"


def _passes(sets: Sequence[SetAccuracy]) -> list[str]:
    """A line per set that has more than pass@k."""
    return [
        f"{one.name}: " + "  ".join(f"pass@{k} {value:.3f}" for k, value in one.pass_at.items())
        for one in sets
        if set(one.pass_at) - {one.k}
    ]
