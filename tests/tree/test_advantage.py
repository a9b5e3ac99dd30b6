"""Credit, against its definitions and against the methods that it must agree with."""

import math
from collections.abc import Callable
from dataclasses import replace
from statistics import fmean, pstdev, stdev

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from shared.tree.credit import (
    CREDITS,
    Credit,
    Deviation,
    DrGRPOCredit,
    GRPOCredit,
    IBTPOCredit,
    NodeWeight,
    Prior,
    SideInformation,
    TreeRLCredit,
    assign_advantages,
    node_weights,
)
from shared.tree.draw import Draw
from shared.tree.ib_score import Confidence, IBSettings, confidences, ib_scores
from shared.tree.node import Tree, build_tree
from shared.tree.values import COUNTS, Backup, Shrunk, ValueEstimator, node_values
from tests.tree.definitions import ROOT, Definitions, states_of
from tests.tree.records import BLANK_LINE, EOS, A, B, draw, orders, permuted, quick, records

ibtpo_credits = st.builds(
    IBTPOCredit,
    values=st.sampled_from([COUNTS, Backup(), Shrunk()]),
    lam=st.sampled_from([0.0, 0.1, 1.0]),
    beta=st.sampled_from([0.5, 5.0]),
    confidence=st.sampled_from(Confidence),
    centred=st.booleans(),
    ib_on_ties=st.booleans(),
)
credits_ = st.one_of(ibtpo_credits, st.sampled_from([GRPOCredit(), DrGRPOCredit(), TreeRLCredit()]))


def grpo(rewards: list[float]) -> list[float]:
    """(R − mean)/(std + ε), as published."""
    return [(reward - fmean(rewards)) / (pstdev(rewards) + 1e-6) for reward in rewards]


def of_paths(tree: Tree, credit: Credit) -> tuple[tuple[float, ...], ...]:
    return assign_advantages(credit, tree).on_paths(tree)


def mixed(draws: tuple[Draw, ...]) -> Tree:
    tree = build_tree(draws)
    assume(tree.is_mixed)
    return tree


@given(records(max_branches=0, min_first=2), st.sampled_from([COUNTS, Backup()]))
@quick
def test_on_independent_rollouts_the_global_advantage_is_grpos(draws: tuple[Draw, ...], values: ValueEstimator) -> None:
    tree = mixed(draws)
    of_node = assign_advantages(IBTPOCredit(values=values, lam=0.0), tree).of_nodes
    for draw_id, expected in enumerate(grpo(list(tree.rewards))):
        assert [of_node[node_id] for node_id in tree.path(draw_id)] == pytest.approx(
            [expected] * len(tree.path(draw_id))
        )


@given(records(unjudged=True), st.booleans(), ibtpo_credits)
@quick
def test_advantages_are_as_defined(draws: tuple[Draw, ...], merge: bool, credit: IBTPOCredit) -> None:
    tree, slow = build_tree(draws, merge), Definitions(draws, merge, beta=credit.beta)
    found = assign_advantages(credit, tree).of_nodes
    for node_id, state in states_of(tree, slow).items():
        if state == ROOT or not (tree.is_mixed or credit.ib_on_ties):
            assert found[node_id] == 0.0
            continue
        of_outcome = slow.a_gl(credit.values, state) if tree.is_mixed else 0.0
        of_step = slow.a_ib(credit.values, credit.confidence, state, centred=credit.centred)
        expected = of_outcome + credit.lam * of_step
        assert found[node_id] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("reward", [0.0, 0.25, 1.0])
def test_equal_rewards_teach_nothing_unless_told(reward: float) -> None:
    tree = build_tree([draw([A, EOS], reward), draw([B, BLANK_LINE, B, EOS], reward)])
    assert assign_advantages(IBTPOCredit(), tree).of_nodes == (0.0,) * 4
    pi = confidences(tree, Confidence.GEOMETRIC)
    alone = assign_advantages(IBTPOCredit(ib_on_ties=True), tree).of_nodes
    assert alone == pytest.approx([0.0, *(-0.1 * 0.2 * pi[node_id] for node_id in (1, 2, 3))])


@given(records(min_first=2), st.sampled_from([GRPOCredit(), DrGRPOCredit()]))
@quick
def test_a_baseline_of_trajectories_credits_each_by_its_own_reward(draws: tuple[Draw, ...], credit: Credit) -> None:
    tree = mixed(draws)
    rewards = list(tree.rewards)
    own = grpo(rewards) if isinstance(credit, GRPOCredit) else [reward - fmean(rewards) for reward in rewards]
    for expected, of_path in zip(own, of_paths(tree, credit), strict=True):
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
    for node_id, advantage in enumerate(assign_advantages(credit, tree).of_nodes):
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

    of_node = assign_advantages(TreeRLCredit(), tree).of_nodes
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


@given(records(unjudged=True), st.booleans())
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
    backed_up = node_values(tree, Backup())[0]
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
        lambda tree: assign_advantages(credit, tree).of_nodes,
        lambda tree: node_values(tree, COUNTS),
        lambda tree: tuple(score or 0.0 for score in ib_scores(tree, IBSettings())),
        *(lambda tree, kind=kind: node_weights(tree, kind) for kind in NodeWeight),
    ]
    for at, draw_id in enumerate(order):
        assert of_paths(after, credit)[at] == pytest.approx(of_path[draw_id], abs=1e-9)
        for of_nodes in kinds:
            old, new = of_nodes(before), of_nodes(after)
            assert [new[n] for n in after.path(at)] == pytest.approx([old[n] for n in before.path(draw_id)], abs=1e-9)


def test_the_prior_may_be_the_reference() -> None:
    tree = build_tree([draw([A, EOS], 1.0), draw([B, EOS], 0.0)])
    credit = IBTPOCredit(prior=Prior.REFERENCE)
    assert credit.reads_reference
    assert not IBTPOCredit(prior=Prior.REFERENCE, lam=0.0).reads_reference
    global_ = assign_advantages(IBTPOCredit(lam=0.0), tree).of_nodes
    reference = [[math.log(0.5)] * 2, [math.log(0.25)] * 2]
    found = assign_advantages(credit, tree, SideInformation(reference_logprobs=reference)).of_nodes
    assert found == pytest.approx((0.0, global_[1] + 0.1 * 0.8 * 0.5, global_[2] - 0.1 * 1.2 * 0.25))
    with pytest.raises(ValueError, match="log-probabilities are missing"):
        assign_advantages(credit, tree)


@pytest.mark.parametrize("name", CREDITS.names)
def test_credits_are_known_by_name_and_cross_a_wire(name: str) -> None:
    credit = CREDITS.make(name)
    assert CREDITS.kind_of(credit) == name
    assert CREDITS.make(CREDITS.dump(credit)) == credit


def test_an_unknown_credit_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(ValueError, match="ibtpo, grpo"):
        CREDITS.make("ppo")


@pytest.mark.parametrize("switch", [{"beta": 0.0}, {"lam": -0.1}, {"epsilon": math.nan}, {"values": "best"}, {"mu": 1}])
def test_switches_that_mean_nothing_are_refused(switch: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match=next(iter(switch))):
        CREDITS.make({"kind": "ibtpo"} | switch)


def test_the_sample_deviation_divides_as_trl_and_verl_do() -> None:
    rewards = [1.0, 0.0, 0.0, 0.25]
    tree = build_tree([draw([A, EOS], reward) for reward in rewards])
    expected = [(reward - fmean(rewards)) / (stdev(rewards) + 1e-6) for reward in rewards]
    credit = GRPOCredit()
    assert [path[-1] for path in of_paths(tree, replace(credit, std=Deviation.SAMPLE))] == pytest.approx(expected)
    assert [path[-1] for path in of_paths(tree, credit)] == pytest.approx(grpo(rewards))
