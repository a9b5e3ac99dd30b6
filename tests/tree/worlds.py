"""Small worlds whose true values are known by enumeration, and trees grown in them by any sampler."""

import math
import random
from collections.abc import Iterator, Sequence
from itertools import count, product

from shared.tree.draw import Draw, Finish, VersionSpan, WeightVersion, trajectory
from shared.tree.node import build_tree
from shared.tree.samplers import AnySampler, Branch

BLANK_LINE, EOS = 100, 101
"""Other tokens are the choices, 0, 1, …"""

Choices = tuple[int, ...]


class World:
    """`depth` steps of one choice each; the policy depends on all choices before, the reward on all of them.

    A step is two tokens: the choice, and a blank line or, at last, the stop token. Some states decide (their choices
    are worth different things), so that trees have something to find.
    """

    def __init__(self, seed: int, depth: int, width: int, right_share: float = 0.4) -> None:
        rng = random.Random(seed)
        self.depth, self.width = depth, width
        self.policy: dict[Choices, list[float]] = {}
        self.value: dict[Choices, float] = {}
        for length in range(depth):
            for state in product(range(width), repeat=length):
                odds = [rng.random() + 0.05 for _ in range(width)]
                self.policy[state] = [odd / sum(odds) for odd in odds]
        for state in product(range(width), repeat=depth):
            self.value[state] = float(rng.random() < right_share)
        for length in range(depth - 1, -1, -1):
            for state in product(range(width), repeat=length):
                self.value[state] = sum(pi * self.value[(*state, c)] for c, pi in enumerate(self.policy[state]))

    def ends(self, state: Choices) -> bool:
        """Whether the state is an answer."""
        return len(state) == self.depth

    def answers(self, state: Choices) -> Iterator[tuple[Choices, float]]:
        """Every answer that continues the state, with its probability."""
        for rest in product(range(self.width), repeat=self.depth - len(state)):
            answer = (*state, *rest)
            yield answer, math.prod(self.policy[answer[:at]][answer[at]] for at in range(len(state), self.depth))

    def sample(self, state: Choices, rng: random.Random) -> Choices:
        """One answer that continues the state."""
        while not self.ends(state):
            state = (*state, rng.choices(range(self.width), self.policy[state])[0])
        return state

    def state(self, draws: Sequence[Draw], branch: Branch) -> Choices:
        """The choices made in the prefix of a branch."""
        prefix = () if branch.parent is None else trajectory(draws, branch.parent)[: branch.cut]
        return tuple(token for token in prefix if token < BLANK_LINE)

    def draw(self, branch: Branch, answer: Choices) -> Draw:
        """The draw that completes the branch's prefix to the answer."""
        tokens: list[int] = []
        logprobs: list[float] = []
        entropies: list[float] = []
        for at, choice in enumerate(answer):
            tokens += [choice, EOS if at + 1 == len(answer) else BLANK_LINE]
            policy = self.policy[answer[:at]]
            logprobs += [math.log(policy[choice]), 0.0]
            entropies += [-sum(pi * math.log(pi) for pi in policy), 0.0]
        new = len(tokens) - branch.cut
        return Draw(
            parent=branch.parent,
            cut=branch.cut,
            token_ids=tuple(tokens[branch.cut :]),
            logprobs=tuple(logprobs[branch.cut :]),
            step_ends=tuple(end for end in range(2, len(tokens) + 1, 2) if end > branch.cut),
            spans=(VersionSpan(WeightVersion(0, 1), 0, new),),
            finish=Finish.STOP,
            reward=self.value[answer],
            entropies=tuple(entropies[branch.cut :]),
        )


class EndingWorld(World):
    """A world whose answers also end at the choice 0; such an answer is worth what its state is."""

    def ends(self, state: Choices) -> bool:
        return len(state) == self.depth or state[-1:] == (0,)

    def answers(self, state: Choices) -> Iterator[tuple[Choices, float]]:
        if self.ends(state):
            yield state, 1.0
            return
        for choice, pi in enumerate(self.policy[state]):
            for answer, probability in self.answers((*state, choice)):
                yield answer, pi * probability


def grow(world: World, sampler: AnySampler, rng: random.Random) -> list[Draw]:
    """One tree's record: draws from the root, then from where the sampler says, until it says nothing."""
    draws: list[Draw] = []
    branches: Sequence[Branch] = (Branch(None, 0, sampler.initial_draws),)
    for round_ in count(1):
        draws += [
            world.draw(branch, world.sample(world.state(draws, branch), rng))
            for branch in branches
            for _ in range(branch.count)
        ]
        branches = sampler.expand(build_tree(draws), round_, rng)
        if not branches:
            return draws
    raise AssertionError("unreachable: the loop above ends by returning")


def every_record(world: World, sampler: AnySampler, rng: random.Random) -> Iterator[tuple[float, list[Draw]]]:
    """Every record that the sampler can grow, with its probability; `rng` decides ties alone."""
    yield from _grown(world, sampler, rng, [], [Branch(None, 0, 1)] * sampler.initial_draws, 1)


def _grown(
    world: World, sampler: AnySampler, rng: random.Random, draws: list[Draw], waiting: list[Branch], round_: int
) -> Iterator[tuple[float, list[Draw]]]:
    if not waiting:
        chosen = sampler.expand(build_tree(draws), round_, rng)
        waiting, round_ = [Branch(one.parent, one.cut, 1) for one in chosen for _ in range(one.count)], round_ + 1
        if not waiting:
            yield 1.0, draws
            return
    branch, *rest = waiting
    for answer, probability in world.answers(world.state(draws, branch)):
        for share, record in _grown(world, sampler, rng, [*draws, world.draw(branch, answer)], rest, round_):
            yield probability * share, record
