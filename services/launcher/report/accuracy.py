"""Held-out accuracy of groups of runs: before, after, at its best, and what parts two groups."""

import math
import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from services.launcher.report.groups import Group
from services.launcher.report.reported_run import ReportedRun
from services.launcher.runs.held_out_results import measure_change, read_results
from services.launcher.runs.history import AccuracySeries
from services.learner.held_out.measure import average_reward
from shared.tree.accuracy import Estimate, paired_difference, standard_error

_STUDENT = (12.71, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


@dataclass(frozen=True, slots=True)
class AccuracyRow:
    """One held-out set, one group: means over its runs. The error is over runs, of a single one over problems."""

    set: str
    group: Group
    k: str
    problems: str
    before: Estimate | None
    """None where no run was measured before its first step."""
    after: Estimate
    best: Estimate
    change: Estimate | None
    """From before to after; of a single run over the same problems, None where their results were not kept."""
    passes: tuple[Estimate | None, Estimate | None]
    """pass@k before and after."""
    majorities: tuple[Estimate | None, Estimate | None]
    """maj@k before and after."""
    steps: str
    """At which `after` was measured."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What the second group's last avg@k is above the first's."""

    set: str
    first: Group
    second: Group
    over_problems: Estimate | None
    """Over the problems that all runs of both answered, paired; None without such."""
    problems: int
    over_runs: Estimate | None
    """Over runs, of which both have several; else from the two errors over problems, which are not paired."""
    is_over_seeds: bool

    @property
    def verdict(self) -> str:
        """In words, at 95%: over problems and, where both have several, over runs; both must agree."""
        known = [(self.over_problems, 1.96)] if self.over_problems else []
        if self.over_runs and (self.is_over_seeds or not known):
            spread = student_95(len(self.first.runs) + len(self.second.runs) - 2) if self.is_over_seeds else 1.96
            known.append((self.over_runs, spread))
        signs = [math.copysign(1.0, one.value) if abs(one.value) > spread * one.error else 0.0 for one, spread in known]
        if signs and min(signs) > 0:
            return "higher"
        return "lower" if signs and max(signs) < 0 else "no difference that these figures show"


def student_95(freedom: int) -> float:
    """Two-sided quantile of Student's t: how many standard errors are 95%."""
    return _STUDENT[freedom - 1] if freedom <= len(_STUDENT) else 1.96 + 2.5 / freedom


def set_labels(groups: Sequence[Group]) -> tuple[str, ...]:
    """Every held-out set of any run, in the order of the first that has it."""
    return tuple(dict.fromkeys(one.label for group in groups for run in group.runs for one in run.accuracies))


def series_of(run: ReportedRun, label: str) -> AccuracySeries | None:
    return next((one for one in run.accuracies if one.label == label), None)


def accuracy_rows(groups: Sequence[Group]) -> Iterator[AccuracyRow]:
    """Set by set, each group that was measured on it."""
    for label in set_labels(groups):
        for group in groups:
            found = [one for run in group.runs if (one := series_of(run, label))]
            if found:
                yield _row(label, group, found)


def _row(label: str, group: Group, found: Sequence[AccuracySeries]) -> AccuracyRow:
    begun = [one for one in found if one.steps[0] == 0]
    best = [max((value.avg_at_k, value.standard_error) for value in one.values) for one in found]
    return AccuracyRow(
        set=label,
        group=group,
        k=_list(one.at for one in found),
        problems=_list(str(one.values[-1].problems) for one in found),
        before=_measured(begun, 0, "avg_at_k"),
        after=_measured(found, -1, "avg_at_k") or Estimate(math.nan, math.nan),
        best=_over_runs(best) or Estimate(math.nan, math.nan),
        change=_change(group, found),
        passes=(_measured(begun, 0, "pass_at_k"), _measured(found, -1, "pass_at_k")),
        majorities=(_measured(begun, 0, "maj_at_k"), _measured(found, -1, "maj_at_k")),
        steps=_list(str(one.steps[-1]) for one in found),
    )


def _change(group: Group, found: Sequence[AccuracySeries]) -> Estimate | None:
    if len(found) > 1:
        changes = [one.values[-1].avg_at_k - one.values[0].avg_at_k for one in found if one.steps[0] == 0]
        return Estimate.of(changes) if len(changes) > 1 else None
    directory = next(run.directory for run in group.runs if found[0] in run.accuracies)
    (series,) = found
    of_sets = [measure_change(directory, replace(series, name=name)) for name in series.sets or (series.name,)]
    known = [one for one in of_sets if one]
    return Estimate.average(known) if known and len(known) == len(of_sets) else None


def _list(values: Iterator[str]) -> str:
    return ", ".join(dict.fromkeys(values))


def _measured(found: Sequence[AccuracySeries], which: int, name: str) -> Estimate | None:
    """A figure of every run's first or last evaluation, where they have it."""
    error = "standard_error" if name == "avg_at_k" else f"{name.partition('_')[0]}_error"
    values = [(getattr(one.values[which], name), getattr(one.values[which], error) or 0.0) for one in found]
    return _over_runs([(value, spread) for value, spread in values if value is not None])


def _over_runs(values: Sequence[tuple[float, float]]) -> Estimate | None:
    """Of one run its own error; of several that of their mean."""
    if len(values) < 2:
        return Estimate(*values[0]) if values else None
    return Estimate.of([value for value, _ in values])


def differences(groups: Sequence[Group]) -> Iterator[Difference]:
    """Every later group against the first, on every set that both were measured on."""
    for label in set_labels(groups):
        first, *others = groups
        for second in others:
            one, two = (_last(group, label) for group in (first, second))
            if one and two:
                yield _difference(label, first, second)


def _difference(label: str, first: Group, second: Group) -> Difference:
    one, two = _last(first, label), _last(second, label)
    is_over_seeds = len(one) > 1 and len(two) > 1
    errors = [
        standard_error([value for value, _ in found]) if is_over_seeds else _mean_error(found) for found in (one, two)
    ]
    value = statistics.fmean(value for value, _ in two) - statistics.fmean(value for value, _ in one)
    before, after = _rewards(first, label), _rewards(second, label)
    shared = [key for key in before if key in after]
    paired = paired_difference([before[key] for key in shared], [after[key] for key in shared])
    return Difference(label, first, second, paired, len(shared), Estimate(value, math.hypot(*errors)), is_over_seeds)


def _last(group: Group, label: str) -> list[tuple[float, float]]:
    found = [series_of(run, label) for run in group.runs]
    return [(one.values[-1].avg_at_k, one.values[-1].standard_error) for one in found if one]


def _mean_error(found: Sequence[tuple[float, float]]) -> float:
    return math.sqrt(sum(error**2 for _, error in found)) / len(found)


def _rewards(group: Group, label: str) -> dict[tuple[str, str, str], float]:
    """Of every problem that all runs of the group answered, the mean reward: by set, id and text."""
    found: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for run in group.runs:
        series = series_of(run, label)
        for name in (series.sets or (series.name,)) if series else ():
            for result in read_results(run.directory, series.steps[-1], name) if series else ():
                if result.judged:
                    found[name, result.id, result.problem].append(average_reward(result))
    return {key: statistics.fmean(rewards) for key, rewards in found.items() if len(rewards) == len(group.runs)}
