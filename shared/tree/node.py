"""The tree that a record of draws spans: its draws, cut at step ends and fork points into nodes."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from shared.tree.draw import Draw, VersionSpan


class Node(NamedTuple):
    """A segment [start, end) of the trajectories that run through it, in positions from the prompt's end.

    A tuple, because a decision builds hundreds. The root (id 0) is the prompt: empty, of no draw.
    """

    parent: int | None
    children: tuple[int, ...]
    draw: int | None
    """The draw that sampled its tokens, the first of them when equal draws are merged."""
    start: int
    end: int
    multiplicity: int
    """m: how many of its parent's draws produced it; 1 unless merged."""
    num_draws: int
    """n: how many draws continue it, Σ m over its children; 0 at a leaf."""
    num_leaves: int
    """How many trajectories run through it (or, at a leaf, end there)."""
    reward: float | None
    """A leaf's reward, the mean over the trajectories that end there."""


@dataclass(frozen=True, slots=True)
class Tree:
    """Draws and the nodes they span: parents before children, a node's id its index, the root first.

    A node exists where a draw that counts runs through it; `leaf_of_draw` is None for the others.
    """

    draws: tuple[Draw, ...]
    nodes: tuple[Node, ...]
    leaf_of_draw: tuple[int | None, ...]

    @property
    def leaves(self) -> tuple[int, ...]:
        """The ids of the nodes that carry a reward."""
        return tuple(node_id for node_id, node in enumerate(self.nodes) if node.reward is not None)

    @property
    def rewards(self) -> tuple[float, ...]:
        """The rewards of all trajectories that count, in the order of their draws."""
        return tuple(reward for draw in self.draws if (reward := draw.counted_reward) is not None)

    @property
    def is_mixed(self) -> bool:
        """Whether its rewards are not all equal: only then do they say what was better."""
        return len(set(self.rewards)) > 1

    def path(self, draw_id: int) -> tuple[int, ...]:
        """The nodes of a draw's trajectory from the root (exclusive) to its leaf; empty when it does not count."""
        path: list[int] = []
        node_id = self.leaf_of_draw[draw_id]
        while node_id:
            path.append(node_id)
            node_id = self.nodes[node_id].parent
        return tuple(reversed(path))

    def token_ids(self, node_id: int) -> tuple[int, ...]:
        """The node's tokens."""
        node = self.nodes[node_id]
        if node.draw is None:
            return ()
        draw = self.draws[node.draw]
        return draw.token_ids[node.start - draw.cut : node.end - draw.cut]

    def logprobs(self, node_id: int) -> tuple[float, ...]:
        """The log-probabilities of the node's tokens, as sampled."""
        node = self.nodes[node_id]
        if node.draw is None:
            return ()
        draw = self.draws[node.draw]
        return draw.logprobs[node.start - draw.cut : node.end - draw.cut]


def trajectory(draws: Sequence[Draw], draw_id: int) -> tuple[int, ...]:
    """The token ids of a draw's trajectory, from the prompt's end to its own."""
    draw = draws[draw_id]
    if draw.parent is None:
        return draw.token_ids
    return trajectory(draws, draw.parent)[: draw.cut] + draw.token_ids


def build_tree(draws: Sequence[Draw], merge: bool = False) -> Tree:
    """The tree of `draws` (METHOD, Words). Draws without a verdict are in no statistic, hence in no node.

    With `merge`, children of a node with equal tokens of equal policy versions are one node.
    """
    growth = _Growth(tuple(draws), merge)
    for draw_id, ends in enumerate(_node_ends(draws, merge)):
        growth.add(draw_id, ends)
    return growth.tree()


class _Growth:
    """The columns of a tree's nodes while its draws are added."""

    def __init__(self, draws: tuple[Draw, ...], merge: bool) -> None:
        self.draws = draws
        self.merge = merge
        self.parents: list[int] = [-1]
        self.draw_of: list[int | None] = [None]
        self.starts = [0]
        self.ends = [0]
        self.multiplicities = [1]
        self.node_at: dict[tuple[int | None, int], int] = {(None, 0): 0}
        self.child_of: dict[object, int] = {}
        self.leaf_of_draw: list[int | None] = []

    def add(self, draw_id: int, ends: Sequence[int]) -> None:
        """Lays the draw's segments, which end at `ends`, below the node that it forks from."""
        draw = self.draws[draw_id]
        start = draw.cut
        at = self.node_at[draw.parent, start] if ends else 0
        for end in ends:
            at = self._merged(at, draw, start, end) or self._new(at, draw_id, start, end)
            self.node_at[draw_id, end] = at
            start = end
        self.leaf_of_draw.append(at if draw.counted_reward is not None else None)

    def _new(self, parent: int, draw_id: int, start: int, end: int) -> int:
        self.parents.append(parent)
        self.draw_of.append(draw_id)
        self.starts.append(start)
        self.ends.append(end)
        self.multiplicities.append(1)
        return len(self.parents) - 1

    def _merged(self, parent: int, draw: Draw, start: int, end: int) -> int:
        """The child of `parent` that equals the segment, one draw heavier; 0 when there is none."""
        if not self.merge:
            return 0
        first, last = start - draw.cut, end - draw.cut
        key = (parent, draw.token_ids[first:last], tuple(_versions(draw.spans, first, last)), end == draw.end)
        node = self.child_of.setdefault(key, len(self.parents))
        if node == len(self.parents):
            return 0
        self.multiplicities[node] += 1
        return node

    def tree(self) -> Tree:
        """The finished tree: what is known of children now goes up to their parents."""
        parents, multiplicities = self.parents, self.multiplicities
        size = len(parents)
        children: list[list[int]] = [[] for _ in range(size)]
        num_draws, num_leaves = [0] * size, [0] * size
        rewards = self._rewards()
        for node in range(1, size):
            children[parents[node]].append(node)
        for node in range(size - 1, 0, -1):
            parent = parents[node]
            num_leaves[node] = num_leaves[node] or multiplicities[node]
            num_draws[parent] += multiplicities[node]
            num_leaves[parent] += num_leaves[node]
        columns = zip(
            (None, *parents[1:]),
            map(tuple, children),
            self.draw_of,
            self.starts,
            self.ends,
            multiplicities,
            num_draws,
            num_leaves,
            rewards,
            strict=True,
        )
        return Tree(self.draws, tuple(map(Node._make, columns)), tuple(self.leaf_of_draw))

    def _rewards(self) -> list[float | None]:
        totals: list[float | None] = [None] * len(self.parents)
        for draw, leaf in zip(self.draws, self.leaf_of_draw, strict=True):
            if leaf is not None and (reward := draw.counted_reward) is not None:
                totals[leaf] = (totals[leaf] or 0.0) + reward / self.multiplicities[leaf]
        return totals


def _node_ends(draws: Sequence[Draw], merge: bool) -> list[list[int]]:
    """Where the nodes of each draw end: at its step ends, and where a draw that counts (or leads to one) forks."""
    forks: list[set[int]] = [set() for _ in draws]
    for draw_id in range(len(draws) - 1, -1, -1):
        draw = draws[draw_id]
        counts = draw.counted_reward is not None or bool(forks[draw_id])
        if counts and draw.parent is not None:
            _check_fork(draws, draw_id)
            forks[draw.parent].add(draw.cut)
    if merge:
        _share_forks(draws, forks)
    return [_ends_of(draw, cuts) for draw, cuts in zip(draws, forks, strict=True)]


def _ends_of(draw: Draw, forks: set[int]) -> list[int]:
    if draw.counted_reward is not None:
        return sorted(forks.union(draw.step_ends)) if forks else list(draw.step_ends)
    if not forks:
        return []
    last = max(forks)
    return sorted(forks.union(end for end in draw.step_ends if end < last))


def _check_fork(draws: Sequence[Draw], draw_id: int) -> None:
    draw = draws[draw_id]
    if draw.parent is None or not 0 <= draw.parent < draw_id:
        raise ValueError(f"draw {draw_id} must come after its parent, which is {draw.parent}")
    parent = draws[draw.parent]
    if not parent.cut < draw.cut < parent.end:
        raise ValueError(
            f"draw {draw_id} forks at {draw.cut}, outside ({parent.cut}, {parent.end}), what draw {draw.parent} sampled"
        )


def _share_forks(draws: Sequence[Draw], forks: list[set[int]]) -> None:
    """A fork inside a step cuts every trajectory that begins with the same tokens, so that equal ones stay equal."""
    inside = [(draw_id, cut) for draw_id, cuts in enumerate(forks) for cut in cuts - set(draws[draw_id].step_ends)]
    for forked, cut in inside:
        prefix = trajectory(draws, forked)[:cut]
        for draw_id, draw in enumerate(draws):
            if draw.cut < cut < draw.end and trajectory(draws, draw_id)[:cut] == prefix:
                forks[draw_id].add(cut)


def _versions(spans: Sequence[VersionSpan], first: int, last: int) -> Iterator[tuple[object, int]]:
    """The policy versions of the draw's new tokens [first, last), each with where it ends."""
    for span in spans[bisect_left(spans, first + 1, key=lambda span: span.end) :]:
        if span.start >= last:
            return
        yield span.version, min(span.end, last) - first
