"""Writes the dashboards' JSON, each from its module in boards/: `python deploy/grafana/generate.py [--docs URL]`."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(1, str(Path(__file__).parents[1]))

from boards import balance, sglang, throughput, verifier
from docs_url import DOCS_URL
from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as kinds
from grafana_foundation_sdk.models.dashboard import DashboardLinkType, DataSourceRef, GridPos, Threshold, ThresholdsMode
from panels import Board, Panel

from shared.protocol.figures import Style

DASHBOARDS = Path(__file__).parent / "dashboards"
BOARDS = {
    "balance": balance.BOARD,
    "throughput": throughput.BOARD,
    "verifier": verifier.BOARD,
    "sglang": sglang.BOARD,
}
_COLUMNS = 24


def main(docs: str) -> None:
    """One file per dashboard."""
    for name, board in BOARDS.items():
        (DASHBOARDS / f"{name}.json").write_text(to_json(board, docs.rstrip("/")), encoding="utf-8")


def to_json(board: Board, docs: str = DOCS_URL) -> str:
    """The dashboard as Grafana reads it, its panels linked to pages below `docs`."""
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
        built = built.with_panel(_picture(panel, docs).id(number).grid_pos(GridPos(h=height, w=panel.width, x=x, y=y)))
        x += panel.width
    return JSONEncoder(sort_keys=True, indent=1).encode(built.build()) + "\n"


def _picture(panel: Panel, docs: str) -> stat.Panel | timeseries.Panel:
    """The panel in Grafana's terms."""
    picture = _stat(panel) if panel.is_stat else _lines(panel)
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


def _stat(panel: Panel) -> stat.Panel:
    picture = stat.Panel().color_mode(kinds.BigValueColorMode.NONE).graph_mode(kinds.BigValueGraphMode.NONE)
    if panel.shows_name:
        picture = picture.text_mode(kinds.BigValueTextMode.NAME)
    if panel.colors:
        steps = [Threshold(value, color) for value, color in panel.colors]
        thresholds = dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)
        picture = picture.color_mode(kinds.BigValueColorMode.VALUE).thresholds(thresholds)
    return picture


def _lines(panel: Panel) -> timeseries.Panel:
    picture = timeseries.Panel().tooltip(common.VizTooltipOptions().mode(kinds.TooltipDisplayMode.MULTI))
    if panel.style is Style.POINTS:
        return picture.draw_style(kinds.GraphDrawStyle.POINTS).point_size(4)
    if panel.style is Style.STACK:
        return picture.fill_opacity(40).stacking(common.StackingConfig().mode(kinds.StackingMode.NORMAL))
    return picture.line_width(1)


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--docs", default=DOCS_URL, metavar="URL", help="where docs/ is read (default: %(default)s)")
    main(arguments.parse_args().docs)
