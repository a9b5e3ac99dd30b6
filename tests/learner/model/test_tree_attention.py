"""Attention over trees: every token's is that over its own prefix, whatever the blocks are."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask
from torch.nn.functional import scaled_dot_product_attention

from services.learner.model.attention.flex import block_mask_of, flex_tree_attention
from services.learner.model.attention.plan import COST, FEWEST_PAIRS, AttentionCost, BlockCost, Form, plan_blocks
from services.learner.model.attention.tree_attention import Rows, prepare, tree_attention
from services.learner.model.policy import LanguageModel
from services.learner.model.prefix_rows import Layout, PrefixRows, PrefixTrie
from tests.learner.policies import write_policy
from tests.learner.synthetic import trie_of

sequences = st.lists(st.lists(st.integers(2, 4), min_size=1, max_size=9), min_size=1, max_size=9)
_ALIKE = BlockCost(per_call=10.0, per_pair=1.0, per_query=1.0, per_key=1.0)
BETWEEN = AttentionCost(_ALIKE, _ALIKE, _ALIKE)
NUM_HEADS, NUM_SHARED, NUM_UNITS, SCALE = 6, 2, 8, 0.4


class Layer(nn.Module):
    """What transformers hands to an attention function."""

    num_key_value_groups = NUM_HEADS // NUM_SHARED


def inputs(rows: PrefixRows, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Queries, keys and values of random numbers."""
    num_rows, num_columns = rows.token_ids_RS.shape
    heads = (NUM_HEADS, NUM_SHARED, NUM_SHARED)
    return [torch.randn(num_rows, one, num_columns, NUM_UNITS, dtype=dtype, requires_grad=True) for one in heads]


def results(output: Tensor, leaves: list[Tensor], gradient: Tensor) -> list[Tensor]:
    """The output, and the gradients of the leaves, which it clears."""
    output.backward(gradient)  # type: ignore[no-untyped-call]
    found = [output.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]
    for leaf in leaves:
        leaf.grad = None
    return found


@given(st.lists(sequences, min_size=1, max_size=3), st.sampled_from([COST, FEWEST_PAIRS, BETWEEN]))
@settings(deadline=None)
def test_blocks_compute_what_a_mask_computes(groups: list[list[list[int]]], cost: AttentionCost) -> None:
    rows = PrefixRows.collate([trie_of([9], [8], *group) for group in groups])
    query, key, value = leaves = inputs(rows)
    output, _ = tree_attention(Layer(), query, key, value, prepare(rows.exits_R11S, cost), scaling=SCALE)
    gradient = torch.randn_like(output)
    found = results(output, leaves, gradient)
    keys, values = (one.repeat_interleave(NUM_HEADS // NUM_SHARED, 1) for one in (key, value))
    mask = rows.attention_mask_R1SS
    masked = scaled_dot_product_attention(query, keys, values, attn_mask=mask, scale=SCALE).transpose(1, 2)
    for ours, expected in zip(found, results(masked, leaves, gradient), strict=True):
        assert torch.allclose(ours, expected, rtol=0, atol=1e-13)


@given(sequences, st.sampled_from([COST, FEWEST_PAIRS, BETWEEN]))
@settings(deadline=None)
def test_every_pair_of_a_prefix_is_computed_once(rows: list[list[int]], cost: AttentionCost) -> None:
    trie = trie_of(*rows)
    counts = np.zeros((len(trie), len(trie)), int)
    for one in Rows(torch.from_numpy(trie.exits)[None], cost).blocks(1)[0]:
        pairs = counts[one.queries, one.keys]
        if one.form is Form.CAUSAL:
            pairs += np.tri(len(pairs), dtype=int)
        else:
            pairs += 1 if one.mask is None else one.mask[0, 0].isfinite().numpy()
    mask = PrefixRows.collate([trie, trie_of([9], [8])]).attention_mask_R1SS
    assert mask is not None
    assert (counts == mask[0, 0, : len(trie), : len(trie)].numpy()).all()


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention_computes_what_a_mask_computes() -> None:
    """Over rows that are longer than one of its blocks."""
    long = [[2] * 200, [2] * 150 + [3] * 90, [2] * 20 + [4] * 300, [5] * 140]
    rows = PrefixRows.collate([trie_of(*long), trie_of(*long[1:])])
    query, key, value = (one.detach() for one in inputs(rows, torch.float32))
    mask, exits_RS = rows.attention_mask_R1SS, rows.exits_RS
    assert mask is not None
    assert exits_RS is not None
    block_mask = block_mask_of(exits_RS)
    found = flex_tree_attention(query, key, value, block_mask, SCALE)
    keys, values = (one.repeat_interleave(NUM_HEADS // NUM_SHARED, 1) for one in (key, value))
    masked = scaled_dot_product_attention(query, keys, values, attn_mask=mask, scale=SCALE)
    assert torch.allclose(found, masked, atol=1e-5)
    size = block_mask.BLOCK_SIZE[0]
    kept = block_mask.to_dense().bool().repeat_interleave(size, 2).repeat_interleave(size, 3)
    length = exits_RS.shape[1]
    assert not (mask & ~kept[:, :, :length, :length]).any()
    whole = BlockMask.from_kv_blocks(
        block_mask.full_kv_num_blocks, block_mask.full_kv_indices, BLOCK_SIZE=size, seq_lengths=(length, length)
    )
    every = whole.to_dense().bool().repeat_interleave(size, 2).repeat_interleave(size, 3)[:, :, :length, :length]
    assert mask[every.expand_as(mask)].all()


def test_a_large_tree_needs_no_memory_of_its_square() -> None:
    """A thousand answers of 40 tokens after a prompt of 400: 40,400 columns."""
    prompt = list(range(400))
    exits = trie_of(*([*prompt, 1000 + number, *range(39)] for number in range(1000))).exits
    blocks = plan_blocks(exits, 64, COST).blocks
    masked = sum((one.end - one.start) ** 2 for one in blocks if one.form is Form.MASKED)
    assert masked < 100 * len(exits)
    assert len(blocks) <= 1002


def test_half_precision_is_as_exact_as_a_mask_in_it() -> None:
    rows = PrefixRows.collate([trie_of([2, 3, *[4] * 20], [2, 3, *[5] * 9], [2, 3, 6])])
    leaves = inputs(rows, torch.bfloat16)
    mask = prepare(rows.exits_R11S, FEWEST_PAIRS)
    output, _ = tree_attention(Layer(), *leaves, mask, scaling=SCALE)
    exact, _ = tree_attention(Layer(), *(one.double() for one in leaves), mask, scaling=SCALE)
    assert output.dtype is torch.bfloat16
    gradient = torch.randn_like(output)
    found, expected = results(output, leaves, gradient), results(exact, leaves, gradient.double())
    for ours, true in zip(found, expected, strict=True):
        assert float((ours - true).abs().max() / true.abs().max()) < 0.02


def test_autocast_computes_in_half_precision() -> None:
    rows = PrefixRows.collate([trie_of([2, 3], [2, 4])])
    with torch.autocast("cpu", torch.bfloat16):
        output, _ = tree_attention(Layer(), *inputs(rows, torch.float32), rows.exits_R11S, scaling=SCALE)
    assert output.dtype is torch.bfloat16


def test_what_it_does_not_know_is_refused() -> None:
    rows = PrefixRows.collate([trie_of([2, 3], [2, 4])])
    for arguments in ({"softcap": 30.0}, {"dropout": 0.1}, {"s_aux": torch.zeros(6)}):
        with pytest.raises(NotImplementedError):
            tree_attention(Layer(), *inputs(rows), rows.exits_R11S, **arguments)


@pytest.mark.parametrize(
    ("architecture", "tolerance"),
    [("gpt2", 1e-13), ("phi", 1e-13), ("qwen3", 1e-6), ("llama", 1e-6)],  # RMSNorm rounds to single precision
)
@pytest.mark.parametrize("cost", [COST, FEWEST_PAIRS])
def test_sharing_is_exact_in_double_precision(
    architecture: str, tolerance: float, cost: AttentionCost, tmp_path: Path
) -> None:
    model = LanguageModel.load(write_policy(tmp_path, architecture), 0.8)
    assert model.layout is Layout.JOINED
    model.module.double()
    answers = [[3, 4, 5, 6, 7], [3, 4, 5, 9], [3, 4, 8, 6, 7, 2], [3, 4, 5, 6, 7], [10, 4, 5]]
    apart = gradients_of(model, [[one] for one in answers], cost)
    for groups in ([answers[:4], answers[4:]], [answers]):
        for name, gradient in gradients_of(model, groups, cost).items():
            assert float((gradient - apart[name]).abs().max() / apart[name].abs().max()) < tolerance, name


def gradients_of(model: LanguageModel, groups: list[list[list[int]]], cost: AttentionCost) -> dict[str, Any]:
    """Of the last hidden states, each trajectory's with weights of its own."""
    packed = [PrefixTrie.of(group) for group in groups]
    rows = PrefixRows.collate([trie for trie, _ in packed])
    mask = prepare(rows.exits_R11S, cost)
    hidden_RSD = model.module.base_model(
        input_ids=rows.token_ids_RS, position_ids=rows.positions_RS, attention_mask=mask, use_cache=False
    ).last_hidden_state
    places = [(row, columns) for row, (_, of_row) in enumerate(packed) for columns in of_row]
    weights_TD = torch.randn(64, hidden_RSD.shape[-1], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sums = [
        (number * weights_TD[: len(columns)] * hidden_RSD[row, columns]).sum()
        for number, (row, columns) in enumerate(places, 1)
    ]
    torch.stack(sums).sum().backward()  # type: ignore[no-untyped-call]
    found = {name: one.grad.clone() for name, one in model.module.named_parameters() if one.grad is not None}
    model.module.zero_grad()
    return found
