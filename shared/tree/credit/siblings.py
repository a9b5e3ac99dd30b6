"""Credits that compare a segment with those that begin at the same fork: TreeRPO and SPO-tree."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from shared.tree.credit.credit import (
    NODE_WEIGHT,
    NOTHING_MORE,
    UNIT_SCALE,
    Advantages,
    Credit,
    Deviation,
    NodeWeight,
    SideInformation,
    check_epsilon,
    whiten,
)
from shared.tree.credit.segments import segment_ends, segment_starts
from shared.tree.draw import rewards_differ
from shared.tree.node import Tree
from shared.tree.values import BACKUP, AnyValues, node_values

_VALUES = "How the value of a segment's end is estimated (V1, V2, V3)"


class SiblingScale(StrEnum):
    """σ of A-4: what divides the difference to the siblings' mean m."""

    ONE = "one"
    """1."""
    STD = "std"
    """The standard deviation of the siblings' values, + ε."""
    BERNOULLI = "bernoulli"
    """√(m(1 − m)) + ε, the deviation of single answers; that of the values where rewards leave [0, 1]."""


@dataclass(frozen=True, slots=True)
class SiblingsCredit(Credit):
    """A-4, TreeRPO: (v(segment) − m) / σ, m the mean of v over the segment and its siblings.

    Every draw at a fork is a sibling. 0 where fewer than two are judged, or where their values are equal.
    """

    values: Annotated[AnyValues, _VALUES] = BACKUP
    sigma: Annotated[SiblingScale, "σ, what the difference to the siblings' mean is divided by"] = SiblingScale.ONE
    std: Annotated[Deviation, "Which standard deviation of the siblings' values, with sigma=std"] = Deviation.POPULATION
    epsilon: Annotated[float, "ε, added to σ unless that is one"] = 1e-6
    node_weight: Annotated[NodeWeight, NODE_WEIGHT] = NodeWeight.ONE

    def __post_init__(self) -> None:
        check_epsilon(self.epsilon)

    def advantages(self, tree: Tree, side: SideInformation = NOTHING_MORE) -> Advantages:
        values, ends = node_values(tree, self.values), segment_ends(tree)
        of_nodes = [0.0] * len(tree.nodes)
        for fork_id, node in enumerate(tree.nodes):
            if len(node.children) > 1:
                v = {child: values[ends[child]] for child in node.children}
                for child, advantage in self._compare(tree, v).items():
                    of_nodes[child] = advantage
            elif fork_id and node.children:
                of_nodes[node.children[0]] = of_nodes[fork_id]
        return Advantages(tuple(of_nodes))

    def _compare(self, tree: Tree, values: Mapping[int, float]) -> dict[int, float]:
        """A-4 of the first node of every segment below a fork, given the segments' values."""
        if not rewards_differ(values.values()):
            return dict.fromkeys(values, 0.0)
        of_draws = [v for child, v in values.items() for _ in range(tree.nodes[child].multiplicity)]
        mean = math.fsum(of_draws) / len(of_draws)
        scale = self._scale(of_draws, mean)
        return {child: (v - mean) / scale for child, v in values.items()}

    def _scale(self, values: Sequence[float], mean: float) -> float:
        match self.sigma:
            case SiblingScale.ONE:
                return 1.0
            case SiblingScale.STD:
                return self.std.of(values) + self.epsilon
            case SiblingScale.BERNOULLI:
                # in [0, 1] the second is never the larger
                return max(math.sqrt(max(mean * (1 - mean), 0.0)), Deviation.POPULATION.of(values)) + self.epsilon


@dataclass(frozen=True, slots=True)
class SPOTreeCredit(Credit):
    """A-5, SPO-tree: V(segment's end) − V(fork at its start). Segments that change nothing are not trained on."""

    values: Annotated[AnyValues, _VALUES] = BACKUP
    divide_by_std: Annotated[bool, "Divide by the standard deviation of the siblings' values, + epsilon"] = False
    epsilon: Annotated[float, "ε, added to it"] = 1e-8
    drop_unchanged: Annotated[bool, "Do not train on segments of advantage 0, nor count them"] = True
    whitened: Annotated[bool, "Whiten advantages over the tokens of a step that are trained on (A-w)"] = True
    node_weight: Annotated[NodeWeight, NODE_WEIGHT] = NodeWeight.ONE

    def __post_init__(self) -> None:
        check_epsilon(self.epsilon)

    @property
    def compares_steps(self) -> bool:  # type: ignore[override]
        return self.whitened

    def advantages(self, tree: Tree, side: SideInformation = NOTHING_MORE) -> Advantages:
        values, starts, ends = node_values(tree, self.values), segment_starts(tree), segment_ends(tree)
        scales = self._scales(tree, values, ends) if self.divide_by_std else [1.0] * len(values)
        pairs = [(values[end], values[start], scales[start]) for start, end in zip(starts, ends, strict=True)]
        of_nodes = [(v - above) / scale if rewards_differ((v, above)) else 0.0 for v, above, scale in pairs[1:]]
        return Advantages((0.0, *of_nodes))

    def _scales(self, tree: Tree, values: Sequence[float], ends: Sequence[int]) -> list[float]:
        """Of every node, the standard deviation over the draws that continue it of their segments' values, + ε.
        Infinite where they are equal: nothing is better there, whatever the node's own value."""
        scales = []
        for node in tree.nodes:
            v = [values[ends[child]] for child in node.children for _ in range(tree.nodes[child].multiplicity)]
            scales.append(Deviation.POPULATION.of(v) + self.epsilon if rewards_differ(v) else math.inf)
        return scales

    def weights(self, tree: Tree, advantages: Advantages) -> Sequence[float]:
        weights = Credit.weights(self, tree, advantages)
        if not self.drop_unchanged:
            return weights
        return [weight if advantage else 0.0 for weight, advantage in zip(weights, advantages.of_nodes, strict=True)]

    def step_scale(self, rewards: Sequence[float], advantages: Mapping[float, float]) -> tuple[float, float]:
        return whiten(advantages) if self.whitened else UNIT_SCALE
