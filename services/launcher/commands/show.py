"""`ibtpo show`: lists the trees that a run kept, and draws one."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from services.launcher.display.report import write_report
from services.launcher.display.tree_view import tree_picture
from services.launcher.runs import run_dir
from services.launcher.runs.kept_trees import KeptTree, kept_trees, open_tree
from shared.errors import InvalidInput
from shared.tree.diagnostics import diagnose
from shared.tree.ib_score import IBSettings
from shared.tree.node import build_tree


def show_run(runs: Path, name: str | None, which: str | None) -> int:
    """Lists a run's trees, or draws `which`: a number of the list, or a file's name."""
    run = run_dir.find(runs, name)
    trees = kept_trees(run)
    if not trees:
        raise InvalidInput(
            f"run {run.name!r} has kept no tree yet ({run.trees}/); learner.keep_trees says how many it does"
        )
    console = Console()
    if which is None:
        console.print(_listed(run.name, trees))
        console.print(f"`ibtpo show {name or run.name} --tree 1` draws the first", highlight=False)
    else:
        _draw(console, _chosen(trees, which))
    return 0


def show_file(path: Path, model: Path) -> int:
    """Draws the tree in a file."""
    _draw(Console(), open_tree(path, model))
    return 0


def report(runs: Path, name: str | None) -> int:
    """Writes a run's plots and its page anew."""
    print(write_report(run_dir.find(runs, name)))
    return 0


def _draw(console: Console, kept: KeptTree) -> None:
    console.print(tree_picture(kept.scored, kept.prompt, kept.bytes_of_token))


def _chosen(trees: tuple[KeptTree, ...], which: str) -> KeptTree:
    if which.isdecimal() and 1 <= int(which) <= len(trees):
        return trees[int(which) - 1]
    for kept in trees:
        if which in (kept.path.name, kept.path.stem):
            return kept
    raise InvalidInput(f"no tree {which!r}: give a number from 1 to {len(trees)}, or a name from the list")


def _listed(name: str, trees: tuple[KeptTree, ...]) -> Table:
    table = Table(title=f"trees of {name}", title_justify="left", box=None, header_style="dim")
    for column, width in (("", 3), ("file", 9), ("problem", 16), ("answers", 7), ("root value", 10)):
        table.add_column(column, no_wrap=True, overflow="ellipsis", min_width=width)
    for column, width in (("right", 5), ("IB-Score", 8), ("policy", 6)):
        table.add_column(column, no_wrap=True, min_width=width)
    for number, kept in enumerate(trees, 1):
        growth = kept.scored.task.growth
        figures = diagnose(build_tree(kept.scored.draws, growth.merge), IBSettings(), growth.sampler.first)
        table.add_row(
            str(number),
            kept.path.stem,
            kept.prompt.replace("\n", " "),
            str(len(kept.scored.draws)),
            _number(figures.root_value),
            _number(figures.avg_rate),
            _number(figures.ib_score, "{:+.3f}"),
            str(kept.scored.oldest_version),
        )
    return table


def _number(value: float | None, form: str = "{:.2f}") -> str:
    return "–" if value is None else form.format(value)
