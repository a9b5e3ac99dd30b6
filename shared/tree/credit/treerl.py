"""The credit of TreeRL: from fork to fork, against the root and against the parent."""

import math
from dataclasses import dataclass
from typing import Annotated

from shared.tree.credit.credit import NODE_WEIGHT, NOTHING_MORE, Advantages, Credit, NodeWeight, SideInformation
from shared.tree.credit.segments import segment_starts
from shared.tree.node import Tree
from shared.tree.values import COUNTS, node_values


@dataclass(frozen=True, slots=True)
class TreeRLCredit(Credit):
    """((V(s) − V(root)) + (V(s) − V(parent))) / √leaves of a segment s, of leave-one-out rewards."""

    leave_one_out: Annotated[bool, "Compare each reward with the mean of the others; without: with that of all"] = True
    node_weight: Annotated[NodeWeight, NODE_WEIGHT] = NodeWeight.LEAVES

    def advantages(self, tree: Tree, side: SideInformation = NOTHING_MORE) -> Advantages:
        """R_i less the mean of the others is N/(N − 1)·(R_i − mean), so V(root) = 0."""
        n, counts = tree.nodes[0].num_leaves, node_values(tree, COUNTS)
        factor = n / (n - 1) if self.leave_one_out else 1.0
        v = [factor * (value - counts[0]) for value in counts]
        segments = zip(v, segment_starts(tree), tree.nodes, strict=True)
        return Advantages(tuple((v_s + (v_s - v[start])) / math.sqrt(node.num_leaves) for v_s, start, node in segments))
