"""Credit assignment: the advantage with which a node's tokens are trained, and their weight."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Annotated, Any

from shared.tree.draw import rewards_differ
from shared.tree.ib_score import Estimation, confidences, etas1, value_ratios
from shared.tree.node import Tree
from shared.tree.values import ValueEstimator, node_values


class GlobalTerm(StrEnum):
    """A_GL: what a node, or a trajectory, is compared with."""

    NODES = "nodes"
    """A-1: (p̂(s) − p̂(q)) / (std({R}) + ε) of a node."""
    GRPO = "grpo"
    """(R − mean) / (std({R}) + ε) of a trajectory."""
    DR_GRPO = "dr-grpo"
    """R − mean of a trajectory."""
    TREERL = "treerl"
    """((V(s) − V(root)) + (V(s) − V(parent))) / √leaves of a node from fork to fork, of leave-one-out rewards."""

    @property
    def is_of_trajectories(self) -> bool:
        """Whether trajectories that share a node give it different advantages; `advantages` has their mean."""
        return self in {GlobalTerm.GRPO, GlobalTerm.DR_GRPO}


class Prior(StrEnum):
    """Whose confidence in the step is π in A-2."""

    SAMPLING = "sampling"
    REFERENCE = "reference"


class Deviation(StrEnum):
    """std({R}) of n rewards: the mean square deviation is over n, or over n − 1."""

    POPULATION = "population"
    SAMPLE = "sample"

    def of(self, rewards: Sequence[float]) -> float:
        """That of these rewards; 0 of fewer than two."""
        if len(rewards) < 2:
            return 0.0
        mean = math.fsum(rewards) / len(rewards)
        divisor = len(rewards) - (self is Deviation.SAMPLE)
        return math.sqrt(math.fsum((reward - mean) ** 2 for reward in rewards) / divisor)


class NodeWeight(StrEnum):
    """The weight of a node on m of G trajectories."""

    LEAVES = "leaves"
    """m: trajectories are extracted and trained on."""
    SQRT = "sqrt"
    """√m."""
    DRAWS = "draws"
    """G·Π m(c)/draws(parent) along the path: on-policy when selection ignores rewards."""


@dataclass(frozen=True, slots=True)
class Method(Estimation):
    """The settings that sampler and credit share: table `[learner.method]`. Either may state its own."""

    lam: Annotated[float, "λ: how much of the local advantage A_IB is added to A_GL; 0: none"] = 0.1

    def __post_init__(self) -> None:
        Estimation.__post_init__(self)
        if not 0 <= self.lam < math.inf:
            raise ValueError(f"lam is not negative: {self.lam}")


@dataclass(frozen=True, slots=True)
class Credit(Method):
    """A-3, with its switches: A(s) = A_GL(s) + λ·A_IB(s).

    When all rewards are equal there is no A_GL; nothing is learnt then, unless `ib_on_ties` leaves A_IB alone.
    """

    global_term: Annotated[GlobalTerm, "A_GL: what a node, or a trajectory, is compared with"] = GlobalTerm.NODES
    prior: Annotated[Prior, "Whose confidence in a step is π in A-2"] = Prior.SAMPLING
    ib_on_ties: Annotated[bool, "Learn from λ·A_IB alone where all rewards of a tree are equal"] = False
    std: Annotated[Deviation, "Which standard deviation of the rewards divides A_GL"] = Deviation.POPULATION
    node_weight: Annotated[NodeWeight, "The weight of a node on m of a tree's trajectories"] = NodeWeight.LEAVES
    epsilon: Annotated[float, "ε, added to the standard deviation of the rewards"] = 1e-6

    def __post_init__(self) -> None:
        Method.__post_init__(self)
        if not 0 <= self.epsilon < math.inf:
            raise ValueError(f"epsilon is not negative: {self.epsilon}")

    @classmethod
    def by_name(cls, name: str, method: Method = Method()) -> "Credit":
        """The credit of a published method, by its name; what the name does not say is as in `method`."""
        if name not in _NAMED:
            raise ValueError(f"no credit is named {name!r}: choose from {', '.join(_NAMED)}")
        return cls(**(asdict(method) | _NAMED[name]))

    @property
    def name(self) -> str:
        """The name of the published method that has these switches; "custom" where none has."""
        method = Method(**{field.name: getattr(self, field.name) for field in fields(Method)})
        return next((name for name in _NAMED if Credit.by_name(name, method) == self), "custom")


_NAMED: dict[str, dict[str, Any]] = {
    "ibtpo": {},
    "grpo": {"global_term": GlobalTerm.GRPO, "lam": 0.0},
    "dr-grpo": {"global_term": GlobalTerm.DR_GRPO, "lam": 0.0},
    "treerl": {"global_term": GlobalTerm.TREERL, "lam": 0.0},
}


def has_signal(rewards: Sequence[float], credit: Credit) -> bool:
    """Whether something can be learnt from the tree: its rewards differ or, with `ib_on_ties`, it has any."""
    return rewards_differ(rewards) or (credit.ib_on_ties and bool(rewards))


@dataclass(frozen=True, slots=True)
class Advantages:
    """A(s) of every node (A-3), and its part A_GL(s); both are 0 at the root."""

    total: tuple[float, ...]
    global_part: tuple[float, ...]


def advantages(
    tree: Tree, credit: Credit, reference: Sequence[float] | None = None, shaped: Tree | None = None
) -> Advantages:
    """A(s) of every node; the mean over its trajectories where the global term is of these.

    `reference` are the nodes' confidences under the reference policy: `confidences` of its log-probabilities. `shaped`
    is the tree with the rewards that A_GL compares, where they are not the verdicts'.
    """
    shaped = shaped or tree
    zeros = (0.0,) * len(tree.nodes)
    if not (shaped.is_mixed or (credit.ib_on_ties and tree.rewards)):
        return Advantages(zeros, zeros)
    global_ = _global_advantages(shaped, credit) if shaped.is_mixed else zeros
    if credit.lam == 0:
        return Advantages(global_, global_)
    local = _ib_advantages(tree, credit, reference)
    total = (0.0, *[a + credit.lam * b for a, b in zip(global_[1:], local[1:], strict=True)])
    return Advantages(total, global_)


def path_advantages(tree: Tree, credit: Credit, of_node: Sequence[float]) -> tuple[tuple[float, ...], ...]:
    """Of every draw, the advantage of its trajectory at each node of its path; nothing when it does not count.

    `of_node` is the total of `advantages`; the tree is `shaped`, if that was given there.
    """
    paths = [tree.path(draw_id) for draw_id in range(len(tree.draws))]
    if not (credit.global_term.is_of_trajectories and tree.is_mixed):
        return tuple(tuple(of_node[node_id] for node_id in path) for path in paths)
    means, scale = node_values(tree, ValueEstimator.COUNTS), _scale(tree, credit)
    return tuple(
        tuple(of_node[node_id] + ((reward or 0.0) - means[node_id]) / scale for node_id in path)
        for reward, path in zip(tree.reward_of_draw, paths, strict=True)
    )


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
    """w(root) = G, w(c) = w(parent)·m(c)/draws(parent)."""
    weights = [float(tree.nodes[0].num_leaves)]
    for node, parent in zip(tree.nodes[1:], tree.parents[1:], strict=True):
        weights.append(weights[parent] * node.multiplicity / tree.nodes[parent].num_draws)
    return tuple(weights)


def _global_advantages(tree: Tree, credit: Credit) -> tuple[float, ...]:
    """A-1, or a baseline in its place. Over the trajectories through s, the mean of R − mean is V1(s) − V1(root)."""
    match credit.global_term:
        case GlobalTerm.TREERL:
            return _treerl_advantages(tree)
        case GlobalTerm.NODES:
            values = node_values(tree, credit.values, credit.kappa)
        case GlobalTerm.GRPO | GlobalTerm.DR_GRPO:
            values = node_values(tree, ValueEstimator.COUNTS)
    scale = _scale(tree, credit)
    return tuple((value - values[0]) / scale for value in values)


def _scale(tree: Tree, credit: Credit) -> float:
    """std({R}) + ε; 1 where a term is not scaled."""
    if credit.global_term is GlobalTerm.DR_GRPO:
        return 1.0
    return credit.std.of(tree.rewards) + credit.epsilon


def _treerl_advantages(tree: Tree) -> tuple[float, ...]:
    """TreeRL's nodes run from fork to fork: the steps between two forks have the same leaves, and one advantage.

    R_i less the mean of the others is N/(N − 1)·(R_i − mean), so V(root) = 0.
    """
    num_leaves = tree.nodes[0].num_leaves
    counts = node_values(tree, ValueEstimator.COUNTS)
    v = [num_leaves / (num_leaves - 1) * (value - counts[0]) for value in counts]
    v_parent = [0.0]
    for node, parent in zip(tree.nodes[1:], tree.parents[1:], strict=True):
        is_same = node.num_leaves == tree.nodes[parent].num_leaves
        v_parent.append(v_parent[parent] if is_same else v[parent])
    return tuple(
        ((v_s - v[0]) + (v_s - v_above)) / math.sqrt(node.num_leaves)
        for v_s, v_above, node in zip(v, v_parent, tree.nodes, strict=True)
    )


def _ib_advantages(tree: Tree, credit: Credit, reference: Sequence[float] | None) -> list[float]:
    """A-2: A_IB(s) = (p̂(s)/p̂(parent) − (1 + 1/β))·π(s)."""
    if credit.prior is Prior.SAMPLING:
        pi: Sequence[float] = confidences(tree, credit.confidence)
    elif reference is not None:
        pi = reference
    else:
        raise ValueError("prior is the reference policy, whose confidences are missing: give `reference`")
    ratios = value_ratios(tree, node_values(tree, credit.values, credit.kappa))
    return [eta1 * pi_s for eta1, pi_s in zip(etas1(ratios, credit.beta), pi, strict=True)]
