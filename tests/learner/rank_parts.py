"""Parts of a user's own that several ranks compute: a credit with values, a surrogate, and terms that look closely."""

import os
from dataclasses import dataclass
from typing import Annotated

import torch

from services.learner.loss_terms import LossTerm, Surrogate, TokenTensors
from shared.tree.credit import Advantages, Credit, SideInformation
from shared.tree.node import Tree
from shared.tree.values import VALUES, ValueEstimator, node_values


@dataclass(frozen=True)
class Halved(ValueEstimator):
    """Half of what another estimator says, and 1/4."""

    of: Annotated[ValueEstimator, VALUES]

    def values(self, tree: Tree) -> list[float]:
        return [0.5 * value + 0.25 for value in node_values(tree, self.of)]


@dataclass(frozen=True)
class Rise(Credit):
    """What a node's value is above the root's, less a share of −log π_ref of the answers."""

    values: Annotated[ValueEstimator, VALUES]
    reads_reference = True

    def advantages(self, tree: Tree, side: SideInformation | None = None) -> Advantages:
        assert side is not None
        assert side.reference_logprobs is not None
        surprise = sum(map(sum, side.reference_logprobs)) / sum(map(len, side.reference_logprobs))
        values = node_values(tree, self.values)
        return Advantages((0.0, *(value - values[0] + 0.01 * surprise for value in values[1:])))


@dataclass(frozen=True)
class Plain(Surrogate):
    """−ρ·A."""

    def loss(self, tokens: TokenTensors) -> torch.Tensor:
        return -tokens.ratios_BT * tokens.advantages_BT


@dataclass(frozen=True)
class Spread(LossTerm):
    """The square of what a token's log-probability is above the mean of its answers, of which there are several."""

    coef: float = 0.1
    reads_reference = True

    def loss(self, tokens: TokenTensors) -> torch.Tensor:
        assert tokens.reference_logprobs_BT is not None
        if int(tokens.is_answer_BT.sum()) < 2:
            raise ValueError("one token has no spread")
        mean = tokens.logprobs_BT[tokens.is_answer_BT].mean()
        return self.coef * (tokens.logprobs_BT - mean).square()


@dataclass(frozen=True)
class FailsOn(LossTerm):
    """Raises on one rank."""

    rank: str = "1"

    def loss(self, tokens: TokenTensors) -> torch.Tensor:
        if os.environ.get("RANK", "0") == self.rank:
            raise ValueError("this rank has none of it")
        return tokens.entropies_BT
