"""Renders a dashboard as Grafana's JSON."""

from collections.abc import Iterator
from itertools import groupby

from grafana.panels import Board, Panel, scoped
from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as kinds
from grafana_foundation_sdk.models.dashboard import (
    DashboardLinkType,
    DataSourceRef,
    GridPos,
    Threshold,
    ThresholdsMode,
    VariableOption,
    VariableRefresh,
)

from shared.protocol.figures import Style

_COLUMNS = 24
_SOURCE = DataSourceRef(type_val="prometheus", uid="prometheus")
_MARKS = (
    (
        "Evaluation",
        "blue",
        'changes(ibtpo_learner_evaluations_total{result="done"}[40s]) > 0',
        "held-out problems answered",
    ),
    ("Checkpoint", "green", "changes(ibtpo_learner_checkpoint_seconds_count[40s]) > 0", "checkpoint written"),
    ("Generation", "purple", "changes(ibtpo_learner_generation[40s]) > 0", "the learner began a new generation"),
    ("Restart", "red", "changes(process_start_time_seconds[40s]) > 0", "{{job}} {{instance}} was restarted"),
)
"""Name, color, what is above 0 when it happens, text."""


def render_board(board: Board, docs: str) -> str:
    """The dashboard as JSON, its panels linked to pages below the URL `docs`."""
    built = (
        dashboard.Dashboard(board.title)
        .uid(board.uid)
        .description(board.description)
        .tags(["ibtpo"])
        .refresh("5s")
        .time("now-30m", "now")
        .timezone("browser")
        .variables([_choice("namespace", ""), _choice("run", '{namespace="$namespace"}'), _window()])
        .annotations(list(_annotations()))
        .link(
            dashboard.DashboardLink("Dashboards")
            .type(DashboardLinkType.DASHBOARDS)
            .tags(["ibtpo"])
            .as_dropdown(False)
            .include_vars(True)
            .keep_time(True)
        )
    )
    y = number = 0
    for row in board.rows:
        number += 1
        built = built.with_row(dashboard.Row(row.title).id(number).grid_pos(GridPos(h=1, w=_COLUMNS, x=0, y=y)))
        y += 1
        for panel, place in _arrange(row.panels, y):
            number += 1
            built = built.with_panel(_render_panel(panel, docs).id(number).grid_pos(place))
            y = max(y, place.y + place.h)
    return JSONEncoder(sort_keys=True, indent=1).encode(built.build()) + "\n"


def _arrange(panels: tuple[Panel, ...], y: int) -> Iterator[tuple[Panel, GridPos]]:
    """From left to right, from `y` down, every line full; panels of another height begin a new line."""
    for height, alike in groupby(panels, key=lambda panel: panel.height):
        left = list(alike)
        most = _COLUMNS // left[0].width
        num_lines = -(-len(left) // (most + 1)) if len(left) > most else 1
        for number in range(num_lines):
            line = [left.pop(0) for _ in range(-(-len(left) // (num_lines - number)))]
            width = _COLUMNS // len(line)
            for place, panel in enumerate(line):
                yield panel, GridPos(h=height, w=width, x=place * width, y=y)
            y += height


def _choice(label: str, matchers: str) -> dashboard.QueryVariable:
    """A variable with the values of a label; where no series has it, the empty value, which selects them."""
    query = f"label_values(ibtpo_rollout_weight_generation{matchers}, {label})"
    return (
        dashboard.QueryVariable(label)
        .label(label.capitalize())
        .datasource(_SOURCE)
        .query({"query": query, "refId": label})
        .definition(query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
    )


def _window() -> dashboard.CustomVariable:
    return (
        dashboard.CustomVariable("window")
        .label("Means over")
        .values("1m,5m,15m,1h")
        .current(VariableOption(selected=True, text="1m", value="1m"))
        .description("For means over steps: take a window of several steps")
    )


def _annotations() -> Iterator[dashboard.AnnotationQuery]:
    for name, color, expression, text in _MARKS:
        yield (
            dashboard.AnnotationQuery()
            .name(name)
            .datasource(_SOURCE)
            .enable(True)
            .icon_color(color)
            .expr(scoped(expression))
            .step("10s")
            .title_format(name)
            .text_format(text)
        )


def _render_panel(panel: Panel, docs: str) -> stat.Panel | timeseries.Panel:
    picture = _render_stat(panel) if panel.is_stat else _render_graph(panel)
    picture = (
        picture.title(panel.title)
        .description(panel.description)
        .datasource(_SOURCE)
        .links([dashboard.DashboardLink(panel.docs).url(f"{docs}/{panel.docs}").target_blank(True)])
    )
    for letter, (expr, legend) in zip("ABCDEF", panel.queries, strict=False):
        target = prometheus.Dataquery().expr(scoped(expr)).legend_format(legend).ref_id(letter)
        picture = picture.with_target(target.instant() if panel.is_stat else target.range())
    return picture


def _render_stat(panel: Panel) -> stat.Panel:
    picture = (
        stat.Panel()
        .unit(panel.unit)
        .color_mode(kinds.BigValueColorMode.NONE)
        .graph_mode(kinds.BigValueGraphMode.NONE)
        .text_mode(kinds.BigValueTextMode.NAME if panel.shows_name else kinds.BigValueTextMode.VALUE)
    )
    if panel.colors:
        steps = [Threshold(value, color) for value, color in panel.colors]
        thresholds = dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)
        picture = picture.color_mode(kinds.BigValueColorMode.VALUE).thresholds(thresholds)
    return picture


def _render_graph(panel: Panel) -> timeseries.Panel:
    legend = common.VizLegendOptions().show_legend(True)
    legend = legend.display_mode(kinds.LegendDisplayMode.LIST).placement(kinds.LegendPlacement.BOTTOM)
    picture = timeseries.Panel().tooltip(common.VizTooltipOptions().mode(kinds.TooltipDisplayMode.MULTI)).legend(legend)
    word = panel.unit.removeprefix("suffix:")
    # a word stands beside the axis, not on every tick
    picture = picture.unit("short").axis_label(word) if word != panel.unit else picture.unit(panel.unit)
    if panel.style is Style.STACK or panel.unit != "none":
        picture = picture.axis_soft_min(0)
    # where all are 0, Grafana would draw up to 100, of shares up to 10,000%
    if panel.unit == "percentunit":
        picture = picture.axis_soft_max(0.01)
    elif word.endswith("/s"):
        picture = picture.axis_soft_max(1)
    if panel.style is Style.POINTS:
        return picture.draw_style(kinds.GraphDrawStyle.POINTS).point_size(4)
    if panel.style is Style.STACK:
        picture = picture.min(0).fill_opacity(40).stacking(common.StackingConfig().mode(kinds.StackingMode.NORMAL))
        return picture.max(1) if panel.unit == "percentunit" else picture
    return picture.line_width(1)
