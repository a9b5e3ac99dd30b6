"""Packing: nothing is lost, moved, or weighed twice on the way from draws to padded rows."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from services.learner.config import LossNormalization
from services.learner.training.packing import (
    MicroBatch,
    Trajectory,
    credited,
    divided,
    pack,
    padded,
    trajectories_of,
    unpacked,
)
from shared.tree.advantage import Credit, NodeWeight, advantages, node_weights, path_advantages
from shared.tree.draw import WeightVersion
from shared.tree.node import build_tree, trajectory
from tests.learner.synthetic import draws, scored, task

V1, V2 = WeightVersion(1, 1), WeightVersion(1, 2)
seeds = st.integers(0, 10_000)


def grown(seed: int, *, merge: bool = False) -> list[Trajectory]:
    """Credited trajectories of a random tree."""
    tree_of = scored(task(), draws(random.Random(seed), versions=(V1, V2)))
    tree = build_tree(tree_of.draws, merge)
    credit = Credit.named("ibtpo")
    of_paths, weights = path_advantages(tree, credit), node_weights(tree, credit.node_weight)
    return [
        credited(one, tree, number, of_paths[number], weights)
        for number, one in enumerate(trajectories_of(tree_of, tree, V2))
        if tree.leaf_of_draw[number] is not None
    ]


def micro_batches(packed: list[Trajectory], max_tokens: int, *, share_prefixes: bool) -> list[MicroBatch]:
    """All of them."""
    return [padded(plan, packed) for plan in pack(packed, max_tokens, share_prefixes=share_prefixes)]


@given(seeds)
def test_a_trajectory_is_the_prompt_and_what_was_sampled(seed: int) -> None:
    record = draws(random.Random(seed), versions=(V1, V2))
    tree_of = scored(task(), record)
    for number, one in enumerate(trajectories_of(tree_of, build_tree(record), V2)):
        assert one.prompt_ids == tree_of.task.prompt_ids
        assert tuple(one.token_ids.tolist()) == trajectory(record, number)
        draw = record[number]
        assert one.engine_logprobs[draw.cut :].tolist() == pytest.approx(draw.logprobs)
        for span in draw.spans:
            own = one.is_current[draw.cut + span.start : draw.cut + span.end]
            assert set(own.tolist()) == {span.version == V2}


@given(seeds, st.booleans())
def test_every_token_has_the_advantage_of_its_node(seed: int, merge: bool) -> None:
    record = draws(random.Random(seed))
    tree = build_tree(record, merge)
    of_node = advantages(tree, Credit.named("ibtpo"))
    weights = node_weights(tree, NodeWeight.LEAVES)
    for number, one in enumerate(trajectories_of(scored(task(), record), tree, V1)):
        given_credit = credited(one, tree, number, path_advantages(tree, Credit.named("ibtpo"))[number], weights)
        for node_id in tree.path(number):
            node = tree.nodes[node_id]
            assert given_credit.advantages[node.start : node.end] == pytest.approx(np.float32(of_node[node_id]))
        assert given_credit.weights == pytest.approx(1.0)


@given(seeds, st.sampled_from(list(NodeWeight)), st.booleans())
def test_the_weights_of_a_node_over_all_rows_add_up_to_its_own(seed: int, kind: NodeWeight, merge: bool) -> None:
    record = draws(random.Random(seed))
    tree = build_tree(record, merge)
    weights = node_weights(tree, kind)
    total = [0.0] * len(tree.nodes)
    for number, one in enumerate(trajectories_of(scored(task(), record), tree, V1)):
        row = credited(one, tree, number, [0.0] * len(tree.path(number)), weights)
        for node_id in tree.path(number):
            total[node_id] += float(row.weights[tree.nodes[node_id].start])
    assert total[1:] == pytest.approx(weights[1:], rel=1e-5)


@given(seeds, st.integers(1, 200), st.booleans())
@settings(deadline=None)
def test_packing_and_unpacking_gives_every_trajectory_back(seed: int, max_tokens: int, share: bool) -> None:
    packed = grown(seed) + grown(seed + 1)
    seen: dict[int, list[float]] = {}
    for batch in micro_batches(packed, max_tokens, share_prefixes=share):
        num_rows, num_slots = batch.slots.token_ids_RS.shape
        assert num_rows * num_slots <= max_tokens or len(batch.rows) == 1
        for row, values in unpacked(batch.engine_logprobs_BT, batch, packed):
            seen[row] = values.tolist()
        ids_BT = batch.of_answers(batch.slots.token_ids_RS.float())
        for row, ids in unpacked(ids_BT, batch, packed):
            assert ids.tolist() == packed[row].token_ids.tolist()
        assert batch.weights_BT[~batch.is_answer_BT].sum().item() == 0.0
        assert batch.is_answer_BT.sum(-1).tolist() == [len(packed[row].token_ids) for row in batch.rows]
    assert seen == {number: one.engine_logprobs.tolist() for number, one in enumerate(packed)}


def test_columns_that_are_not_known_stay_away() -> None:
    packed = grown(3)
    for batch in micro_batches(packed, 64, share_prefixes=True):
        assert batch.old_logprobs_BT is batch.reference_logprobs_BT is None
    known = [replace(one, old_logprobs=one.engine_logprobs * 2) for one in packed]
    for batch in micro_batches(known, 64, share_prefixes=True):
        assert batch.old_logprobs_BT is not None
        assert torch.equal(batch.old_logprobs_BT, batch.engine_logprobs_BT * 2)


def test_shared_prefixes_take_their_slots_once() -> None:
    packed = grown(4)
    (together,) = micro_batches(packed, 10_000, share_prefixes=True)
    sequences = [(*one.prompt_ids, *one.token_ids.tolist()) for one in packed]
    prefixes = {sequence[:end] for sequence in sequences for end in range(1, len(sequence) + 1)}
    assert together.slots.token_ids_RS.shape == (1, len(prefixes))
    assert together.slots.sees_R1SS is not None
    (apart,) = micro_batches(packed, 10_000, share_prefixes=False)
    assert apart.slots.token_ids_RS.shape == (len(packed), max(map(len, sequences)))
    assert apart.slots.sees_R1SS is None


@pytest.mark.parametrize("divisor", list(LossNormalization))
def test_a_divisor_makes_the_mean_that_it_names(divisor: LossNormalization) -> None:
    packed = grown(5)
    lengths = [len(one.token_ids) for one in packed]
    value = {
        LossNormalization.TRAJECTORY: 1.0,
        LossNormalization.TOKEN: 1.0,
        LossNormalization.CONSTANT: sum(lengths) / (len(packed) * 16),
    }[divisor]
    weighted = divided(packed, divisor, 16)
    # of a loss that is 1 at every token
    assert sum(float(one.weights.sum()) for one in weighted) == pytest.approx(value, rel=1e-5)
    share = [float(one.weights.sum()) for one in weighted]
    if divisor is LossNormalization.TRAJECTORY:
        assert share == pytest.approx([1 / len(packed)] * len(packed), rel=1e-5)
    else:
        assert share == pytest.approx([length * share[0] / lengths[0] for length in lengths], rel=1e-5)
