"""Attention over rows that hold trees: a token attends to its own prefix, and nothing of size S·S is built.

Shapes: R rows of S columns (`prefix_rows.py`), H heads of queries, K of keys and values, G = H/K, D units of a head.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.attention.flex_attention import BlockMask
from torch.utils.weak import WeakTensorKeyDictionary
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from services.learner.model.attention.flex import block_mask_of, flex_tree_attention
from services.learner.model.attention.plan import COST, AttentionCost, Block, Form, plan_blocks
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

    form: Form
    queries: slice
    keys: slice
    mask: Tensor | None

    @classmethod
    def of(cls, block: Block, exits_S: Ints) -> "PreparedBlock":
        queries, keys = slice(block.start, block.end), slice(block.first_key, block.last_key)
        if block.form is not Form.MASKED:
            return cls(block.form, queries, keys, None)
        query_Q1 = np.arange(block.start, block.end)[:, None]
        is_prefix_QK = (query_Q1 >= query_Q1.T) & (query_Q1 < exits_S[keys])
        mask_QK = np.where(is_prefix_QK, np.float32(0), np.float32(-np.inf))
        return cls(block.form, queries, keys, torch.from_numpy(mask_QK)[None, None])

    def arguments(self, dtype: torch.dtype) -> dict[str, Any]:
        """Of torch's kernel, which reads a mask as the queries' type."""
        return {
            "dropout_p": 0.0,
            "is_causal": self.form is Form.CAUSAL,
            "attn_mask": None if self.mask is None else self.mask.to(dtype),
        }


class Rows:
    """The rows of a micro-batch in blocks, which are planned once for all layers of one width."""

    def __init__(self, exits_RS: Tensor, cost: AttentionCost) -> None:
        self._exits_RS = exits_RS
        self._cost = cost
        self._of_width: dict[int, list[list[PreparedBlock]]] = {}

    def blocks(self, width: int) -> list[list[PreparedBlock]]:
        """Of each row, in a layer of this many heads times units."""
        if width not in self._of_width:
            self._of_width[width] = [
                [PreparedBlock.of(block, exits_S) for block in plan_blocks(exits_S, width, self._cost).blocks]
                for exits_S in self._exits_RS.numpy()
            ]
        return self._of_width[width]

    @cached_property
    def block_mask(self) -> BlockMask:
        """The same, for FlexAttention."""
        return block_mask_of(self._exits_RS)


_PREPARED: "WeakTensorKeyDictionary" = WeakTensorKeyDictionary()
"""By the exits that are a mask. transformers hands a mask of four dimensions to every layer as it is."""


def use_tree_attention(module: PreTrainedModel) -> bool:
    """Makes the layers of a model that would compute `sdpa` take trees; without them they compute that still. Whether
    they do."""
    if module.config._attn_implementation != "sdpa":
        return False
    module.set_attn_implementation(_NAME)
    return bool(module.config._attn_implementation == _NAME)


def prepare(exits_R11S: Tensor | None, cost: AttentionCost) -> Tensor | None:
    """The exits as an attention mask, to be computed in the blocks of least cost."""
    if exits_R11S is not None:
        _PREPARED[exits_R11S] = Rows(exits_R11S[:, 0, 0], cost)
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
    prepared = _PREPARED[attention_mask]
    if torch.is_autocast_enabled(query_RHSD.device.type):
        dtype = torch.get_autocast_dtype(query_RHSD.device.type)
        query_RHSD, key_RKSD, value_RKSD = (one.to(dtype) for one in (query_RHSD, key_RKSD, value_RKSD))
    if query_RHSD.is_cuda:
        output_RHSD = flex_tree_attention(query_RHSD, key_RKSD, value_RKSD, prepared.block_mask, scale)
        return output_RHSD.transpose(1, 2).contiguous(), None
    of_rows = prepared.blocks(num_heads * num_units)
    rows = zip(*(one.transpose(1, 2) for one in (query_RHSD, key_RKSD, value_RKSD)), of_rows, strict=True)
    return torch.stack([_BlockAttention.apply(*of_row, scale) for of_row in rows]), None  # type: ignore[no-untyped-call]


class _BlockAttention(torch.autograd.Function):
    """Blocks' outputs are merged by the logarithms of their normalizers; a block's gradients are those that it has in
    a softmax over all blocks of its queries, so they add up."""

    @staticmethod
    def forward(
        ctx: Any, query_SHD: Tensor, key_SKD: Tensor, value_SKD: Tensor, blocks: list[PreparedBlock], scale: float
    ) -> Tensor:
        is_half = query_SHD.dtype in (torch.bfloat16, torch.float16)
        dtype = torch.float32 if is_half else query_SHD.dtype
        output_SHD = torch.empty(query_SHD.shape, dtype=dtype)
        normalizers_SH = torch.empty(query_SHD.shape[:2], dtype=dtype)
        num_shared = key_SKD.shape[1]
        query, output = _by_shared_head(query_SHD, num_shared), _by_shared_head(output_SHD, num_shared)
        key, value = _for_queries(key_SKD, query), _for_queries(value_SKD, query)
        normalizers = _by_shared_head(normalizers_SH[..., None], num_shared)[..., 0]
        for one in blocks:
            arguments = one.arguments(query_SHD.dtype)
            found, found_normalizers = _flash(
                query[:, :, one.queries], key[:, :, one.keys], value[:, :, one.keys], **arguments, scale=scale
            )
            if one.form is not Form.FULL:
                output[:, :, one.queries], normalizers[:, :, one.queries] = found, found_normalizers
                continue
            before = normalizers[:, :, one.queries]
            output[:, :, one.queries].lerp_(found.to(dtype), (found_normalizers - before).sigmoid_()[..., None])
            torch.logaddexp(before, found_normalizers, out=before)
        output_SHD = output_SHD.to(query_SHD.dtype)
        ctx.save_for_backward(query_SHD, key_SKD, value_SKD, output_SHD, normalizers_SH)
        ctx.blocks, ctx.scale = blocks, scale
        return output_SHD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_SHD: Tensor) -> tuple[Tensor | None, ...]:
        query_SHD, key_SKD, value_SKD, output_SHD, normalizers_SH = ctx.saved_tensors
        dtype, num_shared = normalizers_SH.dtype, key_SKD.shape[1]
        of_all = [torch.empty(one.shape, dtype=dtype) for one in (query_SHD, key_SKD, value_SKD)]
        gradient, query, output, of_query = (
            _by_shared_head(one, num_shared) for one in (gradient_SHD, query_SHD, output_SHD, of_all[0])
        )
        key, value = _for_queries(key_SKD, query), _for_queries(value_SKD, query)
        of_key, of_value = (one.transpose(0, 1) for one in of_all[1:])
        normalizers = _by_shared_head(normalizers_SH[..., None], num_shared)[..., 0]
        for one in ctx.blocks:
            found, found_key, found_value = _flash_backward(
                gradient[:, :, one.queries],
                query[:, :, one.queries],
                key[:, :, one.keys],
                value[:, :, one.keys],
                output[:, :, one.queries],
                normalizers[:, :, one.queries],
                **one.arguments(query_SHD.dtype),
                scale=ctx.scale,
            )
            found_key, found_value = found_key.sum(1), found_value.sum(1)
            if one.form is not Form.FULL:
                of_query[:, :, one.queries] = found
                of_key[:, one.keys], of_value[:, one.keys] = found_key, found_value
            else:
                of_query[:, :, one.queries] += found
                of_key[:, one.keys] += found_key
                of_value[:, one.keys] += found_value
        return *(one.to(query_SHD.dtype) for one in of_all), None, None


def _by_shared_head(tensor_SHD: Tensor, num_shared: int) -> Tensor:
    """[K, G, S, D]: the heads that share keys beside each other."""
    num_columns, num_heads, num_units = tensor_SHD.shape
    return tensor_SHD.reshape(num_columns, num_shared, num_heads // num_shared, num_units).permute(1, 2, 0, 3)


def _for_queries(tensor_SKD: Tensor, query_KGSD: Tensor) -> Tensor:
    """[K, G, S, D], in the memory of the keys that heads share."""
    return tensor_SKD.transpose(0, 1)[:, None].expand(-1, query_KGSD.shape[1], -1, -1)


AttentionInterface.register(_NAME, tree_attention)
AttentionMaskInterface.register(_NAME, sdpa_mask)
