"""A sampler: branches where outcomes vary most."""

import random
from dataclasses import dataclass
from typing import Annotated

from shared.tree.node import Tree
from shared.tree.samplers import Branch, Sampler
from shared.tree.values import COUNTS, node_values


@dataclass(frozen=True)
class VarianceSampler(Sampler):
    """Each round draws once from the node of the highest outcome variance, p̂(1 − p̂), while it exceeds a threshold."""

    initial_draws: Annotated[int, "Draws from the prompt"] = 4
    rounds: Annotated[int, "Most rounds of one further draw"] = 8
    threshold: Annotated[float, "The variance below which nothing is branched"] = 0.0

    def __post_init__(self) -> None:
        if self.initial_draws < 1 or self.rounds < 0:
            raise ValueError(f"initial_draws is at least 1, rounds at least 0: {self.initial_draws}, {self.rounds}")

    @property
    def num_draws(self) -> int:
        return self.initial_draws + self.rounds

    def expand(self, tree: Tree, round: int, rng: random.Random) -> list[Branch]:
        values = node_values(tree, COUNTS)
        variances = {n: values[n] * (1 - values[n]) for n, node in enumerate(tree.nodes) if node.num_draws}
        best = max(variances, key=lambda n: (variances[n], rng.random()), default=None)
        if round > self.rounds or best is None or variances[best] < self.threshold:
            return []
        node = tree.nodes[best]
        return [Branch(node.draw, node.end, count=1)]
