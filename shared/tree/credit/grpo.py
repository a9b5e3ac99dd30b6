"""Credits of whole trajectories: GRPO and Dr.GRPO."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from shared.tree.credit.credit import (
    NOTHING_MORE,
    UNIT_SCALE,
    Advantages,
    Credit,
    Deviation,
    NodeWeight,
    SideInformation,
)
from shared.tree.node import Tree

_STD = "Which standard deviation of the rewards divides the advantage"
_EPSILON = "ε, added to the standard deviation of the rewards"
_NODE_WEIGHT = "The weight of a node on m of a tree's trajectories"


@dataclass(frozen=True, slots=True)
class GRPOCredit(Credit):
    """(R − mean) / (std({R}) + ε) of a trajectory."""

    std: Annotated[Deviation, _STD] = Deviation.POPULATION
    epsilon: Annotated[float, _EPSILON] = 1e-6
    node_weight: Annotated[NodeWeight, _NODE_WEIGHT] = NodeWeight.LEAVES

    def __post_init__(self) -> None:
        if not 0 <= self.epsilon < math.inf:
            raise ValueError(f"epsilon is not negative: {self.epsilon}")

    def advantages(self, tree: Tree, side: SideInformation = NOTHING_MORE) -> Advantages:
        scale = self.std.of(tree.rewards) + self.epsilon
        centred = above_mean(tree)
        return Advantages.of_trajectories(tree, [None if one is None else one / scale for one in centred])


@dataclass(frozen=True, slots=True)
class DrGRPOCredit(Credit):
    """R − mean of a trajectory."""

    batch_std: Annotated[bool, "Divide advantages by the standard deviation of all rewards of a step"] = False
    std: Annotated[Deviation, "Which standard deviation, with batch_std"] = Deviation.POPULATION
    epsilon: Annotated[float, "ε, added to it"] = 1e-6
    node_weight: Annotated[NodeWeight, _NODE_WEIGHT] = NodeWeight.LEAVES

    def __post_init__(self) -> None:
        if not 0 <= self.epsilon < math.inf:
            raise ValueError(f"epsilon is not negative: {self.epsilon}")

    @property
    def compares_steps(self) -> bool:  # type: ignore[override]
        return self.batch_std

    def advantages(self, tree: Tree, side: SideInformation = NOTHING_MORE) -> Advantages:
        return Advantages.of_trajectories(tree, above_mean(tree))

    def step_scale(self, rewards: Sequence[float], advantages: Sequence[float]) -> tuple[float, float]:
        return (0.0, self.std.of(rewards) + self.epsilon) if self.batch_std else UNIT_SCALE


def above_mean(tree: Tree) -> list[float | None]:
    """R − mean of every draw that counts."""
    mean = math.fsum(tree.rewards) / len(tree.rewards)
    return [None if reward is None else reward - mean for reward in tree.reward_of_draw]
