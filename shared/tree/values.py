"""The value p̂(s) of a node: an estimate of the probability that an answer through it is right."""

from enum import StrEnum

from shared.tree.node import Tree


class ValueEstimator(StrEnum):
    """How p̂(s) is estimated (METHOD, Value of a node). None is unbiased when rewards decide where to branch."""

    COUNTS = "counts"
    """V1: right leaves under s / leaves under s."""
    BACKUP = "backup"
    """V2: a leaf's reward; elsewhere the mean over the node's draws of their values."""
    SHRUNK = "shrunk"
    """V3: V2, pulled to the parent where few leaves are under s."""


def node_values(tree: Tree, estimator: ValueEstimator, kappa: float = 2.0) -> tuple[float, ...]:
    """p̂(s) of every node. A tree in which no draw counts has only a root, of value 0."""
    match estimator:
        case ValueEstimator.COUNTS:
            return _counts(tree)
        case ValueEstimator.BACKUP:
            return _backup(tree)
        case ValueEstimator.SHRUNK:
            return _shrunk(tree, kappa)


def root_value(tree: Tree, num_first: int) -> float | None:
    """The mean reward of the first `num_first` draws that count: unbiased, whatever the sampler did after them."""
    rewards = [reward for draw in tree.draws[:num_first] if (reward := draw.counted_reward) is not None]
    return sum(rewards) / len(rewards) if rewards else None


def _counts(tree: Tree) -> tuple[float, ...]:
    """V1: Σ R over the leaves under s / their number."""
    rewards = [0.0] * len(tree.nodes)
    for node_id in range(len(tree.nodes) - 1, 0, -1):
        node = tree.nodes[node_id]
        if node.reward is not None:
            rewards[node_id] = node.reward * node.multiplicity
        rewards[node.parent or 0] += rewards[node_id]
    return tuple(total / (node.num_leaves or 1) for total, node in zip(rewards, tree.nodes, strict=True))


def _backup(tree: Tree) -> tuple[float, ...]:
    """V2: p̂(leaf) = R, p̂(s) = Σ m(c)·p̂(c) / Σ m(c)."""
    values = [0.0] * len(tree.nodes)
    for node_id in range(len(tree.nodes) - 1, -1, -1):
        node = tree.nodes[node_id]
        values[node_id] = value = node.reward if node.reward is not None else values[node_id] / (node.num_draws or 1)
        if node.parent is not None:
            values[node.parent] += node.multiplicity * value
    return tuple(values)


def _shrunk(tree: Tree, kappa: float) -> tuple[float, ...]:
    """V3: p̃(root) = p̂(root), p̃(s) = (n·p̂(s) + κ·p̃(parent)) / (n + κ) with n leaves under s."""
    values = list(_backup(tree))
    for node_id in range(1, len(tree.nodes)):
        node = tree.nodes[node_id]
        above = values[node.parent or 0]
        values[node_id] = (node.num_leaves * values[node_id] + kappa * above) / (node.num_leaves + kappa)
    return tuple(values)
