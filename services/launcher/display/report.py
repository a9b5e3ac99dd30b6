"""The report of a run, one self-contained page: results, plots, some of its trees, its settings."""

import base64
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from services.launcher.display.node_views import describe_nodes
from services.launcher.display.plots import write_plots
from services.launcher.display.tree_svg import render_tree_svg
from services.launcher.display.tree_view import summarize_tree
from services.launcher.runs.held_out_results import measure_change
from services.launcher.runs.history import SHARPENING, AccuracySeries, History, accuracies_by_set
from services.launcher.runs.kept_trees import KeptTree, load_kept_trees
from services.launcher.runs.run_dir import RunDirectory
from shared.files import atomic_write
from shared.protocol.figures import RunSummary, Shown, figures_in
from shared.tree.accuracy import Estimate

NUM_TREES = 4
_TEMPLATE = "report.html"
_FACTS = ("run", "method", "sampler", "lr", "seed", "model", "data", "held_out", "version", "commit")
_SECRET = re.compile(r"^(token|password) = .*$", re.MULTILINE)


def write_report(run: RunDirectory) -> Path:
    """Writes the plots and report.html of a run, finished or not; returns the report's path."""
    history, summary = History.read(run.metrics), run.read_summary()
    trees, accuracies = load_kept_trees(run), accuracies_by_set(history.evaluations)
    page = (
        _environment()
        .get_template(_TEMPLATE)
        .render(
            name=run.name,
            summary=summary,
            steps=history.figures[-1].step if history.figures else 0,
            facts=_facts(run, summary),
            accuracies=accuracies,
            changes=_changes(run, accuracies),
            sharpening=SHARPENING,
            cards=[
                (figure.text(value), figure.title)
                for name, figure in figures_in(RunSummary, Shown.CARD).items()
                if isinstance(value := summary.get(name), int | float)
            ],
            evaluations=history.evaluations,
            plots=[
                (caption, base64.b64encode(path.read_bytes()).decode())
                for caption, path in write_plots(history, run.plots)
            ],
            trees=[_render_tree(kept) for kept in trees[:: max(1, len(trees) // NUM_TREES)][:NUM_TREES]],
            config=_read_public_config(run),
        )
    )
    atomic_write(run.report, page)
    return run.report


def _changes(run: RunDirectory, accuracies: Sequence[AccuracySeries]) -> dict[str, Estimate]:
    """Of each set that has one, by its label; of the average by P-6."""
    found = {one.label: change for one in accuracies if one.name and (change := measure_change(run, one))}
    average = accuracies[0] if accuracies and not accuracies[0].name else None
    if average and average.only and (change := measure_change(run, replace(average, name=average.only))):
        return {average.label: change}
    if average and len(found) == average.num_sets:
        found[average.label] = Estimate.average(list(found.values()))
    return found


def _facts(run: RunDirectory, summary: Mapping[str, Any]) -> dict[str, Any]:
    """What the run trained, on what and how: as its summary says or, without one, its settings."""
    if summary:
        return {name: summary[name] for name in _FACTS if summary.get(name) not in (None, "", [])}
    try:
        learner = tomllib.loads(run.config.read_text(encoding="utf-8"))["learner"]
        lr, sampler = learner["optimizer"]["lr"], learner["growth"]["sampler"]["kind"]
    except (OSError, ValueError, KeyError):
        return {}
    return {"sampler": sampler, "lr": lr} | {name: learner[name] for name in _FACTS if name in learner}


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
    environment.filters["number"] = _format_number
    environment.filters["share"] = lambda value: "–" if value is None else f"{value:.3f}"
    return environment


def _render_tree(kept: KeptTree) -> tuple[Markup, str]:
    """The tree's SVG, which escapes its own texts, and its figures in a line."""
    svg = render_tree_svg(describe_nodes(kept.scored, kept.message, kept.tokens))
    return Markup(svg), summarize_tree(kept.scored)  # noqa: S704


def _format_number(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_format_number, value))
    return "–" if value is None else f"{value:,.4g}" if isinstance(value, float) else str(value)


def _read_public_config(run: RunDirectory) -> str:
    """The settings without secrets: reports are passed on."""
    text = run.config.read_text(encoding="utf-8") if run.config.exists() else ""
    return _SECRET.sub(r'\1 = "***"', text)
