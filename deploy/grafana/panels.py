"""What a dashboard is made of: panels with their queries, unit, meaning and page of the docs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from shared.protocol.figures import SamplingFigures, Shown, Style, charts

QueryText = tuple[str, str]
"""An expression and its legend."""
Colors = tuple[tuple[float | None, str], ...]
"""The color of a number from each value on; the first is from None, which is below all."""
_UNITS = {"": "none", "share": "percentunit", "s": "s"}


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture. `docs` is a page, with an anchor, below docs/."""

    title: str
    unit: str
    description: str
    docs: str
    queries: tuple[QueryText, ...]
    style: Style = Style.LINE
    is_stat: bool = False
    """One number, not a graph over time."""
    shows_name: bool = False
    """Show the series' legend in place of its value."""
    colors: Colors = ()

    @property
    def width(self) -> int:
        """In Grafana's columns, of which a row has 24."""
        return 4 if self.is_stat else 8

    @property
    def height(self) -> int:
        """In Grafana's rows."""
        return 4 if self.is_stat else 8


@dataclass(frozen=True, slots=True)
class Board:
    """One dashboard."""

    uid: str
    title: str
    description: str
    panels: tuple[Panel, ...]


def lines(title: str, unit: str, description: str, docs: str, *queries: QueryText) -> Panel:
    """A panel of lines over time."""
    return Panel(title, unit, description, docs, queries)


def stacked(title: str, unit: str, description: str, docs: str, *queries: QueryText) -> Panel:
    """A panel of areas that add up."""
    return Panel(title, unit, description, docs, queries, Style.STACK)


def stat(
    title: str, unit: str, description: str, docs: str, expr: str, *colors: tuple[float | None, str], name: str = ""
) -> Panel:
    """One number, or, where `name` is the legend of a series, that name."""
    query = (expr, name)
    return Panel(title, unit, description, docs, (query,), is_stat=True, shows_name=bool(name), colors=colors)


def figure_panels(where: Shown, beside: Mapping[str, tuple[QueryText, ...]] | None = None) -> Iterator[Panel]:
    """A panel per chart of the table of figures; `beside` has more queries for the chart of a figure, by its name."""
    beside = dict(beside or {})
    for chart in charts(where):
        queries: list[QueryText] = []
        for name, figure in chart.figures.items():
            series = f"ibtpo_learner_{name}"
            if len(chart.figures) > 1:
                queries.append((series, figure.label))
            else:
                queries += [(series, "last step"), (f"avg_over_time({series}[10m])", "mean of 10 min")]
            queries += beside.pop(name, ())
        unit = _UNITS.get(chart.first.unit, f"suffix:{chart.first.unit}")
        page = "method.md#diagnostics" if next(iter(chart.figures)) in SamplingFigures.model_fields else "learner.md"
        yield Panel(chart.title, unit, chart.description, page, tuple(queries), chart.first.style)
    if beside:
        raise ValueError(f"no chart of {where} has the figures {sorted(beside)}")


def last(series: str) -> str:
    """The learner's last value, which Prometheus would forget when the run has ended."""
    return f"last_over_time({series}[6h])"


def rate(series: str, by: str = "", window: str = "5m") -> str:
    """Its increase per second, summed over all but the labels `by`."""
    return f"sum{f' by ({by}) ' if by else ''}(rate({series}[{window}]))"


def ratio(part: str, whole: str, by: str = "") -> str:
    """How many of `whole` are of `part`, over five minutes."""
    return f"{rate(part, by)} / {rate(whole, by)}"


def quantiles(metric: str, by: str = "", name: str = "") -> tuple[QueryText, ...]:
    """Median and 95th percentile of a histogram, perhaps by a label, perhaps with a name before them."""
    legend = f" {{{{{by}}}}}" if by else ""
    inside = rate(f"{metric}_bucket", f"le, {by}" if by else "le")
    return tuple((f"histogram_quantile({q}, {inside})", f"{name} p{q * 100:g}{legend}".strip()) for q in (0.5, 0.95))
