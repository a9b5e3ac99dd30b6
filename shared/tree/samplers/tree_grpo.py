"""Tree-GRPO: several trees, each continued from nodes of its own drawn by chance."""

import random
from dataclasses import dataclass
from typing import Annotated

from shared.tree.node import Tree
from shared.tree.samplers.sampler import ROUNDS, Branch, Sampler, at_least, branch_at
from shared.tree.samplers.tokens import first_answer


@dataclass(frozen=True, slots=True)
class TreeGRPOSampler(Sampler):
    """Tree-GRPO(M, N, L): M answers begin a tree each; in each of L rounds, each tree is continued from N of its nodes,
    drawn uniformly and with replacement from its root and all others that are no leaves.

    The prompt is the root of every tree. A draw from it in a round belongs to the tree that it was drawn for.
    """

    initial_draws: Annotated[int, "M: trees, each begun by an answer from the prompt"] = 2
    nodes_per_tree: Annotated[int, "N: draws of a round in each tree, each from a node drawn by chance"] = 2
    rounds: Annotated[int, ROUNDS] = 1
    from_prompt: Annotated[bool, "Whether the prompt, the root of every tree, is among the nodes, as published"] = True

    def __post_init__(self) -> None:
        at_least(0, rounds=self.rounds)
        at_least(1, initial_draws=self.initial_draws, nodes_per_tree=self.nodes_per_tree)

    @property
    def num_draws(self) -> int:
        return self.initial_draws * (1 + self.nodes_per_tree * self.rounds)

    def expand(self, tree: Tree, round: int, rng: random.Random) -> tuple[Branch, ...]:
        if round > self.rounds or not tree.rewards:
            return ()
        inner_nodes = [[0] if self.from_prompt else [] for _ in range(self.initial_draws)]
        for node_id, node in enumerate(tree.nodes):
            if node.draw is not None and node.num_draws:
                inner_nodes[self.tree_of(first_answer(tree.draws, node.draw))].append(node_id)
        inner_nodes = [nodes for nodes in inner_nodes if nodes]
        return tuple(branch_at(tree, rng.choice(nodes), 1) for nodes in inner_nodes for _ in range(self.nodes_per_tree))

    def tree_of(self, draw_id: int) -> int:
        """Which of the M trees a draw is of, from 0: in every round the trees are continued in their order."""
        later = draw_id - self.initial_draws
        return draw_id if later < 0 else later // self.nodes_per_tree % self.initial_draws
