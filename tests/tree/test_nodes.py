"""Draws, cut into nodes."""

import math
from collections import Counter
from dataclasses import replace
from statistics import fmean

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from shared.tree.draw import Draw, Finish, VersionSpan, WeightVersion, trajectory
from shared.tree.ib_score import Confidence, IBSettings, confidences, ib_scores
from shared.tree.node import build_tree
from shared.tree.values import COUNTS, node_values
from tests.tree.definitions import Definitions, states_of
from tests.tree.records import BLANK_LINE, EOS, VERSION, A, B, draw, quick, records


@given(records(unjudged=True), st.booleans())
@quick
def test_nodes_are_the_states_at_step_ends_and_forks(draws: tuple[Draw, ...], merge: bool) -> None:
    tree, slow = build_tree(draws, merge), Definitions(draws, merge)
    assume(slow.ids)
    states = states_of(tree, slow)
    assert set(states.values()) == slow.all_states
    joint = confidences(tree, Confidence.JOINT)
    for node_id, state in states.items():
        node = tree.nodes[node_id]
        assert node.end == slow.length(state)
        assert node.num_leaves == len(slow.leaves(state))
        assert node.num_draws == len(list(slow.successors(state)))
        assert {states[child] for child in node.children} == set(slow.successors(state))
        if node_id:
            assert node.start == slow.length(slow.parent(state))
            assert states[node.parent] == slow.parent(state)
            assert node.multiplicity == slow.multiplicity(state)
            assert tree.token_ids(node_id) == slow.step_tokens(state)
            assert joint[node_id] == pytest.approx(math.exp(sum(slow.step_logprobs(state))))
        assert node.reward == (None if node.children else pytest.approx(slow.counts(state)))


@given(records(unjudged=True), st.booleans())
@quick
def test_a_tree_is_flat_with_parents_before_children(draws: tuple[Draw, ...], merge: bool) -> None:
    tree = build_tree(draws, merge)
    assert tree.nodes[0].parent is None
    assert tree.parents[0] == 0
    for node_id, node in enumerate(tree.nodes[1:], 1):
        assert node.parent == tree.parents[node_id] < node_id
        assert node_id in tree.nodes[node.parent].children
        assert node.start < node.end
        assert (node.reward is None) == bool(node.children)
    leaves = [node for node in tree.nodes if node.reward is not None]
    assert tree.nodes[0].num_leaves == len(tree.rewards) == sum(leaf.multiplicity for leaf in leaves)


@given(records(unjudged=True), st.booleans())
@quick
def test_a_path_spells_its_trajectory(draws: tuple[Draw, ...], merge: bool) -> None:
    tree = build_tree(draws, merge)
    for draw_id, one in enumerate(draws):
        path = tree.path(draw_id)
        if one.counted_reward is None:
            assert path == ()
            continue
        assert sum((tree.token_ids(node_id) for node_id in path), ()) == trajectory(draws, draw_id)
        assert path[-1] == tree.leaf_of_draw[draw_id]


@given(records(), records(), st.booleans())
@quick
def test_draws_without_a_verdict_leave_no_trace(draws: tuple[Draw, ...], others: tuple[Draw, ...], merge: bool) -> None:
    unjudged = [
        replace(one, reward=None, finish=Finish.STOP, parent=None if one.parent is None else one.parent + len(draws))
        for one in others
    ]
    assert build_tree((*draws, *unjudged), merge).nodes == build_tree(draws, merge).nodes


def test_an_unjudged_branch_inside_a_step_cuts_nothing() -> None:
    whole = draw([A, B, A, EOS])
    unjudged = draw([B, EOS], None, before=[whole], parent=0, cut=2)
    assert build_tree([whole, unjudged]).nodes == build_tree([whole]).nodes


def test_a_judged_branch_keeps_the_unjudged_prefix_that_it_continues() -> None:
    unjudged = draw([A, BLANK_LINE, B, BLANK_LINE, A, EOS], None)
    branch = draw([B, EOS], 1.0, before=[unjudged], parent=0, cut=4)
    tree = build_tree([unjudged, branch])
    assert [(node.draw, node.start, node.end) for node in tree.nodes[1:]] == [(0, 0, 2), (0, 2, 4), (1, 4, 6)]
    assert tree.rewards == (1.0,)
    assert tree.path(0) == ()
    assert tree.path(1) == (1, 2, 3)


def test_a_judged_branch_inside_a_step_of_an_unjudged_draw_cuts_nothing() -> None:
    unjudged = draw([A, BLANK_LINE, B, B, A, EOS], None)
    branch = draw([A, EOS], 1.0, before=[unjudged], parent=0, cut=3)
    tree, whole = build_tree([unjudged, branch]), build_tree([draw([A, BLANK_LINE, B, A, EOS], 1.0)])
    assert [(node.draw, node.start, node.end) for node in tree.nodes[1:]] == [(0, 0, 2), (1, 2, 5)]
    assert [tree.token_ids(node) for node in (1, 2)] == [whole.token_ids(node) for node in (1, 2)]
    logprobs = (*unjudged.logprobs[2:3], *branch.logprobs)
    assert confidences(tree, Confidence.JOINT)[2] == pytest.approx(math.exp(sum(logprobs)))
    assert ib_scores(tree, IBSettings())[:1] == pytest.approx(ib_scores(whole, IBSettings())[:1])


@pytest.mark.parametrize("merge", [False, True])
def test_a_chain_of_unjudged_draws_is_one_step_of_the_draw_that_ends_it(merge: bool) -> None:
    first = draw([A, B, A, EOS], None)
    second = draw([B, A, B, EOS], None, before=[first], parent=0, cut=1)
    judged = draw([A, EOS], 1.0, before=[first, second], parent=1, cut=3)
    tree = build_tree([first, second, judged], merge)
    assert [(node.draw, node.start, node.end) for node in tree.nodes[1:]] == [(2, 0, 5)]
    assert tree.token_ids(1) == trajectory(tree.draws, 2)


@pytest.mark.parametrize("merge", [False, True])
def test_two_judged_branches_at_the_end_of_what_is_kept_do_cut(merge: bool) -> None:
    unjudged = draw([A, B, B, A, EOS], None)
    first = draw([A, EOS], 1.0, before=[unjudged], parent=0, cut=3)
    second = draw([B, EOS], 0.0, before=[unjudged], parent=0, cut=3)
    tree = build_tree([unjudged, first, second], merge)
    assert [(node.draw, node.start, node.end) for node in tree.nodes[1:]] == [(0, 0, 3), (1, 3, 5), (2, 3, 5)]


def test_rewards_that_differ_by_rounding_are_equal() -> None:
    assert not build_tree([draw([A, EOS], 0.1 + 0.2), draw([B, EOS], 0.3)]).is_mixed
    assert build_tree([draw([A, EOS], 0.3), draw([B, EOS], 0.301)]).is_mixed


def test_an_unjudged_draw_may_fork_from_where_no_judged_one_runs() -> None:
    unjudged = draw([A, BLANK_LINE, B, BLANK_LINE, A, EOS], None)
    judged = draw([B, EOS], 1.0, before=[unjudged], parent=0, cut=2)
    deeper = draw([B, EOS], None, before=[unjudged, judged], parent=0, cut=4)
    assert len(build_tree([unjudged, judged, deeper]).nodes) == 3


def test_a_tree_without_verdicts_is_its_root() -> None:
    tree = build_tree([draw([A, EOS], None)])
    assert (len(tree.nodes), tree.rewards, tree.is_mixed) == (1, (), False)


def test_a_draw_that_the_limit_cut_has_reward_0_whatever_was_judged() -> None:
    tree = build_tree([draw([A, B], 1.0), draw([A, A], None)])
    assert tree.rewards == (0.0, 0.0)


def test_a_fork_inside_a_step_cuts_the_node() -> None:
    whole = draw([A, B, A, EOS])
    tree = build_tree([whole, draw([B, EOS], before=[whole], parent=0, cut=2)])
    assert [(node.start, node.end) for node in tree.nodes[1:]] == [(0, 2), (2, 4), (2, 4)]


@given(records(max_branches=0))
@quick
def test_independent_answers_merged_are_the_tree_of_their_prefixes(draws: tuple[Draw, ...]) -> None:
    """TEMPO's tree: a node for each sequence of first steps, with the share of right answers that begin so."""
    answers = [(one.token_ids, one.counted_reward or 0.0) for one in draws]
    under = Counter(ids[:end] for (ids, _), one in zip(answers, draws, strict=True) for end in one.step_ends)
    tree = build_tree(draws, merge=True)
    values = node_values(tree, COUNTS)
    prefixes: list[tuple[int, ...]] = [()]
    for node_id, node in enumerate(tree.nodes[1:], 1):
        prefixes.append((*prefixes[tree.parents[node_id]], *tree.token_ids(node_id)))
        rewards = [reward for ids, reward in answers if ids[: node.end] == prefixes[node_id]]
        assert (node.multiplicity, values[node_id]) == (under[prefixes[node_id]], pytest.approx(fmean(rewards)))
    assert sorted(prefixes[1:]) == sorted(under)


def test_equal_draws_are_one_node_only_when_merged() -> None:
    draws = [draw([A, BLANK_LINE, B, EOS], 1.0), draw([A, BLANK_LINE, A, EOS], 0.0)]
    assert [node.multiplicity for node in build_tree(draws).nodes] == [1, 1, 1, 1, 1]
    merged = build_tree(draws, merge=True)
    assert [node.multiplicity for node in merged.nodes] == [1, 2, 1, 1]
    assert merged.nodes[1].children == (2, 3)


def test_a_later_branch_adds_to_a_merged_nodes_draws_and_not_to_its_multiplicity() -> None:
    draws = [draw([A, BLANK_LINE, B, EOS]), draw([A, BLANK_LINE, A, EOS])]
    draws.append(draw([B, EOS], before=draws, parent=1, cut=2))
    node = build_tree(draws, merge=True).nodes[1]
    assert (node.multiplicity, node.num_draws, node.num_leaves) == (2, 3, 3)


def test_a_fork_inside_a_merged_step_cuts_every_draw_that_begins_like_it() -> None:
    draws = [draw([A, B, EOS]), draw([A, B, EOS]), draw([A, A, EOS])]
    draws.append(draw([A, EOS], before=draws, parent=0, cut=1))
    tree = build_tree(draws, merge=True)
    first, *rest = tree.nodes[1:]
    assert (first.end, first.multiplicity, first.num_draws) == (1, 3, 4)
    assert [tree.token_ids(child) for child in first.children] == [(B, EOS), (A, EOS)]
    assert [node.multiplicity for node in rest] == [2, 2]


def test_equal_tokens_of_different_versions_are_different_nodes() -> None:
    newer = WeightVersion(0, 2)
    draws = [draw([A, EOS]), draw([A, EOS], version=newer)]
    assert len(build_tree(draws, merge=True).nodes) == 3
    turned = replace(draws[0], spans=(VersionSpan(VERSION, 0, 1), VersionSpan(newer, 1, 2)))
    assert len(build_tree([turned, turned], merge=True).nodes) == 2
    assert len(build_tree([turned, *draws], merge=True).nodes) == 4


def test_versions_before_and_after_a_step_do_not_tell_it_apart() -> None:
    newer = WeightVersion(0, 2)
    one = draw([A, BLANK_LINE, B, EOS])
    other = replace(one, spans=(VersionSpan(VERSION, 0, 2), VersionSpan(newer, 2, 4)))
    assert [node.multiplicity for node in build_tree([one, other], merge=True).nodes] == [1, 2, 1, 1]


@pytest.mark.parametrize("cut", [2, 5])
def test_a_fork_outside_what_the_parent_sampled_is_refused(cut: int) -> None:
    first = draw([A, B, A, EOS])
    second = draw([B, EOS], before=[first], parent=0, cut=2)
    third = replace(draw([B, EOS], before=[first], parent=0, cut=3), parent=1, cut=cut, step_ends=(cut + 2,))
    with pytest.raises(ValueError, match="draw 2 forks at"):
        build_tree([first, second, third])


def test_a_draw_before_its_parent_is_refused() -> None:
    first = draw([A, B, A, EOS])
    branch = draw([B, EOS], before=[first], parent=0, cut=2)
    with pytest.raises(ValueError, match="keep the order of growth"):
        build_tree([branch, first])
