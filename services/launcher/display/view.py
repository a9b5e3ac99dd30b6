"""Shows a run while it goes on: a live screen on a terminal, one line per step elsewhere."""

import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from services.launcher.display.durations import format_duration
from services.launcher.display.sparkline import Sparkline, sparkline
from services.launcher.display.waits import ENDED, Pace, wait_lines
from services.launcher.runs.history import History, accuracies_by_set
from shared.protocol.figures import Figure, Shown, StepFigures, figures_in
from shared.protocol.replica import ReplicaInfo
from shared.protocol.status import AccuracyFigures, RunState, RunStatus

SPARK_WIDTH = 24
MAX_REPLICAS = MAX_SETS = 6
"""So many are shown one by one."""
MAX_TROUBLED = 3
"""Of more replicas, so many are shown with what is wrong with them."""
LABEL_WIDTH = 12
MAX_PROBLEM = 70
_STATE_STYLE = {RunState.TRAINING: "green", RunState.EVALUATING: "cyan", RunState.FINISHED: "bold green"}
_STATE_STYLE |= {RunState.FAILED: "bold red", RunState.STOPPING: "yellow", RunState.STOPPED: "yellow"}


class LineView:
    """One line per event, step and evaluation."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._step = -1
        self._pace = Pace()
        self._said: tuple[RunState, str] | None = None
        self._num_evaluations = 0

    def say(self, text: str) -> None:
        self._console.print(f"{time.strftime('%H:%M:%S')} {text}", highlight=False, soft_wrap=True, markup=False)

    def show(self, status: RunStatus) -> None:
        if (status.state, status.message) != self._said:
            self._said = (status.state, status.message)
            self.say(f"{status.state}{f': {status.message}' if status.message else ''}")
        what = status.waiting_for.what if status.waiting_for else status.message
        if status.state not in ENDED and self._pace.is_due(what):
            self.say("; ".join(wait_lines(status, time.time())))
        for evaluation in status.evaluations[self._num_evaluations :]:
            if len(evaluation.sets) < 2 and not evaluation.is_partial:
                self.say(f"held out, step {evaluation.step}: {format_accuracy(evaluation, evaluation.k)}")
                continue
            for one in evaluation.sets:
                self.say(f"{one.name}, step {evaluation.step}: {format_accuracy(one, one.k)}")
            if not evaluation.is_partial:
                self.say(f"average, step {evaluation.step}: {format_accuracy(evaluation, evaluation.k)}")
        self._num_evaluations = max(self._num_evaluations, len(status.evaluations))
        if status.figures.step != self._step and status.figures.trees:
            self._step = status.figures.step
            self.say(format_step(status))

    def wait_for(self, text: str) -> None:
        if self._pace.is_due(" ".join(text.split()[:2])):
            self.say(text)

    def close(self) -> None:
        """Does nothing: lines stay."""


class LiveView:
    """One screen, rendered again for every status. Before the first status it lists the events of the start."""

    def __init__(self, console: Console, history: History) -> None:
        self._history = history
        self._status: RunStatus | None = None
        self._events: list[str] = []
        self._waited_for = ""
        self._spinner = Spinner("dots", style="cyan")
        self._live = Live(console=console, refresh_per_second=8, get_renderable=self._render)
        self._live.start()

    def say(self, text: str) -> None:
        self._events.append(text)
        self._live.refresh()

    def wait_for(self, text: str) -> None:
        self._waited_for = text

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
            said = filter(None, (*self._events[-1:], self._waited_for))
            return Group(
                render_status(self._status, self._history, time.time()),
                *(Text(text, style="yellow") for text in said),
            )
        before, now = self._events[:-1], "".join(self._events[-1:])
        self._spinner.update(text=Text(self._waited_for or now))
        return Panel(Group(*(Text(f"  {text}", style="dim") for text in before), self._spinner), title="ibtpo")


class RunView(Protocol):
    """Shows what a launcher does and how its run goes, until it is closed."""

    def say(self, text: str) -> None: ...

    def wait_for(self, text: str) -> None:
        """What goes on, until it says something else; nothing where it is empty."""

    def show(self, status: RunStatus) -> None: ...

    def close(self) -> None: ...


class QuietView:
    """Shows nothing."""

    def say(self, text: str) -> None:
        pass

    def wait_for(self, text: str) -> None:
        pass

    def show(self, status: RunStatus) -> None:
        pass

    def close(self) -> None:
        pass


def choose_view(console: Console, history: History, *, plain: bool) -> RunView:
    """The live view on a terminal that can redraw, unless `plain` is asked for or this is a CI system."""
    if plain or not console.is_terminal or console.is_dumb_terminal or os.environ.get("CI"):
        return LineView(console)
    return LiveView(console, history)


def render_status(status: RunStatus, history: History, now: float | None = None) -> RenderableType:
    """The screen of the live view, the most important first: a low terminal cuts the end.

    `now`: when it is looked at, where the learner's clock is this machine's.
    """
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    for label, text in _facts(status):
        facts.add_row(label, text)
    waiting = [Text(line, style="yellow") for line in wait_lines(status, now)]
    parts: list[RenderableType] = [_render_progress(status), *waiting, facts]
    state = Text(status.state, style=_STATE_STYLE.get(status.state, ""))
    title = Text.assemble("ibtpo · ", (status.run, "bold"), " · ", state)
    return Panel(Group(*parts, Text(), _render_figures(status, history)), title=title, padding=(0, 1))


def format_step(status: RunStatus) -> str:
    """A step in one line."""
    figures = (figure.phrase(value) for _, figure, value in _values(status, Shown.LINE) if value is not None)
    stale = f"stale {status.accounts.stale}" if status.accounts.stale else ""
    step = f"step {status.figures.step}" + (f"/{status.total_steps}" if status.total_steps else "")
    return " · ".join(part for part in (step, *figures, stale, f"ETA {format_duration(status.eta_seconds)}") if part)


def format_accuracy(accuracy: AccuracyFigures, k: int | None) -> str:
    """avg@k, pass@k and maj@k, with what they were measured on."""
    return f"{_format_measures(accuracy, 'k' if k is None else str(k), ', ')} ({accuracy.problems} problems)"


def _format_measures(accuracy: AccuracyFigures, at: str, separator: str) -> str:
    parts = [f"avg@{at} {accuracy.avg_at_k:.3f} ± {accuracy.standard_error:.3f}"]
    for name, value in (("pass", accuracy.pass_at_k), ("maj", accuracy.maj_at_k)):
        parts += [] if value is None else [f"{name}@{at} {value:.3f}"]
    return separator.join(parts)


def _values(status: RunStatus, where: Shown) -> Iterable[tuple[str, Figure, float | None]]:
    """(name, figure, value) of the last step's figures that are shown `where`."""
    for name, figure in figures_in(StepFigures, where).items():
        yield name, figure, getattr(status.figures, name)


def _render_progress(status: RunStatus) -> RenderableType:
    row = Table.grid(padding=(0, 2), expand=True)
    row.add_column()
    row.add_column(ratio=1)
    row.add_column(justify="right")
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
    table.add_column(justify="right", no_wrap=True, style="bold")
    table.add_column(style="dim")
    table.add_column(style="cyan")
    for name, figure, value in _values(status, Shown.VIEW):
        table.add_row(
            figure.text(value), figure.title, Sparkline([past for _, past in history.series(name)], SPARK_WIDTH)
        )
    return table


def _facts(status: RunStatus) -> Iterator[tuple[str, str | Text]]:
    """(label, text) of held-out accuracy, the books of tasks, and who grows trees."""
    yield from _describe_accuracy(status)
    books = status.accounts
    ends = ("used", "skipped", "stale", "failed", "outstanding")
    yield "tasks fed", f"{books.fed} = " + " + ".join(f"{getattr(books, end)} {end}" for end in ends)
    yield (
        "",
        f"{status.queued_tasks} tasks wait, {status.pending_tasks} grow, {status.queued_trees} trees wait",
    )
    yield "policy", status.version.label if status.version else "–"
    yield "replicas", _describe_replicas(status) or Text("none has joined yet", style="yellow")


def _describe_accuracy(status: RunStatus) -> Iterator[tuple[str, Text]]:
    """A line for each set; where there is one, a second line with its way."""
    every = accuracies_by_set(status.evaluations)
    for number, series in enumerate(every):
        if number > MAX_SETS:
            yield "", Text("more sets are in report.html", style="dim")
            return
        first, last, has_change = series.values[0], series.values[-1], len(series.steps) > 1
        if len(every) > 1:
            label = series.label if len(series.label) <= LABEL_WIDTH else f"{series.label[: LABEL_WIDTH - 1]}…"
            change = f" {last.avg_at_k - first.avg_at_k:+.3f}" if has_change else ""
            yield label, Text(f"{_format_measures(last, series.at, '  ')}{change}", "bold" if number == 0 else "")
            continue
        yield (
            series.label,
            Text.assemble((format_accuracy(last, series.k), "bold"), (f" at step {series.steps[-1]}", "dim")),
        )
        if has_change:
            since = f"from {first.avg_at_k:.3f} {f'at step {step}' if (step := series.steps[0]) else 'before'}"
            line = sparkline([one.avg_at_k for one in series.values], SPARK_WIDTH)
            yield "", Text.assemble(f"{since}  ", (line, "cyan"))


def _describe_replicas(status: RunStatus) -> str:
    """Each with its policy and trees; of many, how many are in which state, and what is wrong with the first few."""
    if len(status.replicas) > MAX_REPLICAS:
        counts = Counter(replica.state for replica in status.replicas)
        states = ", ".join(f"{count} {state}" for state, count in counts.items())
        troubled = [one for one in status.replicas if one.problem]
        shown = [f"{one.name}{_trouble(one)}" for one in troubled[:MAX_TROUBLED]]
        more = [f"{left} more in trouble"] if (left := len(troubled) - len(shown)) else []
        return " · ".join((states, *shown, *more))
    return " · ".join(
        f"{one.name} {one.state} {one.version.label if one.version else '–'}, {one.trees_in_flight} trees"
        + _trouble(one)
        for one in status.replicas
    )


def _trouble(replica: ReplicaInfo) -> str:
    """What is on its way into it, or is wrong with it."""
    if replica.loading is not None:
        return f", loads {replica.loading.label}"
    problem = replica.problem if len(replica.problem) <= MAX_PROBLEM else f"{replica.problem[: MAX_PROBLEM - 1]}…"
    return f" ({problem})" if problem else ""
