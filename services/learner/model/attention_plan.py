"""How attention over a row of trees is computed: a few blocks of queries and keys, each without gaps.

Columns lie in depth-first order, so that what begins with a column ends at its exit, and all between is its own. A
segment is a run of columns without a fork. Its columns attend to those before in the same segment, and all that follows
below attends to all of it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
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
    """Seconds of a block on one CPU core, forward and backward, as linear functions of its size.

    `per_pair`, `per_query` and `per_key` are of one head and one unit of it.
    """

    per_call: float
    per_pair: float
    per_query: float
    per_key: float

    def seconds(self, form: Form, num_queries: int, num_keys: int, width: int) -> float:
        """`width`: heads times units of a head."""
        pairs = num_queries * num_keys
        if form is Form.CAUSAL:  # the kernel computes pairs by rows of this many queries
            pairs = num_queries * (num_queries + _rows_at_once(num_queries)) // 2
        return self.per_call + width * (self.per_pair * pairs + self.per_query * num_queries + self.per_key * num_keys)


COST = BlockCost(per_call=1e-4, per_pair=2.4e-10, per_query=4e-9, per_key=4e-9)
FREE_CALLS = BlockCost(per_call=0.0, per_pair=1.0, per_query=0.0, per_key=0.0)
"""Under which no pair outside a prefix is ever worth computing."""


def _rows_at_once(num_queries: int) -> int:
    return 256 if num_queries >= 768 else 64 if num_queries >= 192 else 32


@dataclass(frozen=True, slots=True)
class Plan:
    blocks: tuple[Block, ...]
    seconds: float


def plan_blocks(exits_S: Ints, width: int, cost: BlockCost) -> Plan:
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
