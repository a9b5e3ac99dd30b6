"""What each form of the IB-Score is an estimate of: its mean over every outcome of n draws, by enumeration.

The state has steps c with probabilities π(c) and true values p(c); η₂(c) is π(c).
"""

import math
from collections.abc import Sequence
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.tree.ib_score import IBSettings, ScoreForm, scores
from shared.tree.node import build_tree
from tests.tree.records import EOS, A, draw, quick

STEPS = st.lists(st.tuples(st.integers(1, 9), st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0])), min_size=1, max_size=4)


def expected_score(steps: Sequence[tuple[float, float]], num_draws: int, chosen: IBSettings, merge: bool) -> float:
    """E[J] over every outcome of n draws from π, given true values and π(c) as confidences."""
    p_root = sum(pi * p for pi, p in steps)
    total = 0.0
    for outcome in product(range(len(steps)), repeat=num_draws):
        tree = build_tree([draw([A] * (1 + c) + [EOS]) for c in outcome], merge)
        step_of_node = [len(tree.token_ids(node_id)) - 2 for node_id in range(1, len(tree.nodes))]
        ratios = [1.0, *(steps[c][1] / p_root if p_root else 1.0 for c in step_of_node)]
        score = scores(tree, ratios, [1.0, *(steps[c][0] for c in step_of_node)], chosen)[0]
        assert score is not None
        total += math.prod(steps[c][0] for c in outcome) * score
    return total


def normalised(weights: Sequence[tuple[int, float]]) -> list[tuple[float, float]]:
    return [(weight / sum(w for w, _ in weights), p) for weight, p in weights]


def collision(first: Sequence[float], second: Sequence[float]) -> float:
    """Σ p·q: the chance that two independent draws agree."""
    return sum(p * q for p, q in zip(first, second, strict=True))


def posterior(steps: Sequence[tuple[float, float]]) -> list[float]:
    """P(step | right answer) by Bayes' rule over the joint of step and outcome; the prior where nothing is right."""
    joint = [pi * p for pi, p in steps]
    return [x / sum(joint) for x in joint] if sum(joint) else [pi for pi, _ in steps]


@given(STEPS, st.integers(1, 3), st.sampled_from([0.5, 5.0]), st.booleans())
@quick
def test_the_exact_form_estimates_the_bottleneck_objective(
    weights: list[tuple[int, float]], num_draws: int, beta: float, merge: bool
) -> None:
    """(1 + β)·H₂(step) − β·H₂(step | right), with Tsallis' H₂(p) = 1 − Σp²."""
    steps = normalised(weights)
    prior, post = [pi for pi, _ in steps], posterior(steps)
    objective = (1 + beta) * (1 - collision(prior, prior)) - beta * (1 - collision(post, post))
    chosen = IBSettings(beta=beta, form=ScoreForm.EXACT)
    assert expected_score(steps, num_draws, chosen, merge) == pytest.approx(objective)


@given(STEPS, st.integers(1, 3), st.sampled_from([0.5, 5.0]), st.booleans())
@quick
def test_the_published_form_estimates_another_expectation(
    weights: list[tuple[int, float]], num_draws: int, beta: float, merge: bool
) -> None:
    """(1 + β)·(Σ π·π* − (1 + 1/β)·Σ π²): how often a draw agrees with a right one, against with any other."""
    steps = normalised(weights)
    prior, post = [pi for pi, _ in steps], posterior(steps)
    objective = (1 + beta) * (collision(prior, post) - (1 + 1 / beta) * collision(prior, prior))
    assert expected_score(steps, num_draws, IBSettings(beta=beta), merge) == pytest.approx(objective)
