"""Trajectories: every token of a draw, with the advantage and weight of its node."""

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.learner.objective_config import LossNormalization
from services.learner.training.trajectories import (
    assign_credit,
    count_advantages,
    extract_trajectories,
    mask_likely,
    normalize_weights,
    penalize_overlong,
)
from shared.tree.credit import Advantages, IBTPOCredit, NodeWeight, SPOTreeCredit, assign_advantages, node_weights
from shared.tree.draw import Draw, trajectory
from shared.tree.node import build_tree
from tests.learner.synthetic import V0, V1, credited_trajectories, draws, scored, task
from tests.tree.records import BLANK_LINE, EOS, A, B, draw

seeds = st.integers(0, 10_000)
CREDIT = IBTPOCredit()


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
    of_node = assign_advantages(CREDIT, tree)
    credited = assign_credit(
        extract_trajectories(scored(task(), record), V0), tree, CREDIT.weights(tree, of_node), of_node
    )
    for number, one in enumerate(credited):
        for node_id in tree.path(number):
            node = tree.nodes[node_id]
            assert one.advantages[node.start : node.end] == pytest.approx(np.float32(of_node.of_nodes[node_id]))
        assert one.weights == pytest.approx(1.0)


@given(seeds)
def test_advantages_are_counted_over_the_tokens_that_are_trained_on(seed: int) -> None:
    group = credited_trajectories(seed)
    rng = random.Random(seed)
    masked = [
        replace(one, weights=one.weights * np.array([rng.random() < 0.7 for _ in one.weights], np.float32))
        for one in group
    ]
    expected: Counter[float] = Counter()
    for one in masked:
        for advantage, weight in zip(one.advantages, one.weights, strict=True):
            if weight:
                expected[float(advantage)] += float(weight)
    assert count_advantages([masked[:1], masked[1:]]) == pytest.approx(expected)


def test_a_token_that_trains_once_is_counted_once_by_whatever_answers_share_it() -> None:
    first = draw([A, BLANK_LINE, A, EOS], 1.0)
    record = (first, draw([B, EOS], 0.0, before=[first], parent=0, cut=2), draw([B, EOS], 0.0))
    credit, tree = SPOTreeCredit(), build_tree(record)
    advantages = assign_advantages(credit, tree)
    group = assign_credit(
        extract_trajectories(scored(task(), record), V0), tree, credit.weights(tree, advantages), advantages
    )
    assert count_advantages([group]) == pytest.approx({0.25: 2.0, 0.5: 2.0, -0.5: 2.0, -0.25: 2.0})


@given(seeds, st.sampled_from(list(NodeWeight)), st.booleans())
def test_the_weights_of_a_node_over_all_trajectories_add_up_to_its_own(
    seed: int, node_weight: NodeWeight, merge: bool
) -> None:
    record = draws(random.Random(seed))
    tree = build_tree(record, merge)
    zeros = (0.0,) * len(tree.nodes)
    weights = replace(CREDIT, node_weight=node_weight).weights(tree, Advantages(zeros))
    total = [0.0] * len(tree.nodes)
    trajectories = extract_trajectories(scored(task(), record), V0)
    for number, one in enumerate(assign_credit(trajectories, tree, weights, Advantages(zeros))):
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


@given(seeds)
def test_a_branch_inherits_what_its_prefix_was_sampled_from(seed: int) -> None:
    record = [
        replace(draw, sampling_logprobs=tuple(value / 2 for value in draw.logprobs))
        for draw in draws(random.Random(seed))
    ]
    plain = extract_trajectories(scored(task(), draws(random.Random(seed))), V0)
    for cut, whole in zip(extract_trajectories(scored(task(), record), V0), plain, strict=True):
        assert cut.sampling_logprobs == pytest.approx(whole.engine_logprobs / 2)
        assert cut.engine_logprobs.tolist() == whole.engine_logprobs.tolist() == whole.sampling_logprobs.tolist()


@pytest.mark.parametrize("normalization", list(LossNormalization))
def test_masked_answers_have_no_loss_and_count_as_answers_without_tokens(normalization: LossNormalization) -> None:
    trajectories = [replace(one, is_cut=nth % 3 == 0) for nth, one in enumerate(credited_trajectories(5))]
    kept = [one for one in trajectories if not one.is_cut]
    masked = normalize_weights(trajectories, normalization, 16, mask_truncated=True)
    alone = normalize_weights(kept, normalization, 16)
    assert [one.token_ids.tolist() for one in masked] == [one.token_ids.tolist() for one in kept]
    share = 1.0 if normalization is LossNormalization.TOKEN else len(kept) / len(trajectories)
    for one, other in zip(masked, alone, strict=True):
        assert one.weights == pytest.approx(other.weights * share)
    assert len(normalize_weights(trajectories, normalization, 16)) == len(trajectories)


@pytest.mark.parametrize("normalization", list(LossNormalization))
def test_probable_tokens_have_no_loss_and_count_in_no_divisor(normalization: LossNormalization) -> None:
    trajectories, bound = credited_trajectories(5), 0.3
    masked = mask_likely(trajectories, bound)
    for one, before in zip(masked, trajectories, strict=True):
        expected = [0.0 if math.exp(logprob) >= bound else 1.0 for logprob in before.engine_logprobs.tolist()]
        assert one.weights.tolist() == expected
    num_trained = [max(int(one.weights.sum()), 1) for one in masked]
    assert min(num_trained) < max(len(one.weights) for one in masked)
    divisors = {
        LossNormalization.TRAJECTORY: [len(masked) * count for count in num_trained],
        LossNormalization.TOKEN: [sum(int(one.weights.sum()) for one in masked)] * len(masked),
        LossNormalization.CONSTANT: [len(masked) * 16] * len(masked),
    }[normalization]
    for one, before, divisor in zip(normalize_weights(masked, normalization, 16), masked, divisors, strict=True):
        assert one.weights == pytest.approx(before.weights / divisor)
    assert mask_likely(trajectories, None) == trajectories


def test_given_tokens_are_not_trained_on_nor_counted() -> None:
    """Also those that a branch shares."""
    record = draws(random.Random(11), 2, 2)
    whole = [
        replace(one, given=((0, 1), (len(one.token_ids) - 1, len(one.token_ids)))[: len(one.token_ids)])
        for one in record
    ]
    tree = build_tree(whole)
    of_nodes = assign_advantages(CREDIT, tree)
    trajectories = extract_trajectories(scored(task(), whole), V0)
    group = assign_credit(trajectories, tree, CREDIT.weights(tree, of_nodes), of_nodes)
    for draw_id, one in enumerate(group):
        given_at = {
            at
            for at, j in enumerate(samplers(whole, draw_id))
            for start, end in whole[j].given
            if start <= at - whole[j].cut < end
        }
        assert given_at
        assert one.weights.tolist() == [0.0 if at in given_at else 1.0 for at in range(len(one.weights))]
        assert not one.is_current[sorted(given_at)].any()
    for one in normalize_weights(group, LossNormalization.TRAJECTORY, 16):
        assert float(one.weights.sum()) in (0.0, pytest.approx(1 / len(group), rel=1e-5))


def samplers(record: Sequence[Draw], draw_id: int) -> list[int]:
    """Which draw each token of a trajectory is of."""
    one = record[draw_id]
    above = [] if one.parent is None else samplers(record, one.parent)[: one.cut]
    return above + [draw_id] * len(one.token_ids)


@given(seeds, st.sampled_from([NodeWeight.ONE, NodeWeight.SQRT, NodeWeight.DRAWS]))
def test_a_mean_over_tokens_is_by_their_weights(seed: int, node_weight: NodeWeight) -> None:
    credit, record = IBTPOCredit(node_weight=node_weight), draws(random.Random(seed))
    tree = build_tree(record)
    of_nodes = assign_advantages(credit, tree)
    trajectories = extract_trajectories(scored(task(), record), V0)
    group = assign_credit(trajectories, tree, credit.weights(tree, of_nodes), of_nodes)
    weighted = normalize_weights(group, LossNormalization.TOKEN, 16)
    assert sum(float(one.weights.sum()) for one in weighted) == pytest.approx(1.0, rel=1e-5)


@given(st.integers(1, 40), st.floats(0.05, 1.0), st.floats(0.1, 2.0))
def test_a_long_answer_loses_reward_linearly(length: int, share: float, penalty: float) -> None:
    limit = 40
    (draw,) = draws(random.Random(0), 1, 0, rewards=(1.0,))
    draw = replace(
        draw,
        token_ids=(2,) * length,
        logprobs=(-1.0,) * length,
        step_ends=(length,),
        spans=(replace(draw.spans[0], start=0, end=length),),
    )
    tree = penalize_overlong(build_tree([draw]), limit, share, penalty)
    cache = share * limit  # DAPO: L_cache, of L_max
    expected = 0.0 if length <= limit - cache else ((limit - cache) - length) / cache
    assert tree.rewards == (pytest.approx(1.0 + penalty * expected, abs=1e-6),)
    assert tree.nodes[-1].reward == pytest.approx(tree.rewards[0])


def test_without_a_share_rewards_stay() -> None:
    tree = build_tree(draws(random.Random(1)))
    assert penalize_overlong(tree, 16, 0.0, 1.0) is tree
