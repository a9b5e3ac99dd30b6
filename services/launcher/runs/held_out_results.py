"""What a run's evaluations kept of every held-out problem."""

from services.launcher.runs.history import AccuracySeries
from services.launcher.runs.run_dir import RunDirectory
from services.learner.held_out.measure import average_reward, compare
from services.learner.held_out.results import ProblemResult, ResultsFile
from shared.tree.accuracy import Estimate


def evaluated_steps(run: RunDirectory) -> list[int]:
    """Of which results are kept."""
    return sorted(int(path.name) for path in run.evaluations.glob("*") if path.name.isdecimal())


def sets_of(run: RunDirectory, step: int) -> tuple[str, ...]:
    """Of which sets."""
    names = (path.name.removesuffix(".gz") for path in sorted((run.evaluations / str(step)).glob("*.jsonl*")))
    return tuple(name.removesuffix(".jsonl") for name in names)


def read_results(run: RunDirectory, step: int, name: str) -> tuple[ProblemResult, ...]:
    """Those of one set after `step` steps; none where they were not kept."""
    _, results = ResultsFile(run.evaluations / str(step), name).read()
    return tuple(results.values())


def measure_change(run: RunDirectory, series: AccuracySeries) -> Estimate | None:
    """The difference in avg@k from a set's first evaluation to its last over the problems of both, with the error of
    the differences; None where their results were not kept."""
    first, last = series.steps[0], series.steps[-1]
    if first == last:
        return None
    return compare(read_results(run, first, series.name), read_results(run, last, series.name), average_reward)
