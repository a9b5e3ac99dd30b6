"""The credit of a value baseline: what an answer got, less what was to be expected where the step began."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from shared.tree.credit.credit import NOTHING_MORE, Advantages, Credit, NodeWeight, SideInformation
from shared.tree.draw import rewards_differ
from shared.tree.node import Tree
from shared.tree.values.leaves import counts
from shared.tree.values.prior import SOURCE, NodePriors, PriorSource


@dataclass(frozen=True, slots=True)
class BaselineCredit(NodePriors, Credit):
    """A-b: A(s) = R − b(s) on each trajectory, b(s) the value of the node's parent, of which s itself is no part.

    b(s) mixes a prior with rewards of the parent's other branches. None of it depends on what s or its continuations
    are, so the gradient is unbiased, as long as rewards decide neither where to branch nor which trees are trained on.
    """

    source: Annotated[PriorSource, SOURCE] = PriorSource.HEAD
    kappa: Annotated[float, "κ: how many leaves the prior counts as, among those of the parent's other branches"] = 2.0
    siblings: Annotated[bool, "Mix in the rewards of the parent's other branches; false: b(s) is the prior alone"] = (
        True
    )
    on_ties: Annotated[bool, "Learn from trees whose rewards are all equal, too; without them b(s) is biased"] = True
    node_weight: Annotated[NodeWeight, "The weight of a node on m of a tree's trajectories"] = NodeWeight.LEAVES

    def __post_init__(self) -> None:
        NodePriors.__post_init__(self)
        if not 0 <= self.kappa < math.inf:
            raise ValueError(f"kappa is not negative: {self.kappa}")

    def has_signal(self, rewards: Sequence[float]) -> bool:
        return rewards_differ(rewards) or (self.on_ties and bool(rewards))

    def advantages(self, tree: Tree, side: SideInformation = NOTHING_MORE) -> Advantages:
        baselines = self.baselines(tree)
        means = zip(counts(tree), baselines, strict=True)
        of_paths = tuple(
            tuple((reward or 0.0) - baselines[node_id] for node_id in tree.path(draw_id))
            for draw_id, reward in enumerate(tree.reward_of_draw)
        )
        return Advantages((0.0, *[mean - b for mean, b in means][1:]), of_paths=of_paths)

    def baselines(self, tree: Tree) -> list[float]:
        """b(s) = (Σ_{leaves under parent, not under s} R + κ·prior(parent)) / (their number + κ); 0 at the root."""
        sums = [value * node.num_leaves for value, node in zip(counts(tree), tree.nodes, strict=True)]
        priors, found = self._inherited(tree), [0.0]
        for node_id in range(1, len(tree.nodes)):
            parent, n = tree.parents[node_id], tree.nodes[node_id].num_leaves
            others, total = tree.nodes[parent].num_leaves - n, sums[parent] - sums[node_id]
            prior = priors[parent]
            if prior is None:  # nothing says anything: all the leaves elsewhere do
                elsewhere = tree.nodes[0].num_leaves - n
                prior = (sums[0] - sums[node_id]) / elsewhere if elsewhere else 0.0
            weight = self.kappa + others if self.siblings else 0.0
            found.append((total + self.kappa * prior) / weight if weight else prior)
        return found

    def _inherited(self, tree: Tree) -> list[float | None]:
        """The prior of every node, or that of the nearest node above that has one."""
        priors = self.priors(tree)
        for node_id, parent in enumerate(tree.parents):
            if priors[node_id] is None:
                priors[node_id] = priors[parent]
        return priors
