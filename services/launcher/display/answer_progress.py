"""Shows how many problems are answered, and how long the rest may take: on standard error, which results do not use."""

import sys
import time
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from services.launcher.display.durations import format_duration

_LINE_SECONDS = 10.0


class AnswerProgress:
    """A bar on a terminal, elsewhere a line every few seconds. A context manager."""

    def __init__(self, total: int, answered: int) -> None:
        self._total = total
        self._answered = self._before = answered
        self._started = self._said = time.monotonic()
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=console, transient=True) if console.is_terminal else None
        self._task = self._bar.add_task("", total=total, completed=answered) if self._bar else None

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def say(self, what: str) -> None:
        """What goes on now."""
        self._started, self._before = time.monotonic(), self._answered
        if self._bar and self._task is not None:
            self._bar.update(self._task, description=what)
        else:
            print(what, file=sys.stderr, flush=True)

    def add(self) -> None:
        """One more problem is answered."""
        self._answered += 1
        if self._bar and self._task is not None:
            self._bar.update(self._task, completed=self._answered)
        elif time.monotonic() - self._said >= _LINE_SECONDS:
            self._said = time.monotonic()
            spent = (self._said - self._started) / max(self._answered - self._before, 1)
            left = format_duration(spent * (self._total - self._answered))
            print(f"{self._answered} of {self._total} problems answered, {left} left", file=sys.stderr, flush=True)
