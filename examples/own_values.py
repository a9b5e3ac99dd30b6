"""A value estimator: the share of right answers below a node, after one right and one wrong one that nobody saw."""

from dataclasses import dataclass
from typing import Annotated

from shared.tree.node import Tree
from shared.tree.values import COUNTS, ValueEstimator, node_values


@dataclass(frozen=True)
class LaplaceValues(ValueEstimator):
    """(k + strength)/(m + 2·strength) of a node on m trajectories, whose rewards add up to k."""

    strength: Annotated[float, "How many right and how many wrong answers are added"] = 1.0

    def values(self, tree: Tree) -> list[float]:
        shares = node_values(tree, COUNTS)
        counts = [node.num_leaves for node in tree.nodes]
        return [(p * m + self.strength) / (m + 2 * self.strength) for p, m in zip(shares, counts, strict=True)]
