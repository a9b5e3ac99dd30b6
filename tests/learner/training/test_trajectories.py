"""Trajectories: every token of a draw, with the advantage and weight of its node."""

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.learner.objective_config import LossNormalization
from services.learner.training.trajectories import assign_credit, extract_trajectories, normalize_weights
from shared.tree.advantage import Advantages, Credit, NodeWeight, advantages, node_weights
from shared.tree.draw import trajectory
from shared.tree.node import build_tree
from tests.learner.synthetic import V0, V1, credited_trajectories, draws, scored, task

seeds = st.integers(0, 10_000)
CREDIT = Credit.by_name("ibtpo")


@given(seeds)
def test_a_trajectory_is_the_prompt_and_what_was_sampled(seed: int) -> None:
    record = draws(random.Random(seed), versions=(V0, V1))
    tree = scored(task(), record)
    for number, one in enumerate(extract_trajectories(tree, V1)):
        assert one.prompt_ids == tree.task.prompt_ids
        assert tuple(one.token_ids.tolist()) == trajectory(record, number)
        draw = record[number]
        assert one.engine_logprobs[draw.cut :].tolist() == pytest.approx(draw.logprobs)
        for span in draw.spans:
            is_current = one.is_current[draw.cut + span.start : draw.cut + span.end]
            assert set(is_current.tolist()) == {span.version == V1}


@given(seeds, st.booleans())
def test_every_token_has_the_advantage_of_its_node(seed: int, merge: bool) -> None:
    record = draws(random.Random(seed))
    tree = build_tree(record, merge)
    of_node = advantages(tree, CREDIT)
    credited = assign_credit(extract_trajectories(scored(task(), record), V0), tree, CREDIT, of_node)
    for number, one in enumerate(credited):
        for node_id in tree.path(number):
            node = tree.nodes[node_id]
            assert one.advantages[node.start : node.end] == pytest.approx(np.float32(of_node.total[node_id]))
        assert one.weights == pytest.approx(1.0)


@given(seeds, st.sampled_from(list(NodeWeight)), st.booleans())
def test_the_weights_of_a_node_over_all_trajectories_add_up_to_its_own(
    seed: int, node_weight: NodeWeight, merge: bool
) -> None:
    record = draws(random.Random(seed))
    tree = build_tree(record, merge)
    zeros = (0.0,) * len(tree.nodes)
    credit = replace(CREDIT, node_weight=node_weight)
    total = [0.0] * len(tree.nodes)
    trajectories = extract_trajectories(scored(task(), record), V0)
    for number, one in enumerate(assign_credit(trajectories, tree, credit, Advantages(zeros, zeros))):
        for node_id in tree.path(number):
            total[node_id] += float(one.weights[tree.nodes[node_id].start])
    assert total[1:] == pytest.approx(node_weights(tree, node_weight)[1:], rel=1e-5)


@pytest.mark.parametrize("normalization", list(LossNormalization))
def test_a_loss_is_normalized_to_the_mean_that_its_name_says(normalization: LossNormalization) -> None:
    trajectories = credited_trajectories(5)
    lengths = [len(one.token_ids) for one in trajectories]
    value = {
        LossNormalization.TRAJECTORY: 1.0,
        LossNormalization.TOKEN: 1.0,
        LossNormalization.CONSTANT: sum(lengths) / (len(trajectories) * 16),
    }[normalization]
    weighted = normalize_weights(trajectories, normalization, 16)
    # of a loss that is 1 at every token
    assert sum(float(one.weights.sum()) for one in weighted) == pytest.approx(value, rel=1e-5)
    share = [float(one.weights.sum()) for one in weighted]
    if normalization is LossNormalization.TRAJECTORY:
        assert share == pytest.approx([1 / len(trajectories)] * len(trajectories), rel=1e-5)
    else:
        assert share == pytest.approx([length * share[0] / lengths[0] for length in lengths], rel=1e-5)
