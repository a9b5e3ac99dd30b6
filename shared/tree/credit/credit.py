"""What a credit is: it turns a tree's rewards into the advantage with which each node's tokens are trained."""

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, NamedTuple, Protocol

from shared.tree.draw import rewards_differ
from shared.tree.node import Tree

UNIT_SCALE = (0.0, 1.0)
NODE_WEIGHT = "The weight of a node on m of a tree's trajectories"


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
    ONE = "one"
    """1: every distinct node counts once."""


@dataclass(frozen=True, slots=True)
class Advantages:
    """A(s) of every node, by node id; 0 at the root."""

    of_nodes: tuple[float, ...]
    """Where trajectories that share a node give it different advantages, their mean."""
    global_part: tuple[float, ...] | None = None
    """The part of it that compares whole answers, A_GL (A-3); None: all of it."""
    of_paths: tuple[tuple[float, ...], ...] | None = None
    """Of every draw, the advantage of its trajectory at each node of its path, where trajectories differ in it."""

    def on_paths(self, tree: Tree) -> tuple[tuple[float, ...], ...]:
        """Of every draw, the advantage of its trajectory at each node of its path; nothing when it does not count."""
        if self.of_paths is not None:
            return self.of_paths
        return tuple(
            tuple(self.of_nodes[node_id] for node_id in tree.path(draw_id)) for draw_id in range(len(tree.draws))
        )

    @classmethod
    def of_trajectories(cls, tree: Tree, of_draws: Sequence[float | None]) -> "Advantages":
        """Those of whole trajectories, by draw: the same at every node of a path; None where a draw does not count."""
        totals = [0.0] * len(tree.nodes)
        paths = []
        for draw_id, advantage in enumerate(of_draws):
            path = tree.path(draw_id)
            paths.append((advantage or 0.0,) * len(path))
            for node_id in path:
                totals[node_id] += advantage or 0.0
        nodes = zip(totals[1:], tree.nodes[1:], strict=True)
        return cls((0.0, *(total / node.num_leaves for total, node in nodes)), of_paths=tuple(paths))


class SideInformation(NamedTuple):
    """What a credit may look at beside the tree."""

    judged: Tree | None = None
    """The tree with the verifier's rewards, where the tree itself has others (overlong answers); None: the same."""
    reference_logprobs: Sequence[Sequence[float]] | None = None
    """log π_ref of every draw's new tokens, for a credit that `reads_reference`."""
    num_first: int | None = None
    """B₀: how many draws the record begins with, made before anything was chosen by rewards; None: not known."""


NOTHING_MORE = SideInformation()


class Credit(Protocol):
    """Assigns credit to the nodes of a tree.

    One of your own is a frozen dataclass that subclasses this; its fields are its settings.
    """

    node_weight: NodeWeight = NodeWeight.LEAVES
    """The weight of a node on m of a tree's trajectories."""
    reads_reference: bool = False
    """Whether it needs the log-probabilities of the first model."""
    compares_steps: bool = False
    """Whether `step_scale` gives more than (0, 1)."""

    @abstractmethod
    def advantages(self, tree: Tree, side: SideInformation = NOTHING_MORE) -> Advantages:
        """A(s) of every node of a tree that `has_signal`."""

    def has_signal(self, rewards: Sequence[float]) -> bool:
        """Whether something can be learnt from a tree with these rewards: here, if they differ."""
        return rewards_differ(rewards)

    def weights(self, tree: Tree, advantages: Advantages) -> Sequence[float]:
        """The weight of every node, over all trajectories through it; nodes of weight 0 are not trained on."""
        return node_weights(tree, self.node_weight)

    def step_scale(self, rewards: Sequence[float], advantages: Mapping[float, float]) -> tuple[float, float]:
        """Of all trees of a step: what is taken off every advantage, and what then divides it.

        `rewards` are those of all trajectories; `advantages` says how many tokens have each, counted by the weights of
        their nodes: with `leaves` once for each of a token's trajectories, with `one` once.
        """
        return UNIT_SCALE


@dataclass(frozen=True, slots=True)
class NormalizedCredit(Credit):
    """A credit that divides by std({R}) + ε."""

    std: Annotated[Deviation, "Which standard deviation of the rewards divides the advantage"] = Deviation.POPULATION
    epsilon: Annotated[float, "ε, added to the standard deviation of the rewards"] = 1e-6
    node_weight: Annotated[NodeWeight, NODE_WEIGHT] = NodeWeight.LEAVES

    def __post_init__(self) -> None:
        check_epsilon(self.epsilon)

    def scale(self, rewards: Sequence[float]) -> float:
        """std({R}) + ε."""
        return self.std.of(rewards) + self.epsilon


def assign_advantages(credit: Credit, tree: Tree, side: SideInformation = NOTHING_MORE) -> Advantages:
    """What the credit makes of the tree; zeros where it has no signal. ValueError unless every node, and every node of
    every path, gets one number."""
    if not credit.has_signal(tree.rewards):
        return Advantages((0.0,) * len(tree.nodes))
    found = credit.advantages(tree, side)
    if not isinstance(found, Advantages):
        raise ValueError(f"a credit gives Advantages(of_nodes), not {found!r:.80}")
    if not isinstance(found.of_nodes, Sized):
        raise ValueError(f"a credit gives a sequence of one advantage for each node, not {found.of_nodes!r:.80}")
    if len(found.of_nodes) != len(tree.nodes):
        raise ValueError(
            f"{len(found.of_nodes)} advantages for {len(tree.nodes)} nodes: a credit gives one for each node"
        )
    if found.of_paths is not None:
        given, due = [*map(len, found.of_paths)], [len(tree.path(draw_id)) for draw_id in range(len(tree.draws))]
        if given != due:
            raise ValueError(f"{given} advantages for paths of {due} nodes: a credit gives one for each node of a path")
    return found


def check_epsilon(epsilon: float) -> None:
    """ValueError for what no deviation can be given."""
    if not 0 <= epsilon < math.inf:
        raise ValueError(f"epsilon is not negative: {epsilon}")


def whiten(advantages: Mapping[float, float]) -> tuple[float, float]:
    """A-w: the mean of the advantages, and √(variance + 1e-8), each counted as often as it occurs, over n − 1."""
    count = sum(advantages.values())
    if count < 2:
        return UNIT_SCALE
    mean = math.fsum(a * n for a, n in advantages.items()) / count
    variance = math.fsum((a - mean) ** 2 * n for a, n in advantages.items()) / (count - 1)
    return mean, math.sqrt(variance + 1e-8)


def node_weights(tree: Tree, kind: NodeWeight) -> tuple[float, ...]:
    """The weight of every node."""
    match kind:
        case NodeWeight.LEAVES:
            return tuple(float(node.num_leaves) for node in tree.nodes)
        case NodeWeight.SQRT:
            return tuple(math.sqrt(node.num_leaves) for node in tree.nodes)
        case NodeWeight.DRAWS:
            return _draw_weights(tree)
        case NodeWeight.ONE:
            return (1.0,) * len(tree.nodes)


def _draw_weights(tree: Tree) -> tuple[float, ...]:
    """w(root) = G, w(c) = w(parent)·m(c)/draws(parent)."""
    weights = [float(tree.nodes[0].num_leaves)]
    for node, parent in zip(tree.nodes[1:], tree.parents[1:], strict=True):
        weights.append(weights[parent] * node.multiplicity / tree.nodes[parent].num_draws)
    return tuple(weights)
