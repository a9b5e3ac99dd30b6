"""The credit of IB-TPO: A-1, A-2 and A-3."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from shared.tree.credit.credit import NOTHING_MORE, Advantages, Credit, Deviation, NodeWeight, SideInformation
from shared.tree.draw import rewards_differ
from shared.tree.ib_score import Estimation, confidences, etas1, value_ratios
from shared.tree.node import Tree
from shared.tree.values import node_values


class Prior(StrEnum):
    """Whose confidence in the step is π in A-2."""

    SAMPLING = "sampling"
    REFERENCE = "reference"


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
    std: Annotated[Deviation, "Which standard deviation of the rewards divides A_GL"] = Deviation.POPULATION
    node_weight: Annotated[NodeWeight, "The weight of a node on m of a tree's trajectories"] = NodeWeight.LEAVES
    epsilon: Annotated[float, "ε, added to the standard deviation of the rewards"] = 1e-6

    def __post_init__(self) -> None:
        Method.__post_init__(self)
        if not 0 <= self.epsilon < math.inf:
            raise ValueError(f"epsilon is not negative: {self.epsilon}")

    @property
    def reads_reference(self) -> bool:  # type: ignore[override]
        return self.prior is Prior.REFERENCE and self.lam != 0

    def has_signal(self, rewards: Sequence[float]) -> bool:
        return rewards_differ(rewards) or (self.ib_on_ties and bool(rewards))

    def advantages(self, tree: Tree, side: SideInformation = NOTHING_MORE) -> Advantages:
        zeros = (0.0,) * len(tree.nodes)
        global_ = self._global(tree) if tree.is_mixed else zeros
        if self.lam == 0:
            return Advantages(global_)
        local = self._local(side.judged or tree, side.reference_logprobs)
        total = (0.0, *[a + self.lam * b for a, b in zip(global_[1:], local[1:], strict=True)])
        return Advantages(total, global_)

    def _global(self, tree: Tree) -> tuple[float, ...]:
        """A-1: A_GL(s) = (p̂(s) − p̂(q)) / (std({R}) + ε)."""
        values = node_values(tree, self.values)
        scale = self.std.of(tree.rewards) + self.epsilon
        return tuple((value - values[0]) / scale for value in values)

    def _local(self, tree: Tree, reference_logprobs: Sequence[Sequence[float]] | None) -> list[float]:
        """A-2: A_IB(s) = (p̂(s)/p̂(parent) − (1 + 1/β))·π(s); A-2c, centred: (p̂(s)/p̂(parent) − 1)·π(s)."""
        if self.prior is Prior.REFERENCE and reference_logprobs is None:
            raise ValueError("prior is the reference policy, whose log-probabilities are missing")
        logprobs = reference_logprobs if self.prior is Prior.REFERENCE else None
        pi = confidences(tree, self.confidence, logprobs)
        ratios = value_ratios(tree, node_values(tree, self.values))
        etas = [r - 1 for r in ratios] if self.centred else etas1(ratios, self.beta)
        return [eta * pi_s for eta, pi_s in zip(etas, pi, strict=True)]
