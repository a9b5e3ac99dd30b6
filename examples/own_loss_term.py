"""A loss term: holds the policy's entropy near a target."""

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from services.learner.loss_terms import LossTerm, TokenTensors


@dataclass(frozen=True)
class TargetEntropy(LossTerm):
    """coef·(H − target)² of every token."""

    coef: Annotated[float, "Weight"] = 0.01
    target: Annotated[float, "The entropy that is wanted, in nats"] = 0.5

    def loss(self, tokens: TokenTensors) -> Tensor:
        return self.coef * (tokens.entropies_BT - self.target).square()
