"""Independent answers: no tree."""

import random
from dataclasses import dataclass
from typing import Annotated

from shared.tree.node import Tree
from shared.tree.samplers.sampler import INITIAL_DRAWS, Branch, Sampler, at_least


@dataclass(frozen=True, slots=True)
class IndependentSampler(Sampler):
    """Independent answers: no tree."""

    initial_draws: Annotated[int, INITIAL_DRAWS] = 8

    def __post_init__(self) -> None:
        at_least(1, initial_draws=self.initial_draws)

    @property
    def num_draws(self) -> int:
        return self.initial_draws

    def expand(self, tree: Tree, round: int, rng: random.Random) -> tuple[Branch, ...]:
        return ()
