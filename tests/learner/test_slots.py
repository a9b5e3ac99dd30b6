"""Slots: every token sees its own prefix and nothing else, wherever it is computed."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from services.learner.training.policy import LanguageModel
from services.learner.training.prefix_rows import Block, laid_out
from tests.learner.policies import write_policy

sequences = st.lists(st.lists(st.integers(2, 4), min_size=1, max_size=7), min_size=1, max_size=6)


@given(sequences)
def test_a_slot_follows_and_sees_its_own_prefix_only(rows: list[list[int]]) -> None:
    block = Block()
    expected_new = [block.num_new(row) for row in rows[:1]]
    slots = [block.add(row).tolist() for row in rows]
    assert expected_new == [len(rows[0])]
    assert [block.num_new(row) for row in rows] == [0] * len(rows)
    assert len(block) == len({tuple(row[:end]) for row in rows for end in range(1, len(row) + 1)})
    sees = block.sees(len(block) + 2)
    for row, own in zip(rows, slots, strict=True):
        assert [block.token_ids[slot] for slot in own] == row
        assert [block.positions[slot] for slot in own] == list(range(len(row)))
        assert [block.previous[slot] for slot in own] == [own[0], *own[:-1]]
        for number, slot in enumerate(own):
            assert set(sees[slot].nonzero()[0].tolist()) == set(own[: number + 1])
    assert sees[-1].sum() == sees[-2].sum() == 1


def test_a_chain_needs_no_mask() -> None:
    chain, fork = Block(), Block()
    chain.add([5, 6, 7])
    chain.add([5, 6])
    for row in ([5, 6], [5, 7]):
        fork.add(row)
    assert chain.is_chain
    assert not fork.is_chain
    assert laid_out([chain]).sees_R1SS is None
    assert laid_out([chain, fork]).sees_R1SS is not None


@pytest.mark.parametrize("architecture", ["qwen3", "llama", "gpt2"])
def test_shared_and_separate_slots_have_the_same_logprobs_and_gradients(architecture: str, tmp_path: Path) -> None:
    model = LanguageModel.load(write_policy(tmp_path, architecture), 0.8)
    rows = [[3, 4, 5, 6, 7], [3, 4, 5, 9], [3, 4, 8, 6, 7, 2], [3, 4, 5, 6, 7], [10, 4, 5]]
    separate, shared = [Block() for _ in rows], [Block(), Block()]
    slots_of = [block.add(row) for block, row in zip(separate, rows, strict=True)]
    shared_of = [shared[number == 4].add(row) for number, row in enumerate(rows)]
    gradients = []
    found = []
    for blocks, where in ((separate, slots_of), (shared, shared_of)):
        slots = laid_out(blocks)
        logprobs_RS = model.statistics(slots).logprobs_RS
        of_rows = [
            logprobs_RS[number if blocks is separate else int(number == 4)][where[number]]
            for number in range(len(rows))
        ]
        # a weight of its own for each token, so that none can stand in for another
        weighted = [of_row[1:] * torch.arange(1, len(of_row)) * (number + 1) for number, of_row in enumerate(of_rows)]
        torch.cat(weighted).sum().backward()
        found.append([value.item() for of_row in of_rows for value in of_row[1:]])
        gradients.append({name: p.grad.clone() for name, p in model.module.named_parameters() if p.grad is not None})
        model.module.zero_grad()
    assert found[0] == pytest.approx(found[1], abs=1e-5)
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][name], atol=1e-4), name


def test_a_model_that_does_not_attend_to_everything_shares_nothing(policy_dir: Path) -> None:
    model = LanguageModel.load(policy_dir, 1.0)
    assert model.shares_prefixes
    model.module.config.layer_types = ["full_attention", "sliding_attention"]
    assert not model.shares_prefixes


@given(st.lists(sequences, min_size=1, max_size=3))
@settings(max_examples=20, deadline=None)
def test_rows_are_padded_at_their_end(groups: list[list[list[int]]]) -> None:
    blocks = []
    for rows in groups:
        blocks.append(Block())
        for row in rows:
            blocks[-1].add(row)
    slots = laid_out(blocks)
    for number, block in enumerate(blocks):
        assert slots.token_ids_RS[number, : len(block)].tolist() == block.token_ids
        assert slots.token_ids_RS[number, len(block) :].sum().item() == 0
