"""The report: one page of its own about one run, or about several next to each other."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from services.launcher.display.durations import format_duration
from services.launcher.display.node_views import describe_nodes
from services.launcher.display.tree_svg import render_tree_svg
from services.launcher.display.tree_view import summarize_tree
from services.launcher.report.accuracy import accuracy_rows, differences
from services.launcher.report.charts import ChartView, accuracy_charts, figure_charts
from services.launcher.report.curves import Axis
from services.launcher.report.groups import Group, config_differences
from services.launcher.report.reported_run import ReportedRun
from services.launcher.report.svg_chart import chart_style
from services.launcher.runs.kept_trees import KeptTree, load_kept_trees
from services.launcher.runs.run_dir import RunDirectory
from shared.errors import InvalidInput
from shared.files import atomic_write
from shared.protocol.figures import RunSummary, Shown, figures_in
from shared.tree.accuracy import Estimate

NUM_TREES = 4
_MAX_NAMES = 4
_TEMPLATE = "report.html"
_FACTS = ("method", "sampler", "lr", "seed", "model", "data", "held_out", "version", "commit")


def write_report(directory: RunDirectory) -> Path:
    """Writes report.html of a run, finished or not, and its charts as files; returns the report's path."""
    run = ReportedRun.read(directory)
    return write_page((Group(run.name, (run,)),), directory.report)


def write_page(groups: Sequence[Group], path: Path) -> Path:
    """Writes the report of these runs; returns its path."""
    runs = [run for group in groups for run in group.runs]
    rows = list(accuracy_rows(groups))
    accuracy, figures = tuple(accuracy_charts(groups)), tuple(figure_charts(groups))
    single = runs[0] if len(runs) == 1 else None
    page = (
        _environment()
        .get_template(_TEMPLATE)
        .render(
            title=single.name if single else _title(groups),
            style=Markup(chart_style()),  # noqa: S704
            axes=[(axis.name.lower(), axis.value) for axis in Axis],
            groups=groups,
            runs=[(run, _link(run, path)) for run in runs],
            single=single,
            accuracies=rows,
            has_majorities=any(any(row.majorities) for row in rows),
            differences=list(differences(groups)),
            config_differences=config_differences(groups),
            accuracy_charts=accuracy,
            figure_charts=figures,
            warnings=[(run.name, warning) for run in runs for warning in run.warnings],
            facts=_facts(single) if single else {},
            cards=_cards(single) if single else [],
            evaluations=single.history.evaluations if single else (),
            trees=_draw_trees(single.directory) if single else [],
        )
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, page)
    if single and path == single.directory.report:
        _write_charts((*accuracy, *figures), single.directory.plots)
    return path


def _title(groups: Sequence[Group]) -> str:
    names = [group.name for group in groups]
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return " · ".join(names[:_MAX_NAMES]) + more


def _write_charts(views: Iterable[ChartView], directory: Path) -> None:
    """The charts over steps as SVG files, on white."""
    directory.mkdir(exist_ok=True)
    look = ":root{--ink:#1f2933;--soft:#52606d;--line:#e4e7eb;--paper:#fff}"
    style = f"<style>{look}{chart_style()}</style><rect width='100%' height='100%' fill='#fff'/>"
    for view in views:
        name = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in view.title.lower())
        for _, svg in view.svgs[:1]:
            start, end = svg.split(">", 1)
            text = f'{start} xmlns="http://www.w3.org/2000/svg" width="840">{style}{end}\n'
            atomic_write(directory / f"{name[:100]}.svg", text)


def _link(run: ReportedRun, page: Path) -> str:
    """To the run's own report, from the page; empty where there is none, or this is it."""
    report = run.directory.report.absolute()
    if not report.exists() or report == page.absolute():
        return ""
    return quote(os.path.relpath(report, page.absolute().parent))


def _facts(run: ReportedRun) -> dict[str, Any]:
    """What the run trained, on what and how: as its summary says or, without one, its settings."""
    if run.summary:
        return {name: run.summary[name] for name in _FACTS if run.summary.get(name) not in (None, "", [])}
    places = {"sampler": "growth.sampler.kind", "lr": "optimizer.lr"} | {
        name: name for name in ("seed", "model", "data", "held_out")
    }
    return {name: run.config[f"learner.{key}"] for name, key in places.items() if f"learner.{key}" in run.config}


def _cards(run: ReportedRun) -> list[tuple[str, str]]:
    return [
        (figure.text(value), figure.title)
        for name, figure in figures_in(RunSummary, Shown.CARD).items()
        if isinstance(value := run.summary.get(name), int | float)
    ]


def _draw_trees(run: RunDirectory) -> list[tuple[Markup, str]]:
    try:
        trees = load_kept_trees(run)
    except (OSError, InvalidInput):  # its policy is gone
        return []
    return [_draw_tree(kept) for kept in trees[:: max(1, len(trees) // NUM_TREES)][:NUM_TREES]]


def _draw_tree(kept: KeptTree) -> tuple[Markup, str]:
    """The tree's SVG, which escapes its own texts, and its figures in a line."""
    svg = render_tree_svg(describe_nodes(kept.scored, kept.message, kept.tokens))
    return Markup(svg), summarize_tree(kept.scored)  # noqa: S704


def _environment() -> Environment:
    """Escapes every value that is not Markup; a name that the template does not get is an error."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "number": _format_number,
        "share": lambda value: "–" if value is None else f"{value:.3f}",
        "estimate": format_estimate,
        "change": _format_change,
        "signed": lambda one: "–" if one is None else f"{one.value:+.3f} ± {one.error:.3f}",
        "duration": format_duration,
    }
    return environment


def format_estimate(one: Estimate | None) -> str:
    return "–" if one is None else f"{one.value:.3f} ± {one.error:.3f}"


def _format_change(ends: Sequence[Estimate | None]) -> str:
    """Before → after, without errors."""
    return " → ".join("–" if one is None else f"{one.value:.3f}" for one in ends)


def _format_number(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_format_number, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_format_number(one)}" for key, one in value.items())
    return "–" if value is None else f"{value:,.4g}" if isinstance(value, float) else str(value)
