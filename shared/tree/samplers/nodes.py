"""Samplers that continue whole nodes, so many in each round: by their IB-Score, or by chance."""

import heapq
import random
from dataclasses import dataclass, field
from typing import Annotated

from shared.tree.ib_score import IBSettings, ib_scores
from shared.tree.node import Tree
from shared.tree.samplers.sampler import INITIAL_DRAWS, ROUNDS, Branch, Sampler, at_least, branch_at


@dataclass(frozen=True, slots=True)
class _NodeSampler(Sampler):
    """A sampler of IBTree's size: each of some rounds draws B times from each of K nodes."""

    initial_draws: Annotated[int, INITIAL_DRAWS] = 4
    rounds: Annotated[int, ROUNDS] = 8
    nodes_per_round: Annotated[int, "K: nodes that are continued in a round"] = 1
    draws_per_node: Annotated[int, "B: draws from each of them"] = 1

    def __post_init__(self) -> None:
        at_least(0, rounds=self.rounds)
        at_least(1, initial_draws=self.initial_draws)
        at_least(1, nodes_per_round=self.nodes_per_round, draws_per_node=self.draws_per_node)

    @property
    def num_draws(self) -> int:
        return self.initial_draws + self.rounds * self.nodes_per_round * self.draws_per_node


@dataclass(frozen=True, slots=True)
class IBSampler(_NodeSampler):
    """IBTree(B₀, L, K, B): each of L − 1 rounds draws B times from each of the K nodes of the highest IB-Score."""

    score: Annotated[IBSettings, "How nodes are scored; from [learner.method] what it does not state"] = field(
        default_factory=IBSettings
    )

    def expand(self, tree: Tree, round: int, rng: random.Random) -> tuple[Branch, ...]:
        if round > self.rounds:
            return ()
        scored = (
            (j, rng.random(), node_id)  # chance decides between equal scores
            for node_id, j in enumerate(ib_scores(tree, self.score))
            if j is not None
        )
        return tuple(
            branch_at(tree, node_id, self.draws_per_node)
            for _, _, node_id in heapq.nlargest(self.nodes_per_round, scored)
        )


@dataclass(frozen=True, slots=True)
class RandomSampler(_NodeSampler):
    """As IBTree, at nodes drawn uniformly from all that are not leaves."""

    def expand(self, tree: Tree, round: int, rng: random.Random) -> tuple[Branch, ...]:
        if round > self.rounds:
            return ()
        inner = [node_id for node_id, node in enumerate(tree.nodes) if node.num_draws]
        chosen = rng.sample(inner, min(self.nodes_per_round, len(inner)))
        return tuple(branch_at(tree, node_id, self.draws_per_node) for node_id in chosen)
