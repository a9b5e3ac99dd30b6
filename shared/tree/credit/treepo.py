"""The credit of TreePO: an answer against each group of answers that share a part of its prefix."""

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
    SideInformation,
    whiten,
)
from shared.tree.node import Node, Tree
from shared.tree.values import COUNTS, node_values


@dataclass(frozen=True, slots=True)
class TreePOCredit(Credit):
    """A-6: the mean of R − mean(R of the group) over the groups of a trajectory.

    A group is all trajectories through one fork on its path; the root, and so all trajectories, is the first. With
    `group_tokens` L it is all that share the first d·L tokens, d = 0, 1, …, whether or not they part there.
    """

    group_tokens: Annotated[int | None, "L: groups share a multiple of so many tokens; None: they part at forks"] = None
    by_size: Annotated[bool, "Weigh each group by its number of trajectories, rather than all alike"] = False
    whitened: Annotated[bool, "Whiten advantages over the tokens of a step (A-w)"] = True
    node_weight: Annotated[NodeWeight, NODE_WEIGHT] = NodeWeight.LEAVES

    def __post_init__(self) -> None:
        if self.group_tokens is not None and self.group_tokens < 1:
            raise ValueError(f"group_tokens is positive: {self.group_tokens}")

    @property
    def compares_steps(self) -> bool:  # type: ignore[override]
        return self.whitened

    def advantages(self, tree: Tree, side: SideInformation = NOTHING_MORE) -> Advantages:
        """R is the same in every group: off it goes the mean of the groups' means, summed from the root down."""
        means, root = node_values(tree, COUNTS), tree.nodes[0]
        sums, weights = [0.0] * len(means), [0.0] * len(means)
        for node_id, (node, parent) in enumerate(zip(tree.nodes, tree.parents, strict=True)):
            weight = 1 if node is root else self._num_groups(node, root.num_leaves)
            weight *= node.num_leaves if self.by_size else 1
            sums[node_id] = sums[parent] + weight * means[node_id]
            weights[node_id] = weights[parent] + weight
        baselines = [total / weight for total, weight in zip(sums, weights, strict=True)]
        pairs = zip(tree.reward_of_draw, tree.leaf_of_draw, strict=True)
        of_draws = [None if reward is None or leaf is None else reward - baselines[leaf] for reward, leaf in pairs]
        return Advantages.of_trajectories(tree, of_draws)

    def _num_groups(self, node: Node, everyone: int) -> int:
        """How many of a trajectory's groups are those of this node on its path."""
        if self.group_tokens is None:
            return len(node.children) > 1 and node.num_leaves < everyone
        if not node.children or node.num_leaves == 1:
            return 0
        return node.end // self.group_tokens - node.start // self.group_tokens

    def step_scale(self, rewards: Sequence[float], advantages: Mapping[float, float]) -> tuple[float, float]:
        return whiten(advantages) if self.whitened else UNIT_SCALE
