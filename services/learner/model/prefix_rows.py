"""Rows in which trajectories that begin with the same tokens compute these once.

Shapes: R rows of S columns. A row holds a prefix trie: the token of every column follows that of another column, or
begins a sequence.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Ints = NDArray[np.int64]
Batch = TypeVar("Batch", bound=Any)


class Layout(StrEnum):
    """Of trajectories in rows."""

    APART = "apart"
    """Each has a row: nothing is shared."""
    STACKED = "stacked"
    """Each tree has a row, padded to the longest."""
    JOINED = "joined"
    """Trees follow each other in one row."""


@dataclass(frozen=True, slots=True, eq=False)
class PrefixTrie:
    """Token sequences that share one row: each distinct prefix has one column, and columns are in depth-first order."""

    token_ids: Ints
    positions: Ints
    """Of the token in its sequence."""
    previous: Ints
    """The column of the token before; itself where a sequence begins."""
    exits: Ints
    """The column after all that begins with this one: it is in another's prefix exactly if that column is at least as
    far on, and before its exit."""

    def __len__(self) -> int:
        return len(self.token_ids)

    @classmethod
    def of(cls, sequences: Sequence[Sequence[int] | Ints]) -> tuple["PrefixTrie", list[Ints]]:
        """The trie, and the columns of each sequence's tokens."""
        arrays = [np.asarray(one, np.int64) for one in sequences]
        order = depth_first(arrays)
        shared = shared_lengths([arrays[number] for number in order])
        columns_of: list[Ints] = [np.empty(0, np.int64)] * len(arrays)
        columns, num_columns, exits = np.empty(0, np.int64), 0, np.empty(sum(map(len, arrays)), np.int64)
        for number, kept in zip(order, shared, strict=True):
            exits[columns[kept:]] = num_columns
            end = num_columns + len(arrays[number]) - kept
            columns = columns_of[number] = np.concatenate([columns[:kept], np.arange(num_columns, end)])
            num_columns = end
        exits[columns] = num_columns
        token_ids, positions, previous = np.empty((3, num_columns), np.int64)
        for number, columns in enumerate(columns_of):
            token_ids[columns], positions[columns] = arrays[number], np.arange(len(columns))
            previous[columns[1:]], previous[columns[:1]] = columns[:-1], columns[:1]
        return cls(token_ids, positions, previous, exits[:num_columns]), columns_of

    @classmethod
    def join(cls, tries: Sequence["PrefixTrie"]) -> "PrefixTrie":
        """All of them in one row, one after another."""
        starts = np.cumsum([0, *map(len, tries)])
        return cls(
            np.concatenate([one.token_ids for one in tries]),
            np.concatenate([one.positions for one in tries]),
            np.concatenate([one.previous + start for one, start in zip(tries, starts, strict=False)]),
            np.concatenate([one.exits + start for one, start in zip(tries, starts, strict=False)]),
        )

    @property
    def is_chain(self) -> bool:
        """Whether it is one sequence, or prefixes of one."""
        return bool((self.exits == len(self)).all())


def depth_first(sequences: Sequence[Ints]) -> list[int]:
    """The sequences' order in which neighbours share the most."""
    keys = [one.tolist() for one in sequences]
    return sorted(range(len(keys)), key=keys.__getitem__)


def shared_lengths(sequences: Sequence[Ints]) -> list[int]:
    """How many tokens each begins with that the one before begins with too."""
    return [0, *(_shared_length(one, other) for one, other in pairwise(sequences))]


def _shared_length(one: Ints, other: Ints) -> int:
    length = min(len(one), len(other))
    differing = np.flatnonzero(one[:length] != other[:length])
    return int(differing[0]) if len(differing) else length


@dataclass(frozen=True, slots=True, eq=False)
class PrefixRows:
    """The input of a forward pass."""

    token_ids_RS: Tensor
    positions_RS: Tensor
    """Of the token in its sequence."""
    previous_RS: Tensor
    """The column of the token before; itself where a sequence begins."""
    exits_RS: Tensor | None
    """The column after all that begins with a column (`PrefixTrie`); None where every row is a chain."""
    asked_N: Tensor
    """The columns whose tokens' statistics are asked for: indices into the flattened [R, S], ascending."""

    @classmethod
    def collate(cls, tries: Sequence[PrefixTrie], asked: Ints | None = None) -> "PrefixRows":
        """One row per trie, padded at its end to the longest. `asked`: as `asked_N`; None: all columns."""
        num_columns = max(len(trie) for trie in tries)
        zeros = np.zeros(num_columns, np.int64)
        are_chains = all(trie.is_chain for trie in tries)
        return cls(
            asked_N=torch.arange(len(tries) * num_columns) if asked is None else torch.from_numpy(asked),
            token_ids_RS=_pad((trie.token_ids for trie in tries), zeros),
            positions_RS=_pad((trie.positions for trie in tries), np.arange(num_columns) if are_chains else zeros),
            previous_RS=_pad((trie.previous for trie in tries), zeros),
            exits_RS=None if are_chains else _pad((trie.exits for trie in tries), zeros + num_columns),
        )

    @property
    def exits_R11S(self) -> Tensor | None:
        """What `tree_attention` takes as a mask."""
        return None if self.exits_RS is None else self.exits_RS[:, None, None]

    @property
    def attention_mask_R1SS(self) -> Tensor | None:
        """A column attends to its own prefix. None: to all columns before it, which is a causal model's default."""
        if self.exits_RS is None:
            return None
        column_S1 = torch.arange(self.exits_RS.shape[1], device=self.exits_RS.device)[:, None]
        mask_RSS: Tensor = (column_S1 >= column_S1.T) & (column_S1 < self.exits_RS[:, None])
        return mask_RSS[:, None]

    @property
    def is_real_RS(self) -> Tensor:
        """Which columns are no padding, where the last token of every sequence is asked for."""
        num_rows, num_columns = self.token_ids_RS.shape
        ends_R = self.asked_N.new_full((num_rows,), -1)
        ends_R.scatter_reduce_(0, self.asked_N // num_columns, self.asked_N % num_columns, "amax")
        return torch.arange(num_columns, device=ends_R.device) <= ends_R[:, None]

    @property
    def asked_ids_N(self) -> Tensor:
        return self.token_ids_RS.flatten()[self.asked_N]

    @property
    def before_asked_N(self) -> Tensor:
        """The columns that those tokens follow, as indices like `asked_N`."""
        num_columns = self.token_ids_RS.shape[1]
        return self.asked_N - self.asked_N % num_columns + self.previous_RS.flatten()[self.asked_N]


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The same dataclass, its tensors on another device."""
    values = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return replace(batch, **{name: value.to(device) for name, value in values.items() if isinstance(value, Tensor)})


def _pad(rows: Iterable[Ints], end: Ints) -> Tensor:
    """[R, S], each row continued by that part of `end`: padding goes on with a chain (transformers would take
    positions that begin again for another sequence, and build a mask), or is a sequence of its own."""
    return torch.from_numpy(np.stack([np.concatenate([row, end[len(row) :]]) for row in rows]))
