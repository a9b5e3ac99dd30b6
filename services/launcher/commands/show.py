"""`ibtpo show`: lists the trees that a run kept, and renders one."""

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from services.launcher.display.tree_view import render_tree
from services.launcher.runs.kept_trees import KeptTree, load_kept_trees, load_tree
from services.launcher.runs.run_dir import find_run
from shared.errors import InvalidInput

NARROW = 70


def show_run(runs: Path, name: str | None, which: str | None, *, is_full: bool = False) -> int:
    """Lists a run's trees, or renders `which`: a number of the list, or a file's name."""
    run = find_run(runs, name)
    trees = load_kept_trees(run)
    if not trees:
        raise InvalidInput(f"run {run.name!r} has kept no tree yet ({run.trees}/); learner.keep_trees sets how many")
    console = Console()
    if which is None:
        console.print(_render_list(run.name, trees, console.width))
        print(f"`ibtpo show {run.root} --tree 1` shows the first")
    else:
        _print_tree(console, _choose(trees, which), is_full)
    return 0


def show_file(path: Path, model: Path, *, is_full: bool = False) -> int:
    """Renders the tree in a file."""
    _print_tree(Console(), load_tree(path, model), is_full)
    return 0


def _print_tree(console: Console, kept: KeptTree, is_full: bool) -> None:
    prompt = kept.prompt if is_full else kept.message
    console.print(render_tree(kept.scored, prompt, kept.tokens, is_full=is_full))


def _choose(trees: tuple[KeptTree, ...], which: str) -> KeptTree:
    if which.isdecimal() and 1 <= int(which) <= len(trees):
        return trees[int(which) - 1]
    for kept in trees:
        if which in (kept.path.name, kept.path.stem):
            return kept
    raise InvalidInput(f"no tree {which!r}: give a number from 1 to {len(trees)}, or a name from the list")


def _render_list(name: str, trees: tuple[KeptTree, ...], width: int) -> Table:
    """As many of the columns as fit; the problem's takes what is left."""
    table = Table(title=f"trees of {name}", title_justify="left", box=None, header_style="dim")
    shown = slice(None) if width >= NARROW else slice(0, 4)
    for column in ("", "file", "root", "IB-Score", "right", "answers", "policy")[shown]:
        table.add_column(column, no_wrap=True)
    table.add_column("problem", overflow="fold")
    for number, kept in enumerate(trees, 1):
        figures = kept.scored.figures()
        cells = (
            str(number),
            kept.path.stem,
            _format(figures.root_value),
            _format(figures.ib_score, "{:+.3f}"),
            _format(figures.avg_rate),
            str(len(kept.scored.draws)),
            f"v{kept.scored.oldest_version.number}",
        )
        problem = Text(" ".join(kept.message.split()), no_wrap=True, overflow="ellipsis")
        table.add_row(*cells[shown], problem)
    return table


def _format(value: float | None, form: str = "{:.2f}") -> str:
    return "–" if value is None else form.format(value)
