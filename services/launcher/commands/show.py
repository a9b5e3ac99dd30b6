"""`ibtpo show`: lists the trees that a run kept, and renders one."""

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from services.launcher.display.results_table import render_results
from services.launcher.display.tree_view import render_tree
from services.launcher.runs.held_out_results import evaluated_steps, read_results, sets_of
from services.launcher.runs.kept_trees import KeptTree, load_kept_trees, load_tree, why_unreadable
from services.launcher.runs.model_files import locate_tokenizer
from services.launcher.runs.run_dir import find_run
from services.launcher.runs.shown_values import SHOWN_VALUES
from services.learner.held_out.measure import average_reward
from services.learner.held_out.results import ResultsFile
from shared.errors import InvalidInput

NARROW = 70


def show_run(runs: Path, name: str | None, which: str | None, *, is_full: bool = False) -> int:
    """Lists a run's trees, or renders `which`: a number of the list, or a file's name."""
    run = find_run(runs, name)
    trees = load_kept_trees(run)
    if not trees and (reason := why_unreadable(run)):
        raise InvalidInput(f"the kept trees of run {run.name!r} cannot be read here: {reason}")
    if not trees:
        raise InvalidInput(f"run {run.name!r} has kept no tree yet ({run.trees}/); learner.keep_trees sets how many")
    console = Console()
    if which is None:
        console.print(_render_list(run.name, trees, console.width))
        print(f"`ibtpo show {run.root} --tree 1` shows the first")
    else:
        _print_tree(console, _choose(trees, which), is_full)
    return 0


def show_held_out(runs: Path, name: str | None, held_out: str, step: int | None) -> int:
    """Renders what the policy answered to each problem of a held-out set, after `step` steps or at the last."""
    run = find_run(runs, name)
    kept = {number: sets for number in evaluated_steps(run) if (sets := sets_of(run, number))}
    steps = [number for number, sets in kept.items() if held_out in sets]
    if not steps:
        names = ", ".join(dict.fromkeys(one for sets in kept.values() for one in sets)) or "none"
        raise InvalidInput(f"run {run.name!r} has kept no results of a held-out set {held_out!r}; of these: {names}")
    if step is not None and step not in steps:
        raise InvalidInput(f"no results of {held_out} are kept of step {step}: of {', '.join(map(str, steps))}")
    at, first = steps[-1] if step is None else step, steps[0]
    before = read_results(run, first, held_out) if first < at else ()
    title = f"{held_out}, step {at}" + (f"; before: step {first}" if before else "")
    earlier = {one.id: average_reward(one) for one in before if one.judged}
    Console().print(render_results(title, read_results(run, at, held_out), earlier))
    return 0


def show_results(path: Path) -> int:
    """Renders the results in a file, as `ibtpo eval --out` keeps them."""
    name = path.name.removesuffix(".gz").removesuffix(".jsonl")
    header, results = ResultsFile(path.parent, name).read()
    if header is None:
        raise InvalidInput(f"{path} holds no results of a held-out set")
    Console().print(render_results(name, tuple(results.values()), {}))
    return 0


def show_file(path: Path, model: Path, *, is_full: bool = False) -> int:
    """Renders the tree in a file."""
    _print_tree(Console(), load_tree(path, locate_tokenizer(model)), is_full)
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
        figures = kept.scored.figures(values_of=SHOWN_VALUES)
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
    if SHOWN_VALUES.reason:
        table.caption, table.caption_justify = f"no values: {SHOWN_VALUES.reason}", "left"
    return table


def _format(value: float | None, form: str = "{:.2f}") -> str:
    return "–" if value is None else form.format(value)
