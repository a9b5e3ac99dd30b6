"""The credit of a node: the advantage that every token of it is trained with, and its weight."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from shared.tree.ib_score import Confidence, confidences, likelihood_ratios
from shared.tree.node import Tree
from shared.tree.values import ValueEstimator, node_values


class GlobalTerm(StrEnum):
    """What a node's outcome is compared with."""

    NODES = "nodes"
    """A-1: (p̂(s) − p̂(q)) / (std + ε)."""
    GRPO = "grpo"
    """(R − mean) / (std + ε) of each trajectory; a node has the mean over the trajectories through it."""
    DR_GRPO = "dr-grpo"
    """R − mean of each trajectory, likewise."""
    TREERL = "treerl"
    """((V(s) − V(root)) + (V(s) − V(fork above))) / √leaves, of leave-one-out rewards."""


class Prior(StrEnum):
    """Whose confidence π weighs A-2."""

    SAMPLING = "sampling"
    REFERENCE = "reference"


class NodeWeight(StrEnum):
    """How much a node on m of G trajectories weighs."""

    LEAVES = "leaves"
    """m: as if the trajectories were extracted and trained on."""
    SQRT = "sqrt"
    """√m."""
    DRAWS = "draws"
    """G·Π m(c)/draws(parent) along the path: on-policy when selection ignores rewards."""


@dataclass(frozen=True, slots=True)
class Credit:
    """A-3: A(s) = A_GL(s) + λ·A_IB(s), with its switches. Without mixed rewards there is no A_GL; then nothing is
    trained on, unless `ib_on_ties` lets A_IB stand alone."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    global_term: GlobalTerm = GlobalTerm.NODES
    values: ValueEstimator = ValueEstimator.COUNTS
    kappa: float = 2.0
    lam: float = 0.1
    beta: float = 5.0
    confidence: Confidence = Confidence.GEOMETRIC
    prior: Prior = Prior.SAMPLING
    ib_on_ties: bool = False
    node_weight: NodeWeight = NodeWeight.LEAVES
    epsilon: float = 1e-6

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise ValueError(f"beta is positive: {self.beta}")

    @classmethod
    def named(cls, name: str) -> "Credit":
        """The credit of a method by its name; ValueError for others."""
        credits = {
            "ibtpo": cls(),
            "grpo": cls(global_term=GlobalTerm.GRPO, lam=0.0),
            "dr-grpo": cls(global_term=GlobalTerm.DR_GRPO, lam=0.0),
            "treerl": cls(global_term=GlobalTerm.TREERL, lam=0.0),
        }
        if name not in credits:
            raise ValueError(f"no credit is named {name!r}; there are {', '.join(sorted(credits))}")
        return credits[name]


def advantages(tree: Tree, credit: Credit, reference: Sequence[float] | None = None) -> tuple[float, ...]:
    """A(s) of every node, 0 at the root. `reference` are the nodes' confidences under the reference policy."""
    if not (tree.is_mixed or credit.ib_on_ties):
        return (0.0,) * len(tree.nodes)
    outcome = _global_advantages(tree, credit)
    if credit.lam == 0:
        return outcome
    balance = _ib_advantages(tree, credit, reference)
    return (0.0, *(a + credit.lam * b for a, b in zip(outcome[1:], balance[1:], strict=True)))


def node_weights(tree: Tree, kind: NodeWeight) -> tuple[float, ...]:
    """The weight of every node."""
    match kind:
        case NodeWeight.LEAVES:
            return tuple(float(node.num_leaves) for node in tree.nodes)
        case NodeWeight.SQRT:
            return tuple(math.sqrt(node.num_leaves) for node in tree.nodes)
        case NodeWeight.DRAWS:
            return _draw_weights(tree)


def _draw_weights(tree: Tree) -> tuple[float, ...]:
    weights = [float(tree.nodes[0].num_leaves)]
    for node in tree.nodes[1:]:
        parent = node.parent or 0
        weights.append(weights[parent] * node.multiplicity / tree.nodes[parent].num_draws)
    return tuple(weights)


def _global_advantages(tree: Tree, credit: Credit) -> tuple[float, ...]:
    match credit.global_term:
        case GlobalTerm.NODES:
            values = node_values(tree, credit.values, credit.kappa)
            return _centred(values, _std(tree.rewards) + credit.epsilon)
        case GlobalTerm.GRPO:
            return _centred(node_values(tree, ValueEstimator.COUNTS), _std(tree.rewards) + credit.epsilon)
        case GlobalTerm.DR_GRPO:
            return _centred(node_values(tree, ValueEstimator.COUNTS), 1.0)
        case GlobalTerm.TREERL:
            return _treerl(tree)


def _centred(values: Sequence[float], scale: float) -> tuple[float, ...]:
    """(p̂(s) − p̂(q)) / scale."""
    return tuple((value - values[0]) / scale for value in values)


def _std(rewards: Sequence[float]) -> float:
    """The population standard deviation."""
    mean = math.fsum(rewards) / (len(rewards) or 1)
    return math.sqrt(math.fsum((reward - mean) ** 2 for reward in rewards) / (len(rewards) or 1))


def _treerl(tree: Tree) -> tuple[float, ...]:
    """TreeRL's credit. Its nodes run from fork to fork, so all steps between two forks have the same."""
    num_leaves = tree.nodes[0].num_leaves
    counts = node_values(tree, ValueEstimator.COUNTS)
    leave_one_out = num_leaves / (num_leaves - 1) if num_leaves > 1 else 0.0
    values = [leave_one_out * (value - counts[0]) for value in counts]
    fork_above = [0.0]
    for node in tree.nodes[1:]:
        parent = node.parent or 0
        alone = tree.nodes[parent].num_leaves == node.num_leaves
        fork_above.append(fork_above[parent] if alone else values[parent])
    return tuple(
        (2 * value - above) / math.sqrt(node.num_leaves or 1)
        for value, above, node in zip(values, fork_above, tree.nodes, strict=True)
    )


def _ib_advantages(tree: Tree, credit: Credit, reference: Sequence[float] | None) -> tuple[float, ...]:
    """A-2: (r(s) − (1 + 1/β))·π(s)."""
    ratios = likelihood_ratios(tree, node_values(tree, credit.values, credit.kappa))
    if credit.prior is Prior.SAMPLING:
        prior: Sequence[float] = confidences(tree, credit.confidence)
    elif reference is not None:
        prior = reference
    else:
        raise ValueError("prior=reference needs the nodes' confidences under the reference policy: give `reference`")
    return tuple((r - (1 + 1 / credit.beta)) * pi for r, pi in zip(ratios, prior, strict=True))
