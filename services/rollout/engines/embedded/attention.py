"""Attention over rows: what a transformers model calls in place of its own, told where its tokens stand.

Shapes: R rows, H heads, P pairs of a row and a key-value head, G query heads per key-value head, N new tokens, T time,
D head dimension. New tokens
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


@dataclass(frozen=True, slots=True)
class DecodeAttention:
    """One new token for each of the first B rows, told in tensors alone so that the pass can be traced.

    `place_P` says where in the flattened rows each pair's new token goes; `bias_P1T` is -inf where a pair must not
    look. Two batched products: torch's fused attention starts anew for every pair, and for one query that costs more
    than what it saves.
    """

    bias_P1T: torch.Tensor
    place_P: torch.Tensor
    keys_LRHTD: torch.Tensor
    values_LRHTD: torch.Tensor

    @classmethod
    def at(cls, rows: RowKV, positions: Sequence[int]) -> "DecodeAttention":
        """Row b's new token stands at positions[b]."""
        num_heads = rows.shape.num_heads
        position_P1 = torch.tensor(positions).repeat_interleave(num_heads)[:, None]
        unseen_PT = torch.arange(max(positions) + 1) > position_P1
        bias_PT = torch.zeros(unseen_PT.shape).masked_fill_(unseen_PT, -torch.inf)
        place_P = torch.arange(len(position_P1)) * rows.time + position_P1[:, 0]
        return cls(bias_PT[:, None], place_P, rows.keys_LRHTD, rows.values_LRHTD)

    def attend(
        self, layer: int, query_HND: torch.Tensor, key_HND: torch.Tensor, value_HND: torch.Tensor, scale: float | None
    ) -> torch.Tensor:
        keys_PTD = self._append(self.keys_LRHTD[layer], key_HND)
        values_PTD = self._append(self.values_LRHTD[layer], value_HND)
        num_rows, key_dim = query_HND.shape[1], query_HND.shape[2]
        query_PGD = query_HND.transpose(0, 1).reshape(self.place_P.shape[0], -1, key_dim)
        alpha = key_dim**-0.5 if scale is None else scale
        score_PGT = torch.baddbmm(self.bias_P1T, query_PGD, keys_PTD.transpose(1, 2), alpha=alpha)
        return torch.bmm(score_PGT.softmax(-1), values_PTD).view(num_rows, -1, value_HND.shape[2])

    def _append(self, kept_RHTD: torch.Tensor, new_HND: torch.Tensor) -> torch.Tensor:
        """Writes the new tokens into their rows, and returns what the rows hold."""
        dim = new_HND.shape[2]
        kept_RHTD.view(-1, dim).index_copy_(0, self.place_P, new_HND.transpose(0, 1).reshape(-1, dim))
        return kept_RHTD.flatten(0, 1)[: self.bias_P1T.shape[0], : self.bias_P1T.shape[2]]


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
