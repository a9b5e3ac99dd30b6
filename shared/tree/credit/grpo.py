"""Credits of whole trajectories: GRPO, Dr.GRPO and RLOO."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from shared.tree.credit.credit import (
    NODE_WEIGHT,
    NOTHING_MORE,
    UNIT_SCALE,
    Advantages,
    Credit,
    NodeWeight,
    NormalizedCredit,
    SideInformation,
)
from shared.tree.node import Tree


@dataclass(frozen=True, slots=True)
class GRPOCredit(NormalizedCredit):
    """(R − mean) / (std({R}) + ε) of a trajectory."""

    leave_one_out: Annotated[bool, "Compare R with the mean of the other trajectories alone"] = False

    def advantages(self, tree: Tree, side: SideInformation = NOTHING_MORE) -> Advantages:
        scale = self.scale(tree.rewards)
        compared = above_others(tree) if self.leave_one_out else above_mean(tree)
        return Advantages.of_trajectories(tree, [None if one is None else one / scale for one in compared])


@dataclass(frozen=True, slots=True)
class DrGRPOCredit(NormalizedCredit):
    """R − mean of a trajectory; `std` and `epsilon` count with `batch_std` alone."""

    batch_std: Annotated[bool, "Divide advantages by the standard deviation of all rewards of a step"] = False

    @property
    def compares_steps(self) -> bool:  # type: ignore[override]
        return self.batch_std

    def advantages(self, tree: Tree, side: SideInformation = NOTHING_MORE) -> Advantages:
        return Advantages.of_trajectories(tree, above_mean(tree))

    def step_scale(self, rewards: Sequence[float], advantages: Mapping[float, float]) -> tuple[float, float]:
        return (0.0, self.scale(rewards)) if self.batch_std else UNIT_SCALE


@dataclass(frozen=True, slots=True)
class RLOOCredit(Credit):
    """R − mean of the other trajectories' rewards: over independent ones the gradient has no bias."""

    node_weight: Annotated[NodeWeight, NODE_WEIGHT] = NodeWeight.LEAVES

    def advantages(self, tree: Tree, side: SideInformation = NOTHING_MORE) -> Advantages:
        return Advantages.of_trajectories(tree, above_others(tree))


def above_mean(tree: Tree) -> list[float | None]:
    """R − mean of every draw that counts."""
    mean = math.fsum(tree.rewards) / len(tree.rewards)
    return [None if reward is None else reward - mean for reward in tree.reward_of_draw]


def above_others(tree: Tree) -> list[float | None]:
    """R − mean of the others, which is N/(N − 1)·(R − mean), of every of N > 1 draws that count."""
    factor = len(tree.rewards) / (len(tree.rewards) - 1)
    return [None if one is None else factor * one for one in above_mean(tree)]
