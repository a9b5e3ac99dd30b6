"""Φ of given log-probabilities, and what its settings refuse."""

import math

import pytest

from shared.tree.likelihood import LikelihoodForm, LikelihoodSettings, likelihood


def test_the_joint_form_is_the_answers_probability_and_the_geometric_one_a_tokens_mean() -> None:
    logprobs = [math.log(0.5), math.log(0.125)]
    assert likelihood(logprobs, LikelihoodForm.JOINT) == pytest.approx(0.0625)
    assert likelihood(logprobs, LikelihoodForm.GEOMETRIC) == pytest.approx(0.25)


@pytest.mark.parametrize("form", LikelihoodForm)
def test_rounding_does_not_leave_0_to_1(form: LikelihoodForm) -> None:
    assert likelihood([1e-7, 0.0], form) == 1.0
    assert likelihood([-800.0, -800.0], form) == 0.0


def test_an_entry_of_the_key_is_named() -> None:
    with pytest.raises(ValueError, match="field names an entry"):
        LikelihoodSettings(field="")
