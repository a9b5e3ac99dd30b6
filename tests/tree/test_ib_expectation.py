"""What the IB-Score and A_IB are estimates of: their means over every outcome of n draws, by enumeration.

The state has steps c with probabilities π(c) and true values p(c); η₂(c) is π(c).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.tree.credit import IBTPOCredit, assign_advantages
from shared.tree.ib_score import Confidence, IBSettings, ScoreForm, scores
from shared.tree.node import Tree, build_tree
from shared.tree.values import ValueEstimator
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


@dataclass(frozen=True)
class TrueValues(ValueEstimator):
    """Values as they are given, by node."""

    of_nodes: tuple[float, ...]

    def values(self, tree: Tree) -> Sequence[float]:
        return self.of_nodes


def expected_advantage(steps: Sequence[tuple[float, float]], credit: IBTPOCredit) -> float:
    """E[A_IB] of one draw from π, given true values and π(c) as confidences."""
    tree = build_tree(
        [draw([A] * (1 + c) + [EOS], logprobs=[math.log(pi)] + [0.0] * (1 + c)) for c, (pi, _) in enumerate(steps)]
    )
    values = TrueValues((sum(pi * p for pi, p in steps), *(p for _, p in steps)))
    alone = replace(credit, values=values, confidence=Confidence.JOINT, lam=1.0, ib_on_ties=True)
    of_nodes = assign_advantages(alone, tree).of_nodes
    return sum(pi * a for (pi, _), a in zip(steps, of_nodes[1:], strict=True))


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


@given(STEPS, st.sampled_from([0.5, 5.0]))
@quick
def test_what_the_ib_advantage_is_on_average(weights: list[tuple[int, float]], beta: float) -> None:
    """Over a draw c ~ π: A-2 is Σ π·π* − (1 + 1/β)·Σ π², and A-2c the covariance of r and π, for E[r] = 1."""
    steps = normalised(weights)
    prior, post = [pi for pi, _ in steps], posterior(steps)
    p_root = sum(pi * p for pi, p in steps)
    ratios = [p / p_root if p_root else 1.0 for _, p in steps]
    mean_prior = collision(prior, prior)
    covariance = sum(pi * (r - 1.0) * (pi - mean_prior) for pi, r in zip(prior, ratios, strict=True))
    published, centred = (expected_advantage(steps, IBTPOCredit(beta=beta, centred=one)) for one in (False, True))
    assert published == pytest.approx(collision(prior, post) - (1 + 1 / beta) * mean_prior, abs=1e-9)
    assert centred == pytest.approx(covariance, abs=1e-9)
    assert centred == pytest.approx(collision(prior, post) - mean_prior, abs=1e-9)
