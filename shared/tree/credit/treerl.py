"""The credit of TreeRL: from fork to fork, against the root and against the parent."""

import math
from dataclasses import dataclass
from typing import Annotated

from shared.tree.credit.credit import NOTHING_MORE, Advantages, Credit, NodeWeight, SideInformation
from shared.tree.node import Tree
from shared.tree.values import Counts, node_values


@dataclass(frozen=True, slots=True)
class TreeRLCredit(Credit):
    """((V(s) − V(root)) + (V(s) − V(parent))) / √leaves of a node from fork to fork, of leave-one-out rewards."""

    node_weight: Annotated[NodeWeight, "The weight of a node on m of a tree's trajectories"] = NodeWeight.LEAVES

    def advantages(self, tree: Tree, side: SideInformation = NOTHING_MORE) -> Advantages:
        """The steps between two forks have the same leaves, and one advantage.

        R_i less the mean of the others is N/(N − 1)·(R_i − mean), so V(root) = 0.
        """
        num_leaves = tree.nodes[0].num_leaves
        counts = node_values(tree, Counts())
        v = [num_leaves / (num_leaves - 1) * (value - counts[0]) for value in counts]
        v_parent = [0.0]
        for node, parent in zip(tree.nodes[1:], tree.parents[1:], strict=True):
            is_same = node.num_leaves == tree.nodes[parent].num_leaves
            v_parent.append(v_parent[parent] if is_same else v[parent])
        return Advantages(
            tuple(
                ((v_s - v[0]) + (v_s - v_above)) / math.sqrt(node.num_leaves)
                for v_s, v_above, node in zip(v, v_parent, tree.nodes, strict=True)
            )
        )
