"""The run's figures as files: a line per step and evaluation, and the summary at the end."""

import json
from pathlib import Path

from services.learner.record.figures import Summary
from shared.protocol.status import Evaluation, StepFigures


class Journal:
    """metrics.jsonl and summary.json in `run_dir`. An evaluation's line is told by its `avg_at_k`."""

    def __init__(self, run_dir: Path) -> None:
        self._lines = run_dir / "metrics.jsonl"
        self._summary = run_dir / "summary.json"

    @property
    def is_closed(self) -> bool:
        """Whether the run has ended."""
        return self._summary.exists()

    def resume(self, step: int) -> None:
        """Drops the lines after `step`: they belong to a life that was abandoned, and will be written again."""
        self._lines.parent.mkdir(parents=True, exist_ok=True)
        if self._lines.exists():
            kept = [line for line in self._lines.read_text().splitlines() if _is_until(line, step)]
            draft = self._lines.with_suffix(".partial")
            draft.write_text("".join(f"{line}\n" for line in kept))
            draft.replace(self._lines)

    def add(self, line: StepFigures | Evaluation) -> None:
        """Appends a line."""
        with self._lines.open("a") as file:
            file.write(line.model_dump_json() + "\n")

    def close(self, summary: Summary) -> None:
        """Writes the summary, whole: the sign that the run has ended."""
        draft = self._summary.with_suffix(".partial")
        draft.write_text(summary.model_dump_json(indent=1) + "\n")
        draft.replace(self._summary)


def _is_until(line: str, step: int) -> bool:
    """Whether the line is of a step up to `step`; a line that was cut half-way is not."""
    try:
        return int(json.loads(line)["step"]) <= step
    except (ValueError, KeyError, TypeError):
        return False
