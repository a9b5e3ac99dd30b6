"""The IB-Score, against its definition."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.tree.draw import Draw
from shared.tree.ib_score import Confidence, IBSettings, ScoreForm, confidences, ib_scores, value_ratios
from shared.tree.node import build_tree
from shared.tree.values import COUNTS, Backup, Shrunk, node_values
from tests.tree.definitions import Definitions, states_of
from tests.tree.records import BLANK_LINE, EOS, A, B, draw, quick, records

ib_settings = st.builds(
    IBSettings,
    beta=st.sampled_from([0.5, 5.0, 20.0]),
    form=st.sampled_from(ScoreForm),
    values=st.sampled_from([COUNTS, Backup(), Shrunk()]),
    confidence=st.sampled_from(Confidence),
)


@given(records(), st.booleans(), ib_settings)
@quick
def test_scores_are_as_defined(draws: tuple[Draw, ...], merge: bool, chosen: IBSettings) -> None:
    tree, slow = build_tree(draws, merge), Definitions(draws, merge, beta=chosen.beta)
    defined = slow.ib1 if chosen.form is ScoreForm.PUBLISHED else slow.ib1x
    found = ib_scores(tree, chosen)
    for node_id, state in states_of(tree, slow).items():
        expected = defined(chosen.values, chosen.confidence, state)
        assert found[node_id] == (None if expected is None else pytest.approx(expected))


@given(records(), st.booleans(), st.sampled_from(Confidence))
@quick
def test_confidences_are_as_defined(draws: tuple[Draw, ...], merge: bool, confidence: Confidence) -> None:
    tree, slow = build_tree(draws, merge), Definitions(draws, merge)
    found = confidences(tree, confidence)
    for node_id, state in states_of(tree, slow).items():
        assert found[node_id] == pytest.approx(slow.eta2(confidence, state))


@given(records(), st.sampled_from(Confidence))
@quick
def test_confidences_under_another_policy_come_from_its_logprobs(
    draws: tuple[Draw, ...], confidence: Confidence
) -> None:
    tree = build_tree(draws)
    assert confidences(tree, confidence, [one.logprobs for one in draws]) == confidences(tree, confidence)


def test_siblings_share_1_even_where_their_joint_probabilities_vanish() -> None:
    draws = [draw([A] * 500 + [EOS], logprobs=[-4.0] * 501), draw([B] * 500 + [EOS], logprobs=[-4.0] * 501)]
    assert confidences(build_tree(draws), Confidence.SIBLINGS) == pytest.approx((1.0, 0.5, 0.5))


def test_siblings_are_distinct_by_their_tokens() -> None:
    draws = [draw([A, EOS]), draw([A, EOS]), draw([B, EOS])]
    shares = confidences(build_tree(draws), Confidence.SIBLINGS)
    assert shares[1] == shares[2] == pytest.approx(1 - shares[3])


def test_where_nothing_is_right_every_ratio_is_1() -> None:
    tree = build_tree([draw([A, BLANK_LINE, B, EOS], 0.0), draw([B, EOS], 0.0)])
    assert value_ratios(tree, node_values(tree, COUNTS)) == (1.0,) * len(tree.nodes)


@pytest.mark.parametrize("beta", [1.0, 5.0])
def test_a_node_with_one_draw_scores_minus_its_confidence(beta: float) -> None:
    tree = build_tree([draw([A, BLANK_LINE, B, EOS], 1.0), draw([B, EOS], 0.0)])
    eta2 = confidences(tree, Confidence.GEOMETRIC)
    assert ib_scores(tree, IBSettings(beta=beta))[1] == pytest.approx(-(1 + beta) / beta * eta2[2])


@pytest.mark.parametrize("setting", [{"beta": 0.0}, {"beta": math.inf}, {"beta": math.nan}])
def test_settings_that_mean_nothing_are_refused(setting: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(setting))):
        IBSettings(**setting)
