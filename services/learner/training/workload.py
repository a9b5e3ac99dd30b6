"""How much a step computes, against the least that its trajectories need."""

from collections.abc import Iterator, Sequence

import numpy as np

from services.learner.model.flops import ModelFlops, PassSize
from services.learner.model.prefix_rows import Ints, depth_first, shared_lengths
from services.learner.training.packing import PackedRow
from services.learner.training.trajectories import Trajectory


class Workload:
    """Of all passes of a step, on all ranks."""

    def __init__(self, flops: ModelFlops) -> None:
        self._flops = flops
        self.flops = 0
        self._columns = 0
        self._distinct = 0

    @property
    def packing_share(self) -> float | None:
        """Distinct tokens to columns of the training passes, padding included: 1 is the limit of sharing prefixes."""
        return self._distinct / self._columns if self._columns else None

    def add_training(self, micro_batches: Sequence[Sequence[PackedRow]], trajectories: Sequence[Trajectory]) -> None:
        self.flops += sum(map(self._flops.training, map(pass_size, micro_batches)))
        self._columns += sum(len(rows) * max(len(row.trie) for row in rows) for rows in micro_batches)
        self._distinct += count_distinct(trajectories)

    def add_reading(self, micro_batches: Sequence[Sequence[PackedRow]]) -> None:
        self.flops += sum(map(self._flops.forward, map(pass_size, micro_batches)))


def pass_size(rows: Sequence[PackedRow]) -> PassSize:
    """What the rows of a micro-batch take, padding left out."""
    columns = sum(len(row.trie) for row in rows)
    asked = [np.unique(np.concatenate(list(row.columns_of.values()))) for row in rows]
    return PassSize(
        columns=columns,
        context=columns + sum(int(np.sum(row.trie.positions)) for row in rows),
        asked=sum(map(len, asked)),
    )


def count_distinct(trajectories: Sequence[Trajectory]) -> int:
    """Tokens of prompts and answers, a prefix that several begin with counted once."""
    return sum(_count_in_tree(sequences) for sequences in _by_prompt(trajectories))


def _by_prompt(trajectories: Sequence[Trajectory]) -> Iterator[list[Ints]]:
    trees: dict[tuple[int, ...], list[Ints]] = {}
    for one in trajectories:
        trees.setdefault(one.prompt_ids, []).append(np.concatenate([one.prompt_ids, one.token_ids]).astype(np.int64))
    yield from trees.values()


def _count_in_tree(sequences: Sequence[Ints]) -> int:
    in_order = [sequences[number] for number in depth_first(sequences)]
    return sum(map(len, sequences)) - sum(shared_lengths(in_order))
