"""Prefix rows: every token sees its own prefix and nothing else, wherever it is computed."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from services.learner.model.policy import LanguageModel
from services.learner.model.prefix_rows import PrefixRows, PrefixTrie
from tests.learner.policies import write_policy
from tests.learner.synthetic import trie_of

sequences = st.lists(st.lists(st.integers(2, 4), min_size=1, max_size=7), min_size=1, max_size=6)


@given(sequences)
def test_a_column_follows_and_attends_to_its_own_prefix_only(rows: list[list[int]]) -> None:
    trie, found = PrefixTrie.of(rows)
    columns_of = [columns.tolist() for columns in found]
    assert len(trie) == len({tuple(row[:end]) for row in rows for end in range(1, len(row) + 1)})
    longer = trie_of([9] * (len(trie) + 2), [9, 8])
    mask_R1SS = PrefixRows.collate([trie, longer]).attention_mask_R1SS
    assert mask_R1SS is not None
    mask = mask_R1SS[0, 0, : len(trie) + 2, : len(trie) + 2].numpy()
    for row, columns in zip(rows, columns_of, strict=True):
        assert [trie.token_ids[column] for column in columns] == row
        assert [trie.positions[column] for column in columns] == list(range(len(row)))
        assert [trie.previous[column] for column in columns] == [columns[0], *columns[:-1]]
        for number, column in enumerate(columns):
            assert set(mask[column].nonzero()[0].tolist()) == set(columns[: number + 1])
    assert not mask[len(trie) :, : len(trie)].any()


def test_a_chain_needs_no_mask() -> None:
    chain, fork = trie_of([5, 6, 7], [5, 6]), trie_of([5, 6], [5, 7])
    assert chain.is_chain
    assert not fork.is_chain
    assert PrefixRows.collate([chain]).attention_mask_R1SS is None
    assert PrefixRows.collate([chain, fork]).attention_mask_R1SS is not None


@pytest.mark.parametrize("architecture", ["qwen3", "llama", "gpt2"])
def test_shared_and_separate_columns_have_the_same_logprobs_and_gradients(architecture: str, tmp_path: Path) -> None:
    model = LanguageModel.load(write_policy(tmp_path, architecture), 0.8)
    sequences = [[3, 4, 5, 6, 7], [3, 4, 5, 9], [3, 4, 8, 6, 7, 2], [3, 4, 5, 6, 7], [10, 4, 5]]
    gradients, found = [], []
    for rows in ([[one] for one in sequences], [sequences[:4], sequences[4:]], [sequences]):
        packed = [PrefixTrie.of(row) for row in rows]
        logprobs_RS = model.statistics(PrefixRows.collate([trie for trie, _ in packed])).logprobs_RS
        of_sequences = [logprobs_RS[row][columns] for row, (_, of_row) in enumerate(packed) for columns in of_row]
        # a weight of its own for each token, so that none can stand in for another
        weighted = [one[1:] * torch.arange(1, len(one)) * (number + 1) for number, one in enumerate(of_sequences)]
        torch.cat(weighted).sum().backward()
        found.append([value.item() for one in of_sequences for value in one[1:]])
        gradients.append({name: p.grad.clone() for name, p in model.module.named_parameters() if p.grad is not None})
        model.module.zero_grad()
    for shared, of_shared in zip(found[1:], gradients[1:], strict=True):
        assert found[0] == pytest.approx(shared, abs=1e-5)
        for name, gradient in gradients[0].items():
            assert torch.allclose(gradient, of_shared[name], atol=1e-4), name


@given(st.lists(sequences, min_size=1, max_size=3))
@settings(max_examples=20, deadline=None)
def test_rows_are_padded_at_their_end(groups: list[list[list[int]]]) -> None:
    tries = [trie_of(*group) for group in groups]
    rows = PrefixRows.collate(tries)
    for number, trie in enumerate(tries):
        assert rows.token_ids_RS[number, : len(trie)].tolist() == trie.token_ids.tolist()
        assert rows.token_ids_RS[number, len(trie) :].sum().item() == 0
