"""Samplers that continue whole nodes, so many in each round: by their IB-Score, or by chance."""

import heapq
import random
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

from shared.tree.ib_score import IBSettings, ib_scores
from shared.tree.node import Tree
from shared.tree.samplers.sampler import INITIAL_DRAWS, ROUNDS, Branch, Sampler, at_least, branch_at
from shared.tree.samplers.unseen import unseen_masses


@dataclass(frozen=True, slots=True)
class NodeSampler(Sampler):
    """A sampler of IBTree's size: each of some rounds draws B times from each of K nodes."""

    initial_draws: Annotated[int, INITIAL_DRAWS] = 4
    rounds: Annotated[int, ROUNDS] = 8
    nodes_per_round: Annotated[int, "K: nodes that are continued in a round"] = 1
    draws_per_node: Annotated[int, "B: draws from each of them"] = 1
    stops_when_mixed: Annotated[bool, "End the tree as soon as its rewards differ"] = False

    def __post_init__(self) -> None:
        at_least(0, rounds=self.rounds)
        at_least(1, initial_draws=self.initial_draws)
        at_least(1, nodes_per_round=self.nodes_per_round, draws_per_node=self.draws_per_node)

    @property
    def num_draws(self) -> int:
        return self.initial_draws + self.rounds * self.nodes_per_round * self.draws_per_node

    def expand(self, tree: Tree, round: int, rng: random.Random) -> tuple[Branch, ...]:
        if round > self.rounds or (self.stops_when_mixed and tree.is_mixed):
            return ()
        return self.choose(tree, rng)

    @abstractmethod
    def choose(self, tree: Tree, rng: random.Random) -> tuple[Branch, ...]:
        """Where to draw next, while the tree is to grow."""

    def branch_highest(self, tree: Tree, scores: Sequence[float | None], rng: random.Random) -> tuple[Branch, ...]:
        """From the nodes of the highest scores; None: never from there. Chance decides between equal ones."""
        scored = ((score, rng.random(), node_id) for node_id, score in enumerate(scores) if score is not None)
        chosen = heapq.nlargest(self.nodes_per_round, scored)
        return tuple(branch_at(tree, node_id, self.draws_per_node) for _, _, node_id in chosen)

    def branch_random(self, tree: Tree, rng: random.Random) -> tuple[Branch, ...]:
        """From nodes drawn uniformly from all that are not leaves."""
        inner = [node_id for node_id, node in enumerate(tree.nodes) if node.num_draws]
        chosen = rng.sample(inner, min(self.nodes_per_round, len(inner)))
        return tuple(branch_at(tree, node_id, self.draws_per_node) for node_id in chosen)


@dataclass(frozen=True, slots=True)
class IBSampler(NodeSampler):
    """IBTree(B₀, L, K, B): each of L − 1 rounds draws B times from each of the K nodes of the highest IB-Score, with
    `min_unseen` of those alone that can still be continued to something new (S-7).
    """

    score: Annotated[IBSettings, "How nodes are scored; from [learner.method] what it does not state"] = field(
        default_factory=IBSettings
    )
    min_unseen: Annotated[float, "Never from a node with a lower U(s), the probability of an unseen answer; 0: any"] = (
        0.0
    )

    def __post_init__(self) -> None:
        NodeSampler.__post_init__(self)
        if not 0.0 <= self.min_unseen < 1.0:
            raise ValueError(f"min_unseen is a probability below 1: {self.min_unseen}")

    def choose(self, tree: Tree, rng: random.Random) -> tuple[Branch, ...]:
        scores = ib_scores(tree, self.score)
        if self.min_unseen > 0.0:
            unseen = unseen_masses(tree)
            scores = tuple(j if u >= self.min_unseen else None for j, u in zip(scores, unseen, strict=True))
        return self.branch_highest(tree, scores, rng)


@dataclass(frozen=True, slots=True)
class RandomSampler(NodeSampler):
    """As IBTree, at nodes drawn uniformly from all that are not leaves."""

    def choose(self, tree: Tree, rng: random.Random) -> tuple[Branch, ...]:
        return self.branch_random(tree, rng)
