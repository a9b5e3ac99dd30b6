"""Builds the tree of a record of draws, as a flat tuple of nodes."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple, TypeAlias, TypeVar

from shared.tree.cutting import node_ends
from shared.tree.draw import Draw, WeightVersion, rewards_differ

T = TypeVar("T")


class Node(NamedTuple):
    """A segment [start, end) of the trajectories through it, in positions from the prompt's end.

    A tuple, because every decision makes hundreds of them. The root, node 0, is the prompt: empty, and of no draw.
    """

    parent: int | None
    children: tuple[int, ...]
    draw: int | None
    """The draw that sampled its last token; the first of them where equal ones are merged. Tokens before that draw's
    cut are of the unjudged draws that it continues."""
    start: int
    end: int
    multiplicity: int
    """m: how many of its parent's draws produced it; 1 unless merged."""
    num_draws: int
    """n: how many draws continue it, Σ m over its children; 0 at a leaf."""
    num_leaves: int
    """How many trajectories run through it or, at a leaf, end there."""
    reward: float | None
    """A leaf's R, the mean over the trajectories that end there; None elsewhere."""


@dataclass(frozen=True, slots=True)
class Tree:
    """Draws and their nodes: parents before children, a node's id is its index.

    A forward pass goes from parents to children, a backward pass from children to parents. `parents` has the parent of
    every node and, so that no pass needs an exception, the root as its own parent.
    """

    draws: tuple[Draw, ...]
    nodes: tuple[Node, ...]
    parents: tuple[int, ...]
    leaf_of_draw: tuple[int | None, ...]
    """None for a draw that does not count."""
    reward_of_draw: tuple[float | None, ...]
    """R of its trajectory; None for a draw that does not count."""
    priors: tuple[float, ...] | None = None
    """What a value head says of every node, by node id (V4); None: nothing, as on every replica."""

    @property
    def rewards(self) -> tuple[float, ...]:
        """{R}: the rewards of the trajectories that count, in the order of their draws."""
        return tuple(reward for reward in self.reward_of_draw if reward is not None)

    @property
    def is_mixed(self) -> bool:
        """Whether rewards differ: only then do they show what was better."""
        return rewards_differ(self.rewards)

    def with_rewards(self, reward_of_draw: Sequence[float | None]) -> "Tree":
        """The same tree with other rewards, of any size, of the draws that count."""
        of_leaf = _leaf_rewards(reward_of_draw, self.leaf_of_draw, [node.multiplicity for node in self.nodes])
        nodes = tuple(node._replace(reward=reward) for node, reward in zip(self.nodes, of_leaf, strict=True))
        return replace(self, nodes=nodes, reward_of_draw=tuple(reward_of_draw))

    def path(self, draw_id: int) -> tuple[int, ...]:
        """The nodes of a draw's trajectory, from below the root to its leaf; none when it does not count."""
        path: list[int] = []
        node_id = self.leaf_of_draw[draw_id] or 0
        while node_id:
            path.append(node_id)
            node_id = self.parents[node_id]
        return tuple(reversed(path))

    def token_ids(self, node_id: int) -> tuple[int, ...]:
        """The node's tokens; none at the root."""
        node = self.nodes[node_id]
        if node.draw is None:
            return ()
        return _segment(self.draws, node.draw, node.start, node.end, lambda draw: draw.token_ids)

    def mean_over_draws(self, of_node: Sequence[float]) -> tuple[float | None, ...]:
        """1/n Σ_c x(c) of every node, over the n draws c that continue it; None at leaves."""
        totals = [0.0] * len(self.nodes)
        for node, parent, x in zip(self.nodes[1:], self.parents[1:], of_node[1:], strict=True):
            totals[parent] += node.multiplicity * x
        return tuple(
            total / node.num_draws if node.num_draws else None for node, total in zip(self.nodes, totals, strict=True)
        )


def build_tree(draws: Sequence[Draw], merge: bool = False) -> Tree:
    """The tree of `draws`, in their order of growth. Draws without a verdict are excluded from all nodes.

    Every draw is its own path. With `merge`, children of a node with equal tokens of equal policy versions are one
    node, whose multiplicity counts the draws that produced it.
    """
    columns = _Columns(tuple(draws), node_ends(draws, merge), merge)
    for draw_id in range(len(draws)):
        columns.add(draw_id)
    return columns.tree()


class _Columns:
    """The columns of a tree's nodes while draws are added, one after the other."""

    def __init__(self, draws: tuple[Draw, ...], ends_of_draw: list[list[int]], merge: bool) -> None:
        self._draws = draws
        self._ends_of_draw = ends_of_draw
        self._merge = merge
        self._nodes_of_draw: list[list[int]] = []
        self._fork_of_draw: list[int] = []
        self._parents = [0]
        self._children: list[list[int]] = [[]]
        self._draw_ids: list[int | None] = [None]
        self._starts = [0]
        self._ends = [0]
        self._multiplicities = [1]

    def add(self, draw_id: int) -> None:
        """Adds a draw below the node where it forks: along equal nodes as far as they go, then as new nodes."""
        ends = self._ends_of_draw[draw_id]
        fork = self._fork(self._draws[draw_id])
        positions = [self._ends[fork], *ends]
        path = [fork]
        if self._merge:
            self._follow_equal(path, draw_id, positions)
        equal = path[1:]
        for node in equal:
            self._multiplicities[node] += 1
        chain = self._chain(path[-1], draw_id, positions[len(equal) :])
        self._fork_of_draw.append(fork)
        self._nodes_of_draw.append([*equal, *chain])

    def _fork(self, draw: Draw) -> int:
        """The node after which the draw's first one comes: it ends where the draw starts, or before, where the draw
        alone continues an unjudged one."""
        if draw.parent is None:
            return 0
        count = bisect_right(self._ends_of_draw[draw.parent], draw.cut)
        return self._nodes_of_draw[draw.parent][count - 1] if count else self._fork_of_draw[draw.parent]

    def _chain(self, above: int, draw_id: int, positions: list[int]) -> range:
        """Adds nodes of the draw in a row, the first below `above`, each from one position to the next."""
        chain = range(len(self._parents), len(self._parents) + len(positions) - 1)
        if chain:
            self._children[above].append(chain[0])
            self._children += [[node] for node in chain[1:]] + [[]]
        self._parents += [above, *chain][:-1]
        self._draw_ids += [draw_id] * len(chain)
        self._starts += positions[:-1]
        self._ends += positions[1:]
        self._multiplicities += [1] * len(chain)
        return chain

    def _follow_equal(self, path: list[int], draw_id: int, positions: list[int]) -> None:
        """Extends the path by the nodes below it that equal the draw's first segments."""
        for start, end in pairwise(positions):
            equal = (child for child in self._children[path[-1]] if self._equals(child, draw_id, start, end))
            if (node := next(equal, None)) is None:
                return
            path.append(node)

    def _equals(self, node: int, draw_id: int, start: int, end: int) -> bool:
        """Whether the node equals the draw's segment [start, end)."""
        other_id = self._draw_ids[node]
        if other_id is None or self._ends[node] != end:
            return False
        return _content(self._draws, other_id, start, end) == _content(self._draws, draw_id, start, end)

    def tree(self) -> Tree:
        """The finished tree: counts are summed from children to parents."""
        parents, multiplicities = self._parents, self._multiplicities
        num_draws, num_leaves = [0] * len(parents), [0] * len(parents)
        for node in range(len(parents) - 1, 0, -1):
            num_leaves[node] = num_leaves[node] or multiplicities[node]
            num_leaves[parents[node]] += num_leaves[node]
            num_draws[parents[node]] += multiplicities[node]
        leaf_of_draw = self._leaf_of_draw()
        reward_of_draw = tuple(draw.counted_reward for draw in self._draws)
        columns = (
            (None, *parents[1:]),
            map(tuple, self._children),
            self._draw_ids,
            self._starts,
            self._ends,
            multiplicities,
            num_draws,
            num_leaves,
            _leaf_rewards(reward_of_draw, leaf_of_draw, multiplicities),
        )
        nodes = tuple(map(Node._make, zip(*columns, strict=True)))
        return Tree(self._draws, nodes, tuple(parents), leaf_of_draw, reward_of_draw)

    def _leaf_of_draw(self) -> tuple[int | None, ...]:
        return tuple(
            None if draw.counted_reward is None else nodes[-1]
            for draw, nodes in zip(self._draws, self._nodes_of_draw, strict=True)
        )


def _leaf_rewards(
    reward_of_draw: Sequence[float | None], leaf_of_draw: Sequence[int | None], multiplicities: Sequence[int]
) -> list[float | None]:
    """Of every leaf, the mean reward of the draws that end there; None of other nodes."""
    rewards: list[float | None] = [None] * len(multiplicities)
    for reward, leaf in zip(reward_of_draw, leaf_of_draw, strict=True):
        if leaf is not None:
            rewards[leaf] = (rewards[leaf] or 0.0) + (reward or 0.0) / multiplicities[leaf]
    return rewards


_Content: TypeAlias = tuple[tuple[int, ...], tuple[WeightVersion | None, ...], bool]


def _content(draws: Sequence[Draw], draw_id: int, start: int, end: int) -> _Content:
    """What equal segments have in common: tokens, the version that sampled each, and whether the draw ends there."""
    token_ids = _segment(draws, draw_id, start, end, lambda draw: draw.token_ids)
    return token_ids, _segment(draws, draw_id, start, end, _version_of_tokens), end == draws[draw_id].end


def _version_of_tokens(draw: Draw) -> tuple[WeightVersion | None, ...]:
    """None of tokens that were given: no weights sampled them."""
    versions = (span.version for span in draw.spans for _ in range(span.start, span.end))
    return tuple(version if sampled else None for version, sampled in zip(versions, draw.is_sampled, strict=True))


def _segment(
    draws: Sequence[Draw], draw_id: int, start: int, end: int, of_new_tokens: Callable[[Draw], tuple[T, ...]]
) -> tuple[T, ...]:
    """Positions [start, end) of the draw's trajectory, of something that each draw has for its new tokens."""
    parts: list[tuple[T, ...]] = []
    at: int | None = draw_id
    while at is not None:
        draw = draws[at]
        parts.append(of_new_tokens(draw)[max(0, start - draw.cut) : end - draw.cut])
        at, end = (draw.parent, draw.cut) if start < draw.cut else (None, start)
    return parts[0] if len(parts) == 1 else tuple(value for part in reversed(parts) for value in part)
