"""Credits that build on GRPO's comparison of whole answers: Tree-GRPO, TEMPO and TreeAdv."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from shared.tree.credit.credit import (
    NOTHING_MORE,
    Advantages,
    Deviation,
    NormalizedCredit,
    SideInformation,
)
from shared.tree.credit.grpo import above_mean
from shared.tree.draw import Draw, rewards_differ
from shared.tree.node import Tree
from shared.tree.values import COUNTS, node_values

_STD = "Which standard deviation of the rewards divides the advantage"


@dataclass(frozen=True, slots=True)
class TreeGRPOCredit(NormalizedCredit):
    """A-7, Tree-GRPO: GRPO over all answers, plus GRPO over the answers that descend from the same first one."""

    std: Annotated[Deviation, _STD] = Deviation.SAMPLE

    def advantages(self, tree: Tree, side: SideInformation = NOTHING_MORE) -> Advantages:
        rewards, firsts = tree.reward_of_draw, first_draws(tree.draws)
        of_families: dict[int, list[float]] = {}
        for first, reward in zip(firsts, rewards, strict=True):
            if reward is not None:
                of_families.setdefault(first, []).append(reward)
        within = {first: self._normalize(family) for first, family in of_families.items()}
        mean, scale = self._normalize(tree.rewards)
        found: list[float | None] = []
        for first, reward in zip(firsts, rewards, strict=True):
            if reward is None:
                found.append(None)
            else:
                family_mean, family_scale = within[first]
                found.append((reward - mean) / scale + (reward - family_mean) / family_scale)
        return Advantages.of_trajectories(tree, found)

    def _normalize(self, rewards: Sequence[float]) -> tuple[float, float]:
        """Mean and std + ε; infinite where nothing differs, so that nothing is better."""
        mean = math.fsum(rewards) / len(rewards)
        return mean, self.scale(rewards) if rewards_differ(rewards) else math.inf


@dataclass(frozen=True, slots=True)
class TEMPOCredit(NormalizedCredit):
    """A-8, TEMPO: (R − mean + V(s) − V(parent)) / (std({R}) + ε) at node s of a trajectory, V the mean of R under it.

    V(s) and V(parent) differ at the first node after a fork alone.
    """

    std: Annotated[Deviation, _STD] = Deviation.SAMPLE

    def advantages(self, tree: Tree, side: SideInformation = NOTHING_MORE) -> Advantages:
        values = node_values(tree, COUNTS)
        scale = self.scale(tree.rewards)
        changes = [(value - values[parent]) / scale for value, parent in zip(values, tree.parents, strict=True)]
        of_paths = [
            tuple(whole / scale + changes[node_id] for node_id in tree.path(draw_id)) if whole is not None else ()
            for draw_id, whole in enumerate(above_mean(tree))
        ]
        of_nodes = [(value - values[0]) / scale + change for value, change in zip(values, changes, strict=True)]
        return Advantages(tuple(of_nodes), of_paths=tuple(of_paths))


@dataclass(frozen=True, slots=True)
class TreeAdvCredit(NormalizedCredit):
    """A-9, TreeAdv: the mean of GRPO's advantages over the trajectories through a node."""

    def advantages(self, tree: Tree, side: SideInformation = NOTHING_MORE) -> Advantages:
        values = node_values(tree, COUNTS)
        scale = self.scale(tree.rewards)
        return Advantages(tuple((value - values[0]) / scale for value in values))


def first_draws(draws: Sequence[Draw]) -> tuple[int, ...]:
    """Of every draw, the draw from the prompt that it descends from."""
    firsts: list[int] = []
    for draw_id, draw in enumerate(draws):
        firsts.append(draw_id if draw.parent is None else firsts[draw.parent])
    return tuple(firsts)
