"""The figures of held-out sets, from what was answered to their problems (METHOD, Probe)."""

import math
import statistics
from collections.abc import Callable, Iterable, Sequence

from services.learner.held_out.results import ProblemResult
from services.learner.held_out_config import SetPlan
from shared.protocol.status import AccuracyFigures, Evaluation, SetAccuracy
from shared.tree.accuracy import Estimate, majority_reward, paired_difference, pass_at_of, pass_sizes
from shared.tree.draw import Finish, WeightVersion


def measure_set(plan: SetPlan, results: Iterable[ProblemResult]) -> SetAccuracy | None:
    """The figures that its metrics ask for; None if no answer was judged."""
    found = tuple(results)
    judged = [result for result in found if result.judged]
    average = Estimate.of([average_reward(result) for result in judged])
    if average is None:
        return None
    wanted = {metric.partition("@")[0] for metric in plan.metrics}
    passes = {k: _pass(judged, k) for k in _pass_sizes(plan)}
    passed = passes.get(plan.k)
    majority = _estimate(judged, vote) if "maj" in wanted and all(map(_is_compared, judged)) else None
    tokens = sorted(count for result in found for count in result.tokens)
    ends = [end for result in found for end in result.finish]
    states_none = [answer == "" for result in found for answer in result.answers]
    return SetAccuracy(
        name=plan.name,
        k=plan.k,
        problems=len(judged),
        avg_at_k=average.value,
        standard_error=average.error,
        pass_at_k=passed.value if passed else None,
        pass_error=passed.error if passed else None,
        maj_at_k=majority.value if majority else None,
        maj_error=majority.error if majority else None,
        pass_at={k: one.value for k, one in passes.items()},
        pass_errors={k: one.error for k, one in passes.items()},
        answer_tokens=statistics.fmean(tokens),
        answer_tokens_p95=tokens[max(0, math.ceil(0.95 * len(tokens)) - 1)],
        truncated_share=statistics.fmean(end != Finish.STOP.value for end in ends),
        no_answer_share=statistics.fmean(states_none),
    )


def average_sets(
    sets: Sequence[SetAccuracy], step: int, version: WeightVersion, *, is_partial: bool = False
) -> Evaluation:
    """The sets, of which there is at least one, and their unweighted average. Of a figure that a set does not have
    there is none."""
    sizes = {one.k for one in sets}
    return Evaluation(
        step=step,
        version=version,
        k=sizes.pop() if len(sizes) == 1 else None,
        sets=tuple(sets),
        is_partial=is_partial,
        **average_figures(sets).model_dump(),
    )


def average_figures(sets: Sequence[AccuracyFigures]) -> AccuracyFigures:
    """The unweighted averages over sets; `problems` is their sum."""

    def mean(name: str) -> float | None:
        values = [getattr(one, name) for one in sets]
        return None if None in values else statistics.fmean(values)

    def error(name: str) -> float | None:
        values = [getattr(one, name) for one in sets]
        return None if None in values else math.sqrt(sum(value**2 for value in values)) / len(values)

    errors = {name: error(name) for name in ("standard_error", "pass_error", "maj_error")}
    means = {name: mean(name) for name in AccuracyFigures.model_fields if name not in errors and name != "problems"}
    return AccuracyFigures.model_validate({**means, **errors, "problems": sum(one.problems for one in sets)})


def average_reward(result: ProblemResult) -> float:
    """Of the answers that were judged, of which there is at least one."""
    return statistics.fmean(result.judged)


def vote(result: ProblemResult) -> float:
    """The reward of what most answers say."""
    votes = zip(result.votes, result.rewards, strict=True)
    return majority_reward((number, reward) for number, reward in votes if number is not None and reward is not None)


def compare(
    first: Iterable[ProblemResult], second: Iterable[ProblemResult], of: Callable[[ProblemResult], float]
) -> Estimate | None:
    """The mean of the second's figure less the first's over the problems that both answered, and its error."""
    others = {(one.id, one.problem): one for one in second if one.judged}
    pairs = [(one, others[key]) for one in first if one.judged and (key := (one.id, one.problem)) in others]
    return paired_difference([of(a) for a, _ in pairs], [of(b) for _, b in pairs])


def _pass_sizes(plan: SetPlan) -> tuple[int, ...]:
    sizes: set[int] = set()
    for metric in plan.metrics:
        what, _, size = metric.partition("@")
        if what == "pass":
            sizes |= set(pass_sizes(plan.k)) if size == "k" else {int(size)}
    return tuple(sorted(sizes))


def _pass(results: Sequence[ProblemResult], k: int) -> Estimate:
    return _estimate(results, lambda result: pass_at_of(result.judged, k))


def _is_compared(result: ProblemResult) -> bool:
    """Whether the verifier said what each answer states that it judged."""
    ended = zip(result.answers, result.rewards, result.finish, strict=True)
    return all(answer is not None for answer, reward, end in ended if reward is not None and end != Finish.LENGTH.value)


def _estimate(results: Sequence[ProblemResult], of: Callable[[ProblemResult], float]) -> Estimate:
    found = Estimate.of([of(result) for result in results])
    assert found is not None  # there is at least one
    return found
