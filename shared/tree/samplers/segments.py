"""Samplers that fork every path after the same numbers of tokens: TreeRPO's N-ary tree, and SPO's.

Their papers decode segment by segment. Draws that run to their end, and are forked afterwards, make the same trees:
where a path forks depends on nothing that comes after the fork (METHOD, Segments).
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import accumulate, islice, repeat
from operator import mul
from typing import Annotated, Self

from shared.tree.node import Tree
from shared.tree.samplers.sampler import Branch, Sampler, at_least, equal_shares

SEGMENT_TOKENS = "L: tokens of a segment; paths fork after L, 2L, …; 0: the token limit over the segments of a path"
WAYS = "In how many ways a path goes on: from the prompt, after L tokens, after 2L, …"
WIDTH = "Trajectories at which forking ends"


@dataclass(frozen=True, slots=True)
class TreeRPOSampler(Sampler):
    """TreeRPO's N-ary tree: every path that goes on after d·L tokens, 1 ≤ d < D, does so in N ways."""

    branching_factor: Annotated[int, "N: in how many ways a path goes on, from the prompt too"] = 4
    depth: Annotated[int, "D: segments of a path; the last one is as long as the answer"] = 3
    segment_tokens: Annotated[int, SEGMENT_TOKENS] = 512
    width: Annotated[int, WIDTH] = 64
    initial_draws: int = field(init=False)

    def __post_init__(self) -> None:
        at_least(0, segment_tokens=self.segment_tokens)
        at_least(1, depth=self.depth, width=self.width)
        at_least(2, branching_factor=self.branching_factor)
        object.__setattr__(self, "initial_draws", self.branching_factor)

    @property
    def num_draws(self) -> int:
        return _num_draws(repeat(self.branching_factor, self.depth), self.width)

    def expand(self, tree: Tree, round: int, rng: random.Random) -> tuple[Branch, ...]:
        if round >= self.depth:
            return ()
        return fork_all(tree, round * check_length(self.segment_tokens), self.branching_factor, self.width, rng)

    def for_answers(self, max_tokens: int) -> Self:
        return replace(self, segment_tokens=self.segment_tokens or share_out(max_tokens, self.depth))


@dataclass(frozen=True, slots=True)
class SPOTreeSampler(Sampler):
    """SPO's tree: a path goes on from the prompt in the first number of ways, after L tokens in the second, and so on;
    what comes after the last fork is as long as the answer."""

    branching_factors: Annotated[
        tuple[int, ...], "In how many ways a path goes on: from the prompt, after L, 2L, …"
    ] = (6,) * 3
    segment_tokens: Annotated[int, SEGMENT_TOKENS] = 600
    width: Annotated[int, WIDTH] = 216
    initial_draws: int = field(init=False)

    def __post_init__(self) -> None:
        at_least(0, segment_tokens=self.segment_tokens)
        at_least(1, width=self.width)
        if min(self.branching_factors[:1], default=0) < 1 or min(self.branching_factors[1:], default=2) < 2:
            raise ValueError(
                f"branching_factors: at least 1 from the prompt, then at least 2 each, not {self.branching_factors}"
            )
        object.__setattr__(self, "initial_draws", self.branching_factors[0])

    @property
    def num_draws(self) -> int:
        return _num_draws(self.branching_factors, self.width)

    def expand(self, tree: Tree, round: int, rng: random.Random) -> tuple[Branch, ...]:
        if round >= len(self.branching_factors):
            return ()
        return fork_all(tree, round * check_length(self.segment_tokens), self.branching_factors[round], self.width, rng)

    def for_answers(self, max_tokens: int) -> Self:
        return replace(self, segment_tokens=self.segment_tokens or share_out(max_tokens, len(self.branching_factors)))


def check_length(segment_tokens: int) -> int:
    """The length of a segment; ValueError while it is a share of a limit that nobody has named."""
    if segment_tokens == 0:
        raise ValueError(
            "segment_tokens = 0 is a share of the token limit: for_answers(max_tokens) gives the sampler it"
        )
    return segment_tokens


def share_out(max_tokens: int, num_segments: int) -> int:
    """The length of a segment, so that the longest answer has so many."""
    return -(-max_tokens // num_segments)


def _num_draws(factors: Iterable[int], width: int) -> int:
    """Their product, up to the width, which the first of them may exceed."""
    some = max(2, width.bit_length() + 1)  # each factor but the first doubles the product
    products: list[int] = [*islice(accumulate(factors, mul), some)]
    return min(products[-1], max(products[0], width))


def fork_all(tree: Tree, position: int, factor: int, width: int, rng: random.Random) -> tuple[Branch, ...]:
    """Lets every path that goes on after so many tokens do so in `factor` ways: its own, and new draws.

    Where the width does not allow as many new draws, paths get numbers of them that differ by 1 at most.
    """
    live = [
        draw_id
        for draw_id, draw in enumerate(tree.draws)
        if tree.reward_of_draw[draw_id] is not None and draw.cut < position < draw.end
    ]
    num_new = min(len(live) * (factor - 1), width - len(tree.draws))
    if num_new <= 0:
        return ()
    counts = equal_shares(num_new, len(live), rng)
    return tuple(Branch(draw_id, position, count) for draw_id, count in zip(live, counts, strict=True) if count)
