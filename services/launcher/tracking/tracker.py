"""What a tracker is: where a run's figures go."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

Scalar = str | float | int | bool


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """The run that a tracker gets."""

    name: str
    directory: Path
    id: str
    """Under which the tracker knows it; empty at its first start."""
    step: int
    """The last step that the tracker has; 0 for none."""


@dataclass(frozen=True, slots=True)
class TrackedTree:
    """A tree of the run, drawn."""

    name: str
    """The problem, in one line."""
    text: str
    svg: str


class Tracker(Protocol):
    """Gets one run, in order: each call may block and may raise; it happens in a process of its own."""

    def start(self, run: TrackedRun, config: Mapping[str, Scalar]) -> tuple[str, str]:
        """Begins the run, or goes on with it where `run.id` is not empty. Returns its id, and the URL to see it at."""
        ...

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Takes the figures of a step or of the evaluation after it; returns when they will not be lost."""
        ...

    def trees(self, step: int, trees: Sequence[TrackedTree]) -> None:
        """Takes some of the run's latest trees."""
        ...

    def finish(self, summary: Mapping[str, Scalar] | None) -> None:
        """Ends the run. None: it ended before its last step, and may go on later."""
        ...


@runtime_checkable
class Rewindable(Protocol):
    """A tracker that can forget steps. A run that was killed returns to its checkpoint and takes the steps after it
    once more; other trackers keep what these steps came to at first."""

    def rewind(self, step: int) -> None:
        """Called before `start`: forgets what comes after `step`."""
        ...
