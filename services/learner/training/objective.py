"""The loss of every token of a micro-batch, with what the configuration switches (METHOD, Objective).

Shapes: B trajectories, T tokens of the longest answer; 0 at the padding.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from services.learner.objective_config import (
    ImportanceLevel,
    MaskLevel,
    ObjectiveConfig,
    OldPolicy,
    RatioLevel,
    SamplingPolicy,
    Surrogate,
)
from services.learner.training.loss import (
    Clip,
    cispo_surrogate,
    clipped_surrogate,
    entropy_loss,
    importance_weights,
    is_bounded,
    is_clipped,
    is_within,
    kl_estimate,
    ratios,
    sequence_ratios,
    sequence_token_ratios,
    trajectory_means,
    trajectory_sums,
)
from services.learner.training.packing import MicroBatch


@dataclass(frozen=True, slots=True)
class TokenLosses:
    """What the objective makes of each token. Only `loss_BT` has a gradient."""

    loss_BT: Tensor
    ratios_BT: Tensor
    """π_θ/π_old, as `ratio` defines it."""
    is_clipped_BT: Tensor
    corrections_BT: Tensor
    """The factor from μ to π_old: min(π_old/μ, C), 0 where masked."""
    is_capped_BT: Tensor
    """Whose factor is C."""
    is_masked_BT: Tensor
    """Left out because engine and learner disagree."""
    kl_BT: Tensor | None
    """The estimate, before its weight."""


class Objective:
    """Pure functions of a micro-batch and of what the policy says of its tokens."""

    def __init__(self, config: ObjectiveConfig) -> None:
        self._config = config
        self._clip = Clip(config.clip_low, config.clip_high, config.dual_clip or math.inf)

    def of_tokens(self, logprobs_BT: Tensor, entropies_BT: Tensor, batch: MicroBatch) -> TokenLosses:
        """weight·surrogate(ρ, A) + kl_coef·KL − (entropy_coef + entropy_advantage_coef·A)·H of every token.

        ρ = π_θ/π_old; the weight corrects from μ, which sampled, to π_old.
        """
        config = self._config
        old_BT = self._old_logprobs(logprobs_BT, batch)
        ratios_BT = self._ratios(logprobs_BT, old_BT, batch.is_answer_BT)
        weights_BT, is_masked_BT = self._mismatch(old_BT, batch)
        loss_BT = weights_BT * self._surrogate(ratios_BT, logprobs_BT, batch.advantages_BT)
        kl_BT = None
        if batch.reference_logprobs_BT is not None:
            kl_BT = kl_estimate(logprobs_BT, batch.reference_logprobs_BT, config.kl_estimator, config.kl_max)
            loss_BT = loss_BT + config.kl_coef * (kl_BT * ratios_BT if config.unbiased_kl else kl_BT)
        if config.entropy_coef or config.entropy_advantage_coef:
            loss_BT = loss_BT + entropy_loss(
                entropies_BT, batch.advantages_BT, config.entropy_coef, config.entropy_advantage_coef
            )
        found_clipped = is_bounded if config.surrogate is Surrogate.CISPO else is_clipped
        ratios_BT = ratios_BT.detach()
        return TokenLosses(
            loss_BT=loss_BT,
            ratios_BT=ratios_BT.where(batch.is_answer_BT, 0.0),
            is_clipped_BT=found_clipped(ratios_BT, batch.advantages_BT, self._clip) & batch.is_answer_BT,
            corrections_BT=weights_BT.where(batch.is_answer_BT, 0.0),
            is_capped_BT=self._is_capped(weights_BT) & batch.is_answer_BT,
            is_masked_BT=is_masked_BT & batch.is_answer_BT,
            kl_BT=None if kl_BT is None else kl_BT.detach(),
        )

    def _old_logprobs(self, logprobs_BT: Tensor, batch: MicroBatch) -> Tensor:
        """log π_old."""
        if self._config.old_policy is OldPolicy.ENGINE:
            return batch.engine_logprobs_BT
        return logprobs_BT.detach() if batch.old_logprobs_BT is None else batch.old_logprobs_BT

    def _ratios(self, logprobs_BT: Tensor, old_BT: Tensor, is_answer_BT: Tensor) -> Tensor:
        match self._config.ratio:
            case RatioLevel.TOKEN:
                return ratios(logprobs_BT, old_BT)
            case RatioLevel.SEQUENCE:
                return sequence_ratios(logprobs_BT, old_BT, is_answer_BT).expand_as(logprobs_BT)
            case RatioLevel.SEQUENCE_TOKEN:
                return sequence_token_ratios(logprobs_BT, old_BT, is_answer_BT)

    def _surrogate(self, ratios_BT: Tensor, logprobs_BT: Tensor, advantages_BT: Tensor) -> Tensor:
        if self._config.surrogate is Surrogate.CISPO:
            return cispo_surrogate(ratios_BT, logprobs_BT, advantages_BT, self._clip)
        return clipped_surrogate(ratios_BT, advantages_BT, self._clip)

    def _is_capped(self, weights_BT: Tensor) -> Tensor:
        is_off = self._config.tis_level is ImportanceLevel.OFF
        return torch.zeros_like(weights_BT, dtype=torch.bool) if is_off else weights_BT >= self._config.tis_cap

    def _mismatch(self, old_BT: Tensor, batch: MicroBatch) -> tuple[Tensor, Tensor]:
        """The factor of each token's surrogate, min(π_old/μ, C), 0 where masked; and which tokens are masked."""
        is_cut = self._config.mu is SamplingPolicy.SAMPLING
        log_weights_BT = old_BT - (batch.sampling_logprobs_BT if is_cut else batch.engine_logprobs_BT)
        weights_BT, kept_BT = torch.ones_like(old_BT), torch.ones_like(batch.is_answer_BT)
        match self._config.tis_level:
            case ImportanceLevel.TOKEN:
                weights_BT = importance_weights(log_weights_BT, self._config.tis_cap)
            case ImportanceLevel.SEQUENCE:
                of_sequences_B1 = trajectory_sums(log_weights_BT, batch.is_answer_BT)
                weights_BT = importance_weights(of_sequences_B1, self._config.tis_cap).expand_as(old_BT)
        match self._config.mask_level:
            case MaskLevel.TOKEN:
                kept_BT = is_within(log_weights_BT, self._config.kept_ratios)
            case MaskLevel.SEQUENCE:
                of_sequences_B1 = trajectory_sums(log_weights_BT, batch.is_answer_BT)
                kept_BT = is_within(of_sequences_B1, self._config.kept_ratios).expand_as(old_BT)
            case MaskLevel.GEOMETRIC:
                means_B1 = trajectory_means(log_weights_BT, batch.is_answer_BT)
                kept_BT = is_within(means_B1, self._config.kept_ratios).expand_as(old_BT)
        return weights_BT.where(kept_BT, 0.0), ~kept_BT
