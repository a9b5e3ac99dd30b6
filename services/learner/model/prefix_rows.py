"""Rows in which trajectories that begin with the same tokens compute these once.

Shapes: R rows of S columns. A row holds a prefix trie: the token of every column follows that of another column, or
begins a sequence.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Ints = NDArray[np.int64]
Batch = TypeVar("Batch", bound=Any)


class PrefixTrie:
    """Token sequences that share one row: each distinct prefix has one column."""

    def __init__(self) -> None:
        self.token_ids: list[int] = []
        self.positions: list[int] = []
        self.previous: list[int] = []
        self._column_after: dict[tuple[int, int], int] = {}

    def __len__(self) -> int:
        return len(self.token_ids)

    @property
    def is_chain(self) -> bool:
        """Whether it is one sequence, or prefixes of one."""
        return all(before == max(0, column - 1) for column, before in enumerate(self.previous))

    def num_new(self, token_ids: Sequence[int]) -> int:
        """How many columns `add` would append."""
        at = -1
        for position, token in enumerate(token_ids):
            if (column := self._column_after.get((at, token))) is None:
                return len(token_ids) - position
            at = column
        return 0

    def add(self, token_ids: Sequence[int]) -> Ints:
        """The columns of a sequence's tokens; appends those that are missing."""
        columns = np.empty(len(token_ids), np.int64)
        at = -1
        for position, token in enumerate(token_ids):
            column = self._column_after.setdefault((at, token), len(self.token_ids))
            if column == len(self.token_ids):
                self.token_ids.append(token)
                self.positions.append(position)
                self.previous.append(at if position else column)
            columns[position] = at = column
        return columns

    def spans(self) -> tuple[list[int], list[int]]:
        """Of every column, where a depth-first walk enters and leaves what it begins: a column is in another's prefix
        exactly if its span encloses the other's entry."""
        sizes = [1] * len(self)
        for column in reversed(range(len(self))):
            if (before := self.previous[column]) != column:
                sizes[before] += sizes[column]
        entries, free, end = [0] * len(self), [0] * len(self), 0
        for column, before in enumerate(self.previous):
            if before == column:
                entries[column], end = end, end + sizes[column]
            else:
                entries[column] = free[before]
                free[before] += sizes[column]
            free[column] = entries[column] + 1
        return entries, [entry + size for entry, size in zip(entries, sizes, strict=True)]


@dataclass(frozen=True, slots=True, eq=False)
class PrefixRows:
    """The input of a forward pass."""

    token_ids_RS: Tensor
    positions_RS: Tensor
    """Of the token in its sequence."""
    previous_RS: Tensor
    """The column of the token before; itself where a sequence begins."""
    spans_2RS: Tensor | None
    """Entries and exits of the columns (`PrefixTrie.spans`); None where every row is a chain."""
    asked_N: Tensor
    """The columns whose tokens' statistics are asked for: indices into the flattened [R, S], ascending."""

    @classmethod
    def collate(cls, tries: Sequence[PrefixTrie], asked: Ints | None = None) -> "PrefixRows":
        """One row per trie, padded at its end to the longest. `asked`: as `asked_N`; None: all columns."""
        num_columns = max(len(trie) for trie in tries)
        return cls(
            asked_N=torch.arange(len(tries) * num_columns) if asked is None else torch.from_numpy(asked),
            token_ids_RS=_pad((trie.token_ids for trie in tries), num_columns),
            positions_RS=_pad((trie.positions for trie in tries), num_columns),
            previous_RS=_pad((trie.previous for trie in tries), num_columns),
            spans_2RS=None if all(trie.is_chain for trie in tries) else _pad_spans(tries, num_columns),
        )

    @property
    def attention_mask_R1SS(self) -> Tensor | None:
        """A column attends to its own prefix. None: to all columns before it, which is a causal model's default."""
        if self.spans_2RS is None:
            return None
        entries_RS, exits_RS = self.spans_2RS
        of_column_RS1 = entries_RS[:, :, None]
        mask_RSS: Tensor = (entries_RS[:, None] <= of_column_RS1) & (of_column_RS1 < exits_RS[:, None])
        return mask_RSS[:, None]

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


def _pad_spans(tries: Sequence[PrefixTrie], num_columns: int) -> Tensor:
    """[2, R, S]. A column of padding attends to itself, so that no softmax is empty."""
    spans_2RS = torch.arange(num_columns).repeat(2, len(tries), 1)
    spans_2RS[1] += 1
    for row, trie in enumerate(tries):
        spans_2RS[:, row, : len(trie)] = torch.tensor(trie.spans())
    return spans_2RS


def _pad(rows: Iterable[Sequence[int]], num_columns: int) -> Tensor:
    return torch.tensor([[*row, *[0] * (num_columns - len(row))] for row in rows])
