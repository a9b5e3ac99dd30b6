"""The loss per token, as pure functions of tensors (METHOD, Objective).

Shapes: B trajectories, T tokens of the longest answer. All `logprobs`
are of the temperature-scaled full softmax.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_MAX_LOG_RATIO = 20.0
"""Beyond it one token's exponential would outweigh, or overflow, all others'."""
_MAX_K3 = 10.0


@dataclass(frozen=True, slots=True)
class Clip:
    """How far a ratio π_θ/π_old may move a token: down to 1 − low and up to 1 + high.

    `dual`: the ratio up to which a token of negative advantage is pushed down (dual clip); infinite: without bound.
    """

    low: float
    high: float
    dual: float = math.inf

    @property
    def interval(self) -> tuple[float, float]:
        """The ratios at which a token still has a gradient."""
        return 1.0 - self.low, 1.0 + self.high


def ratios(logprobs_BT: Tensor, old_logprobs_BT: Tensor) -> Tensor:
    """ρ = π_θ/π_old per token, within e^±20: an infinite ratio times an advantage of 0 would be NaN."""
    return (logprobs_BT - old_logprobs_BT).clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO).exp()


def clipped_surrogate(ratios_BT: Tensor, advantages_BT: Tensor, clip: Clip) -> Tensor:
    """−min(ρA, clip(ρ)A) per token; at most −dual·A where A < 0."""
    loss_BT = -torch.minimum(ratios_BT * advantages_BT, ratios_BT.clamp(*clip.interval) * advantages_BT)
    if math.isinf(clip.dual):
        return loss_BT
    return torch.where(advantages_BT < 0, torch.minimum(loss_BT, -clip.dual * advantages_BT), loss_BT)


def is_clipped(ratios_BT: Tensor, advantages_BT: Tensor, clip: Clip) -> Tensor:
    """The tokens to which the clip leaves no gradient: their ratio left the interval in their advantage's direction."""
    lowest, highest = clip.interval
    is_outside_BT = (ratios_BT < lowest) | (ratios_BT > clip.dual)
    return ((advantages_BT > 0) & (ratios_BT > highest)) | ((advantages_BT < 0) & is_outside_BT)


def k3_divergence(logprobs_BT: Tensor, reference_logprobs_BT: Tensor) -> Tensor:
    """exp(d) − d − 1 per token, d = log π_ref − log π_θ: an unbiased, never negative estimate of KL(π_θ ‖ π_ref).

    d is bounded to ±20 and the estimate to 10, so that one token cannot outweigh a step.
    """
    d_BT = (reference_logprobs_BT - logprobs_BT).clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO)
    return (d_BT.expm1() - d_BT).clamp(max=_MAX_K3)


def importance_weights(old_logprobs_BT: Tensor, engine_logprobs_BT: Tensor, cap: float) -> Tensor:
    """min(π_old/μ, C) per token: corrects from the engine's μ, which sampled, to the learner's π_old."""
    return (old_logprobs_BT - engine_logprobs_BT).exp().clamp(max=cap)
