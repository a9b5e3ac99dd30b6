"""The loss of every token of a micro-batch, with what the configuration switches (METHOD, Objective).

Shapes: B trajectories, T tokens of the longest answer; 0 at the padding. Tokens that were given are in no ratio, mask
or figure.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from services.learner.loss_terms import Clip, TokenTensors
from services.learner.objective_config import (
    ImportanceLevel,
    MaskLevel,
    ObjectiveConfig,
    OldPolicy,
    RatioLevel,
    SamplingPolicy,
)
from services.learner.training.loss import (
    importance_weights,
    is_within,
    kl_estimate,
    ratios,
    sequence_ratios,
    sequence_token_ratios,
    trajectory_means,
    trajectory_sums,
)
from services.learner.training.own_terms import CheckedTerm, check_surrogate, check_term
from services.learner.training.packing import MicroBatch
from shared.plugins.deadline import NO_HURRY, Deadline


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
    own_terms_BT: tuple[Tensor, ...] = ()
    """The losses of the terms of the user's own."""


class Objective:
    """Pure functions of a micro-batch and of what the policy says of its tokens."""

    def __init__(self, config: ObjectiveConfig, deadline: Deadline = NO_HURRY) -> None:
        """`deadline` bounds each call of a term of the user's own."""
        self._config = config
        self._surrogate = check_surrogate(config.surrogate, deadline)
        self._terms = [check_term(term, deadline) for term in config.all_terms]
        self._clip = Clip(config.clip_low, config.clip_high, config.dual_clip or math.inf)

    @property
    def own_terms(self) -> tuple[str, ...]:
        """What the terms of the user's own are called: by their import paths, numbered where several are alike."""
        kinds = [term.kind for term in self._terms if isinstance(term, CheckedTerm)]
        return tuple(
            kind if kinds.count(kind) == 1 else f"{kind} {kinds[: number + 1].count(kind)}"
            for number, kind in enumerate(kinds)
        )

    def of_tokens(self, logprobs_BT: Tensor, entropies_BT: Tensor, batch: MicroBatch) -> TokenLosses:
        """weight·surrogate(ρ, A) + Σ terms of every token: KL, entropy, entropy·A and the user's own.

        ρ = π_θ/π_old; the weight corrects from μ, which sampled, to π_old.
        """
        old_BT = self._old_logprobs(logprobs_BT, batch)
        weights_BT, is_masked_BT = self._mismatch(old_BT, batch)
        tokens = TokenTensors(
            logprobs_BT=logprobs_BT,
            entropies_BT=entropies_BT,
            ratios_BT=self._ratios(logprobs_BT, old_BT, batch.is_sampled_BT),
            old_logprobs_BT=old_BT,
            engine_logprobs_BT=batch.engine_logprobs_BT,
            sampling_logprobs_BT=batch.sampling_logprobs_BT,
            reference_logprobs_BT=batch.reference_logprobs_BT,
            advantages_BT=batch.advantages_BT,
            corrections_BT=weights_BT,
            is_answer_BT=batch.is_sampled_BT,
            clip=self._clip,
        )
        of_terms = [self._surrogate.loss(tokens), *(term.loss(tokens) for term in self._terms)]
        return TokenLosses(
            loss_BT=sum(of_terms[1:], start=weights_BT * of_terms[0]),
            ratios_BT=tokens.ratios_BT.detach().where(batch.is_sampled_BT, 0.0),
            is_clipped_BT=self._surrogate.is_clipped(tokens) & batch.is_sampled_BT,
            corrections_BT=weights_BT.where(batch.is_sampled_BT, 0.0),
            is_capped_BT=self._is_capped(weights_BT) & batch.is_sampled_BT,
            is_masked_BT=is_masked_BT & batch.is_sampled_BT,
            kl_BT=self._kl(tokens),
            own_terms_BT=tuple(
                loss_BT.detach().where(batch.is_sampled_BT, 0.0)
                for term, loss_BT in zip(self._terms, of_terms[1:], strict=True)
                if isinstance(term, CheckedTerm)
            ),
        )

    @torch.no_grad()
    def _kl(self, tokens: TokenTensors) -> Tensor | None:
        """The KL's estimate, before its weight, where the reference is read."""
        if tokens.reference_logprobs_BT is None:
            return None
        kl_BT = kl_estimate(
            tokens.logprobs_BT, tokens.reference_logprobs_BT, self._config.kl_estimator, self._config.kl_max
        )
        return kl_BT.where(tokens.is_answer_BT, 0.0)

    def _old_logprobs(self, logprobs_BT: Tensor, batch: MicroBatch) -> Tensor:
        """log π_old."""
        if self._config.old_policy is OldPolicy.ENGINE:
            return batch.engine_logprobs_BT
        return logprobs_BT.detach() if batch.old_logprobs_BT is None else batch.old_logprobs_BT

    def _ratios(self, logprobs_BT: Tensor, old_BT: Tensor, is_sampled_BT: Tensor) -> Tensor:
        match self._config.ratio:
            case RatioLevel.TOKEN:
                return ratios(logprobs_BT, old_BT)
            case RatioLevel.SEQUENCE:
                return sequence_ratios(logprobs_BT, old_BT, is_sampled_BT).expand_as(logprobs_BT)
            case RatioLevel.SEQUENCE_TOKEN:
                return sequence_token_ratios(logprobs_BT, old_BT, is_sampled_BT)

    def _is_capped(self, weights_BT: Tensor) -> Tensor:
        is_off = self._config.tis_level is ImportanceLevel.OFF
        return torch.zeros_like(weights_BT, dtype=torch.bool) if is_off else weights_BT >= self._config.tis_cap

    def _mismatch(self, old_BT: Tensor, batch: MicroBatch) -> tuple[Tensor, Tensor]:
        """The factor of each token's surrogate, min(π_old/μ, C), 0 where masked; and which tokens are masked."""
        is_cut = self._config.mu is SamplingPolicy.SAMPLING
        log_weights_BT = old_BT - (batch.sampling_logprobs_BT if is_cut else batch.engine_logprobs_BT)
        weights_BT, kept_BT = torch.ones_like(old_BT), torch.ones_like(batch.is_sampled_BT)
        match self._config.tis_level:
            case ImportanceLevel.TOKEN:
                weights_BT = importance_weights(log_weights_BT, self._config.tis_cap)
            case ImportanceLevel.SEQUENCE:
                of_sequences_B1 = trajectory_sums(log_weights_BT, batch.is_sampled_BT)
                weights_BT = importance_weights(of_sequences_B1, self._config.tis_cap).expand_as(old_BT)
        match self._config.mask_level:
            case MaskLevel.TOKEN:
                kept_BT = is_within(log_weights_BT, self._config.kept_ratios)
            case MaskLevel.SEQUENCE:
                of_sequences_B1 = trajectory_sums(log_weights_BT, batch.is_sampled_BT)
                kept_BT = is_within(of_sequences_B1, self._config.kept_ratios).expand_as(old_BT)
            case MaskLevel.GEOMETRIC:
                means_B1 = trajectory_means(log_weights_BT, batch.is_sampled_BT)
                kept_BT = is_within(means_B1, self._config.kept_ratios).expand_as(old_BT)
        return weights_BT.where(kept_BT, 0.0), ~kept_BT
