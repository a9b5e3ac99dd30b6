"""Splits every path at every so many steps, up to a width."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from shared.tree.node import Tree
from shared.tree.samplers.sampler import INITIAL_DRAWS, Branch, Sampler, at_least, branch_at


@dataclass(frozen=True, slots=True)
class FixedWidthSampler(Sampler):
    """Splits every path into `branching_factor` at every `every_steps`-th step end, up to `width` trajectories."""

    initial_draws: Annotated[int, INITIAL_DRAWS] = 2
    branching_factor: Annotated[int, "Into how many a path is split"] = 2
    every_steps: Annotated[int, "Reasoning steps between two splits"] = 2
    width: Annotated[int, "Trajectories at which splitting ends"] = 8

    def __post_init__(self) -> None:
        at_least(1, initial_draws=self.initial_draws, every_steps=self.every_steps, width=self.width)
        if self.branching_factor < 2:
            raise ValueError(f"a path splits in at least 2 branches: {self.branching_factor}")

    @property
    def num_draws(self) -> int:
        return max(self.initial_draws, self.width)

    def expand(self, tree: Tree, round: int, rng: random.Random) -> tuple[Branch, ...]:
        level = [node_id for node_id, num_steps in _inner_step_ends(tree) if num_steps == round * self.every_steps]
        rng.shuffle(level)  # where there is not enough width for all, chance decides
        branches = []
        missing = self.width - len(tree.draws)
        for node_id in level:
            if (count := min(self.branching_factor - 1, missing)) > 0:
                branches.append(branch_at(tree, node_id, count))
                missing -= count
        return tuple(branches)


def _inner_step_ends(tree: Tree) -> Iterator[tuple[int, int]]:
    """The nodes that end a step and are no leaves, each with the number of steps that end on the way to it."""
    num_steps = [0]
    for node_id, node in enumerate(tree.nodes[1:], 1):
        ends = () if node.draw is None else tree.draws[node.draw].step_ends
        ends_step = node.end in ends
        num_steps.append(num_steps[tree.parents[node_id]] + ends_step)
        if ends_step and node.num_draws:
            yield node_id, num_steps[node_id]
