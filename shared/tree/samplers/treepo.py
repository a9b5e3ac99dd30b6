"""TreePO: paths fork at the ends of fixed segments; when all have ended too early, finished ones are forked."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Annotated, NamedTuple, Self

from shared.tree.draw import Finish, logprob_before
from shared.tree.node import Tree
from shared.tree.samplers.sampler import INITIAL_DRAWS, Branch, Sampler, at_least, branch_before, equal_shares
from shared.tree.samplers.segments import SEGMENT_TOKENS, WIDTH, check_length, share_out


class Favour(StrEnum):
    """Which paths get more of the new draws at the ends of their segments."""

    NONE = "none"
    """As many for all."""
    UNLIKELY = "unlikely"
    """In proportion to exp(−mean log p) of a path's tokens."""
    LIKELY = "likely"
    """In proportion to exp(mean log p) of a path's tokens."""


class _Front(NamedTuple):
    """Where a tree that is decoded segment by segment is at some time, in segments decoded since the prompt."""

    live: list[tuple[int, int]]
    """The draws that go on, each with its position at the end of this segment."""
    num_ended: int
    """How many draws ended in this segment."""
    num_draws: int
    """How many draws have begun."""


@dataclass(frozen=True, slots=True)
class TreePOSampler(Sampler):
    """TreePO: at the end of each segment of L tokens, paths go on in `divergence` ways, up to a width.

    A path that ended in the segment leaves its ways to those that go on. New draws are shared out equally, unless
    likely or unlikely paths are favoured. When no path goes on and the width is not reached, answers that ended by
    themselves, in an order of chance, are drawn again in `divergence` ways from the start of one of their segments,
    drawn uniformly (*fallback*).
    """

    initial_draws: Annotated[int, INITIAL_DRAWS] = 2
    divergence: Annotated[int, "In how many ways a path goes on at the end of a segment"] = 2
    segment_tokens: Annotated[int, SEGMENT_TOKENS] = 512
    depth: Annotated[int, "Segments of the longest answer, where segment_tokens is 0"] = 14
    width: Annotated[int, WIDTH] = 16
    favour: Annotated[Favour, "Paths with more new draws: none, unlikely or likely ones, by mean log p"] = Favour.NONE
    fallback: Annotated[bool, "Whether finished answers are forked when no path goes on and the width is left"] = True

    def __post_init__(self) -> None:
        at_least(0, segment_tokens=self.segment_tokens)
        at_least(1, initial_draws=self.initial_draws, depth=self.depth, width=self.width)
        at_least(2, divergence=self.divergence)

    @property
    def num_draws(self) -> int:
        return max(self.initial_draws, self.width)

    def expand(self, tree: Tree, round: int, rng: random.Random) -> tuple[Branch, ...]:
        births = self._births(tree, round)
        front = self._front(tree, births, round)
        num_new = min(self._num_new(tree, front), self.width - len(tree.draws))
        if num_new <= 0 or not tree.rewards:
            return ()
        if front.live:
            counts = self._shares(tree, front.live, num_new, rng)
            return tuple(
                Branch(draw_id, position, count)
                for (draw_id, position), count in zip(front.live, counts, strict=True)
                if count
            )
        return self._fall_back(tree, num_new, rng)

    def for_answers(self, max_tokens: int) -> Self:
        return replace(self, segment_tokens=self.segment_tokens or share_out(max_tokens, self.depth))

    def _births(self, tree: Tree, time: int) -> list[int]:
        """At what time each draw began: how many begin at a time follows from those that began before."""
        births = [0] * self.initial_draws
        for earlier in range(1, time):
            births += [earlier] * self._num_new(tree, self._front(tree, births, earlier))
        return births

    def _front(self, tree: Tree, births: Sequence[int], time: int) -> _Front:
        live, num_ended, length = [], 0, check_length(self.segment_tokens)
        for draw_id, (draw, birth) in enumerate(zip(tree.draws, births, strict=False)):
            position = draw.cut + (time - birth) * length
            if tree.reward_of_draw[draw_id] is None:
                continue
            if position < draw.end:
                live.append((draw_id, position))
            elif position < draw.end + length:
                num_ended += 1
        return _Front(live, num_ended, len(births))

    def _num_new(self, tree: Tree, front: _Front) -> int:
        """How many draws begin at this time."""
        if front.live:
            wanted = len(front.live) * (self.divergence - 1) + front.num_ended * self.divergence
        else:
            wanted = self.fallback * self.divergence * max(1, len(_stopped(tree, front.num_draws)))
        return max(0, min(wanted, self.width - front.num_draws))

    def _shares(self, tree: Tree, live: Sequence[tuple[int, int]], num_new: int, rng: random.Random) -> list[int]:
        """How many of the new draws each path gets; by largest remainders where some are favoured."""
        if self.favour is Favour.NONE:
            return equal_shares(num_new, len(live), rng)
        sign = 1 if self.favour is Favour.LIKELY else -1
        sums = [logprob_before(tree.draws, *path) for path in live]
        scores = [sign * logprob / max(num_sampled, 1) for logprob, num_sampled in sums]
        weights = [math.exp(score - max(scores)) for score in scores]
        exact = [num_new * weight / sum(weights) for weight in weights]
        shares = [math.floor(share) for share in exact]
        order = rng.sample(range(len(live)), len(live))  # chance decides between equal remainders
        order.sort(key=lambda nth: shares[nth] - exact[nth])
        for nth in order[: num_new - sum(shares)]:
            shares[nth] += 1
        return shares

    def _fall_back(self, tree: Tree, num_new: int, rng: random.Random) -> tuple[Branch, ...]:
        """New draws from segment starts of finished answers; from the prompt where none ended by itself."""
        sources = _stopped(tree, len(tree.draws))
        if not sources:
            return (Branch(None, 0, num_new),)
        rng.shuffle(sources)
        branches = []
        while num_new > 0:
            draw_id = sources.pop()
            num_segments = -(-tree.draws[draw_id].end // self.segment_tokens)
            position = rng.randrange(num_segments) * self.segment_tokens
            count = min(self.divergence, num_new)
            branches.append(branch_before(tree.draws, draw_id, position, count))
            num_new -= count
        return tuple(branches)


def _stopped(tree: Tree, num_draws: int) -> list[int]:
    """The draws, of the first so many, that count and that the model itself ended."""
    return [
        draw_id
        for draw_id, draw in enumerate(tree.draws[:num_draws])
        if tree.reward_of_draw[draw_id] is not None and draw.finish is Finish.STOP
    ]
