"""How attention over a row of trees is computed: a few blocks of queries and keys, each without gaps.

Columns lie in depth-first order, so that what begins with a column ends at its exit, and all between is its own. A
segment is a run of columns without a fork. Its columns attend to those before in the same segment, and all that follows
below attends to all of it.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from services.learner.model.prefix_rows import Ints


class Form(StrEnum):
    CAUSAL = "causal"
    """A segment among itself."""
    FULL = "full"
    """All below a segment, with the segment as keys."""
    MASKED = "masked"
    """All that begins with a segment, the segment included: pairs outside a prefix are computed, and masked."""


@dataclass(frozen=True, slots=True)
class Block:
    """Queries in columns [start, end), keys in columns [first_key, last_key)."""

    form: Form
    start: int
    end: int
    first_key: int
    last_key: int


@dataclass(frozen=True, slots=True)
class BlockCost:
    """Seconds of a block, forward and backward, by its size; but for the call, of one head and one unit of it."""

    per_call: float
    per_pair: float
    per_query: float
    per_key: float = 0.0

    def seconds(self, num_pairs: int, num_queries: int, num_keys: int, width: int) -> float:
        """`width`: heads times units of a head."""
        of_size = self.per_pair * num_pairs + self.per_query * num_queries + self.per_key * num_keys
        return self.per_call + width * of_size


@dataclass(frozen=True, slots=True)
class AttentionCost:
    """Of blocks of every form."""

    causal: BlockCost
    full: BlockCost
    masked: BlockCost

    def seconds(self, form: Form, num_queries: int, num_keys: int, width: int) -> float:
        match form:
            case Form.CAUSAL:  # the kernel computes pairs by rows of this many queries
                num_pairs = num_queries * (num_queries + _rows_at_once(num_queries)) // 2
                return self.causal.seconds(num_pairs, num_queries, num_keys, width)
            case Form.FULL:
                return self.full.seconds(num_queries * num_keys, num_queries, num_keys, width)
            case Form.MASKED:
                return self.masked.seconds(num_queries * num_keys, num_queries, num_keys, width)


COST = AttentionCost(
    causal=BlockCost(per_call=1.4e-4, per_pair=1.8e-10, per_query=1.5e-8),
    full=BlockCost(per_call=1.7e-4, per_pair=1.4e-10, per_query=1.1e-8, per_key=1.1e-8),
    masked=BlockCost(per_call=1.4e-4, per_pair=1.5e-10, per_query=1.5e-8),
)
"""Fitted to one core of a Xeon with AVX-512, float32, 4 heads of 32 units to 16 of 128; within a third of what is
measured. Their ratios count, and they are alike on other processors."""
_PAIRS_ONLY = BlockCost(per_call=0.0, per_pair=1.0, per_query=0.0)
FEWEST_PAIRS = AttentionCost(_PAIRS_ONLY, _PAIRS_ONLY, replace(_PAIRS_ONLY, per_pair=math.inf))
"""Under which no pair outside a prefix is ever computed."""


def _rows_at_once(num_queries: int) -> int:
    return 256 if num_queries >= 768 else 64 if num_queries >= 192 else 32


@dataclass(frozen=True, slots=True)
class Plan:
    blocks: tuple[Block, ...]
    seconds: float


def plan_blocks(exits_S: Ints, width: int, cost: AttentionCost) -> Plan:
    """The blocks of least cost that cover every column's prefix once; those that begin a column come first."""
    starts = np.flatnonzero(np.diff(exits_S, prepend=-1))
    segments = list(zip(starts.tolist(), [*starts[1:].tolist(), len(exits_S)], exits_S[starts].tolist(), strict=True))
    whole, best = [False] * len(segments), [0.0] * len(segments)
    open_: list[int] = []  # segments without one around them yet, the leftmost last
    for number in reversed(range(len(segments))):
        start, end, exit_ = segments[number]
        apart = cost.seconds(Form.CAUSAL, end - start, end - start, width)
        if exit_ > end:
            apart += cost.seconds(Form.FULL, exit_ - end, end - start, width)
        while open_ and segments[open_[-1]][0] < exit_:
            apart += best[open_.pop()]
        together = cost.seconds(Form.MASKED, exit_ - start, exit_ - start, width)
        whole[number] = exit_ > end and together < apart
        best[number] = min(apart, together) if exit_ > end else apart
        open_.append(number)
    return Plan(tuple(_emit(segments, whole)), sum(best[number] for number in open_))


def _emit(segments: list[tuple[int, int, int]], whole: list[bool]) -> Iterator[Block]:
    covered = 0
    below = []
    for (start, end, exit_), is_whole in zip(segments, whole, strict=True):
        if start < covered:
            continue
        if is_whole:
            covered = exit_
            yield Block(Form.MASKED, start, exit_, start, exit_)
            continue
        yield Block(Form.CAUSAL, start, end, start, end)
        if exit_ > end:
            below.append(Block(Form.FULL, end, exit_, start, end))
    yield from below
