"""Trackers of one's own, for tests: one writes down what it gets, one is down for a while, one never answers."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from services.launcher.tracking.tracker import Scalar, TrackedRun, TrackedTree


class WritingTracker:
    """Writes every call as a line of JSON into `file`."""

    def __init__(self, file: str) -> None:
        self._file = Path(file)

    def start(self, run: TrackedRun, config: Mapping[str, Scalar]) -> tuple[str, str]:
        self._write(call="start", id=run.id, step=run.step, config=dict(config))
        return run.id or "first", "http://tracker/first"

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        self._write(call="log", step=step, figures=dict(figures))

    def trees(self, step: int, trees: Sequence[TrackedTree]) -> None:
        self._write(call="trees", step=step, trees=[tree.name for tree in trees])

    def finish(self, summary: Mapping[str, Scalar] | None) -> None:
        self._write(call="finish", summary=summary and dict(summary))

    def _write(self, **call: Any) -> None:
        with self._file.open("a") as file:
            file.write(json.dumps(call) + "\n")


class FailingTracker(WritingTracker):
    """Cannot be reached as long as the file `down` is there, and says the key of the environment."""

    def __init__(self, file: str, down: str) -> None:
        super().__init__(file)
        self._down = Path(down)

    def start(self, run: TrackedRun, config: Mapping[str, Scalar]) -> tuple[str, str]:
        if self._down.exists():
            raise ConnectionError("no route to tracker with key sekret-key-1")
        return super().start(run, config)


class HangingTracker(WritingTracker):
    """A black hole."""

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        super().log(step, figures)
        time.sleep(3600)


class NoTracker:
    """Lacks what a tracker has."""

    def start(self) -> None: ...
