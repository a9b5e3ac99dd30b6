"""The loss against its definitions, one token at a time."""

import math
from collections.abc import Callable
from typing import TypeAlias

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from services.learner.loss_terms import Clip
from services.learner.model.head import entropies
from services.learner.objective_config import KLEstimator
from services.learner.training.loss import (
    clipped_surrogate,
    importance_weights,
    is_clipped,
    kl_estimate,
    ratios,
)

logprobs = st.floats(-12, 0)
advantages = st.floats(-5, 5)
Estimate: TypeAlias = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
CLIP = Clip(low=0.2, high=0.28)


def one(value: float) -> torch.Tensor:
    return torch.tensor([[value]], dtype=torch.float64)


def k3(policy: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    return kl_estimate(policy, reference, KLEstimator.K3, 10.0)


@given(logprobs, logprobs, advantages)
def test_the_surrogate_is_the_clipped_one(new: float, old: float, advantage: float) -> None:
    ratio = math.exp(new - old)
    clipped = min(max(ratio, 0.8), 1.28)
    expected = -min(ratio * advantage, clipped * advantage)
    assert clipped_surrogate(ratios(one(new), one(old)), one(advantage), CLIP).item() == pytest.approx(expected)


@given(logprobs, logprobs, advantages)
def test_a_token_pulls_with_its_ratio_times_advantage_unless_it_is_clipped(
    new: float, old: float, advantage: float
) -> None:
    theta = one(new).requires_grad_()
    clipped_surrogate(ratios(theta, one(old)), one(advantage), CLIP).sum().backward()
    assert theta.grad is not None
    is_held = is_clipped(ratios(one(new), one(old)), one(advantage), CLIP).item()
    # at the clip's very edge either side is a subgradient
    if min(abs(math.exp(new - old) - edge) for edge in CLIP.interval) > 1e-9:
        assert theta.grad.item() == pytest.approx(0.0 if is_held else -math.exp(new - old) * advantage)


@given(logprobs, logprobs)
def test_k3_is_never_negative_and_zero_only_at_equality(new: float, reference: float) -> None:
    d = reference - new
    divergence = k3(one(new), one(reference)).item()
    assert divergence == pytest.approx(min(math.exp(d) - d - 1, 10.0), abs=1e-9, rel=1e-9)
    assert divergence >= 0.0
    assert (divergence == 0.0) == (d == 0.0) or abs(d) < 1e-7


@pytest.mark.parametrize("d", [7.6, 1e3, math.inf])
def test_one_token_cannot_outweigh_a_step(d: float) -> None:
    theta = one(-d).requires_grad_()
    divergence = k3(theta, one(0.0))
    divergence.sum().backward()
    assert divergence.item() == 10.0
    assert theta.grad is not None
    assert theta.grad.item() == 0.0


def test_a_ratio_without_bound_times_no_advantage_is_nothing() -> None:
    assert clipped_surrogate(ratios(one(0.0), one(-1e4)), one(0.0), CLIP).item() == 0.0
    assert ratios(one(0.0), one(-1e4)).item() == pytest.approx(math.exp(20))


@given(logprobs, logprobs, advantages)
def test_the_dual_clip_bounds_what_a_negative_advantage_costs(new: float, old: float, advantage: float) -> None:
    dual = Clip(low=0.2, high=0.28, dual=3.0)
    plain = clipped_surrogate(ratios(one(new), one(old)), one(advantage), CLIP).item()
    expected = min(plain, -3.0 * advantage) if advantage < 0 else plain
    assert clipped_surrogate(ratios(one(new), one(old)), one(advantage), dual).item() == pytest.approx(expected)
    is_beyond = advantage < 0 and math.exp(new - old) > 3.0
    held = is_clipped(ratios(one(new), one(old)), one(advantage), CLIP).item()
    assert is_clipped(ratios(one(new), one(old)), one(advantage), dual).item() == (held or is_beyond)


@pytest.mark.parametrize("estimate_kl", [k3, lambda *logprobs: kl_estimate(*logprobs, KLEstimator.K1, None)])
def test_k1_and_k3_are_unbiased_estimates_of_the_divergence(estimate_kl: Estimate) -> None:
    torch.manual_seed(1)  # no ratio here is so large that the estimate's bound acts
    policy, reference = (torch.log_softmax(torch.randn(7, dtype=torch.float64), 0) for _ in range(2))
    expectation = (policy.exp() * estimate_kl(policy, reference)).sum()
    assert expectation.item() == pytest.approx((policy.exp() * (policy - reference)).sum().item())


@pytest.mark.parametrize(
    ("estimator", "is_weighted", "is_reversed"),
    [("k1", True, False), ("k2", False, False), ("k3", True, False), ("k3", False, True)],
)
def test_on_policy_the_gradient_is_that_of_a_divergence(estimator: str, is_weighted: bool, is_reversed: bool) -> None:
    """Of k2 as it is; of k1 and k3 once weighed with the ratio (`unbiased_kl`), whose value is 1. Without that weight
    k3 pulls as KL(π_ref ‖ π_θ) does."""
    torch.manual_seed(2)
    logits = torch.randn(7, dtype=torch.float64, requires_grad=True)
    reference = torch.log_softmax(torch.randn(7, dtype=torch.float64), 0)
    policy = torch.log_softmax(logits, 0)
    p, q = (reference, policy) if is_reversed else (policy, reference)
    (exact,) = torch.autograd.grad((p.exp() * (p - q)).sum(), logits, retain_graph=True)
    estimates = kl_estimate(policy, reference, KLEstimator(estimator), None)
    if is_weighted:
        estimates = estimates * ratios(policy, policy.detach())
    (estimated,) = torch.autograd.grad((policy.detach().exp() * estimates).sum(), logits)
    assert torch.allclose(exact, estimated)


def test_k1_without_that_weight_pulls_nowhere() -> None:
    logits = torch.randn(7, dtype=torch.float64, requires_grad=True)
    policy = torch.log_softmax(logits, 0)
    estimates = kl_estimate(policy, torch.full((7,), -math.log(7.0), dtype=torch.float64), KLEstimator.K1, None)
    (gradient,) = torch.autograd.grad((policy.detach().exp() * estimates).sum(), logits)
    assert torch.allclose(gradient, torch.zeros(7, dtype=torch.float64))


@given(logprobs, logprobs, st.floats(0.5, 8))
def test_importance_weights_are_truncated(old: float, engine: float, cap: float) -> None:
    assert importance_weights(one(old - engine), cap).item() == pytest.approx(min(math.exp(old - engine), cap))


def test_an_engine_that_called_its_own_token_impossible_weighs_the_cap() -> None:
    assert importance_weights(one(-1.0) - one(-math.inf), 2.0).item() == 2.0


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=8))
def test_the_entropy_is_that_of_the_softmax(values: list[float]) -> None:
    logits_RSV = torch.tensor([[values]], dtype=torch.float64)
    p = torch.softmax(logits_RSV, -1)
    expected = -(p * p.log()).sum().item()
    assert entropies(logits_RSV, logits_RSV.logsumexp(-1)).item() == pytest.approx(expected, abs=1e-9)


def test_the_gradient_of_the_entropy_is_that_of_its_formula() -> None:
    torch.manual_seed(3)
    logits_RSV = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    pulls_RS = torch.randn(2, 3, dtype=torch.float64)
    p = torch.softmax(logits_RSV, -1)
    (expected,) = torch.autograd.grad((pulls_RS * -(p * p.log()).sum(-1)).sum(), logits_RSV)
    (found,) = torch.autograd.grad((pulls_RS * entropies(logits_RSV, logits_RSV.logsumexp(-1))).sum(), logits_RSV)
    assert torch.allclose(expected, found)
