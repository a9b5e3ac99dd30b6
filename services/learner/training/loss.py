"""The loss per token, as pure functions of tensors (METHOD, Objective).

Shapes: B trajectories, T tokens of the longest answer; R rows of S columns, V tokens of the vocabulary. All `logprobs`
are of the temperature-scaled full softmax.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Clip:
    """How far a ratio π_θ/π_old may move a token: down to 1 − low and up to 1 + high."""

    low: float
    high: float

    @property
    def interval(self) -> tuple[float, float]:
        """The ratios at which a token still has a gradient."""
        return 1.0 - self.low, 1.0 + self.high


def clipped_surrogate(logprobs_BT: Tensor, old_logprobs_BT: Tensor, advantages_BT: Tensor, clip: Clip) -> Tensor:
    """−min(ρA, clip(ρ)A) per token, ρ = π_θ/π_old."""
    ratios_BT = (logprobs_BT - old_logprobs_BT).exp()
    return -torch.minimum(ratios_BT * advantages_BT, ratios_BT.clamp(*clip.interval) * advantages_BT)


def is_clipped(logprobs_BT: Tensor, old_logprobs_BT: Tensor, advantages_BT: Tensor, clip: Clip) -> Tensor:
    """The tokens to which the clip leaves no gradient: their ratio left the interval in their advantage's direction."""
    ratios_BT = (logprobs_BT - old_logprobs_BT).exp()
    lowest, highest = clip.interval
    return ((advantages_BT > 0) & (ratios_BT > highest)) | ((advantages_BT < 0) & (ratios_BT < lowest))


def k3_divergence(logprobs_BT: Tensor, reference_logprobs_BT: Tensor) -> Tensor:
    """exp(d) − d − 1 per token, d = log π_ref − log π_θ: an unbiased, never negative estimate of KL(π_θ ‖ π_ref)."""
    d_BT = reference_logprobs_BT - logprobs_BT
    return d_BT.expm1() - d_BT


def importance_weights(old_logprobs_BT: Tensor, engine_logprobs_BT: Tensor, cap: float) -> Tensor:
    """min(π_old/μ, C) per token: corrects from the engine's μ, which sampled, to the learner's π_old."""
    return (old_logprobs_BT - engine_logprobs_BT).exp().clamp(max=cap)


def entropies(logits_RSV: Tensor, log_normalizers_RS: Tensor) -> Tensor:
    """−Σ p log p per column [R, S], p = softmax(logits), computed as log Z − Σ p·logit."""
    return log_normalizers_RS - ((logits_RSV - log_normalizers_RS[..., None]).exp() * logits_RSV).sum(-1)
