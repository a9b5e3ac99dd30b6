"""How attention over a row of trees is computed: a few blocks of queries and keys, each without gaps.

Columns lie in depth-first order. So a path from a column down to the first leaf below it has no gap, nor has all that
forks off it at one column. A path's columns attend to each other causally; what forks off attends to all of the path
above the fork.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from services.learner.model.prefix_rows import Ints


class Form(StrEnum):
    CAUSAL = "causal"
    """A path among itself."""
    FULL = "full"
    """All that forks off a path at one column, with the path above as keys."""
    MASKED = "masked"
    """A path and all below it: pairs outside a prefix are computed, and masked."""


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


@dataclass(frozen=True, slots=True)
class _Path:
    """From a column down to the first leaf below it, without a gap; and where others fork off."""

    start: int
    end: int
    exit: int
    forks: tuple[tuple[int, int, int], ...]
    """The column after the fork, and the range of all that goes another way from there."""


def plan_blocks(exits_S: Ints, width: int, cost: AttentionCost) -> Plan:
    """The blocks of least cost that cover every column's prefix once; those that begin a column come first."""
    paths = list(_paths(exits_S))
    number_at = {path.start: number for number, path in enumerate(paths)}
    is_masked, best = [False] * len(paths), [0.0] * len(paths)
    for number in reversed(range(len(paths))):
        path = paths[number]
        length = path.end - path.start
        apart = cost.seconds(Form.CAUSAL, length, length, width)
        for fork, start, end in path.forks:
            apart += cost.seconds(Form.FULL, end - start, fork - path.start, width)
            apart += sum(best[below] for below in _siblings(paths, number_at, start, end))
        size = path.exit - path.start
        together = cost.seconds(Form.MASKED, size, size, width) if path.forks else math.inf
        is_masked[number], best[number] = together < apart, min(together, apart)
    roots = _siblings(paths, number_at, 0, len(exits_S))
    return Plan(tuple(_emit(paths, is_masked)), sum(best[number] for number in roots))


def _paths(exits_S: Ints) -> Iterator[_Path]:
    """In the order of their first columns."""
    starts = np.flatnonzero(np.diff(exits_S, prepend=-1)).tolist()  # of the segments
    ends, exits = [*starts[1:], len(exits_S)], exits_S[starts].tolist()
    number = 0
    while number < len(starts):
        first, forks = number, []
        while exits[number] > ends[number]:  # the next segment is the first below
            forks.append((ends[number], exits[number + 1], exits[number]))
            number += 1
        yield _Path(starts[first], ends[number], exits[first], tuple(forks))
        number += 1


def _siblings(paths: list[_Path], number_at: dict[int, int], start: int, end: int) -> Iterator[int]:
    """The numbers of the paths that follow each other from `start` to `end`, each with all below it."""
    while start < end:
        yield number_at[start]
        start = paths[number_at[start]].exit


def _emit(paths: list[_Path], is_masked: list[bool]) -> Iterator[Block]:
    covered, below = 0, []
    for path, is_whole in zip(paths, is_masked, strict=True):
        if path.start < covered:
            continue
        if is_whole:
            covered = path.exit
            yield Block(Form.MASKED, path.start, path.exit, path.start, path.exit)
            continue
        yield Block(Form.CAUSAL, path.start, path.end, path.start, path.end)
        below += [Block(Form.FULL, start, end, path.start, fork) for fork, start, end in path.forks]
    yield from below
