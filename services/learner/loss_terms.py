"""What a term of the loss is, and which there are: by name, or the user's own by import path (METHOD, Objective).

No torch here, nor where the built-in ones are written: whoever reads a configuration imports them.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Protocol, TypeAlias

from shared.kinds import Kinds

if TYPE_CHECKING:
    from torch import Tensor


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


@dataclass(frozen=True, slots=True)
class TokenTensors:
    """What a loss is made of: B answers of at most T tokens, 0 at the padding.

    Log-probabilities are of the temperature-scaled softmax over the whole vocabulary. Read them; change none in place.
    """

    logprobs_BT: Tensor
    """log π_θ, with gradient."""
    entropies_BT: Tensor
    """H of π_θ at the token, with gradient."""
    ratios_BT: Tensor
    """ρ = π_θ/π_old, with gradient, as `objective.ratio` defines it."""
    old_logprobs_BT: Tensor
    """log π_old."""
    engine_logprobs_BT: Tensor
    """Of the engine that sampled it."""
    sampling_logprobs_BT: Tensor
    """Of what the engine sampled from, where top-p or top-k cut the support."""
    reference_logprobs_BT: Tensor | None
    """log π_ref of the model that the run began with; None unless a term or the credit reads it."""
    advantages_BT: Tensor
    corrections_BT: Tensor
    """min(π_old/μ, C), 0 where masked: it weighs the surrogate, and no other term."""
    is_answer_BT: Tensor
    """False at the padding, and at tokens that were given: a mean over an answer is over these."""
    clip: Clip


class LossTerm(Protocol):
    """A summand of every token's loss, before the weight that all terms of the token share (its share of the step).

    One of your own is a frozen dataclass that subclasses this; its fields are its settings.
    """

    reads_reference: bool = False
    """Whether it needs `reference_logprobs_BT`."""

    @abstractmethod
    def loss(self, tokens: TokenTensors) -> Tensor:
        """The loss of every token [B, T]; what it is where there is no `is_answer_BT` does not count."""


class Surrogate(Protocol):
    """Makes a loss of ratios and advantages; `corrections_BT` then weighs it.

    One of your own is a frozen dataclass that subclasses this; its fields are its settings.
    """

    @abstractmethod
    def loss(self, tokens: TokenTensors) -> Tensor:
        """The loss of every token [B, T]; what it is at the padding does not count."""

    def is_clipped(self, tokens: TokenTensors) -> Tensor:
        """Whose gradient the clip took away or bounded [B, T], for the figure `clip_share`: here, none."""
        return tokens.is_answer_BT & False


_HERE = "services.learner.training.terms"
TERMS: Kinds[LossTerm] = Kinds(
    "loss term",
    LossTerm,  # type: ignore[type-abstract]
    {
        "kl": f"{_HERE}:KLTerm",
        "entropy": f"{_HERE}:EntropyTerm",
        "entropy-advantage": f"{_HERE}:EntropyAdvantageTerm",
    },
)
SURROGATES: Kinds[Surrogate] = Kinds(
    "surrogate",
    Surrogate,  # type: ignore[type-abstract]
    {"clip": f"{_HERE}:ClippedSurrogate", "cispo": f"{_HERE}:CispoSurrogate", "none": f"{_HERE}:NoSurrogate"},
)
AnyTerm: TypeAlias = Annotated[LossTerm, TERMS]
AnySurrogate: TypeAlias = Annotated[Surrogate, SURROGATES]
