"""One self-contained page about a run: what came out, how it went, some of its trees, its settings."""

import base64
import re
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from services.launcher.display.node_views import describe_nodes
from services.launcher.display.plots import Plot, write_plots
from services.launcher.display.tree_svg import render_tree_svg
from services.launcher.display.tree_view import summarize_tree
from services.launcher.runs.history import History
from services.launcher.runs.kept_trees import KeptTree, load_kept_trees
from services.launcher.runs.run_dir import RunDirectory
from shared.files import atomic_write
from shared.protocol.status import Evaluation

NUM_TREES = 4
_SECRET = re.compile(r"^(token|password) = .*$", re.MULTILINE)
HEADLINES = (  # key of summary.json, what it says, format
    ("avg_at_8_before", "avg@8 before", "{:.3f}"),
    ("avg_at_8_after", "avg@8 after", "{:.3f}"),
    ("pass_at_8_after", "pass@8 after", "{:.3f}"),
    ("eff_rate", "Eff-Rate", "{:.2f}"),
    ("trajectories_per_1k_tokens", "answers / 1,000 tokens", "{:.1f}"),
    ("tokens_per_second", "tokens / s", "{:,.0f}"),
    ("wall_seconds", "seconds", "{:,.0f}"),
)
_STYLE = """
:root { color-scheme: light; --ink: #1f2933; --soft: #616e7c; --line: #e4e7eb; --paper: #fff; --ground: #f5f7fa; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 15px/1.55 system-ui, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 32px 20px 64px; }
h1 { font-size: 26px; margin: 0; } h2 { font-size: 18px; margin: 40px 0 12px; }
p.sub { color: var(--soft); margin: 4px 0 24px; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(135px, 1fr)); gap: 12px; }
.card, figure, .panel { background: var(--paper); border: 1px solid var(--line); border-radius: 10px; }
.card { padding: 14px 16px; } .card b { display: block; font-size: 23px; font-variant-numeric: tabular-nums; }
.card span, figcaption, .note { color: var(--soft); font-size: 13px; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(430px, 1fr)); gap: 14px; }
figure { margin: 0; padding: 12px 14px; } figure img { width: 100%; height: auto; display: block; }
.panel { padding: 14px 16px; margin-bottom: 14px; overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; width: 100%; }
th, td { text-align: left; padding: 5px 14px 5px 0; border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 500; }
pre { margin: 0; font: 13px/1.5 ui-monospace, monospace; } summary { cursor: pointer; font-weight: 600; }
svg.tree { display: block; }
svg.tree text { font: 12px ui-monospace, monospace; white-space: pre; }
svg.tree text.small { font-size: 9.5px; }
@media (max-width: 520px) { .grid { grid-template-columns: 1fr; } }
"""


def write_report(run: RunDirectory) -> Path:
    """Writes the plots and report.html of a run, finished or not; returns the report's path."""
    history = History.read(run.metrics)
    plots = write_plots(history, run.plots)
    trees = load_kept_trees(run)
    trees = trees[:: max(1, len(trees) // NUM_TREES)][:NUM_TREES]
    atomic_write(run.report, "".join(_page(run, history, plots, trees)))
    return run.report


def _page(
    run: RunDirectory, history: History, plots: Sequence[tuple[Plot, Path]], trees: Sequence[KeptTree]
) -> Iterator[str]:
    summary = run.read_summary()
    name = escape(run.name)
    yield f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>ibtpo · {name}</title>'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<style>{_STYLE}</style></head><body><main><h1>{name}</h1>{_subtitle(history, summary)}"
    yield from _cards(summary)
    if history.evaluations:
        yield f"<h2>Held-out accuracy</h2>{_evaluations(history.evaluations)}"
    yield '<h2>How it went</h2><div class="grid">'
    yield from (_figure(plot, path) for plot, path in plots)
    yield "</div>"
    if trees:
        yield f'<h2>Some of its trees</h2><p class="note">{_LEGEND}</p>'
        yield from map(_tree, trees)
    yield "<h2>Summary</h2>" + _table(summary) if summary else ""
    settings = f"<summary>config.toml</summary><pre>{escape(_config(run))}</pre>"
    yield f'<h2>Settings</h2><details class="panel">{settings}</details>'
    yield "</main></body></html>\n"


_LEGEND = (
    "From left to right: the problem, then the steps of each answer. #n: the n-th answer begins here. p̂ (and colour): "
    "share of right answers through this step. η₂: the model's confidence in the step. J: the IB-Score; the next "
    "answer begins where it is highest. A box's tooltip tells η₁ (p̂ relative to the parent's, − (1 + 1/β)) as well."
)


def _subtitle(history: History, summary: dict[str, float | int | str | None]) -> str:
    steps = history.figures[-1].step if history.figures else 0
    state = f"sampler {escape(str(summary['sampler']))}, seed {summary['seed']}" if summary else "not finished"
    return f'<p class="sub">{state} · {steps} steps</p>'


def _cards(summary: dict[str, float | int | str | None]) -> Iterator[str]:
    cards = [
        f'<div class="card"><b>{form.format(value)}</b><span>{escape(label)}</span></div>'
        for key, label, form in HEADLINES
        if isinstance(value := summary.get(key), int | float)
    ]
    if cards:
        yield f'<div class="cards">{"".join(cards)}</div>'


def _evaluations(evaluations: Sequence[Evaluation]) -> str:
    rows = "".join(
        f"<tr><td>{one.step}</td><td>{one.version}</td><td>{one.avg_at_k:.3f} ± {one.standard_error:.3f}</td>"
        f"<td>{one.pass_at_k:.3f}</td><td>{one.problems}</td></tr>"
        for one in evaluations
    )
    k = evaluations[0].k
    head = f"<tr><th>step</th><th>policy</th><th>avg@{k} ± s.e.</th><th>pass@{k}</th><th>problems</th></tr>"
    return f'<div class="panel"><table>{head}{rows}</table></div>'


def _figure(plot: Plot, path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    caption = escape(plot.caption)
    return (
        f'<figure><img src="data:image/png;base64,{data}" alt="{caption}"><figcaption>{caption}</figcaption></figure>'
    )


def _tree(kept: KeptTree) -> str:
    nodes = describe_nodes(kept.scored, kept.prompt, kept.bytes_of_token)
    return f'<div class="panel">{render_tree_svg(nodes)}<p class="note">{escape(summarize_tree(kept.scored))}</p></div>'


def _table(summary: dict[str, float | int | str | None]) -> str:
    rows = "".join(f"<tr><th>{escape(key)}</th><td>{escape(_plain(value))}</td></tr>" for key, value in summary.items())
    return f'<div class="panel"><table>{rows}</table></div>'


def _plain(value: float | int | str | None) -> str:
    return "–" if value is None else f"{value:,.4g}" if isinstance(value, float) else str(value)


def _config(run: RunDirectory) -> str:
    """The settings, without secrets: the page is made to be passed on."""
    text = run.config.read_text(encoding="utf-8") if run.config.exists() else ""
    return _SECRET.sub(r'\1 = "***"', text)
