"""What samplers find at equal tokens, in corridors: long answers of which few steps decide, and all must be right."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from statistics import fmean

from shared.tree.draw import Draw, rewards_differ
from shared.tree.node import build_tree
from shared.tree.samplers import (
    ActivePathSampler,
    AnySampler,
    Branch,
    EntropySampler,
    ExpectedVarianceSampler,
    FixedWidthSampler,
    HitSampler,
    IBSampler,
    IndependentSampler,
    RandomSampler,
    SPOTreeSampler,
    TokenScore,
    TreeGRPOSampler,
    TreePOSampler,
    TreeRPOSampler,
)
from shared.tree.samplers.gains import AnswerConfidence
from tests.tree.worlds import Choices, World

STEPS, DECISIVE, ACTIONS = 21, (3, 8, 13, 18), 5
SURE, UNSURE, LIKELY = 0.993, (0.35, 0.28, 0.22, 0.16), 0.93
"""Probability of the right action: in most steps; in 62% of the decisive ones, one of these; in the rest of them."""
BUDGET = 8 * 2 * STEPS
"""Tokens of 8 independent answers; a step is two tokens."""

SAMPLERS: dict[str, AnySampler] = {
    "independent 8": IndependentSampler(),
    "random": RandomSampler(rounds=20),
    "fixed-width": FixedWidthSampler(initial_draws=4, every_steps=5, width=24),
    "entropy (4, 2, 2, 1)": EntropySampler(initial_draws=4, rounds=2, draws_per_fork=1),
    "the same by entropy": EntropySampler(initial_draws=4, rounds=2, draws_per_fork=1, token_score=TokenScore.ENTROPY),
    "active-path (4, 5)": ActivePathSampler(initial_draws=4, rounds=5),
    "treerpo 2⁴": TreeRPOSampler(branching_factor=2, depth=4, segment_tokens=11),
    "spo-tree (4, 4)": SPOTreeSampler(branching_factors=(4, 4), segment_tokens=14),
    "treepo": TreePOSampler(width=16, segment_tokens=11),
    "tree-grpo (4, 5, 1)": TreeGRPOSampler(initial_draws=4, rounds=5, nodes_per_tree=1),
    "ib": IBSampler(rounds=20),
    "ib, min_unseen 0.2": IBSampler(rounds=20, min_unseen=0.2),
    "expected-variance": ExpectedVarianceSampler(rounds=20),
    "expected-variance, U(s) exact": ExpectedVarianceSampler(rounds=20, answer_nats=1e9),
    "expected-variance, without U(s)": ExpectedVarianceSampler(rounds=20, unseen_mass=False),
    "hit": HitSampler(rounds=20, stops_when_mixed=False),
    "hit, U(s) exact": HitSampler(rounds=20, stops_when_mixed=False, answer_nats=1e9),
    "hit, joint": HitSampler(rounds=20, stops_when_mixed=False, confidence=AnswerConfidence.JOINT),
    "random, stops": RandomSampler(rounds=20, stops_when_mixed=True),
    "ib, stops": IBSampler(rounds=20, stops_when_mixed=True),
    "expected-variance, stops": ExpectedVarianceSampler(rounds=20, stops_when_mixed=True),
    "hit, stops": HitSampler(rounds=20),
}


class _Policies(dict[Choices, list[float]]):
    """Of every state: what is likely depends on how far it is, alone."""

    def __init__(self, steps: Sequence[list[float]]) -> None:
        super().__init__()
        self._steps = steps

    def __missing__(self, state: Choices) -> list[float]:
        return self._steps[len(state)]


class _Rewards(dict[Choices, float]):
    """Of every answer: 1 if each action is the right one, in whatever words."""

    def __init__(self, wordings: int) -> None:
        super().__init__()
        self._wordings = wordings

    def __missing__(self, answer: Choices) -> float:
        return float(all(choice < self._wordings for choice in answer))


class Corridor(World):
    """One problem. Each action has some wordings, all as likely; the actions are 0, the right one, and others."""

    def __init__(self, seed: int, wordings: int) -> None:
        rng = random.Random(seed)
        self.depth, self.width = STEPS, ACTIONS * wordings
        self.policy = _Policies([_step(rng, step in DECISIVE, wordings) for step in range(STEPS)])
        self.value = _Rewards(wordings)


def _step(rng: random.Random, decides: bool, wordings: int) -> list[float]:
    """The probability of every wording of every action; of the wrong actions, one is the likeliest."""
    right = SURE if not decides else rng.choice(UNSURE) if rng.random() < 0.62 else LIKELY
    actions = [right, 0.65 * (1 - right), *[0.35 * (1 - right) / (ACTIONS - 2)] * (ACTIONS - 2)]
    return [action / wordings for action in actions for _ in range(wordings)]


@dataclass(frozen=True, slots=True)
class Found:
    """By some trees within the budget."""

    eff_rate: float
    trajectories: float
    """Per 1,000 tokens, as the next."""
    mixed_trees: float


def find(sampler: AnySampler, seed: int, num_trees: int, wordings: int) -> Found:
    """Grows a tree of each problem, as far as the budget pays for it."""
    rng = random.Random(seed)
    records = [_grow_within(Corridor(seed * num_trees + nth, wordings), sampler, rng) for nth in range(num_trees)]
    mixed = sum(rewards_differ(one.reward or 0.0 for one in record) for record in records)
    tokens = sum(len(one.token_ids) for record in records for one in record)
    return Found(mixed / num_trees, 1000 * sum(map(len, records)) / tokens, 1000 * mixed / tokens)


def _grow_within(world: World, sampler: AnySampler, rng: random.Random) -> list[Draw]:
    """One tree's record, but for the first draw that the budget does not pay for, and all after it."""
    draws: list[Draw] = []
    branches: Sequence[Branch] = (Branch(None, 0, sampler.initial_draws),)
    for round_ in count(1):
        state = list(draws)
        for branch in (one for one in branches for _ in range(one.count)):
            draws.append(world.draw(branch, world.sample(world.state(state, branch), rng)))
            if sum(len(one.token_ids) for one in draws) > BUDGET:
                return draws[:-1]
        branches = sampler.expand(build_tree(draws), round_, rng)
        if not branches:
            return draws
    raise AssertionError("unreachable: the loop above ends by returning")


def print_found(num_seeds: int, num_trees: int) -> None:
    """A table for each number of wordings."""
    for wordings in (1, 8):
        print(
            f"\nCorridors, wordings of an action: {wordings}. Within {BUDGET} tokens a tree; mean (min, max) over "
            f"{num_seeds} seeds of {num_trees} problems\n"
        )
        print(
            "| sampler | Eff-Rate | trajectories per 1,000 tokens | mixed trees per 1,000 tokens |\n|---|---|---|---|"
        )
        for name, sampler in SAMPLERS.items():
            found = [find(sampler, seed, num_trees, wordings) for seed in range(num_seeds)]
            cells = (
                _spread([one.eff_rate for one in found], ".2f"),
                _spread([one.trajectories for one in found], ".1f"),
                _spread([one.mixed_trees for one in found], ".2f"),
            )
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


def _spread(values: Sequence[float], spec: str) -> str:
    return f"{fmean(values):{spec}} ({min(values):{spec}}, {max(values):{spec}})"
