"""Attention over trees by torch's FlexAttention, for CUDA: blocks of columns that share no prefix are left out.

Shapes: R rows of S columns (`prefix_rows.py`), H heads of queries, K of keys and values, D units of a head, B blocks of
columns.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from torch.nn.functional import pad

BLOCK_SIZE = 128


def flex_tree_attention(
    query_RHSD: Tensor, key_RKSD: Tensor, value_RKSD: Tensor, block_mask: BlockMask, scale: float
) -> Tensor:
    """[R, H, S, D]; compiled where there is a kernel to compile."""
    compute = _compiled() if query_RHSD.is_cuda else flex_attention
    found: Tensor = compute(query_RHSD, key_RKSD, value_RKSD, block_mask=block_mask, scale=scale, enable_gqa=True)
    return found


@cache
def _compiled() -> Any:
    return torch.compile(flex_attention, dynamic=True)


def block_mask_of(exits_RS: Tensor) -> BlockMask:
    """Of columns with these exits, from the blocks' least and largest: no pair of columns is looked at."""
    num_columns = exits_RS.shape[1]
    num_blocks = -(-num_columns // BLOCK_SIZE)

    def is_prefix(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & (query < exits_RS[row, key])

    padding = num_blocks * BLOCK_SIZE - num_columns
    blocks = num_blocks, BLOCK_SIZE
    largest_RB = pad(exits_RS, (0, padding), value=0).unflatten(1, blocks).amax(2)  # type: ignore[no-untyped-call]
    least_RB = pad(exits_RS, (0, padding), value=0).unflatten(1, blocks).amin(2)  # type: ignore[no-untyped-call]
    start_B = torch.arange(num_blocks, device=exits_RS.device) * BLOCK_SIZE
    query_start_B1, key_start_B = start_B[:, None], start_B
    is_before_BB = key_start_B < query_start_B1
    is_whole_RBB = is_before_BB & (query_start_B1 + BLOCK_SIZE <= least_RB[:, None])
    is_partial_RBB = (key_start_B <= query_start_B1) & (query_start_B1 < largest_RB[:, None]) & ~is_whole_RBB
    return BlockMask.from_kv_blocks(
        *_indices(is_partial_RBB),
        *_indices(is_whole_RBB),
        BLOCK_SIZE=BLOCK_SIZE,
        mask_mod=is_prefix,
        seq_lengths=(num_columns, num_columns),
    )


def _indices(is_kept_RBB: Tensor) -> tuple[Tensor, Tensor]:
    """How many blocks of keys each block of queries keeps [R, 1, B], and which, these first [R, 1, B, B]."""
    order_RBB = is_kept_RBB.int().argsort(dim=2, descending=True, stable=True)
    return is_kept_RBB.sum(2).int()[:, None], order_RBB.int()[:, None]
