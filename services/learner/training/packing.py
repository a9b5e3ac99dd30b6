"""Packs trajectories into micro-batches.

Shapes: B trajectories, T tokens of the longest answer; R rows of S columns, in which a forward pass computes them. A
loss counts per trajectory and token; a prefix that trajectories share is computed once.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from services.learner.model.pass_cost import PassCost
from services.learner.model.prefix_rows import (
    Ints,
    Layout,
    PrefixRows,
    PrefixTrie,
    depth_first,
    shared_lengths,
    to_device,
)
from services.learner.training.trajectories import Floats, Trajectory

Scalar = TypeVar("Scalar", bound=np.generic)
_MIN_BUDGET, _BUDGET_IN_TRAJECTORIES = 2048, 8


@dataclass(frozen=True, slots=True)
class PackedRow:
    """A row, and the trajectories in it: their indices, with the columns of their tokens."""

    trie: PrefixTrie
    columns_of: dict[int, Ints]

    @classmethod
    def of(cls, indices: Sequence[int], sequences: Sequence[Ints]) -> "PackedRow":
        """Those of the sequences with these indices."""
        trie, columns = PrefixTrie.of([sequences[index] for index in indices])
        return cls(trie, dict(zip(indices, columns, strict=True)))

    @classmethod
    def join(cls, rows: Sequence["PackedRow"]) -> "PackedRow":
        """All of them in one row, one after another."""
        starts = np.cumsum([0, *(len(row.trie) for row in rows)])
        columns_of = {
            index: columns + start
            for row, start in zip(rows, starts, strict=False)
            for index, columns in row.columns_of.items()
        }
        return cls(PrefixTrie.join([row.trie for row in rows]), columns_of)


@dataclass(frozen=True, slots=True, eq=False)
class MicroBatch:
    """The input of one forward and backward pass. `weights_BT` are normalized: a loss is a plain sum.

    Every [B, T] tensor is 0 at the padding.
    """

    indices: tuple[int, ...]
    """Which trajectory each of the B is."""
    rows: PrefixRows
    cell_BT: Tensor
    """Where each token of an answer is computed: its index in the flattened [R, S]."""
    is_answer_BT: Tensor
    is_sampled_BT: Tensor
    """Where an answer has a token that was not given: these alone are in ratios and figures."""
    is_current_BT: Tensor
    advantages_BT: Tensor
    weights_BT: Tensor
    engine_logprobs_BT: Tensor
    sampling_logprobs_BT: Tensor
    old_logprobs_BT: Tensor | None
    reference_logprobs_BT: Tensor | None
    places_N: Tensor | None
    """The cells whose hidden states are read, trajectory by trajectory."""

    @classmethod
    def collate(cls, packed: Sequence[PackedRow], trajectories: Sequence[Trajectory]) -> "MicroBatch":
        """The micro-batch of some rows of `pack`."""
        num_columns = max(len(row.trie) for row in packed)
        cells_of = {
            index: columns[len(trajectories[index].prompt_ids) :] + number * num_columns
            for number, row in enumerate(packed)
            for index, columns in row.columns_of.items()
        }
        chosen = [trajectories[index] for index in cells_of]
        places = [
            columns[len(trajectories[index].prompt_ids) - 1 + after] + number * num_columns
            for number, row in enumerate(packed)
            for index, columns in row.columns_of.items()
            if (after := trajectories[index].places) is not None
        ]
        return cls(
            indices=tuple(cells_of),
            rows=PrefixRows.collate([row.trie for row in packed], np.unique(np.concatenate(list(cells_of.values())))),
            cell_BT=_pad(list(cells_of.values())),
            is_answer_BT=_pad([np.ones(len(one.token_ids), np.bool_) for one in chosen]),
            is_sampled_BT=_pad([~one.is_given for one in chosen]),
            is_current_BT=_pad([one.is_current for one in chosen]),
            advantages_BT=_pad([one.advantages for one in chosen]),
            weights_BT=_pad([one.weights for one in chosen]),
            engine_logprobs_BT=_pad([one.engine_logprobs for one in chosen]),
            sampling_logprobs_BT=_pad([one.sampling_logprobs for one in chosen]),
            old_logprobs_BT=_pad_if_known([one.old_logprobs for one in chosen]),
            reference_logprobs_BT=_pad_if_known([one.reference_logprobs for one in chosen]),
            places_N=torch.from_numpy(np.concatenate(places)) if places else None,
        )

    def of_answers(self, values_RS: Tensor) -> Tensor:
        return values_RS.flatten()[self.cell_BT].where(self.is_answer_BT, 0.0)

    def to(self, device: torch.device) -> "MicroBatch":
        return replace(to_device(self, device), rows=to_device(self.rows, device))


def default_budget(trajectories: Sequence[Trajectory]) -> int:
    """Columns of a micro-batch that hold most trees of twelve such trajectories."""
    longest = max((len(one.prompt_ids) + len(one.token_ids) for one in trajectories), default=0)
    return max(_MIN_BUDGET, _BUDGET_IN_TRAJECTORIES * longest)


def pack(
    trajectories: Sequence[Trajectory],
    max_tokens: int,
    layout: Layout,
    window: int | None = None,
    cost: PassCost | None = None,
) -> list[list[PackedRow]]:
    """The rows of every micro-batch. A micro-batch has at most `max_tokens` columns in all, padding included; a longer
    trajectory has a micro-batch to itself.

    A tree that does not fit is cut into pieces, where the least has to be computed again. A trajectory that is longer
    than `window` has a row to itself, and so have those of a piece that costs more than they do.
    """
    sequences = [np.concatenate([one.prompt_ids, one.token_ids]).astype(np.int64) for one in trajectories]
    trees: dict[tuple[int, ...] | int, list[int]] = {}
    for index, one in enumerate(trajectories):
        is_apart = layout is Layout.APART or (window is not None and len(sequences[index]) > window)
        trees.setdefault(index if is_apart else one.prompt_ids, []).append(index)
    pieces = [PackedRow.of(piece, sequences) for tree in trees.values() for piece in _cut(tree, sequences, max_tokens)]
    if cost is not None:
        pieces = [part for piece in pieces for part in _cheapest(piece, sequences, cost)]
    chains, stacked, joined = [], [], []
    for piece in pieces:
        if piece.trie.is_chain:
            chains.append(piece)
        elif layout is Layout.STACKED or (cost is not None and cost.prefers_mask(piece.trie)):
            stacked.append(piece)
        else:
            joined.append(piece)
    return [
        *_stack(chains, max_tokens),
        *_stack(stacked, max_tokens),
        *([PackedRow.join(rows)] for rows in _fill(joined, max_tokens)),
    ]


def _cut(tree: Sequence[int], sequences: Sequence[Ints], max_tokens: int) -> Iterator[list[int]]:
    """The trajectories of a tree depth first, in groups of at most `max_tokens` columns each. Of all such groups, those
    that compute the fewest columns: what a group's first trajectory shares with the one before is computed again."""
    order = [tree[number] for number in depth_first([sequences[index] for index in tree])]
    shared = shared_lengths([sequences[index] for index in order])
    fewest, cuts = [0] + [math.inf] * len(order), [0] * (len(order) + 1)
    for end in range(1, len(order) + 1):
        num_new = 0
        for start in reversed(range(end)):
            length = len(sequences[order[start]])
            if num_new + length > max_tokens and start < end - 1:
                break
            if fewest[start] + num_new + length < fewest[end]:
                fewest[end], cuts[end] = fewest[start] + num_new + length, start
            num_new += length - shared[start]
    end, groups = len(order), []
    while end:
        groups.append(order[cuts[end] : end])
        end = cuts[end]
    yield from reversed(groups)


def _cheapest(piece: PackedRow, sequences: Sequence[Ints], cost: PassCost) -> list[PackedRow]:
    """The piece, or its trajectories apart."""
    apart = cost.of_sequences([len(sequences[index]) for index in piece.columns_of])
    if piece.trie.is_chain or cost.of_tries([piece.trie]) <= apart:
        return [piece]
    return [PackedRow.of([index], sequences) for index in piece.columns_of]


def _stack(rows: Sequence[PackedRow], max_tokens: int) -> list[list[PackedRow]]:
    """Rows that are padded to one length, the longest first."""
    left, micro_batches = sorted(rows, key=lambda row: len(row.trie), reverse=True), []
    while left:
        num_rows = max(1, max_tokens // len(left[0].trie))
        micro_batches.append(left[:num_rows])
        left = left[num_rows:]
    return micro_batches


def _fill(rows: Sequence[PackedRow], max_tokens: int) -> list[list[PackedRow]]:
    """Rows whose columns are counted together: each, the longest first, goes where it fits."""
    micro_batches: list[list[PackedRow]] = []
    room: list[int] = []
    for row in sorted(rows, key=lambda row: len(row.trie), reverse=True):
        number = next((number for number, left in enumerate(room) if left >= len(row.trie)), len(room))
        if number == len(room):
            micro_batches.append([])
            room.append(max_tokens)
        micro_batches[number].append(row)
        room[number] -= len(row.trie)
    return micro_batches


def _pad(values: Sequence[NDArray[Scalar]]) -> Tensor:
    padded = np.zeros((len(values), max(len(one) for one in values)), values[0].dtype)
    for row, one in zip(padded, values, strict=True):
        row[: len(one)] = one
    return torch.from_numpy(padded)


def _pad_if_known(values: Sequence[Floats | None]) -> Tensor | None:
    known = [one for one in values if one is not None]
    return _pad(known) if len(known) == len(values) else None
