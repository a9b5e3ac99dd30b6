"""The figures of a run over its steps, read from metrics.jsonl or collected from status reports."""

import contextlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from shared.files import read_json_lines
from shared.protocol.figures import StepFigures
from shared.protocol.status import AccuracyFigures, Evaluation, RunStatus

SHARPENING = (
    "pass@k falls while avg@k rises: the policy settles on fewer of its right answers (docs/demo.md, Sharpening)"
)


@dataclass(frozen=True, slots=True)
class AccuracySeries:
    """The accuracies with `k` answers on the problems of one file, or of all, by step."""

    file: str
    """Empty: all."""
    k: int
    steps: tuple[int, ...]
    values: tuple[AccuracyFigures, ...]

    @property
    def label(self) -> str:
        """The file's name."""
        return self.file or "held out"

    @property
    def is_sharpening(self) -> bool:
        """Whether pass@k fell while avg@k rose."""
        first, last = self.values[0], self.values[-1]
        return first.avg_at_k < last.avg_at_k and last.pass_at_k < first.pass_at_k


def accuracies_by_file(evaluations: Sequence[Evaluation]) -> tuple[AccuracySeries, ...]:
    """That of all files, and that of each where there are several; of evaluations with the k of the last."""
    found: dict[str, dict[int, AccuracyFigures]] = defaultdict(dict)
    for evaluation in evaluations:
        if evaluation.k == evaluations[-1].k:
            found[""][evaluation.step] = evaluation
            for one in evaluation.files:
                found[one.file][evaluation.step] = one
    shown = list(found.items())[: None if len(found) > 2 else 1]
    return tuple(
        AccuracySeries(file, evaluations[-1].k, tuple(values), tuple(values.values())) for file, values in shown
    )


class History:
    """Figures by step and evaluations by step. A resumed run repeats steps: the later figures replace the earlier."""

    def __init__(self) -> None:
        self._figures: dict[int, StepFigures] = {}
        self._evaluations: dict[int, Evaluation] = {}

    @classmethod
    def read(cls, metrics: Path) -> "History":
        """The history in metrics.jsonl; a line that is incomplete or of another form is ignored."""
        history = cls()
        if metrics.exists():
            for _, line in read_json_lines(metrics, broken=[]):
                history._add_line(line)
        return history

    @property
    def figures(self) -> tuple[StepFigures, ...]:
        """One entry per step, in order."""
        return tuple(self._figures[step] for step in sorted(self._figures))

    @property
    def evaluations(self) -> tuple[Evaluation, ...]:
        """In the order of their steps."""
        return tuple(self._evaluations[step] for step in sorted(self._evaluations))

    def series(self, name: str) -> tuple[tuple[int, float], ...]:
        """(step, value) of one figure, for the steps that have it."""
        found = ((one.step, getattr(one, name)) for one in self.figures)
        return tuple((step, float(value)) for step, value in found if value is not None)

    def add(self, status: RunStatus) -> None:
        """Adds the figures and evaluations of a status."""
        if status.figures.trees:
            self._figures[status.figures.step] = status.figures
        self._evaluations.update((one.step, one) for one in status.evaluations)

    def _add_line(self, line: object) -> None:
        if not isinstance(line, dict):
            return
        with contextlib.suppress(ValidationError):
            if "avg_at_k" in line:
                evaluation = Evaluation.model_validate(_known_fields(line, Evaluation))
                self._evaluations[evaluation.step] = evaluation
            elif "trees" in line:
                figures = StepFigures.model_validate(_known_fields(line, StepFigures))
                self._figures[figures.step] = figures


def _known_fields(line: dict[str, object], model: type[StepFigures] | type[Evaluation]) -> dict[str, object]:
    return {name: value for name, value in line.items() if name in model.model_fields}
