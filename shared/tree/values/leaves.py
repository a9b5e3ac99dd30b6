"""Values from the rewards of the leaves: V1, V2 and V3."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from shared.tree.node import Tree
from shared.tree.values.estimator import ValueEstimator


@dataclass(frozen=True, slots=True)
class Counts(ValueEstimator):
    """V1: right leaves under s / leaves under s."""

    def values(self, tree: Tree) -> Sequence[float]:
        return counts(tree)


COUNTS = Counts()


@dataclass(frozen=True, slots=True)
class Backup(ValueEstimator):
    """V2: a leaf's reward; elsewhere the mean, over the draws that continue s, of their values."""

    def values(self, tree: Tree) -> Sequence[float]:
        return backup(tree)


BACKUP = Backup()


@dataclass(frozen=True, slots=True)
class Shrunk(ValueEstimator):
    """V3: V2 pulled to the parent's value, the more the fewer leaves are under s."""

    kappa: Annotated[float, "κ: how strongly a value is pulled to its parent's"] = 2.0

    def __post_init__(self) -> None:
        if not 0 <= self.kappa < math.inf:
            raise ValueError(f"kappa is not negative: {self.kappa}")

    def values(self, tree: Tree) -> Sequence[float]:
        return _shrunk(tree, self.kappa)


def root_value(tree: Tree, num_first: int) -> float | None:
    """p̂(q) as reported: the mean reward of those of the first `num_first` draws that count; None without any."""
    rewards = [reward for draw in tree.draws[:num_first] if (reward := draw.counted_reward) is not None]
    return sum(rewards) / len(rewards) if rewards else None


def counts(tree: Tree) -> tuple[float, ...]:
    """V1: p̂(s) = Σ R / number, over the leaves under s."""
    rewards = [0.0 if node.reward is None else node.reward * node.multiplicity for node in tree.nodes]
    for node_id in range(len(rewards) - 1, 0, -1):
        rewards[tree.parents[node_id]] += rewards[node_id]
    return tuple(total / node.num_leaves for total, node in zip(rewards, tree.nodes, strict=True))


def backup(tree: Tree) -> list[float]:
    """V2: p̂(leaf) = R, p̂(s) = 1/n Σ_c p̂(c)."""
    totals = [0.0] * len(tree.nodes)
    values = list(totals)
    for node_id in range(len(values) - 1, -1, -1):
        node = tree.nodes[node_id]
        values[node_id] = value = totals[node_id] / node.num_draws if node.reward is None else node.reward
        totals[tree.parents[node_id]] += node.multiplicity * value
    return values


def _shrunk(tree: Tree, kappa: float) -> tuple[float, ...]:
    """V3: p̃(s) = (n·p̂(s) + κ·p̃(parent)) / (n + κ), n leaves under s, from p̃(root) = p̂(root) down."""
    values = backup(tree)
    for node_id in range(1, len(values)):
        n, above = tree.nodes[node_id].num_leaves, values[tree.parents[node_id]]
        values[node_id] = (n * values[node_id] + kappa * above) / (n + kappa)
    return tuple(values)
