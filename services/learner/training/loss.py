"""The loss, token by token, as pure functions of tensors (METHOD, Objective).

Shapes: B trajectories, T tokens of the longest answer; R rows of S slots, V tokens of the vocabulary. Every `logprobs`
is of the temperature-scaled full softmax.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Clip:
    """How far a ratio π_θ/π_old may move a token: up to 1 − low and 1 + high."""

    low: float
    high: float

    @property
    def interval(self) -> tuple[float, float]:
        """The ratios within which a token still pulls."""
        return 1.0 - self.low, 1.0 + self.high


def clipped_surrogate(logprobs_BT: Tensor, old_logprobs_BT: Tensor, advantages_BT: Tensor, clip: Clip) -> Tensor:
    """−min(ρA, clip(ρ)A) per token, ρ = π_θ/π_old."""
    ratios_BT = (logprobs_BT - old_logprobs_BT).exp()
    return -torch.minimum(ratios_BT * advantages_BT, ratios_BT.clamp(*clip.interval) * advantages_BT)


def is_clipped(logprobs_BT: Tensor, old_logprobs_BT: Tensor, advantages_BT: Tensor, clip: Clip) -> Tensor:
    """The tokens that the clip leaves without a gradient: moved far enough, in the direction of their advantage."""
    ratios_BT = (logprobs_BT - old_logprobs_BT).exp()
    lowest, highest = clip.interval
    return ((advantages_BT > 0) & (ratios_BT > highest)) | ((advantages_BT < 0) & (ratios_BT < lowest))


def k3_divergence(logprobs_BT: Tensor, reference_logprobs_BT: Tensor) -> Tensor:
    """exp(d) − d − 1 per token, d = log π_ref − log π_θ: an unbiased, never negative estimate of KL(π_θ ‖ π_ref)."""
    d_BT = reference_logprobs_BT - logprobs_BT
    return d_BT.expm1() - d_BT


def importance_weights(old_logprobs_BT: Tensor, engine_logprobs_BT: Tensor, cap: float) -> Tensor:
    """min(π_old/μ, C) per token: corrects what the engine μ sampled to the learner's π_old, at equal definitions."""
    return (old_logprobs_BT - engine_logprobs_BT).exp().clamp(max=cap)


def entropies(logits_RSV: Tensor, normalisers_RS: Tensor) -> Tensor:
    """−Σ p log p per slot [R, S], p = softmax(logits), whose log-normalisers are given: log Z − Σ p·logit."""
    return normalisers_RS - ((logits_RSV - normalisers_RS[..., None]).exp() * logits_RSV).sum(-1)
