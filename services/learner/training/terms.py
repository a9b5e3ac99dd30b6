"""The built-in terms of the loss (METHOD, Objective)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from services.learner.loss_terms import LossTerm, Surrogate, TokenTensors
from services.learner.objective_config import KLEstimator
from services.learner.training.loss import (
    cispo_surrogate,
    clipped_surrogate,
    entropy_loss,
    is_bounded,
    is_clipped,
    kl_estimate,
)

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ClippedSurrogate(Surrogate):
    """O-4: −min(ρA, clip(ρ)A): a token whose ratio left the clip in its advantage's direction has no gradient (PPO)."""

    def loss(self, tokens: TokenTensors) -> Tensor:
        return clipped_surrogate(tokens.ratios_BT, tokens.advantages_BT, tokens.clip)

    def is_clipped(self, tokens: TokenTensors) -> Tensor:
        return is_clipped(tokens.ratios_BT, tokens.advantages_BT, tokens.clip)


@dataclass(frozen=True)
class CispoSurrogate(Surrogate):
    """O-5: −sg[clip(ρ)]·A·log π_θ: the clip bounds a token's weight, and every token keeps its gradient."""

    def loss(self, tokens: TokenTensors) -> Tensor:
        return cispo_surrogate(tokens.ratios_BT, tokens.logprobs_BT, tokens.advantages_BT, tokens.clip)

    def is_clipped(self, tokens: TokenTensors) -> Tensor:
        return is_bounded(tokens.ratios_BT, tokens.advantages_BT, tokens.clip)


@dataclass(frozen=True)
class NoSurrogate(Surrogate):
    """0: the loss is that of the other terms alone."""

    def loss(self, tokens: TokenTensors) -> Tensor:
        return 0.0 * tokens.logprobs_BT


@dataclass(frozen=True)
class KLTerm(LossTerm):
    """O-6: coef·KL to the model that the run began with; times ρ where it is to be unbiased."""

    coef: Annotated[float, "Weight of the KL"] = 0.001
    estimator: Annotated[KLEstimator, "Its estimate of a token: k1, k2 or k3"] = KLEstimator.K3
    max: Annotated[float | None, "The estimate is bounded to ± this; None: not bounded"] = 10.0
    unbiased: Annotated[bool, "Multiply the estimate by π_θ/π_old, which makes its gradient unbiased"] = False
    reads_reference = True

    def loss(self, tokens: TokenTensors) -> Tensor:
        if tokens.reference_logprobs_BT is None:
            raise ValueError("no reference was read")
        kl_BT = kl_estimate(tokens.logprobs_BT, tokens.reference_logprobs_BT, self.estimator, self.max)
        return self.coef * (kl_BT * tokens.ratios_BT if self.unbiased else kl_BT)


@dataclass(frozen=True)
class EntropyTerm(LossTerm):
    """O-7: −coef·H, which rewards the policy's entropy."""

    coef: Annotated[float, "Weight of the policy's entropy"] = 0.001

    def loss(self, tokens: TokenTensors) -> Tensor:
        return entropy_loss(tokens.entropies_BT, self.coef)


@dataclass(frozen=True)
class EntropyAdvantageTerm(LossTerm):
    """O-8: −coef·H·A, which raises entropy where the answer was better, and lowers it elsewhere (IBRO, IIB-LPO)."""

    coef: Annotated[float, "Weight of entropy times advantage"] = 0.001

    def loss(self, tokens: TokenTensors) -> Tensor:
        return entropy_loss(tokens.entropies_BT, self.coef * tokens.advantages_BT)
