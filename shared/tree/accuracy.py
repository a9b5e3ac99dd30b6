"""avg@k, pass@k and maj@k of independent answers: each is a mean over held-out problems (METHOD, Probe)."""

import math
import statistics
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from shared.tree.draw import is_full_reward


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean, and its standard error."""

    value: float
    error: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Estimate | None":
        """Over independent values; None without any. The error of a single one is not known, and given as 0."""
        if not values:
            return None
        return cls(statistics.fmean(values), standard_error(values))

    @classmethod
    def average(cls, estimates: Sequence["Estimate"]) -> "Estimate":
        """The unweighted mean of estimates from different problems; there is at least one."""
        return cls(
            statistics.fmean(one.value for one in estimates),
            math.sqrt(sum(one.error**2 for one in estimates)) / len(estimates),
        )


def standard_error(values: Sequence[float]) -> float:
    """Of their mean: s/√n, with s² = Σ(x − x̄)²/(n − 1)."""
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def paired_difference(first: Sequence[float], second: Sequence[float]) -> Estimate | None:
    """The mean of second − first over the same problems in the same order; None without any."""
    return Estimate.of([b - a for a, b in zip(first, second, strict=True)])


def pass_at(num_answers: int, num_right: int, k: int) -> float:
    """The probability that k of the answers, drawn without repetition, hold a right one: 1 − C(n − c, k)/C(n, k).

    Unbiased for the pass@k of the policy (Chen et al. 2021). Where there are fewer answers than k, all are drawn.
    """
    k = min(k, num_answers)
    return 1.0 - math.comb(num_answers - num_right, k) / math.comb(num_answers, k)


def pass_at_of(rewards: Sequence[float], k: int) -> float:
    """`pass_at` of answers with these rewards, of which a full one is right."""
    return pass_at(len(rewards), sum(map(is_full_reward, rewards)), k)


def majority_reward(votes: Iterable[tuple[Hashable, float]]) -> float:
    """The reward of the final answer that most answers give; each vote is (class of the final answer, its reward).

    Where several classes have most votes, one of them is drawn: the mean of their rewards. 0 if nobody votes.
    """
    rewards_of: dict[Hashable, list[float]] = defaultdict(list)
    for answer, reward in votes:
        rewards_of[answer].append(reward)
    most = max(map(len, rewards_of.values()), default=0)
    return statistics.fmean(statistics.fmean(one) for one in rewards_of.values() if len(one) == most) if most else 0.0


def pass_sizes(k: int) -> tuple[int, ...]:
    """For which j ≤ k pass@j is told of k answers: the powers of two, and k itself."""
    return tuple(sorted({*(2**power for power in range(k.bit_length())), k}))


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How often the k answers to each problem are right; each error is the standard error over problems."""

    num_problems: int
    avg_at_k: float
    """Mean reward of a problem's answers, averaged over problems."""
    avg_error: float
    pass_at_k: float
    """Share of problems with at least one answer of full reward."""
    pass_error: float


def measure_accuracy(rewards_of_problem: Iterable[Sequence[float]]) -> Accuracy | None:
    """The accuracy over the problems that have a reward; None when no problem has one."""
    judged = [rewards for rewards in rewards_of_problem if rewards]
    average = Estimate.of([statistics.fmean(rewards) for rewards in judged])
    passed = Estimate.of([pass_at_of(rewards, len(rewards)) for rewards in judged])
    if average is None or passed is None:
        return None
    return Accuracy(len(judged), average.value, average.error, passed.value, passed.error)
