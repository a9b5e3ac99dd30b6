"""Attention over rows: what a transformers model calls in place of its own, told where its tokens stand.

Shapes: B rows, H key-value heads, G query heads per key-value head, N new tokens, T time, D head dimension. New tokens
come packed along one sequence, [1, heads, N, D], whatever rows they belong to, so that all other layers see no padding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from services.rollout.engines.embedded.kv import KVShape, RowKV
from shared.errors import InvalidInput

ATTENTION_NAME = "ibtpo_rows"


class RowAttention(Protocol):
    """Where a forward pass's new tokens stand: it keeps their keys and values and lets them attend to their rows."""

    def attend(
        self, layer: int, query_HND: torch.Tensor, key_HND: torch.Tensor, value_HND: torch.Tensor, scale: float | None
    ) -> torch.Tensor:
        """The attention's output, [N, H * G, D]."""


class DecodeAttention:
    """One new token for each of the first B rows, at `positions`."""

    def __init__(self, rows: RowKV, positions: Sequence[int]) -> None:
        self._rows = rows
        num_rows, self._time = len(positions), max(positions) + 1
        position_B = torch.tensor(positions)
        time_T = torch.arange(self._time)
        self._bias_B11T = torch.zeros(num_rows, 1, 1, self._time)
        self._bias_B11T.masked_fill_((time_T > position_B[:, None])[:, None, None], -torch.inf)
        row_B1, head_H = torch.arange(num_rows)[:, None], torch.arange(rows.shape.num_heads)
        self._where_N = ((row_B1 * rows.shape.num_heads + head_H) * rows.time + position_B[:, None]).flatten()

    def attend(
        self, layer: int, query_HND: torch.Tensor, key_HND: torch.Tensor, value_HND: torch.Tensor, scale: float | None
    ) -> torch.Tensor:
        keys_RHTD, values_RHTD = self._rows.keys_LRHTD[layer], self._rows.values_LRHTD[layer]
        num_heads, num_rows, key_dim = key_HND.shape
        keys_RHTD.view(-1, key_dim).index_copy_(0, self._where_N, key_HND.transpose(0, 1).reshape(-1, key_dim))
        value_dim = value_HND.shape[-1]
        values_RHTD.view(-1, value_dim).index_copy_(0, self._where_N, value_HND.transpose(0, 1).reshape(-1, value_dim))
        out_BHGD = scaled_dot_product_attention(
            query_HND.transpose(0, 1).reshape(num_rows, num_heads, -1, key_dim),
            keys_RHTD[:num_rows, :, : self._time],
            values_RHTD[:num_rows, :, : self._time],
            attn_mask=self._bias_B11T,
            scale=scale,
        )
        return out_BHGD.reshape(num_rows, -1, value_dim)


@dataclass(frozen=True, slots=True)
class Span:
    """Positions [start, end) of one row."""

    row: int
    start: int
    end: int


class PrefillAttention:
    """New tokens for some rows, each row's as one span, over what the row holds before it."""

    def __init__(self, rows: RowKV, spans: Sequence[Span]) -> None:
        self._rows = rows
        self._spans = spans
        self._seen_NT = [
            torch.ones(span.end - span.start, span.end, dtype=torch.bool).tril(span.start) for span in spans
        ]

    def attend(
        self, layer: int, query_HND: torch.Tensor, key_HND: torch.Tensor, value_HND: torch.Tensor, scale: float | None
    ) -> torch.Tensor:
        keys_RHTD, values_RHTD = self._rows.keys_LRHTD[layer], self._rows.values_LRHTD[layer]
        out_NHD = query_HND.new_empty(query_HND.shape[1], query_HND.shape[0], value_HND.shape[-1])
        first = 0
        for span, seen_NT in zip(self._spans, self._seen_NT, strict=True):
            last = first + span.end - span.start
            keys_RHTD[span.row, :, span.start : span.end] = key_HND[:, first:last]
            values_RHTD[span.row, :, span.start : span.end] = value_HND[:, first:last]
            out_1HND = scaled_dot_product_attention(
                query_HND[None, :, first:last],
                keys_RHTD[span.row, None, :, : span.end],
                values_RHTD[span.row, None, :, : span.end],
                attn_mask=seen_NT,
                scale=scale,
                enable_gqa=True,
            )
            out_NHD[first:last] = out_1HND[0].transpose(0, 1)
            first = last
        return out_NHD


class ShapeProbe:
    """Attends to nothing and notes the shape of what each layer would keep."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[int, int, int]] = {}

    def attend(
        self, layer: int, query_HND: torch.Tensor, key_HND: torch.Tensor, value_HND: torch.Tensor, scale: float | None
    ) -> torch.Tensor:
        self._seen[layer] = (key_HND.shape[0], key_HND.shape[2], value_HND.shape[2])
        return query_HND.new_zeros(query_HND.shape[1], query_HND.shape[0], value_HND.shape[2])

    def kv_shape(self) -> KVShape:
        """Raises InvalidInput unless every layer keeps the same, as plain attention does."""
        if sorted(self._seen) != list(range(len(self._seen))) or len(set(self._seen.values())) != 1:
            raise InvalidInput(f"keys and values per layer are {self._seen}: the embedded engine needs the same in all")
        return KVShape(len(self._seen), *self._seen[0])


def _attend_rows(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    row_attention: RowAttention,
    scaling: float | None = None,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """The signature that transformers calls; `row_attention` comes through from the model's keyword arguments."""
    layer: int = module.layer_idx  # type: ignore[assignment]
    return row_attention.attend(layer, query[0], key[0], value[0], scaling)[None], None


AttentionInterface.register(ATTENTION_NAME, _attend_rows)
