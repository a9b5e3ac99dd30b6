"""The formulas of the loss, as pure functions of tensors (METHOD, Objective).

Shapes: B trajectories, T tokens of the longest answer. All `logprobs` are of the temperature-scaled full softmax and 0
at the padding. What is one number for a whole trajectory is [B, 1].
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from services.learner.loss_terms import Clip
from services.learner.objective_config import KLEstimator

if TYPE_CHECKING:
    from torch import Tensor

_MAX_LOG_RATIO = 20.0
"""Beyond it one token's exponential would outweigh, or overflow, all others'."""


def ratios(logprobs_BT: Tensor, old_logprobs_BT: Tensor) -> Tensor:
    """O-1: ρ = π_θ/π_old per token, within e^±20: an infinite ratio times an advantage of 0 would be NaN."""
    return _exp(logprobs_BT - old_logprobs_BT)


def sequence_ratios(logprobs_BT: Tensor, old_logprobs_BT: Tensor, is_sampled_BT: Tensor) -> Tensor:
    """O-2: ρ = (π_θ(y)/π_old(y))^(1/|y|) of each trajectory's sampled tokens y [B, 1] (GSPO)."""
    return _exp(trajectory_means(logprobs_BT - old_logprobs_BT, is_sampled_BT))


def sequence_token_ratios(logprobs_BT: Tensor, old_logprobs_BT: Tensor, is_sampled_BT: Tensor) -> Tensor:
    """O-3: the value of O-2 at every token, whose gradient is that of its own log-probability (GSPO-token)."""
    of_sequences_B1 = sequence_ratios(logprobs_BT.detach(), old_logprobs_BT, is_sampled_BT)
    return of_sequences_B1 * (logprobs_BT - logprobs_BT.detach()).exp()


def trajectory_means(values_BT: Tensor, is_sampled_BT: Tensor) -> Tensor:
    """The mean over each trajectory's sampled tokens [B, 1]."""
    return trajectory_sums(values_BT, is_sampled_BT) / is_sampled_BT.sum(1, keepdim=True).clamp(min=1)


def trajectory_sums(values_BT: Tensor, is_sampled_BT: Tensor) -> Tensor:
    """The sum over each trajectory's sampled tokens [B, 1]."""
    return values_BT.where(is_sampled_BT, 0.0).sum(1, keepdim=True)


def clipped_surrogate(ratios_BT: Tensor, advantages_BT: Tensor, clip: Clip) -> Tensor:
    """O-4: −min(ρA, clip(ρ)A) per token; at most −dual·A where A < 0."""
    loss_BT = -(ratios_BT * advantages_BT).minimum(ratios_BT.clamp(*clip.interval) * advantages_BT)
    if math.isinf(clip.dual):
        return loss_BT
    return loss_BT.minimum(-clip.dual * advantages_BT).where(advantages_BT < 0, loss_BT)


def cispo_surrogate(ratios_BT: Tensor, logprobs_BT: Tensor, advantages_BT: Tensor, clip: Clip) -> Tensor:
    """O-5: −sg[clip(ρ)]·A·log π_θ per token."""
    return -ratios_BT.detach().clamp(*clip.interval) * advantages_BT * logprobs_BT


def is_clipped(ratios_BT: Tensor, advantages_BT: Tensor, clip: Clip) -> Tensor:
    """The tokens to which O-4 leaves no gradient: their ratio left the interval in their advantage's direction."""
    lowest, highest = clip.interval
    is_outside_BT = (ratios_BT < lowest) | (ratios_BT > clip.dual)
    return ((advantages_BT > 0) & (ratios_BT > highest)) | ((advantages_BT < 0) & is_outside_BT)


def is_bounded(ratios_BT: Tensor, advantages_BT: Tensor, clip: Clip) -> Tensor:
    """The tokens whose weight O-5 bounds, of those that have an advantage."""
    lowest, highest = clip.interval
    return ((ratios_BT < lowest) | (ratios_BT > highest)) & (advantages_BT != 0)


def kl_estimate(
    logprobs_BT: Tensor, reference_logprobs_BT: Tensor, estimator: KLEstimator, bound: float | None
) -> Tensor:
    """O-6: each token's estimate of KL(π_θ ‖ π_ref), within ± `bound`; d = log π_ref − log π_θ is bounded to ±20.

    The bounds keep one token from outweighing a step; beyond them it has no gradient.
    """
    d_BT = (reference_logprobs_BT - logprobs_BT).clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO)
    match estimator:
        case KLEstimator.K1:
            estimate_BT = -d_BT
        case KLEstimator.K2:
            estimate_BT = d_BT.square() / 2
        case KLEstimator.K3:
            estimate_BT = d_BT.expm1() - d_BT
    return estimate_BT if bound is None else estimate_BT.clamp(-bound, bound)


def entropy_loss(entropies_BT: Tensor, coef: float | Tensor) -> Tensor:
    """O-7, O-8: −coef·H per token; the coefficient is a number, or that times A."""
    return -coef * entropies_BT


def importance_weights(log_weights_BT: Tensor, cap: float) -> Tensor:
    """O-9: min(π_old/μ, C) of its logarithm: corrects from the engine's μ, which sampled, to the learner's π_old."""
    return log_weights_BT.exp().clamp(max=cap)


def is_within(log_weights_BT: Tensor, bounds: tuple[float, float]) -> Tensor:
    """O-10: where π_old/μ lies within the bounds, both included."""
    weights_BT = log_weights_BT.exp()
    return (weights_BT >= bounds[0]) & (weights_BT <= bounds[1])


def _exp(log_ratios_BT: Tensor) -> Tensor:
    return log_ratios_BT.clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO).exp()
