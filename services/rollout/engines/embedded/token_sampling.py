"""Samples one token per row from its logits, or scores given ones (METHOD, Log-probabilities).

Shapes: B rows, N tokens of a row, V vocabulary, C rows whose support is cut, W candidate tokens of these.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from services.rollout.engines.engine import Sampling


@dataclass(frozen=True, slots=True)
class SampledTokens:
    """One token per row, with its log-probabilities; the two are equal where the support was not cut.

    `entropies` of the rows that are asked for theirs, 0 of the others.
    """

    token_ids: list[int]
    logprobs: list[float]
    sampling_logprobs: list[float]
    entropies: list[float]


@torch.inference_mode()
def sample_tokens(
    logits_BV: torch.Tensor,
    samplings: Sequence[Sampling],
    uniforms: Sequence[float],
    entropy_rows: Sequence[int] = (),
) -> SampledTokens:
    """Row b's token is where its cumulative distribution exceeds uniforms[b], which lies in [0, 1). `entropy_rows` are
    asked for the entropies of their distributions."""
    logprobs_BV = _scaled_logprobs(logits_BV, [sampling.temperature or 1.0 for sampling in samplings])
    uniform_B1 = torch.tensor(uniforms, dtype=torch.float64)[:, None]
    probs_BV = logprobs_BV.exp()
    token_B1 = _inverse_cdf(probs_BV, uniform_B1)
    greedy = [row for row, sampling in enumerate(samplings) if sampling.temperature == 0.0]
    if greedy:
        token_B1[greedy] = logprobs_BV[greedy].argmax(-1, keepdim=True)
    cut = [row for row, sampling in enumerate(samplings) if sampling.cuts_support]
    log_mass_of_row: dict[int, float] = {}
    if cut:
        token_B1[cut], mass_C1 = _sample_cut(logprobs_BV[cut], [samplings[row] for row in cut], uniform_B1[cut])
        log_mass_of_row = dict(zip(cut, mass_C1[:, 0].log().tolist(), strict=True))
    logprobs: list[float] = logprobs_BV.gather(-1, token_B1)[:, 0].tolist()
    sampling_logprobs = list(logprobs)
    for row, log_mass in log_mass_of_row.items():
        sampling_logprobs[row] -= log_mass
    entropies = [0.0] * len(logprobs)
    if entropy_rows:
        of_rows = torch.special.entr(probs_BV[list(entropy_rows)]).sum(-1)
        for row, entropy in zip(entropy_rows, of_rows.tolist(), strict=True):
            entropies[row] = entropy
    return SampledTokens(token_B1[:, 0].tolist(), logprobs, sampling_logprobs, entropies)


@torch.inference_mode()
def score_tokens(logits_NV: torch.Tensor, token_ids: Sequence[int], temperature: float) -> list[float]:
    """The log-probability of the n-th token under the n-th logits."""
    logprobs_NV = _scaled_logprobs(logits_NV, [temperature])
    logprobs: list[float] = logprobs_NV.gather(-1, torch.tensor(token_ids)[:, None])[:, 0].tolist()
    return logprobs


def _scaled_logprobs(logits_BV: torch.Tensor, temperatures: Sequence[float]) -> torch.Tensor:
    """Of the full softmax at each row's temperature."""
    if any(temperature != 1.0 for temperature in temperatures):
        logits_BV = logits_BV / torch.tensor(temperatures)[:, None]
    return logits_BV.log_softmax(-1)


def _inverse_cdf(weights_BV: torch.Tensor, uniform_B1: torch.Tensor) -> torch.Tensor:
    """The first index whose cumulative weight exceeds the uniform's share of the total: never one of weight 0."""
    cdf_BV = weights_BV.cumsum(-1, dtype=torch.float64)
    return torch.searchsorted(cdf_BV, uniform_B1 * cdf_BV[:, -1:], right=True)


def _sample_cut(
    logprobs_CV: torch.Tensor, samplings: Sequence[Sampling], uniform_C1: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens sampled from the fewest of the top-k that reach top-p of their mass, and the mass that was kept."""
    vocab_size = logprobs_CV.shape[-1]
    limits = [min(sampling.top_k or vocab_size, vocab_size) for sampling in samplings]
    top_CW, token_CW = logprobs_CV.topk(max(limits), dim=-1)
    probs_CW = top_CW.double().exp()
    probs_CW[torch.arange(max(limits)) >= torch.tensor(limits)[:, None]] = 0.0
    cdf_CW = probs_CW.cumsum(-1)
    top_p_C1 = torch.tensor([sampling.top_p for sampling in samplings], dtype=torch.float64)[:, None]
    probs_CW[cdf_CW - probs_CW >= top_p_C1 * cdf_CW[:, -1:]] = 0.0
    return token_CW.gather(-1, _inverse_cdf(probs_CW, uniform_C1)), probs_CW.sum(-1, keepdim=True)
