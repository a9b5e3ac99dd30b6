"""Attention over rows that hold trees: a token attends to its own prefix, and nothing of size S·S is built.

Shapes: R rows of S columns (`prefix_rows.py`), H heads of queries, K of keys and values, G = H/K, D units of a head.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.weak import WeakTensorKeyDictionary
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from services.learner.model.attention_plan import COST, Block, BlockCost, Form, plan_blocks
from services.learner.model.prefix_rows import Ints

_NAME = "ibtpo_tree"
"""Of this attention, in transformers."""
_UNKNOWN = ("softcap", "s_aux", "position_bias", "head_mask")
"""Arguments that some architectures pass, and that change what attention computes."""
_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


@dataclass(frozen=True, slots=True)
class PreparedBlock:
    """A block with its slices, and its mask [1, 1, queries, keys] of 0 and −∞ where it has one."""

    block: Block
    queries: slice
    keys: slice
    mask: Tensor | None

    @property
    def is_causal(self) -> bool:
        return self.block.form is Form.CAUSAL

    def mask_in(self, dtype: torch.dtype) -> Tensor | None:
        return None if self.mask is None else self.mask.to(dtype)  # the kernel reads it as the queries' type

    @classmethod
    def of(cls, block: Block, exits_S: Ints) -> "PreparedBlock":
        queries, keys = slice(block.start, block.end), slice(block.first_key, block.last_key)
        if block.form is not Form.MASKED:
            return cls(block, queries, keys, None)
        query_Q1 = np.arange(block.start, block.end)[:, None]
        is_prefix_QK = (query_Q1 >= query_Q1.T) & (query_Q1 < exits_S[keys])
        mask_QK = np.where(is_prefix_QK, np.float32(0), np.float32(-np.inf))
        return cls(block, queries, keys, torch.from_numpy(mask_QK)[None, None])


class Prepared:
    """The rows of a micro-batch in blocks, which are planned once for layers of one width."""

    def __init__(self, exits_RS: Ints, cost: BlockCost) -> None:
        self._exits_RS = exits_RS
        self._cost = cost
        self._of_width: dict[int, list[list[PreparedBlock]]] = {}

    def blocks(self, width: int) -> list[list[PreparedBlock]]:
        """Of each row, in a layer of this many heads times units."""
        if width not in self._of_width:
            self._of_width[width] = [
                [PreparedBlock.of(block, exits_S) for block in plan_blocks(exits_S, width, self._cost).blocks]
                for exits_S in self._exits_RS
            ]
        return self._of_width[width]


_PREPARED: "WeakTensorKeyDictionary" = WeakTensorKeyDictionary()
"""By the exits that are a mask. transformers hands a mask of four dimensions to every layer as it is."""


def use_tree_attention(module: PreTrainedModel) -> bool:
    """Makes the layers of a model that would compute `sdpa` take trees; without them they compute that still. Whether
    they do."""
    if module.config._attn_implementation != "sdpa":
        return False
    module.set_attn_implementation(_NAME)
    return bool(module.config._attn_implementation == _NAME)


def prepare(exits_R11S: Tensor | None, cost: BlockCost) -> Tensor | None:
    """The exits as an attention mask, to be computed in the blocks of least cost."""
    if exits_R11S is not None:
        _PREPARED[exits_R11S] = Prepared(exits_R11S[:, 0, 0].numpy(), cost)
    return exits_R11S


def tree_attention(
    module: nn.Module,
    query_RHSD: Tensor,
    key_RKSD: Tensor,
    value_RKSD: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **arguments: Any,
) -> tuple[Tensor, None]:
    """An attention function of transformers. `attention_mask`: what `prepare` returned; another mask, or None, means
    what it means to `sdpa`."""
    if unknown := [name for name in _UNKNOWN if arguments.get(name) is not None]:
        raise NotImplementedError(f"attention over trees with {', '.join(unknown)}")
    if attention_mask is None or attention_mask.dtype != torch.int64:
        found: tuple[Tensor, None] = sdpa_attention_forward(
            module, query_RHSD, key_RKSD, value_RKSD, attention_mask, dropout, scaling, **arguments
        )
        return found
    if dropout:
        raise NotImplementedError(f"attention over trees with dropout {dropout}")
    num_heads, num_units = query_RHSD.shape[1], query_RHSD.shape[-1]
    scale = num_units**-0.5 if scaling is None else scaling
    if attention_mask not in _PREPARED:
        prepare(attention_mask, COST)
    of_rows = _PREPARED[attention_mask].blocks(num_heads * num_units)
    if torch.is_autocast_enabled(query_RHSD.device.type):
        dtype = torch.get_autocast_dtype(query_RHSD.device.type)
        query_RHSD, key_RKSD, value_RKSD = (one.to(dtype) for one in (query_RHSD, key_RKSD, value_RKSD))
    rows = zip(of_rows, *_group_heads(query_RHSD, key_RKSD, value_RKSD), strict=True)
    outputs = [_BlockAttention.apply(query, key, value, blocks, scale) for blocks, query, key, value in rows]  # type: ignore[no-untyped-call]
    # [K, G, S, D] -> [R, S, H, D]
    return torch.stack([one.flatten(0, 1).transpose(0, 1) for one in outputs]), None


def _group_heads(query_RHSD: Tensor, key_RKSD: Tensor, value_RKSD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """[R, K, G, S, D] and twice [R, K, 1, S, D]: queries beside the keys that they share."""
    num_shared = key_RKSD.shape[1]
    num_rows, _, num_columns, num_units = query_RHSD.shape
    query_RKGSD = query_RHSD.reshape(num_rows, num_shared, -1, num_columns, num_units)
    return query_RKGSD, key_RKSD[:, :, None], value_RKSD[:, :, None]


class _BlockAttention(torch.autograd.Function):
    """Blocks' outputs are merged by the logarithms of their normalizers; a block's gradients are those that it has in
    a softmax over all blocks of its queries, so they add up."""

    @staticmethod
    def forward(
        ctx: Any, query_KGSD: Tensor, key_K1SD: Tensor, value_K1SD: Tensor, blocks: list[PreparedBlock], scale: float
    ) -> Tensor:
        shape = query_KGSD.shape
        key_KGSD, value_KGSD = (one.expand(*shape[:-1], one.shape[-1]) for one in (key_K1SD, value_K1SD))
        is_half = query_KGSD.dtype in (torch.bfloat16, torch.float16)
        dtype = torch.float32 if is_half else query_KGSD.dtype
        output_KGSD = torch.empty(shape, dtype=dtype)
        normalizers_KGS = torch.empty(shape[:-1], dtype=dtype)
        for one in blocks:
            output, normalizers = _flash(
                query_KGSD[:, :, one.queries],
                key_KGSD[:, :, one.keys],
                value_KGSD[:, :, one.keys],
                0.0,
                one.is_causal,
                attn_mask=one.mask_in(query_KGSD.dtype),
                scale=scale,
            )
            if one.block.form is not Form.FULL:
                output_KGSD[:, :, one.queries] = output
                normalizers_KGS[:, :, one.queries] = normalizers
                continue
            before = normalizers_KGS[:, :, one.queries]
            output_KGSD[:, :, one.queries].lerp_(output.to(dtype), (normalizers - before).sigmoid_()[..., None])
            torch.logaddexp(before, normalizers, out=before)
        output_KGSD = output_KGSD.to(query_KGSD.dtype)
        ctx.save_for_backward(query_KGSD, key_K1SD, value_K1SD, output_KGSD, normalizers_KGS)
        ctx.blocks, ctx.scale = blocks, scale
        return output_KGSD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_KGSD: Tensor) -> tuple[Tensor | None, ...]:
        query_KGSD, key_K1SD, value_K1SD, output_KGSD, normalizers_KGS = ctx.saved_tensors
        shape = query_KGSD.shape
        key_KGSD, value_KGSD = (one.expand(*shape[:-1], one.shape[-1]) for one in (key_K1SD, value_K1SD))
        dtype = normalizers_KGS.dtype
        of_query_KGSD = torch.empty(query_KGSD.shape, dtype=dtype)
        of_key_KSD, of_value_KSD = (torch.empty(one[:, 0].shape, dtype=dtype) for one in (key_K1SD, value_K1SD))
        for one in ctx.blocks:
            of_query, of_key, of_value = _flash_backward(
                gradient_KGSD[:, :, one.queries],
                query_KGSD[:, :, one.queries],
                key_KGSD[:, :, one.keys],
                value_KGSD[:, :, one.keys],
                output_KGSD[:, :, one.queries],
                normalizers_KGS[:, :, one.queries],
                0.0,
                one.is_causal,
                attn_mask=one.mask_in(query_KGSD.dtype),
                scale=ctx.scale,
            )
            of_key, of_value = of_key.sum(1), of_value.sum(1)
            if one.block.form is not Form.FULL:
                of_query_KGSD[:, :, one.queries] = of_query
                of_key_KSD[:, one.keys], of_value_KSD[:, one.keys] = of_key, of_value
            else:
                of_query_KGSD[:, :, one.queries] += of_query
                of_key_KSD[:, one.keys] += of_key
                of_value_KSD[:, one.keys] += of_value
        of_all = (of_query_KGSD, of_key_KSD[:, None], of_value_KSD[:, None])
        return *(one.to(query_KGSD.dtype) for one in of_all), None, None


AttentionInterface.register(_NAME, tree_attention)
AttentionMaskInterface.register(_NAME, sdpa_mask)
