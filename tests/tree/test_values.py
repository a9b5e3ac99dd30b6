"""The value of a node, by its three definitions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.tree.draw import Draw
from shared.tree.node import build_tree
from shared.tree.values import COUNTS, Backup, Shrunk, ValueEstimator, node_values, root_value
from tests.tree.definitions import Definitions, states_of
from tests.tree.records import BLANK_LINE, EOS, A, B, draw, quick, records


@given(records(), st.booleans(), st.sampled_from([COUNTS, Backup(), Shrunk(kappa=3.0)]))
@quick
def test_values_are_as_defined(draws: tuple[Draw, ...], merge: bool, estimator: ValueEstimator) -> None:
    tree, slow = build_tree(draws, merge), Definitions(draws, merge, kappa=3.0)
    values = node_values(tree, estimator)
    for node_id, state in states_of(tree, slow).items():
        assert values[node_id] == pytest.approx(slow.value(estimator, state))


@given(records(max_branches=0), st.booleans())
@quick
def test_counts_and_backup_agree_on_independent_rollouts(draws: tuple[Draw, ...], merge: bool) -> None:
    tree = build_tree(draws, merge)
    assert node_values(tree, COUNTS) == pytest.approx(node_values(tree, Backup()))


@given(records(), st.booleans())
@quick
def test_counts_at_the_root_is_the_mean_reward(draws: tuple[Draw, ...], merge: bool) -> None:
    tree = build_tree(draws, merge)
    assert node_values(tree, COUNTS)[0] == pytest.approx(sum(tree.rewards) / len(tree.rewards))


@given(records(), st.booleans())
@quick
def test_without_pull_shrunk_is_backup(draws: tuple[Draw, ...], merge: bool) -> None:
    tree = build_tree(draws, merge)
    assert node_values(tree, Shrunk(kappa=0.0)) == pytest.approx(node_values(tree, Backup()))


def test_counts_lets_a_node_with_many_leaves_weigh_more_and_backup_does_not() -> None:
    draws = [draw([A, BLANK_LINE, B, EOS], 1.0), draw([B, BLANK_LINE, B, EOS], 0.0)]
    draws += [draw([B, EOS], 1.0, before=draws, parent=0, cut=2) for _ in range(2)]
    tree = build_tree(draws)
    assert node_values(tree, COUNTS)[0] == 0.75
    assert node_values(tree, Backup())[0] == 0.5


def test_the_root_value_is_of_the_first_draws_alone() -> None:
    draws = [draw([A, B, EOS], 1.0), draw([B, EOS], 0.0)]
    draws.append(draw([B, EOS], 1.0, before=draws, parent=0, cut=1))
    assert root_value(build_tree(draws), 2) == 0.5


def test_the_root_value_leaves_out_what_has_no_verdict() -> None:
    assert root_value(build_tree([draw([A, EOS], 1.0), draw([B, EOS], None)]), 2) == 1.0
    assert root_value(build_tree([draw([A, EOS], None)]), 1) is None


@pytest.mark.parametrize("estimator", [COUNTS, Backup(), Shrunk()])
def test_a_tree_without_verdicts_has_a_root_of_value_0(estimator: ValueEstimator) -> None:
    assert node_values(build_tree([draw([A, EOS], None)]), estimator) == (0.0,)
