"""`ibtpo show`: lists the trees that a run kept, and renders one."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from services.launcher.display.report import write_report
from services.launcher.display.tree_view import render_tree
from services.launcher.runs.kept_trees import KeptTree, load_kept_trees, load_tree
from services.launcher.runs.run_dir import find_run
from shared.errors import InvalidInput


def show_run(runs: Path, name: str | None, which: str | None) -> int:
    """Lists a run's trees, or renders `which`: a number of the list, or a file's name."""
    run = find_run(runs, name)
    trees = load_kept_trees(run)
    if not trees:
        raise InvalidInput(f"run {run.name!r} has kept no tree yet ({run.trees}/); learner.keep_trees sets how many")
    console = Console()
    if which is None:
        console.print(_render_list(run.name, trees))
        console.print(f"`ibtpo show {run.root} --tree 1` shows the first", highlight=False)
    else:
        _print_tree(console, _choose(trees, which))
    return 0


def show_file(path: Path, model: Path) -> int:
    """Renders the tree in a file."""
    _print_tree(Console(), load_tree(path, model))
    return 0


def rewrite_report(runs: Path, name: str | None) -> int:
    """Writes a run's plots and report.html again."""
    print(write_report(find_run(runs, name)))
    return 0


def _print_tree(console: Console, kept: KeptTree) -> None:
    console.print(render_tree(kept.scored, kept.prompt, kept.bytes_of_token))


def _choose(trees: tuple[KeptTree, ...], which: str) -> KeptTree:
    if which.isdecimal() and 1 <= int(which) <= len(trees):
        return trees[int(which) - 1]
    for kept in trees:
        if which in (kept.path.name, kept.path.stem):
            return kept
    raise InvalidInput(f"no tree {which!r}: give a number from 1 to {len(trees)}, or a name from the list")


def _render_list(name: str, trees: tuple[KeptTree, ...]) -> Table:
    table = Table(title=f"trees of {name}", title_justify="left", box=None, header_style="dim")
    for column, width in (("", 3), ("file", 9), ("problem", 16), ("answers", 7), ("root value", 10)):
        table.add_column(column, no_wrap=True, overflow="ellipsis", min_width=width)
    for column, width in (("right", 5), ("IB-Score", 8), ("policy", 6)):
        table.add_column(column, no_wrap=True, min_width=width)
    for number, kept in enumerate(trees, 1):
        figures = kept.scored.figures()
        table.add_row(
            str(number),
            kept.path.stem,
            kept.prompt.replace("\n", " "),
            str(len(kept.scored.draws)),
            _format(figures.root_value),
            _format(figures.avg_rate),
            _format(figures.ib_score, "{:+.3f}"),
            str(kept.scored.oldest_version),
        )
    return table


def _format(value: float | None, form: str = "{:.2f}") -> str:
    return "–" if value is None else form.format(value)
