"""Renders a dashboard as Grafana's JSON."""

from grafana.panels import Board, Panel
from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as kinds
from grafana_foundation_sdk.models.dashboard import DashboardLinkType, DataSourceRef, GridPos, Threshold, ThresholdsMode

from shared.protocol.figures import Style

_COLUMNS = 24


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
        .link(
            dashboard.DashboardLink("Dashboards").type(DashboardLinkType.DASHBOARDS).tags(["ibtpo"]).as_dropdown(False)
        )
    )
    x = y = 0
    height = board.panels[0].height
    for number, panel in enumerate(board.panels, start=1):
        if x + panel.width > _COLUMNS or panel.height != height:
            x, y, height = 0, y + height, panel.height
        built = built.with_panel(
            _render_panel(panel, docs).id(number).grid_pos(GridPos(h=height, w=panel.width, x=x, y=y))
        )
        x += panel.width
    return JSONEncoder(sort_keys=True, indent=1).encode(built.build()) + "\n"


def _render_panel(panel: Panel, docs: str) -> stat.Panel | timeseries.Panel:
    picture = _render_stat(panel) if panel.is_stat else _render_graph(panel)
    picture = (
        picture.title(panel.title)
        .description(panel.description)
        .unit(panel.unit)
        .datasource(DataSourceRef(type_val="prometheus", uid="prometheus"))
        .links([dashboard.DashboardLink(panel.docs).url(f"{docs}/{panel.docs}").target_blank(True)])
    )
    for letter, (expr, legend) in zip("ABCDEF", panel.queries, strict=False):
        target = prometheus.Dataquery().expr(expr).legend_format(legend).ref_id(letter)
        picture = picture.with_target(target.instant() if panel.is_stat else target.range())
    return picture


def _render_stat(panel: Panel) -> stat.Panel:
    picture = stat.Panel().color_mode(kinds.BigValueColorMode.NONE).graph_mode(kinds.BigValueGraphMode.NONE)
    if panel.shows_name:
        picture = picture.text_mode(kinds.BigValueTextMode.NAME)
    if panel.colors:
        steps = [Threshold(value, color) for value, color in panel.colors]
        thresholds = dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)
        picture = picture.color_mode(kinds.BigValueColorMode.VALUE).thresholds(thresholds)
    return picture


def _render_graph(panel: Panel) -> timeseries.Panel:
    picture = timeseries.Panel().tooltip(common.VizTooltipOptions().mode(kinds.TooltipDisplayMode.MULTI))
    if panel.style is Style.POINTS:
        return picture.draw_style(kinds.GraphDrawStyle.POINTS).point_size(4)
    if panel.style is Style.STACK:
        return picture.fill_opacity(40).stacking(common.StackingConfig().mode(kinds.StackingMode.NORMAL))
    return picture.line_width(1)
