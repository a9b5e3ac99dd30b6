"""Keys and values in memory: compact rows for the requests in flight, a pool of slots for cached prefixes.

Shapes: L layers, R rows, H key-value heads, T time, D head dimension, S slots, N tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

MIN_TIME = 128


@dataclass(frozen=True, slots=True)
class KVShape:
    """What one token leaves behind in a model."""

    num_layers: int
    num_heads: int
    key_dim: int
    value_dim: int

    @property
    def token_bytes(self) -> int:
        """Memory of one token's keys and values in float32."""
        return 4 * self.num_layers * self.num_heads * (self.key_dim + self.value_dim)


class RowKV:
    """The keys and values of the rows in flight, row by row; its time axis grows with the longest row."""

    def __init__(self, shape: KVShape, num_rows: int) -> None:
        self.shape = shape
        self.num_rows = num_rows
        self.keys_LRHTD, self.values_LRHTD = self._allocate(MIN_TIME)

    @property
    def time(self) -> int:
        """Tokens that a row can hold for now."""
        return self.keys_LRHTD.shape[3]

    def reserve(self, length: int) -> None:
        """Makes room for rows of `length` tokens."""
        if length <= self.time:
            return
        old_time, old = self.time, (self.keys_LRHTD, self.values_LRHTD)
        self.keys_LRHTD, self.values_LRHTD = self._allocate(max(length, 2 * old_time))
        self.keys_LRHTD[:, :, :, :old_time] = old[0]
        self.values_LRHTD[:, :, :, :old_time] = old[1]

    def move(self, source: int, target: int, length: int) -> None:
        """Copies the first `length` tokens of row `source` over row `target`."""
        for kv in (self.keys_LRHTD, self.values_LRHTD):
            kv[:, target, :, :length] = kv[:, source, :, :length]

    def _allocate(self, time: int) -> tuple[torch.Tensor, torch.Tensor]:
        # Zeros: a masked position is multiplied by a weight of 0, and 0 * NaN would not be 0.
        size = (self.shape.num_layers, self.num_rows, self.shape.num_heads, time)
        return torch.zeros(*size, self.shape.key_dim), torch.zeros(*size, self.shape.value_dim)


class KVPool:
    """The keys and values of cached prefixes, one slot a token."""

    def __init__(self, shape: KVShape, num_slots: int) -> None:
        size = (shape.num_layers, num_slots, shape.num_heads)
        self._keys_LSHD = torch.empty(*size, shape.key_dim)
        self._values_LSHD = torch.empty(*size, shape.value_dim)

    def store(self, slots: Sequence[int], rows: RowKV, row: int, start: int) -> None:
        """Copies row `row` from position `start` on into `slots`."""
        index_N, end = torch.tensor(slots), start + len(slots)
        self._keys_LSHD.index_copy_(1, index_N, rows.keys_LRHTD[:, row, :, start:end].transpose(1, 2))
        self._values_LSHD.index_copy_(1, index_N, rows.values_LRHTD[:, row, :, start:end].transpose(1, 2))

    def restore(self, slots: Sequence[int], rows: RowKV, row: int) -> None:
        """Copies `slots` to the start of row `row`."""
        index_N, end = torch.tensor(slots), len(slots)
        rows.keys_LRHTD[:, row, :, :end] = self._keys_LSHD.index_select(1, index_N).transpose(1, 2)
        rows.values_LRHTD[:, row, :, :end] = self._values_LSHD.index_select(1, index_N).transpose(1, 2)
