"""What a dashboard is made of: panels with their queries, unit, meaning and page of the docs."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from shared.protocol.figures import Chart, SamplingFigures, Shown, Style, charts

QueryText = tuple[str, str]
"""An expression and its legend."""
Colors = tuple[tuple[float | None, str], ...]
"""The color of a number from each value on; the first is from None, which is below all."""
_UNITS = {"": "none", "share": "percentunit", "s": "s"}
_SERIES = re.compile(r"(?<![\w:\"$])(ibtpo[_:][\w:]+|sglang:\w+|process_\w+|up|ALERTS)(?![\w:(])(\{[^}]*\})?")
_OF_NO_RUN = ("ibtpo_verifier_", "ibtpo:verdicts", "up")
_OF_ANY_RUN = ("process_", "ALERTS")


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
class Row:
    """Panels under one title."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Board:
    """One dashboard."""

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]


def row(title: str, *panels: Panel) -> Row:
    """These panels under one title."""
    return Row(title, panels)


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
    query = (expr, name or title)
    return Panel(title, unit, description, docs, (query,), is_stat=True, shows_name=bool(name), colors=colors)


class FigurePanels:
    """The panels of the table of figures for one dashboard, a panel per chart: some are asked for, the rest remain.

    `beside` has more queries for the chart of a figure, by its name.
    """

    def __init__(self, where: Shown, beside: Mapping[str, tuple[QueryText, ...]] | None = None) -> None:
        beside = dict(beside or {})
        self._panels: dict[str, Panel] = {}
        for chart in charts(where):
            more = [query for name in chart.figures for query in beside.pop(name, ())]
            self._panels[next(iter(chart.figures))] = _chart_panel(chart, more)
        if beside:
            raise ValueError(f"no chart of {where} has the figures {sorted(beside)}")

    def take(self, *names: str) -> Iterator[Panel]:
        """The panels whose first figures have these names, which are then taken."""
        return (self._panels.pop(name) for name in names)

    def rest(self) -> Iterator[Panel]:
        """Those that nobody took, such as that of a new figure."""
        return self.take(*self._panels)


def _chart_panel(chart: Chart, more: Sequence[QueryText]) -> Panel:
    queries: list[QueryText] = []
    for name, figure in chart.figures.items():
        series = f"ibtpo_learner_{name}"
        if len(chart.figures) > 1:
            queries.append((series, figure.label))
        else:
            queries += [(series, "last step"), (f"avg_over_time({series}[$window])", "mean")]
    unit = _UNITS.get(chart.first.unit, f"suffix:{chart.first.unit}")
    page = "method.md#diagnostics" if next(iter(chart.figures)) in SamplingFigures.model_fields else "learner.md"
    return Panel(chart.title, unit, chart.description, page, (*queries, *more), chart.first.style)


def processes(jobs: str, docs: str) -> Row:
    """What the processes of these services take of their machines."""
    of_jobs = f'{{job=~"{jobs}"}}'
    return Row(
        "Processes",
        (
            lines(
                "Processor",
                "suffix:cores",
                "Processor time per second, by process; its children do not count.",
                docs,
                (f"rate(process_cpu_seconds_total{of_jobs}[$__rate_interval])", "{{job}} {{instance}}"),
            ),
            lines(
                "Memory",
                "bytes",
                "Resident memory, by process.",
                docs,
                (f"process_resident_memory_bytes{of_jobs}", "{{job}} {{instance}}"),
            ),
            lines(
                "Open files",
                "suffix:files",
                "Files and connections that a process holds.",
                docs,
                (f"process_open_fds{of_jobs}", "{{job}} {{instance}}"),
            ),
        ),
    )


def scoped(expression: str) -> str:
    """The expression for the run and namespace that are chosen: two runs of one cluster are never added up.

    A verifier serves any run. A process or an alert belongs to the run, or to none.
    """

    def scope(found: re.Match[str]) -> str:
        name, matchers = found[1], (found[2] or "{}")[1:-1]
        if name.startswith(_OF_NO_RUN):
            chosen = ['namespace="$namespace"']
        elif name.startswith(_OF_ANY_RUN):
            chosen = ['namespace="$namespace"', 'run=~"$run|"']
        else:
            chosen = ['namespace="$namespace"', 'run="$run"']
        return f"{name}{{{', '.join([*chosen, *filter(None, [matchers])])}}}"

    return _SERIES.sub(scope, expression)


def last(series: str) -> str:
    """The learner's last value, which Prometheus would forget when the run has ended."""
    return f"last_over_time({series}[6h])"


def rate(series: str, by: str = "", window: str = "$__rate_interval") -> str:
    """Its increase per second, summed over all but the labels `by`."""
    return f"sum{f' by ({by}) ' if by else ''}(rate({series}[{window}]))"


def ratio(part: str, whole: str, by: str = "", window: str = "$__rate_interval") -> str:
    """The share of `part` in `whole`: at most 1, though one scrape may see a part before its whole."""
    return f"clamp_max({rate(part, by, window)} / ({rate(whole, by, window)} > 0), 1)"


def mean(histogram: str, window: str = "$window") -> str:
    """The mean of what a histogram observed."""
    return f"{rate(f'{histogram}_sum', window=window)} / ({rate(f'{histogram}_count', window=window)} > 0)"


def quantiles(metric: str, by: str = "", name: str = "", window: str = "$__rate_interval") -> tuple[QueryText, ...]:
    """Median and 95th percentile of a histogram, perhaps by a label, perhaps with a name before them."""
    legend = f" {{{{{by}}}}}" if by else ""
    inside = rate(f"{metric}_bucket", f"le, {by}" if by else "le", window)
    return tuple((f"histogram_quantile({q}, {inside})", f"{name} p{q * 100:g}{legend}".strip()) for q in (0.5, 0.95))
