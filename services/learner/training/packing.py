"""Packs trajectories into padded micro-batches.

Shapes: B trajectories, T tokens of the longest answer; R rows of S columns, in which a forward pass computes them. A
loss counts per trajectory and token; a prefix that trajectories share is computed once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from services.learner.model.prefix_rows import Ints, PrefixRows, PrefixTrie, to_device
from services.learner.training.trajectories import Floats, Trajectory

Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True, slots=True)
class PackedRow:
    """A row, and the trajectories in it: their indices, with the columns of their tokens."""

    trie: PrefixTrie
    columns_of: dict[int, Ints]


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
    is_current_BT: Tensor
    advantages_BT: Tensor
    weights_BT: Tensor
    engine_logprobs_BT: Tensor
    sampling_logprobs_BT: Tensor
    old_logprobs_BT: Tensor | None
    reference_logprobs_BT: Tensor | None

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
        return cls(
            indices=tuple(cells_of),
            rows=PrefixRows.collate([row.trie for row in packed], np.unique(np.concatenate(list(cells_of.values())))),
            cell_BT=_pad(list(cells_of.values())),
            is_answer_BT=_pad([np.ones(len(one.token_ids), np.bool_) for one in chosen]),
            is_current_BT=_pad([one.is_current for one in chosen]),
            advantages_BT=_pad([one.advantages for one in chosen]),
            weights_BT=_pad([one.weights for one in chosen]),
            engine_logprobs_BT=_pad([one.engine_logprobs for one in chosen]),
            sampling_logprobs_BT=_pad([one.sampling_logprobs for one in chosen]),
            old_logprobs_BT=_pad_if_known([one.old_logprobs for one in chosen]),
            reference_logprobs_BT=_pad_if_known([one.reference_logprobs for one in chosen]),
        )

    def of_answers(self, values_RS: Tensor) -> Tensor:
        return values_RS.flatten()[self.cell_BT].where(self.is_answer_BT, 0.0)

    def to(self, device: torch.device) -> "MicroBatch":
        return replace(to_device(self, device), rows=to_device(self.rows, device))


def pack(trajectories: Sequence[Trajectory], max_tokens: int, *, share_prefixes: bool) -> list[list[PackedRow]]:
    """The rows of every micro-batch, the longest rows first. A micro-batch has at most `max_tokens` columns in all,
    padding included; a longer trajectory has a micro-batch to itself."""
    packed = sorted(_pack_rows(trajectories, max_tokens, share_prefixes), key=lambda row: len(row.trie), reverse=True)
    micro_batches = []
    while packed:
        num_rows = max(1, max_tokens // len(packed[0].trie))
        micro_batches.append(packed[:num_rows])
        packed = packed[num_rows:]
    return micro_batches


def _pack_rows(trajectories: Sequence[Trajectory], max_tokens: int, share_prefixes: bool) -> Iterator[PackedRow]:
    """Rows of at most `max_tokens` columns, each with all trajectories after one prompt, or with one trajectory.

    Trajectories that do not fit into one row follow each other depth first, so that neighbours share the most.
    """
    ids_of = [[*one.prompt_ids, *one.token_ids.tolist()] for one in trajectories]
    sharing: dict[tuple[int, ...] | int, list[int]] = {}
    for index, one in enumerate(trajectories):
        sharing.setdefault(one.prompt_ids if share_prefixes else index, []).append(index)
    for indices in sharing.values():
        row = PackedRow(PrefixTrie(), {})
        for index in sorted(indices, key=ids_of.__getitem__):
            if row.columns_of and len(row.trie) + row.trie.num_new(ids_of[index]) > max_tokens:
                yield row
                row = PackedRow(PrefixTrie(), {})
            row.columns_of[index] = row.trie.add(ids_of[index])
        yield row


def _pad(values: Sequence[NDArray[Scalar]]) -> Tensor:
    padded = np.zeros((len(values), max(len(one) for one in values)), values[0].dtype)
    for row, one in zip(padded, values, strict=True):
        row[: len(one)] = one
    return torch.from_numpy(padded)


def _pad_if_known(values: Sequence[Floats | None]) -> Tensor | None:
    known = [one for one in values if one is not None]
    return _pad(known) if len(known) == len(values) else None
