"""A credit: answers against the median of their tree."""

from dataclasses import dataclass
from statistics import median
from typing import Annotated

from shared.tree.credit import NOTHING_MORE, Advantages, Credit, SideInformation
from shared.tree.node import Tree


@dataclass(frozen=True)
class MedianCredit(Credit):
    """scale·(R − median({R})) for every token of an answer."""

    scale: Annotated[float, "Multiplies every advantage"] = 1.0

    def advantages(self, tree: Tree, side: SideInformation = NOTHING_MORE) -> Advantages:
        middle = median(tree.rewards)
        of_draws = [None if reward is None else self.scale * (reward - middle) for reward in tree.reward_of_draw]
        return Advantages.of_trajectories(tree, of_draws)
