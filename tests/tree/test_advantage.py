"""Credit, against its definitions and against the methods that it must agree with."""

import math
from collections.abc import Callable
from dataclasses import replace
from statistics import fmean, pstdev, stdev

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from shared.tree.advantage import (
    Credit,
    Deviation,
    GlobalTerm,
    NodeWeight,
    Prior,
    advantages,
    node_weights,
    path_advantages,
)
from shared.tree.draw import Draw
from shared.tree.ib_score import Confidence, IBSettings, confidences, ib_scores
from shared.tree.node import Tree, build_tree
from shared.tree.values import ValueEstimator, node_values
from tests.tree.definitions import ROOT, Definitions, states_of
from tests.tree.records import BLANK_LINE, EOS, A, B, draw, orders, permuted, quick, records

credits_ = st.builds(
    Credit,
    global_term=st.sampled_from(GlobalTerm),
    values=st.sampled_from(ValueEstimator),
    lam=st.sampled_from([0.0, 0.1, 1.0]),
    beta=st.sampled_from([0.5, 5.0]),
    confidence=st.sampled_from(Confidence),
    ib_on_ties=st.booleans(),
)


def grpo(rewards: list[float]) -> list[float]:
    """(R − mean)/(std + ε), as published."""
    return [(reward - fmean(rewards)) / (pstdev(rewards) + 1e-6) for reward in rewards]


def of_paths(tree: Tree, credit: Credit) -> tuple[tuple[float, ...], ...]:
    return path_advantages(tree, credit, advantages(tree, credit).total)


def mixed(draws: tuple[Draw, ...]) -> Tree:
    tree = build_tree(draws)
    assume(tree.is_mixed)
    return tree


@given(records(max_branches=0, min_first=2), st.sampled_from([ValueEstimator.COUNTS, ValueEstimator.BACKUP]))
@quick
def test_on_independent_rollouts_the_global_advantage_is_grpos(draws: tuple[Draw, ...], values: ValueEstimator) -> None:
    tree = mixed(draws)
    of_node = advantages(tree, Credit(values=values, lam=0.0)).total
    for draw_id, expected in enumerate(grpo(list(tree.rewards))):
        assert [of_node[node_id] for node_id in tree.path(draw_id)] == pytest.approx(
            [expected] * len(tree.path(draw_id))
        )


@given(records(), st.booleans(), credits_)
@quick
def test_advantages_are_as_defined(draws: tuple[Draw, ...], merge: bool, credit: Credit) -> None:
    credit = replace(credit, global_term=GlobalTerm.NODES)
    tree, slow = build_tree(draws, merge), Definitions(draws, merge, beta=credit.beta)
    found = advantages(tree, credit).total
    for node_id, state in states_of(tree, slow).items():
        if state == ROOT or not (tree.is_mixed or credit.ib_on_ties):
            assert found[node_id] == 0.0
            continue
        of_outcome = slow.a_gl(credit.values, state) if tree.is_mixed else 0.0
        expected = of_outcome + credit.lam * slow.a_ib(credit.values, credit.confidence, state)
        assert found[node_id] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("reward", [0.0, 0.25, 1.0])
def test_equal_rewards_teach_nothing_unless_told(reward: float) -> None:
    tree = build_tree([draw([A, EOS], reward), draw([B, BLANK_LINE, B, EOS], reward)])
    assert advantages(tree, Credit()).total == (0.0,) * 4
    pi = confidences(tree, Confidence.GEOMETRIC)
    alone = advantages(tree, Credit(ib_on_ties=True)).total
    assert alone == pytest.approx([0.0, *(-0.1 * 0.2 * pi[node_id] for node_id in (1, 2, 3))])


@given(records(min_first=2), st.sampled_from([GlobalTerm.GRPO, GlobalTerm.DR_GRPO]))
@quick
def test_a_baseline_of_trajectories_credits_each_by_its_own_reward(
    draws: tuple[Draw, ...], global_term: GlobalTerm
) -> None:
    tree = mixed(draws)
    rewards = list(tree.rewards)
    own = grpo(rewards) if global_term is GlobalTerm.GRPO else [reward - fmean(rewards) for reward in rewards]
    for expected, of_path in zip(own, of_paths(tree, Credit(global_term=global_term, lam=0.0)), strict=True):
        assert of_path == pytest.approx([expected] * len(of_path))


@given(records(unjudged=True), st.booleans(), credits_)
@quick
def test_a_nodes_advantage_is_the_mean_over_its_trajectories(
    draws: tuple[Draw, ...], merge: bool, credit: Credit
) -> None:
    tree = build_tree(draws, merge)
    through: dict[int, list[float]] = {0: [0.0]}
    for draw_id, of_path in enumerate(of_paths(tree, credit)):
        for node_id, advantage in zip(tree.path(draw_id), of_path, strict=True):
            through.setdefault(node_id, []).append(advantage)
    for node_id, advantage in enumerate(advantages(tree, credit).total):
        assert advantage == pytest.approx(fmean(through[node_id]), abs=1e-9)


@given(records(min_first=2))
@quick
def test_treerl_credits_the_segments_between_forks(draws: tuple[Draw, ...]) -> None:
    """Its own definition, on the tree whose nodes run from fork to fork, with leave-one-out rewards."""
    tree = mixed(draws)
    segments = build_tree([replace(one, step_ends=(one.end,)) for one in draws])
    rewards = list(segments.rewards)
    others = [fmean(rewards[:i] + rewards[i + 1 :]) for i in range(len(rewards))]
    less_others = [reward - other for reward, other in zip(rewards, others, strict=True)]

    def v(node_id: int) -> float:
        return fmean(x for i, x in enumerate(less_others) if node_id == 0 or node_id in segments.path(i))

    of_node = advantages(tree, Credit.by_name("treerl")).total
    for draw_id in range(len(draws)):
        of_token = [of_node[n] for n in tree.path(draw_id) for _ in tree.token_ids(n)]
        expected = []
        for node_id in segments.path(draw_id):
            parent = next(p for p in _ancestors(segments, node_id) if p == 0 or _is_fork(segments, p))
            advantage = ((v(node_id) - v(0)) + (v(node_id) - v(parent))) / math.sqrt(segments.nodes[node_id].num_leaves)
            expected += [advantage] * len(segments.token_ids(node_id))
        assert of_token == pytest.approx(expected, abs=1e-9)


def _ancestors(tree: Tree, node_id: int) -> list[int]:
    above = []
    while node_id:
        node_id = tree.parents[node_id]
        above.append(node_id)
    return above


def _is_fork(tree: Tree, node_id: int) -> bool:
    return len(tree.nodes[node_id].children) > 1


@given(records(), st.booleans())
@quick
def test_weights_are_as_defined(draws: tuple[Draw, ...], merge: bool) -> None:
    tree, slow = build_tree(draws, merge), Definitions(draws, merge)
    weights = {kind: node_weights(tree, kind) for kind in NodeWeight}
    for node_id, state in states_of(tree, slow).items():
        m = len(slow.leaves(state))
        assert weights[NodeWeight.LEAVES][node_id] == m
        assert weights[NodeWeight.SQRT][node_id] == pytest.approx(math.sqrt(m))
        assert weights[NodeWeight.DRAWS][node_id] == pytest.approx(slow.draw_weight(state))


@given(records(unjudged=True), st.booleans())
@quick
def test_leaves_weighed_by_draws_give_the_backed_up_root(draws: tuple[Draw, ...], merge: bool) -> None:
    tree = build_tree(draws, merge)
    assume(tree.rewards)
    weights, num_leaves = node_weights(tree, NodeWeight.DRAWS), tree.nodes[0].num_leaves
    leaves = [(weight, node.reward) for weight, node in zip(weights, tree.nodes, strict=True)]
    rewards = [(weight / num_leaves, reward) for weight, reward in leaves if reward is not None]
    assert sum(share for share, _ in rewards) == pytest.approx(1.0)
    backed_up = node_values(tree, ValueEstimator.BACKUP)[0]
    assert sum(share * reward for share, reward in rewards) == pytest.approx(backed_up)


@given(st.data(), records(unjudged=True), st.booleans(), credits_)
@quick
def test_the_order_of_draws_changes_nothing(
    data: st.DataObject, draws: tuple[Draw, ...], merge: bool, credit: Credit
) -> None:
    order = data.draw(orders(draws))
    before, after = build_tree(draws, merge), build_tree(permuted(draws, order), merge)
    of_path = of_paths(before, credit)
    kinds: list[Callable[[Tree], tuple[float, ...]]] = [
        lambda tree: advantages(tree, credit).total,
        lambda tree: node_values(tree, credit.values),
        lambda tree: tuple(score or 0.0 for score in ib_scores(tree, IBSettings(values=credit.values))),
        *(lambda tree, kind=kind: node_weights(tree, kind) for kind in NodeWeight),
    ]
    for at, draw_id in enumerate(order):
        assert of_paths(after, credit)[at] == pytest.approx(of_path[draw_id], abs=1e-9)
        for of_nodes in kinds:
            old, new = of_nodes(before), of_nodes(after)
            assert [new[n] for n in after.path(at)] == pytest.approx([old[n] for n in before.path(draw_id)], abs=1e-9)


def test_the_prior_may_be_the_reference() -> None:
    tree = build_tree([draw([A, EOS], 1.0), draw([B, EOS], 0.0)])
    credit = Credit(prior=Prior.REFERENCE)
    global_ = advantages(tree, Credit(lam=0.0)).total
    found = advantages(tree, credit, reference=(1.0, 0.5, 0.25)).total
    assert found == pytest.approx((0.0, global_[1] + 0.1 * 0.8 * 0.5, global_[2] - 0.1 * 1.2 * 0.25))
    with pytest.raises(ValueError, match="give `reference`"):
        advantages(tree, credit)


@pytest.mark.parametrize("name", ["ibtpo", "grpo", "dr-grpo", "treerl"])
def test_methods_are_known_by_name(name: str) -> None:
    assert Credit.by_name(name).node_weight is NodeWeight.LEAVES


def test_an_unknown_method_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(ValueError, match="ibtpo, grpo"):
        Credit.by_name("ppo")


@pytest.mark.parametrize("switch", [{"beta": 0.0}, {"lam": -0.1}, {"kappa": math.inf}, {"epsilon": math.nan}])
def test_switches_that_mean_nothing_are_refused(switch: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(switch))):
        Credit(**switch)


def test_the_sample_deviation_divides_as_trl_and_verl_do() -> None:
    rewards = [1.0, 0.0, 0.0, 0.25]
    tree = build_tree([draw([A, EOS], reward) for reward in rewards])
    expected = [(reward - fmean(rewards)) / (stdev(rewards) + 1e-6) for reward in rewards]
    credit = Credit.by_name("grpo")
    assert [path[-1] for path in of_paths(tree, replace(credit, std=Deviation.SAMPLE))] == pytest.approx(expected)
    assert [path[-1] for path in of_paths(tree, credit)] == pytest.approx(grpo(rewards))
