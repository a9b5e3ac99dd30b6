"""Shows a run while it goes on: a live screen on a terminal, one line per step elsewhere."""

import os
import time
from collections.abc import Iterable
from typing import Protocol

from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from services.launcher.display.sparkline import sparkline
from services.launcher.runs.history import History
from shared.protocol.figures import Figure, Shown, StepFigures, figures_in
from shared.protocol.replica import ReplicaState
from shared.protocol.status import Evaluation, RunState, RunStatus

SPARK_WIDTH = 24
_STATE_STYLE = {RunState.TRAINING: "green", RunState.EVALUATING: "cyan", RunState.FINISHED: "bold green"}
_STATE_STYLE |= {RunState.FAILED: "bold red", RunState.STOPPING: "yellow", RunState.STOPPED: "yellow"}


class RunView(Protocol):
    """Shows what a launcher does and how its run goes: LiveView and LineView."""

    def say(self, text: str) -> None:
        """Shows an event."""

    def show(self, status: RunStatus) -> None:
        """Shows the run's status."""

    def close(self) -> None:
        """Ends the view; what it showed last stays on the screen."""


def choose_view(console: Console, history: History, *, plain: bool) -> RunView:
    """The live view on a terminal, unless `plain` is asked for or this is a CI system."""
    if plain or not console.is_terminal or os.environ.get("CI"):
        return LineView(console)
    return LiveView(console, history)


class LineView:
    """One line per event, step and evaluation."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._step = -1
        self._state: RunState | None = None
        self._num_evaluations = 0

    def say(self, text: str) -> None:
        self._print(text)

    def show(self, status: RunStatus) -> None:
        if status.state != self._state:
            self._state = status.state
            self._print(f"{status.state}{f': {status.message}' if status.message else ''}")
        for evaluation in status.evaluations[self._num_evaluations :]:
            self._print(f"held out, step {evaluation.step}: {format_accuracy(evaluation)}")
        self._num_evaluations = max(self._num_evaluations, len(status.evaluations))
        if status.figures.step != self._step and status.figures.trees:
            self._step = status.figures.step
            self._print(format_step(status))

    def close(self) -> None:
        """Does nothing: lines stay."""

    def _print(self, text: str) -> None:
        self._console.print(f"{time.strftime('%H:%M:%S')} {text}", highlight=False, soft_wrap=True, markup=False)


class LiveView:
    """One screen, rendered again for every status. Before the first status it lists the events of the start."""

    def __init__(self, console: Console, history: History) -> None:
        self._history = history
        self._status: RunStatus | None = None
        self._events: list[str] = []
        self._spinner = Spinner("dots", style="cyan")
        self._live = Live(console=console, refresh_per_second=8, get_renderable=self._render)
        self._live.start()

    def say(self, text: str) -> None:
        self._events.append(text)
        self._live.refresh()

    def show(self, status: RunStatus) -> None:
        if self._status is None:
            self._events.clear()
        self._status = status
        self._history.add(status)
        self._live.refresh()

    def close(self) -> None:
        self._live.stop()

    def _render(self) -> RenderableType:
        if self._status is not None:
            return Group(
                render_status(self._status, self._history), *(Text(text, style="yellow") for text in self._events[-1:])
            )
        before, now = self._events[:-1], self._events[-1:]
        self._spinner.update(text=Text("".join(now)))
        return Panel(Group(*(Text(f"  {text}", style="dim") for text in before), self._spinner), title="ibtpo")


def render_status(status: RunStatus, history: History) -> RenderableType:
    """The screen of the live view."""
    right = Table.grid()
    right.add_row(_render_replicas(status))
    right.add_row(_render_tasks(status))
    columns = Columns([_render_figures(status, history), right], padding=(0, 3))
    parts: list[RenderableType] = [_render_progress(status), Text(), columns]
    if status.evaluations:
        parts += [Text(), _render_evaluations(status.evaluations)]
    if status.message:
        parts += [Text(), Text(status.message, style="yellow")]
    state = Text(status.state, style=_STATE_STYLE.get(status.state, ""))
    return Panel(Group(*parts), title=Text.assemble("ibtpo · ", (status.run, "bold"), " · ", state), padding=(1, 2))


def format_step(status: RunStatus) -> str:
    """A step in one line."""
    figures = (figure.phrase(value) for _, figure, value in _values(status, Shown.LINE) if value is not None)
    stale = f"stale {status.accounts.stale}" if status.accounts.stale else ""
    step = f"step {status.figures.step}" + (f"/{status.total_steps}" if status.total_steps else "")
    return " · ".join(part for part in (step, *figures, stale, f"ETA {format_duration(status.eta_seconds)}") if part)


def format_accuracy(evaluation: Evaluation) -> str:
    """avg@k and pass@k, with what they were measured on."""
    k = evaluation.k
    return (
        f"avg@{k} {evaluation.avg_at_k:.3f} ± {evaluation.standard_error:.3f}, pass@{k} {evaluation.pass_at_k:.3f} "
        f"({evaluation.problems} problems)"
    )


def format_duration(seconds: float | None) -> str:
    """`1:05:09`, `4:03`; a dash when it is not known."""
    if seconds is None or seconds < 0:
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _values(status: RunStatus, where: Shown) -> Iterable[tuple[str, Figure, float | None]]:
    """(name, figure, value) of the last step's figures that are shown `where`."""
    for name, figure in figures_in(StepFigures, where).items():
        yield name, figure, getattr(status.figures, name)


def _render_progress(status: RunStatus) -> RenderableType:
    row = Table.grid(padding=(0, 2), expand=True)
    row.add_column(no_wrap=True)
    row.add_column(ratio=1)
    row.add_column(no_wrap=True, justify="right")
    bar = ProgressBar(total=1.0, completed=_share_done(status), complete_style="cyan")
    times = f"{format_duration(status.seconds)} elapsed · ETA {format_duration(status.eta_seconds)}"
    step = f"step {status.step}" + (f" of {status.total_steps}" if status.total_steps else "")
    row.add_row(Text(step, style="bold"), bar, times)
    return row


def _share_done(status: RunStatus) -> float:
    """The share of steps, or, where tokens end the run, of the expected time."""
    if status.state is RunState.FINISHED:
        return 1.0
    if status.total_steps:
        return status.step / status.total_steps
    if status.eta_seconds is None:
        return 0.0
    return status.seconds / max(status.seconds + status.eta_seconds, 1e-9)


def _render_figures(status: RunStatus, history: History) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(justify="right", no_wrap=True, style="bold")
    table.add_column(style="cyan", no_wrap=True, min_width=SPARK_WIDTH)
    for name, figure, value in _values(status, Shown.VIEW):
        past = sparkline([past for _, past in history.series(name)], SPARK_WIDTH)
        table.add_row(figure.title, figure.text(value), past)
    return table


def _render_replicas(status: RunStatus) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    for _ in range(4):
        table.add_column(no_wrap=True)
    table.add_row(*(Text(name, style="dim") for name in ("replica", "state", "policy", "trees")))
    for replica in status.replicas:
        serving = replica.state is ReplicaState.SERVING
        newest = replica.version == status.version
        table.add_row(
            replica.name,
            Text(replica.state, style="green" if serving else "yellow"),
            Text(str(replica.version or "–"), style="" if newest else "yellow"),
            str(replica.trees_in_flight),
        )
    if not status.replicas:
        table.add_row(Text("no replica has joined yet", style="yellow"))
    return table


def _render_tasks(status: RunStatus) -> RenderableType:
    accounts = status.accounts
    lines = (
        ("learner's policy", str(status.version or "–")),
        ("tasks waiting", str(status.queued_tasks)),
        ("tasks being grown", str(status.pending_tasks)),
        ("trees waiting", str(status.queued_trees)),
        ("tasks fed", f"{accounts.fed} = {accounts.used} used"),
        ("", f"+ {accounts.skipped} skipped + {accounts.stale} stale"),
        ("", f"+ {accounts.failed} failed + {accounts.outstanding} outstanding"),
    )
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_row()
    for label, text in lines:
        table.add_row(label, text)
    return table


def _render_evaluations(evaluations: tuple[Evaluation, ...]) -> RenderableType:
    last = evaluations[-1]
    text = Text.assemble(("held out  ", "dim"), (format_accuracy(last), "bold"), (f"  at step {last.step}", "dim"))
    if len(evaluations) > 1:
        line = sparkline([one.avg_at_k for one in evaluations], SPARK_WIDTH)
        text.append(f"\n          from {evaluations[0].avg_at_k:.3f} before  ").append(line, style="cyan")
    return text
