"""Sends a run's figures to one tracker as its metrics.jsonl grows."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from threading import Event
from typing import Any

from services.launcher.tracking.drawn_trees import draw_latest_trees
from services.launcher.tracking.tracker import Rewindable, Scalar, TrackedRun, Tracker
from services.learner.record.tracking import TrackingOrder, TrackingRecord, record_path

TREES_EVERY = 25
"""Trees go with every evaluation, and after so many steps without one."""
_POLL_SECONDS = 1.0
_NO_FIGURES = ("step", "k")


class Sender:
    """Sends what the tracker's record says it has not got. metrics.jsonl is the queue and the truth: what is in it is
    sent once, whenever the tracker can take it. `on_progress` is called whenever the tracker has taken something."""

    def __init__(self, order: TrackingOrder, tracker: Tracker, on_progress: Callable[[], None] = lambda: None) -> None:
        self._order = order
        self._tracker = tracker
        self._on_progress = on_progress
        self._path = record_path(order.run_dir, order.tracker)
        self._record = TrackingRecord.read(self._path)
        self._lines = _Lines(order.run_dir / "metrics.jsonl")
        self._trees_step = self._record.step

    def start(self) -> None:
        """Begins at the tracker, or goes on."""
        order, record = self._order, self._record
        kept = order.step
        if kept is not None and kept < record.step and isinstance(self._tracker, Rewindable):
            self._tracker.rewind(kept)
            self._note(step=kept, evaluation=min(kept, record.evaluation))
        run = TrackedRun(order.run, order.run_dir, self._record.id, self._record.step)
        run_id, url = self._tracker.start(run, order.config)
        self._note(id=run_id, url=url)

    def follow(self, ended: Event) -> None:
        """Sends until the run has ended, then the rest."""
        while not ended.wait(_POLL_SECONDS):
            self.send()
        self.finish()

    def send(self) -> None:
        """Sends the lines that came since."""
        evaluated = False
        for line in self._lines.new():
            evaluated = self._send_line(line) or evaluated
        if evaluated or self._record.step >= self._trees_step + TREES_EVERY:
            self._send_trees()
        if self._record.problem:
            self._note(problem="")
        self._on_progress()

    def finish(self) -> None:
        """Sends the rest, and the summary of a finished run."""
        self.send()
        if self._record.step > self._trees_step:
            self._send_trees()
        self._tracker.finish(_read_summary(self._order.run_dir / "summary.json"))
        self._note(problem="")

    def _send_line(self, line: Mapping[str, Any]) -> bool:
        """Sends what the tracker has not got; whether that was an evaluation."""
        step = line.get("step")
        if not isinstance(step, int):
            return False
        if "avg_at_k" in line:
            if step <= self._record.evaluation:
                return False
            self._tracker.log(step, dict(evaluation_figures(line)))
            self._note(evaluation=step)
            return True
        if step > self._record.step:
            self._tracker.log(step, dict(_numbers(line)))
            self._note(step=step)
        return False

    def _send_trees(self) -> None:
        self._trees_step = self._record.step
        if drawn := draw_latest_trees(self._order.run_dir):
            self._tracker.trees(self._record.step, drawn)

    def _note(self, **changes: Any) -> None:
        self._record = self._record.model_copy(update=changes)
        self._record.write(self._path)
        self._on_progress()


def evaluation_figures(line: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """`held_out/avg_at_k` and so on, the average over sets, of which an evaluation of some sets has none;
    `held_out/SET/avg_at_k` of each."""
    for name, value in _numbers(line):
        if name.startswith("held_out/"):
            yield name, value
        elif not line.get("is_partial"):
            yield f"held_out/{name}", value
    sets = line.get("files")  # as earlier releases wrote them
    for one in sets if isinstance(sets, list) and len(sets) > 1 else ():
        if isinstance(one, dict):
            of = one.get("file") or one.get("name")
            yield from ((f"held_out/{of}/{key}", value) for key, value in _numbers(one))


def _numbers(line: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in line.items():
        if name not in _NO_FIGURES and isinstance(value, int | float) and not isinstance(value, bool):
            yield name, value


def _read_summary(path: Path) -> dict[str, Scalar] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return {key: value for key, value in found.items() if isinstance(value, Scalar)}


class _Lines:
    """The lines of a file as they are written, each once; all of them again where the file was replaced."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._inode = 0
        self._offset = 0

    def new(self) -> Iterator[dict[str, Any]]:
        """The whole lines since the last call; a broken one is left out."""
        try:
            file = self._path.open("rb")
        except FileNotFoundError:
            return
        with file:
            found = os.fstat(file.fileno())
            if found.st_ino != self._inode or found.st_size < self._offset:
                self._inode, self._offset = found.st_ino, 0
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):  # it is being written
                    break
                self._offset += len(line)
                try:
                    row = json.loads(line)
                except ValueError:
                    continue
                if isinstance(row, dict):
                    yield row
