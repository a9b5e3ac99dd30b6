"""The credit of IB-TPO: A-1, A-2 and A-3."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from shared.tree.credit.credit import (
    NODE_WEIGHT,
    NOTHING_MORE,
    Advantages,
    Credit,
    Deviation,
    NodeWeight,
    SideInformation,
    check_epsilon,
)
from shared.tree.draw import rewards_differ
from shared.tree.ib_score import Estimation, confidences, etas1, value_ratios
from shared.tree.node import Tree
from shared.tree.values import COUNTS, node_values


class Prior(StrEnum):
    """Whose confidence in the step is π in A-2."""

    SAMPLING = "sampling"
    REFERENCE = "reference"


class Baseline(StrEnum):
    """What A_GL compares the value of a node with."""

    ROOT = "root"
    """A-1: p̂(q), of all trajectories."""
    OTHERS = "others"
    """A-1o: the mean reward of the trajectories that do not run through the node (leave-one-out); 0 where all do."""
    FIRST = "first"
    """A-1f: the mean reward of the first B₀ draws, which no choice of branches biases."""


@dataclass(frozen=True, slots=True)
class Method(Estimation):
    """The settings that sampler and credit share: table `[learner.method]`. Either may state its own."""

    lam: Annotated[float, "λ: how much of the local advantage A_IB is added to A_GL; 0: none"] = 0.1

    def __post_init__(self) -> None:
        Estimation.__post_init__(self)
        if not 0 <= self.lam < math.inf:
            raise ValueError(f"lam is not negative: {self.lam}")


@dataclass(frozen=True, slots=True)
class IBTPOCredit(Method, Credit):
    """A-3, with its switches: A(s) = A_GL(s) + λ·A_IB(s).

    When all rewards are equal there is no A_GL; nothing is learnt then, unless `ib_on_ties` leaves A_IB alone.
    """

    prior: Annotated[Prior, "Whose confidence in a step is π in A-2"] = Prior.SAMPLING
    centred: Annotated[bool, "A-2 with r − 1 for r − (1 + 1/β): no push away from certain steps"] = False
    ib_on_ties: Annotated[bool, "Learn from λ·A_IB alone where all rewards of a tree are equal"] = False
    baseline: Annotated[Baseline, "What A_GL compares a node with: root, others or first"] = Baseline.ROOT
    std: Annotated[Deviation, "Which standard deviation of the rewards divides A_GL"] = Deviation.POPULATION
    node_weight: Annotated[NodeWeight, NODE_WEIGHT] = NodeWeight.LEAVES
    epsilon: Annotated[float, "ε, added to the standard deviation of the rewards"] = 1e-6

    def __post_init__(self) -> None:
        Method.__post_init__(self)
        check_epsilon(self.epsilon)

    @property
    def reads_reference(self) -> bool:  # type: ignore[override]
        return self.prior is Prior.REFERENCE and self.lam != 0

    def has_signal(self, rewards: Sequence[float]) -> bool:
        return rewards_differ(rewards) or (self.ib_on_ties and bool(rewards))

    def advantages(self, tree: Tree, side: SideInformation = NOTHING_MORE) -> Advantages:
        values, judged = node_values(tree, self.values), side.judged or tree
        global_ = self._global(tree, values, side.num_first) if tree.is_mixed else (0.0,) * len(tree.nodes)
        if self.lam == 0:
            return Advantages(global_)
        of_judged = values if judged is tree else node_values(judged, self.values)
        local = self._local(judged, of_judged, side.reference_logprobs)
        total = (0.0, *[a + self.lam * b for a, b in zip(global_[1:], local[1:], strict=True)])
        return Advantages(total, global_)

    def _global(self, tree: Tree, values: Sequence[float], num_first: int | None) -> tuple[float, ...]:
        """A-1: A_GL(s) = (p̂(s) − p̂(q)) / (std({R}) + ε), or with another baseline for p̂(q); 0 at the root."""
        scale = self.std.of(tree.rewards) + self.epsilon
        match self.baseline:
            case Baseline.ROOT:
                return tuple((value - values[0]) / scale for value in values)
            case Baseline.OTHERS:
                return tuple((v - b) / scale for v, b in zip(values, _means_of_others(tree, values), strict=True))
            case Baseline.FIRST:
                first = _mean_of_first(tree, num_first)
                return (0.0, *((value - first) / scale for value in values[1:]))

    def _local(
        self, tree: Tree, values: Sequence[float], reference_logprobs: Sequence[Sequence[float]] | None
    ) -> list[float]:
        """A-2: A_IB(s) = (p̂(s)/p̂(parent) − (1 + 1/β))·π(s); A-2c, centred: (p̂(s)/p̂(parent) − 1)·π(s)."""
        if self.prior is Prior.REFERENCE and reference_logprobs is None:
            raise ValueError("prior is the reference policy, whose log-probabilities are missing")
        logprobs = reference_logprobs if self.prior is Prior.REFERENCE else None
        pi = confidences(tree, self.confidence, logprobs)
        ratios = value_ratios(tree, values)
        etas = [r - 1 for r in ratios] if self.centred else etas1(ratios, self.beta)
        return [eta * pi_s for eta, pi_s in zip(etas, pi, strict=True)]


def _means_of_others(tree: Tree, values: Sequence[float]) -> list[float]:
    """Of every node, the mean reward of the trajectories that do not run through it; its value where all do."""
    counts, everyone = node_values(tree, COUNTS), tree.nodes[0].num_leaves
    means = []
    for value, mean, node in zip(values, counts, tree.nodes, strict=True):
        num_others = everyone - node.num_leaves
        others = (everyone * counts[0] - node.num_leaves * mean) / num_others if num_others else value
        means.append(others)
    return means


def _mean_of_first(tree: Tree, num_first: int | None) -> float:
    """Over the first draws that count; over all draws if none of them does."""
    if num_first is None:
        raise ValueError("baseline=first compares with the first draws of a tree, and their number is not known")
    first = [reward for reward in tree.reward_of_draw[:num_first] if reward is not None] or tree.rewards
    return math.fsum(first) / len(first)
