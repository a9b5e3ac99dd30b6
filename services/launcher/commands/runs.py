"""`ibtpo runs`: which runs there are, how they stand, and how to go on with one."""

import json
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from services.launcher.report.reported_run import ReportedRun
from services.launcher.runs.run_dir import RunDirectory
from services.launcher.runs.run_state import FolderState
from shared.errors import InvalidInput

_STYLE = {FolderState.RUNNING: "green", FolderState.FAILED: "red", FolderState.BROKEN_OFF: "yellow"}
_WIDE, _NARROW = 100, 76
_MAX_REMEDIES = 3


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run in the list; None for what its folder does not tell."""

    name: str
    state: str
    reason: str
    task: str
    model: str
    method: str
    seed: str
    steps: int
    tokens: int
    k: str
    avg_at_k_before: float | None
    avg_at_k_after: float | None
    standard_error: float | None
    seconds: float | None
    changed: float
    """When its folder changed last, in seconds since the epoch."""
    directory: str
    resume: str
    """The command that goes on with it; empty if it is going on or finished."""


def list_runs(runs: Path, sort: str, *, as_json: bool) -> int:
    """Prints them, the best or latest first; InvalidInput for an unknown order."""
    if sort not in _ORDER:
        raise InvalidInput(f"runs are sorted by {', '.join(_ORDER)}, not by {sort!r}")
    rows = sorted(map(read_row, find_runs(runs)), key=_ORDER[sort])
    if as_json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
        return 0
    if not rows:
        raise InvalidInput(f"there is no run under {runs}/ yet: `ibtpo demo` makes one")
    console = Console()
    console.print(_render(rows, console.width))
    _print_remedies(rows)
    return 0


def find_runs(runs: Path) -> list[RunDirectory]:
    """Every folder that is, or was, one of a run."""
    folders = (RunDirectory(path) for path in runs.glob("*") if path.is_dir())
    return [one for one in folders if one.config.exists() or one.metrics.exists() or one.summary.exists()]


def read_row(directory: RunDirectory) -> RunRow:
    """What the folder tells, whatever is missing."""
    run = ReportedRun.read(directory)
    accuracy = run.accuracies[0] if run.accuracies else None
    last = accuracy.values[-1] if accuracy else None
    can_resume = directory.has_begun and run.condition.state not in (FolderState.RUNNING, FolderState.FINISHED)
    return RunRow(
        name=run.name,
        state=run.condition.state,
        reason=run.condition.reason,
        task=_task(run),
        model=Path(str(run.summary.get("model") or run.config.get("learner.model") or "–")).name,
        method=run.method,
        seed=run.seed,
        steps=run.steps,
        tokens=run.tokens,
        k=accuracy.at if accuracy else "–",
        avg_at_k_before=accuracy.values[0].avg_at_k if accuracy and accuracy.steps[0] == 0 else None,
        avg_at_k_after=last.avg_at_k if last else None,
        standard_error=last.standard_error if last else None,
        seconds=run.seconds,
        changed=_changed(directory),
        directory=str(directory.root),
        resume=directory.resume_command if can_resume else "",
    )


def _task(run: ReportedRun) -> str:
    """The demo's, or the names of the training files."""
    if run.config.get("launcher.task") == "demo":
        return "demo"
    data = str(run.config.get("learner.data", "–"))
    return ", ".join(Path(one).stem for one in data.split(", "))


def _changed(directory: RunDirectory) -> float:
    files = (directory.metrics, directory.summary, directory.config)
    return max((file.stat().st_mtime for file in files if file.exists()), default=0.0)


def _render(rows: Sequence[RunRow], width: int) -> Table:
    """In 80 columns texts give way, numbers do not; in fewer, task, model and age are left out."""
    left_out = {"± s.e."} if width < _WIDE else set()
    left_out |= {"task", "model", "age"} if width < _NARROW else set()
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim", show_edge=False)
    texts, numbers = ("run", "state", "task", "model", "method"), ("steps", "held out", "± s.e.", "tokens", "age")
    for column in (*texts, *numbers):
        if column in texts and column not in left_out:
            table.add_column(column, min_width=5)
        elif column not in left_out:
            table.add_column(column, no_wrap=True, justify="right")
    for row in rows:
        cells: dict[str, Text | str] = {
            "run": _text(row.name, "bold"),
            "state": _text(row.state, _STYLE.get(FolderState(row.state), "")),
            "task": _text(row.task),
            "model": _text(row.model),
            "method": _text(row.method),
            "steps": str(row.steps),
            "held out": _change(row),
            "± s.e.": _number(row.standard_error),
            "tokens": _tokens(row.tokens),
            "age": _age(row.changed),
        }
        table.add_row(*(cell for column, cell in cells.items() if column not in left_out))
    return table


def _text(text: str, style: str = "") -> Text:
    return Text(text, style, no_wrap=True, overflow="ellipsis")


def _print_remedies(rows: Sequence[RunRow]) -> None:
    for row in rows:
        if row.state == FolderState.FAILED and row.reason:
            print(f"{row.name} failed: {row.reason}")
    resumable = [row for row in rows if row.resume]
    for row in resumable[:_MAX_REMEDIES]:
        print(f"go on with {row.name}: {row.resume}")
    if len(resumable) > _MAX_REMEDIES:
        print(f"and {len(resumable) - _MAX_REMEDIES} more; --json names every command")
    if len(rows) > 1:
        print(f"side by side: ibtpo report {shlex.quote(rows[0].directory)} {shlex.quote(rows[1].directory)}")


def _change(row: RunRow) -> str:
    if row.avg_at_k_after is None:
        return "–"
    before = "" if row.avg_at_k_before is None or not row.steps else f"{row.avg_at_k_before:.2f} → "
    return f"{before}{row.avg_at_k_after:.2f}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _tokens(count: int) -> str:
    for unit, size in (("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            return f"{count / size:.{0 if count >= 100 * size else 1}f}{unit}"
    return str(count)


def _age(changed: float) -> str:
    """How long ago, in the unit that gives the fewest digits."""
    seconds = max(0.0, time.time() - changed)
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"


_ORDER: dict[str, Callable[[RunRow], Any]] = {
    "age": lambda row: -row.changed,
    "name": lambda row: row.name,
    "accuracy": lambda row: -(row.avg_at_k_after if row.avg_at_k_after is not None else -1.0),
    "steps": lambda row: -row.steps,
    "tokens": lambda row: -row.tokens,
}
