"""The figures of a run over its steps, read from metrics.jsonl or collected from status reports."""

import contextlib
from collections.abc import Mapping, Sequence
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
    """The accuracies with `k` answers on the problems of one set, or the average over sets, by step."""

    name: str
    """Empty: the average."""
    k: int | None
    """None: the sets of the average differ in it."""
    steps: tuple[int, ...]
    values: tuple[AccuracyFigures, ...]
    sets: tuple[str, ...] = ()
    """Of the average."""

    @property
    def num_sets(self) -> int:
        return len(self.sets)

    @property
    def only(self) -> str:
        """The name of the only set of the average; empty if there are several."""
        return self.sets[0] if len(self.sets) == 1 else ""

    @property
    def label(self) -> str:
        """The set's name."""
        return self.name or ("held out" if self.num_sets < 2 else "average")

    @property
    def at(self) -> str:
        """What stands behind avg@, pass@ and maj@."""
        return "k" if self.k is None else str(self.k)

    @property
    def is_sharpening(self) -> bool:
        """Whether pass@k fell while avg@k rose."""
        first, last = self.values[0], self.values[-1]
        if first.pass_at_k is None or last.pass_at_k is None:
            return False
        return first.avg_at_k < last.avg_at_k and last.pass_at_k < first.pass_at_k


def accuracies_by_set(evaluations: Sequence[Evaluation]) -> tuple[AccuracySeries, ...]:
    """The average over sets, and each set where there are several: of evaluations that asked for as many answers as the
    last. A set has its own steps; in the average are only evaluations of all sets."""
    last = {one.name: one.k for evaluation in evaluations for one in evaluation.sets}
    whole = [one for one in evaluations if not one.is_partial and {each.name: each.k for each in one.sets} == last]
    series = [_series("", whole[-1].k, {one.step: one for one in whole}, tuple(last))] if whole else []
    for name, k in last.items() if len(last) > 1 or not whole else ():
        found = {
            evaluation.step: one
            for evaluation in evaluations
            for one in evaluation.sets
            if one.name == name and one.k == k
        }
        series.append(_series(name, k, found))
    return tuple(series)


def _series(
    name: str, k: int | None, by_step: Mapping[int, AccuracyFigures], sets: tuple[str, ...] = ()
) -> AccuracySeries:
    return AccuracySeries(name, k, tuple(by_step), tuple(by_step.values()), sets)


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
                evaluation = Evaluation.model_validate(line)
                self._evaluations[evaluation.step] = evaluation
            elif "trees" in line:
                figures = StepFigures.model_validate(_known_fields(line))
                self._figures[figures.step] = figures


def _known_fields(line: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in line.items() if name in StepFigures.model_fields}
