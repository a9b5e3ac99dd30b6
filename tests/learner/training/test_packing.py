"""Packing: nothing is lost or moved on the way from trajectories to padded rows."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from services.learner.model.attention.plan import COST, BlockCost
from services.learner.model.pass_cost import PassCost
from services.learner.model.prefix_rows import Layout
from services.learner.training.packing import MicroBatch, default_budget, pack
from services.learner.training.trajectories import Trajectory
from tests.learner.synthetic import credited_trajectories

seeds = st.integers(0, 10_000)


def micro_batches(trajectories: list[Trajectory], max_tokens: int, layout: Layout) -> list[MicroBatch]:
    """All of them."""
    packed = pack(trajectories, max_tokens, layout)
    return [MicroBatch.collate(rows, trajectories) for rows in packed]


def unpad(values_BT: Tensor, batch: MicroBatch) -> Iterator[tuple[int, list[float]]]:
    """The index of every trajectory, with the values at its answer's tokens."""
    for index, values_T, is_answer_T in zip(batch.indices, values_BT, batch.is_answer_BT, strict=True):
        yield index, values_T[is_answer_T].tolist()


@given(seeds, st.integers(1, 200), st.sampled_from(Layout))
@settings(deadline=None)
def test_packing_and_unpadding_gives_every_trajectory_back(seed: int, max_tokens: int, layout: Layout) -> None:
    trajectories = credited_trajectories(seed) + credited_trajectories(seed + 1)
    seen: dict[int, list[float]] = {}
    for batch in micro_batches(trajectories, max_tokens, layout):
        num_rows, num_columns = batch.rows.token_ids_RS.shape
        assert num_rows * num_columns <= max_tokens or len(batch.indices) == 1
        for index, values in unpad(batch.engine_logprobs_BT, batch):
            seen[index] = values
        ids_BT = batch.of_answers(batch.rows.token_ids_RS.float())
        for index, ids in unpad(ids_BT, batch):
            assert ids == trajectories[index].token_ids.tolist()
        assert batch.weights_BT[~batch.is_answer_BT].sum().item() == 0.0
        assert batch.is_answer_BT.sum(-1).tolist() == [len(trajectories[index].token_ids) for index in batch.indices]
    assert seen == {index: one.engine_logprobs.tolist() for index, one in enumerate(trajectories)}


def test_logprobs_that_were_not_read_are_none() -> None:
    trajectories = credited_trajectories(3)
    for batch in micro_batches(trajectories, 64, Layout.JOINED):
        assert batch.old_logprobs_BT is batch.reference_logprobs_BT is None
    known = [replace(one, old_logprobs=one.engine_logprobs * 2) for one in trajectories]
    for batch in micro_batches(known, 64, Layout.JOINED):
        assert batch.old_logprobs_BT is not None
        assert torch.equal(batch.old_logprobs_BT, batch.engine_logprobs_BT * 2)


def test_a_shared_prefix_takes_its_columns_once() -> None:
    trajectories = credited_trajectories(4)
    (together,) = micro_batches(trajectories, 10_000, Layout.JOINED)
    sequences = [(*one.prompt_ids, *one.token_ids.tolist()) for one in trajectories]
    prefixes = {sequence[:end] for sequence in sequences for end in range(1, len(sequence) + 1)}
    assert together.rows.token_ids_RS.shape == (1, len(prefixes))
    assert together.rows.attention_mask_R1SS is not None
    (apart,) = micro_batches(trajectories, 10_000, Layout.APART)
    assert apart.rows.token_ids_RS.shape == (len(trajectories), max(map(len, sequences)))
    assert apart.rows.attention_mask_R1SS is None


def test_a_tree_over_the_budget_is_cut_where_little_is_repeated() -> None:
    """Two branches of ten tokens, drawn in turns: cut between them, each is computed once."""
    first, second = ([token] * 10 for token in (4, 5))
    drawn = [[*branch, 6 + number] for number in range(4) for branch in (first, second)]
    one = credited_trajectories(1)[0]
    trajectories = [replace(one, prompt_ids=(3,), token_ids=np.array(ids)) for ids in drawn]
    rows = [row for batch in pack(trajectories, 15, Layout.JOINED) for row in batch]
    assert [len(row.trie) for row in rows] == [15, 15]


@given(seeds, st.integers(12, 60))
def test_a_cut_tree_computes_the_fewest_columns(seed: int, max_tokens: int) -> None:
    """Of all ways to part the trajectories, depth first, into rows that fit."""
    trajectories = credited_trajectories(seed)
    sequences = sorted([*one.prompt_ids, *one.token_ids.tolist()] for one in trajectories)

    def fewest(start: int) -> float:
        if start == len(sequences):
            return 0
        found = []
        for end in range(start + 1, len(sequences) + 1):
            columns = len({tuple(one[:length]) for one in sequences[start:end] for length in range(1, len(one) + 1)})
            if columns <= max_tokens or end == start + 1:
                found.append(columns + fewest(end))
        return min(found)

    packed = pack(trajectories, max_tokens, Layout.STACKED)
    assert sum(len(row.trie) for rows in packed for row in rows) == fewest(0)


def test_a_tree_that_costs_more_shared_is_computed_apart() -> None:
    trajectories = credited_trajectories(4)
    masked = replace(COST, masked=BlockCost(1e9, 1e9, 1e9))
    dear = PassCost(per_column=0.0, num_layers=1, width=1, attends_to_trees=False, attention=masked)
    assert all(row.trie.is_chain for rows in pack(trajectories, 10_000, Layout.STACKED, cost=dear) for row in rows)
    cheap = replace(dear, per_column=1e12)
    assert len(pack(trajectories, 10_000, Layout.STACKED, cost=cheap)[0]) == 1


def test_the_default_budget_holds_a_tree_of_the_papers_size() -> None:
    one = credited_trajectories(1)[0]
    assert default_budget([one]) == 2048
    long = replace(one, token_ids=np.zeros(2045, np.int64))
    assert default_budget([one, long]) == 8 * 2048


def test_small_trees_of_a_small_model_are_padded_and_masked() -> None:
    trajectories = credited_trajectories(4)
    small, large = (PassCost(per_column, 4, 128, attends_to_trees=True) for per_column in (1e-6, 1e-2))
    trees = [replace(one, prompt_ids=(*one.prompt_ids, number)) for number in range(3) for one in trajectories]
    assert [len(rows) for rows in pack(trees, 10_000, Layout.JOINED, cost=small)] == [3]
    assert [len(rows) for rows in pack(trees, 10_000, Layout.JOINED, cost=large)] == [1]
