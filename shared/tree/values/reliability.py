"""How far estimates of success agree with counts: cross-entropy, Brier score, calibration error, correlation."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from shared.tree.values.calibration import Observation

NUM_BINS = 10
_SMALLEST = 1e-7


@dataclass(frozen=True, slots=True)
class Reliability:
    """Of some nodes, each weighed by the number of its leaves; counts of few leaves scatter, and bound all of it."""

    nodes: int
    cross_entropy: float
    """−Σ n·(v·log p + (1 − v)·log(1 − p))/Σ n, in nats."""
    brier: float
    """Σ n·(p − v)²/Σ n."""
    calibration_error: float
    """ECE: |mean p − mean v| of the nodes in each tenth of [0, 1], weighed by their leaves."""
    correlation: float | None
    """Of p and v; None where either is constant."""

    @classmethod
    def of(cls, observations: Sequence[Observation]) -> "Reliability | None":
        """None without observations."""
        total = math.fsum(one.num_leaves for one in observations)
        if not total:
            return None
        return cls(
            nodes=len(observations),
            cross_entropy=math.fsum(one.num_leaves * _surprise(one) for one in observations) / total,
            brier=math.fsum(one.num_leaves * (one.estimate - one.value) ** 2 for one in observations) / total,
            calibration_error=_calibration_error(observations, total),
            correlation=correlation(observations),
        )


def correlation(observations: Sequence[Observation]) -> float | None:
    """Pearson's, weighed by the leaves; None where the estimates or the values are constant."""
    total = math.fsum(one.num_leaves for one in observations)
    mean_p = math.fsum(one.num_leaves * one.estimate for one in observations) / total
    mean_v = math.fsum(one.num_leaves * one.value for one in observations) / total
    offs = [(one.num_leaves, one.estimate - mean_p, one.value - mean_v) for one in observations]
    of_p, of_v = math.fsum(n * p * p for n, p, _ in offs), math.fsum(n * v * v for n, _, v in offs)
    if min(of_p, of_v) <= 1e-12 * total:
        return None
    return math.fsum(n * p * v for n, p, v in offs) / math.sqrt(of_p * of_v)


def _surprise(one: Observation) -> float:
    p = min(max(one.estimate, _SMALLEST), 1.0 - _SMALLEST)
    return -(one.value * math.log(p) + (1.0 - one.value) * math.log(1.0 - p))


def _calibration_error(observations: Sequence[Observation], total: float) -> float:
    gaps = [0.0] * NUM_BINS
    for one in observations:
        gaps[min(int(one.estimate * NUM_BINS), NUM_BINS - 1)] += one.num_leaves * (one.estimate - one.value)
    return math.fsum(map(abs, gaps)) / total
