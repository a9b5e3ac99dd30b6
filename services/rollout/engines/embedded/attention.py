"""Attention over rows of cached keys and values, which a transformers model calls in place of its own.

Shapes: B rows, N new tokens of each, H key-value heads, G query heads per key-value head, P pairs of a row and a
key-value head (B * H), T time, D head dimension, M planes of a RowKV. New tokens are packed into one sequence, row by
row, [1, heads, B * N, D]; all other layers of the model see plain tokens.
"""

from dataclasses import dataclass
from typing import Protocol, Self

import torch
from transformers import AttentionInterface

from services.rollout.engines.embedded.kv import KVShape
from shared.errors import InvalidInput

ATTENTION_NAME = "ibtpo_rows"
UNSUPPORTED_TERMS = ("softcap", "s_aux", "position_bias")
"""Arguments of models that add to plain attention: capped scores, sinks, learned biases."""


class Attention(Protocol):
    """Attends for one layer of the model."""

    def attend(
        self, layer: int, query_1XD: torch.Tensor, key_1XD: torch.Tensor, value_1XD: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """Takes [heads, B * N, D]; returns [B * N, H * G, D]."""


@dataclass(frozen=True, slots=True)
class RowAttention:
    """N new tokens for each of B rows, described by tensors alone so that the pass can be traced.

    `index_PN` is the position of each new token in a flattened plane; `bias_PQT` is -inf for later positions. Uses two
    batched products: torch's fused attention starts once per pair, which for few queries costs more than it saves.
    """

    bias_PQT: torch.Tensor
    index_PN: torch.Tensor
    kv_MBHTD: torch.Tensor

    @classmethod
    def at(cls, positions_BN: torch.Tensor, time_T: torch.Tensor, kv_MBHTD: torch.Tensor, group_size: int) -> Self:
        """Row b's tokens have positions_BN[b]; `time_T` counts from 0 to the last position of all rows."""
        num_pairs = positions_BN.shape[0] * kv_MBHTD.shape[2]
        position_PN = positions_BN[:, None].expand(-1, kv_MBHTD.shape[2], -1).reshape(num_pairs, -1)
        is_later_PQT = time_T > position_PN.repeat(1, group_size)[:, :, None]
        bias_PQT = torch.zeros_like(is_later_PQT, dtype=kv_MBHTD.dtype).masked_fill_(is_later_PQT, -torch.inf)
        return cls(bias_PQT, torch.arange(num_pairs)[:, None] * kv_MBHTD.shape[3] + position_PN, kv_MBHTD)

    def attend(
        self, layer: int, query_1XD: torch.Tensor, key_1XD: torch.Tensor, value_1XD: torch.Tensor, scale: float
    ) -> torch.Tensor:
        keys_PTD, values_PTD = self._append(2 * layer, key_1XD), self._append(2 * layer + 1, value_1XD)
        num_pairs, dim = self.index_PN.shape[0], query_1XD.shape[2]
        query_PQD = self._by_row(query_1XD).reshape(num_pairs, -1, dim)
        score_PQT = torch.baddbmm(self.bias_PQT, query_PQD, keys_PTD.transpose(1, 2), alpha=scale)
        out_PQD = torch.bmm(score_PQT.softmax(-1), values_PTD)
        out_BXND = out_PQD.view(self.kv_MBHTD.shape[1], -1, self.index_PN.shape[1], dim)
        return out_BXND.transpose(1, 2).reshape(query_1XD.shape[1], -1, dim)

    def _append(self, plane: int, new_1XD: torch.Tensor) -> torch.Tensor:
        """Writes the new tokens into their rows and returns the rows."""
        rows_BHTD, dim = self.kv_MBHTD[plane], new_1XD.shape[2]
        rows_BHTD.view(-1, dim).index_copy_(0, self.index_PN.flatten(), self._by_row(new_1XD).reshape(-1, dim))
        return rows_BHTD.flatten(0, 1)[:, : self.bias_PQT.shape[2]]

    def _by_row(self, packed_1XD: torch.Tensor) -> torch.Tensor:
        """From [heads, B * N, D] to [B, heads, N, D]."""
        num_heads, dim = packed_1XD.shape[0], packed_1XD.shape[2]
        return packed_1XD.view(num_heads, self.kv_MBHTD.shape[1], self.index_PN.shape[1], dim).transpose(0, 1)


class ShapeProbe:
    """Attends to nothing and records the sizes of each layer."""

    def __init__(self) -> None:
        self._sizes: dict[int, tuple[int, int, int, int]] = {}

    def attend(
        self, layer: int, query_1XD: torch.Tensor, key_1XD: torch.Tensor, value_1XD: torch.Tensor, scale: float
    ) -> torch.Tensor:
        num_heads, num_tokens, key_dim = key_1XD.shape
        self._sizes[layer] = (num_heads, query_1XD.shape[0] // num_heads, key_dim, value_1XD.shape[2])
        return query_1XD.new_zeros(num_tokens, query_1XD.shape[0], value_1XD.shape[2])

    def kv_shape(self) -> KVShape:
        """Raises InvalidInput unless all layers have keys and values of one size, as plain attention does."""
        is_plain = sorted(self._sizes) == list(range(len(self._sizes))) and len(set(self._sizes.values())) == 1
        if is_plain:
            num_heads, group_size, key_dim, value_dim = self._sizes[0]
            if key_dim == value_dim:
                return KVShape(len(self._sizes), num_heads, group_size, key_dim)
        raise InvalidInput(
            f"the layers' (heads, group, key, value) sizes are {self._sizes}: the embedded engine serves causal LMs "
            "whose layers all have attention of the same size; serve this one with SGLang"
        )


def _attend_rows(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    row_attention: Attention,
    scaling: float | None = None,
    **more: object,
) -> tuple[torch.Tensor, None]:
    """The signature that transformers calls; `row_attention` is passed on from the model's keyword arguments."""
    if used := [name for name in UNSUPPORTED_TERMS if more.get(name) is not None]:
        raise InvalidInput(f"attention with {', '.join(used)} is not served by the embedded engine; use SGLang")
    layer: int = module.layer_idx  # type: ignore[assignment]
    scale = float(query.shape[-1]) ** -0.5 if scaling is None else scaling
    return row_attention.attend(layer, query[0], key[0], value[0], scale)[None], None


AttentionInterface.register(ATTENTION_NAME, _attend_rows)
