"""What a dashboard is made of: panels with their queries, unit, meaning and page of the docs."""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Query:
    """One line, or one group of lines, of a panel."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture. `docs` is a page, with an anchor, below docs/; `colors` are those of a number from each value on,
    the first from None, which is below all."""

    title: str
    queries: tuple[Query, ...]
    unit: str
    description: str
    docs: str
    is_stat: bool = False
    is_named: bool = False
    colors: tuple[tuple[float | None, str], ...] = ()
    is_points: bool = False
    is_stacked: bool = False
    width: int = 8


@dataclass(frozen=True, slots=True)
class Board:
    """One dashboard."""

    uid: str
    title: str
    description: str
    panels: tuple[Panel, ...]


def lines(title: str, unit: str, description: str, docs: str, *queries: tuple[str, str]) -> Panel:
    """A panel of lines over time."""
    return Panel(title, tuple(Query(*one) for one in queries), unit, description, docs)


def points(title: str, unit: str, description: str, docs: str, *queries: tuple[str, str]) -> Panel:
    """A panel of points over time: each step's own value, without lines that would suggest a trend."""
    return Panel(title, tuple(Query(*one) for one in queries), unit, description, docs, is_points=True)


def stacked(title: str, unit: str, description: str, docs: str, *queries: tuple[str, str]) -> Panel:
    """A panel of areas that add up."""
    return Panel(title, tuple(Query(*one) for one in queries), unit, description, docs, is_stacked=True)


def stat(title: str, unit: str, description: str, docs: str, expr: str, legend: str = "") -> Panel:
    """One number."""
    return Panel(title, (Query(expr, legend),), unit, description, docs, is_stat=True, width=4)


def named(panel: Panel) -> Panel:
    """The stat with the names of its series in place of their values."""
    return replace(panel, is_named=True)


def colored(panel: Panel, *colors: tuple[float | None, str]) -> Panel:
    """The stat in the color of its value."""
    return replace(panel, colors=colors)


def last(series: str) -> str:
    """What the learner said last: it is gone when the run has ended."""
    return f"last_over_time({series}[6h])"


def quantiles(metric: str, by: str = "", name: str = "") -> tuple[tuple[str, str], ...]:
    """Median and 95th percentile of a histogram, perhaps by a label, perhaps with a name before them."""
    labels = f"le, {by}" if by else "le"
    legend = f" {{{{{by}}}}}" if by else ""
    inside = f"sum by ({labels}) (rate({metric}_bucket[5m]))"
    return tuple((f"histogram_quantile({q}, {inside})", f"{name} p{q * 100:g}{legend}".strip()) for q in (0.5, 0.95))
