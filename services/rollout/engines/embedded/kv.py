"""Keys and values in memory: one row per request in flight, a pool of slots for cached prefixes.

Shapes: M planes (the keys, then the values, of each layer), R rows, H key-value heads, T time, D head dimension,
S slots, N tokens.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

MIN_TIME = 64


@dataclass(frozen=True, slots=True)
class KVShape:
    """The size of one token's keys and values; `group_size` query heads share a key-value head."""

    num_layers: int
    num_heads: int
    group_size: int
    head_dim: int

    @property
    def num_planes(self) -> int:
        return 2 * self.num_layers

    @property
    def token_bytes(self) -> int:
        """Memory of one token's keys and values in float32."""
        return 4 * self.num_planes * self.num_heads * self.head_dim


class RowKV:
    """The keys and values of the rows in flight; the time axis grows with the longest of them."""

    def __init__(self, shape: KVShape, num_rows: int) -> None:
        self.shape = shape
        self.num_rows = num_rows
        self.kv_MRHTD = self._allocate(MIN_TIME)

    @property
    def time(self) -> int:
        """Tokens that a row can hold without growing."""
        return self.kv_MRHTD.shape[3]

    def reserve(self, length: int) -> None:
        if length > self.time:
            old_MRHTD, old_time = self.kv_MRHTD, self.time
            self.kv_MRHTD = self._allocate(max(length, 2 * old_time))
            self.kv_MRHTD[:, :, :, :old_time] = old_MRHTD

    def move(self, source: int, target: int, length: int) -> None:
        """Copies the first `length` tokens of row `source` over row `target`."""
        self.kv_MRHTD[:, target, :, :length] = self.kv_MRHTD[:, source, :, :length]

    def _allocate(self, time: int) -> torch.Tensor:
        # Zeros, not empty: masked positions are multiplied by a weight of 0, and 0 * NaN is NaN.
        return torch.zeros(self.shape.num_planes, self.num_rows, self.shape.num_heads, time, self.shape.head_dim)


class KVPool:
    """The keys and values of cached prefixes, one slot per token."""

    def __init__(self, shape: KVShape, num_slots: int) -> None:
        self._kv_MHSD = torch.empty(shape.num_planes, shape.num_heads, num_slots, shape.head_dim)

    def store(self, slots: Sequence[int], rows: RowKV, row: int, start: int) -> None:
        """Copies row `row` from position `start` on into `slots`."""
        row_MHTD = rows.kv_MRHTD[:, row]
        for offset, first, count in _runs(slots):
            at = start + offset
            self._kv_MHSD[:, :, first : first + count] = row_MHTD[:, :, at : at + count]

    def restore(self, slots: Sequence[int], rows: RowKV, row: int) -> None:
        """Copies `slots` to the start of row `row`."""
        row_MHTD = rows.kv_MRHTD[:, row]
        for offset, first, count in _runs(slots):
            row_MHTD[:, :, offset : offset + count] = self._kv_MHSD[:, :, first : first + count]


def _runs(slots: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """The slots as ascending runs (offset, first slot, count): copying runs is faster than copying slots."""
    begin = 0
    for end in range(1, len(slots) + 1):
        if end == len(slots) or slots[end] != slots[end - 1] + 1:
            yield begin, slots[begin], end - begin
            begin = end
