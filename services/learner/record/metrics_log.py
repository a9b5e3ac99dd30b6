"""The run's figures as files: one line per step and per evaluation, and a summary at the end."""

import json
from collections.abc import Collection
from pathlib import Path

from shared.files import atomic_write, read_json_lines
from shared.protocol.figures import RunSummary, StepFigures
from shared.protocol.status import Evaluation


class MetricsLog:
    """metrics.jsonl and summary.json in `run_dir`. Only lines of evaluations have `avg_at_k`."""

    def __init__(self, run_dir: Path) -> None:
        self._lines = run_dir / "metrics.jsonl"
        self._summary = run_dir / "summary.json"

    @property
    def is_finished(self) -> bool:
        return self._summary.exists()

    def drop_after(self, step: int, evaluated: Collection[int]) -> None:
        """Drops what a resumed run writes again: the lines after `step`, evaluations of steps that are not `evaluated`,
        and broken ones."""
        self._lines.parent.mkdir(parents=True, exist_ok=True)
        if self._lines.exists():
            rows = [row for _, row in read_json_lines(self._lines, broken=[]) if isinstance(row, dict)]
            kept = [row for row in rows if isinstance(row.get("step"), int) and row["step"] <= step]
            kept = [row for row in kept if "avg_at_k" not in row or row["step"] in evaluated]
            atomic_write(self._lines, "".join(f"{json.dumps(row)}\n" for row in kept))

    def append(self, line: StepFigures | Evaluation) -> None:
        with self._lines.open("a", encoding="utf-8") as file:
            file.write((json.dumps(line.flat()) if isinstance(line, Evaluation) else line.model_dump_json()) + "\n")

    def finish(self, summary: RunSummary) -> None:
        """Writes the summary, which marks the run as finished."""
        atomic_write(self._summary, summary.model_dump_json(indent=1) + "\n")
