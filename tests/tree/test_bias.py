"""Which estimates of the root are unbiased, and by how much the others are off, where true values are known."""

import random
from collections.abc import Callable
from statistics import fmean, stdev

import pytest

from shared.tree.node import Tree, build_tree
from shared.tree.samplers import (
    SAMPLERS,
    ActivePathSampler,
    AnySampler,
    EntropySampler,
    ExpectedVarianceSampler,
    FixedWidthSampler,
    HitSampler,
    IBSampler,
    IndependentSampler,
    RandomSampler,
    SPOTreeSampler,
    TreeGRPOSampler,
    TreePOSampler,
    TreeRPOSampler,
)
from shared.tree.values import COUNTS, Backup, node_values, root_value
from tests.tree.chances import every_outcome
from tests.tree.worlds import EndingWorld, World, every_record, grow

SMALL: list[AnySampler] = [
    IndependentSampler(initial_draws=3),
    IBSampler(initial_draws=2, rounds=2),
    RandomSampler(initial_draws=2, rounds=2),
    FixedWidthSampler(initial_draws=2, every_steps=1, width=4),
    EntropySampler(initial_draws=2, forks_per_answer=1, draws_per_fork=1),
    ActivePathSampler(initial_draws=2, rounds=1),
    TreeRPOSampler(branching_factor=2, depth=2, segment_tokens=2),
    SPOTreeSampler(branching_factors=(2, 3), segment_tokens=1),
    TreePOSampler(segment_tokens=1, width=4),
    TreeGRPOSampler(nodes_per_tree=1),
    HitSampler(initial_draws=2, rounds=1),
    ExpectedVarianceSampler(initial_draws=2, rounds=1),
]


def counts(tree: Tree) -> float:
    return node_values(tree, COUNTS)[0]


def backup(tree: Tree) -> float:
    return node_values(tree, Backup())[0]


def exact_bias(world: World, sampler: AnySampler, estimate: Callable[[Tree], float]) -> float:
    """E[estimate] − p(q), over every record that the sampler can grow."""
    records = every_record(world, sampler, random.Random(0))
    return sum(p * estimate(build_tree(draws)) for p, draws in records) - world.value[()]


@pytest.mark.parametrize("sampler", SMALL, ids=SAMPLERS.kind_of)
@pytest.mark.parametrize("seed", range(3))
def test_the_mean_of_the_first_leaves_is_unbiased_under_every_sampler(sampler: AnySampler, seed: int) -> None:
    def first_leaves(tree: Tree) -> float:
        return root_value(tree, sampler.initial_draws) or 0.0

    assert exact_bias(World(seed, depth=2, width=2), sampler, first_leaves) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("sampler", [SMALL[0], SMALL[3], *SMALL[6:9]], ids=SAMPLERS.kind_of)
@pytest.mark.parametrize("seed", range(3))
def test_backup_is_unbiased_where_the_choice_of_branches_sees_no_outcome(sampler: AnySampler, seed: int) -> None:
    assert exact_bias(World(seed, depth=2, width=2), sampler, backup) == pytest.approx(0.0, abs=1e-12)


def exact_bias_of_chance(sampler: AnySampler, estimate: Callable[[Tree], float]) -> float:
    """E[estimate] − p(q) in a world whose answers have two lengths, over every outcome of the sampler's chance, too."""
    world = EndingWorld(2, depth=2, width=2)
    trees = every_outcome(lambda chance: build_tree(grow(world, sampler, chance)))
    return sum(p * estimate(tree) for p, tree in trees) - world.value[()]


@pytest.mark.parametrize(
    "sampler",
    [
        FixedWidthSampler(every_steps=1, width=3),
        TreeRPOSampler(branching_factor=2, depth=2, segment_tokens=2, width=3),
        TreePOSampler(segment_tokens=2, width=4, fallback=False),
    ],
    ids=SAMPLERS.kind_of,
)
def test_where_long_answers_are_forked_more_often_backup_is_unbiased_and_counts_is_not(sampler: AnySampler) -> None:
    assert exact_bias_of_chance(sampler, backup) == pytest.approx(0.0, abs=1e-12)
    assert abs(exact_bias_of_chance(sampler, counts)) > 0.04


def test_backup_is_biased_where_the_length_of_an_answer_decides_where_it_is_forked() -> None:
    fallback, nodes = TreePOSampler(segment_tokens=2, width=4), TreeGRPOSampler(nodes_per_tree=1)
    assert exact_bias_of_chance(fallback, backup) == pytest.approx(-0.0351, abs=5e-5)
    assert exact_bias_of_chance(nodes, backup) == pytest.approx(-0.0145, abs=5e-5)


def test_counts_and_backup_are_biased_where_rewards_decide() -> None:
    world, sampler = World(1, depth=2, width=2), IBSampler(initial_draws=2, rounds=2)
    assert exact_bias(world, sampler, counts) == pytest.approx(0.0586, abs=5e-5)
    assert exact_bias(world, sampler, backup) == pytest.approx(0.0586, abs=5e-5)


def test_on_the_published_tree_counts_is_too_high_and_backup_less_off() -> None:
    world, rng = World(5, depth=5, width=2, right_share=0.35), random.Random(5)
    trees = [build_tree(grow(world, IBSampler(), rng)) for _ in range(600)]
    of_first = [root_value(tree, 4) or 0.0 for tree in trees]
    bias = {estimate: fmean(map(estimate, trees)) - world.value[()] for estimate in (counts, backup)}
    error = stdev(map(counts, trees)) / len(trees) ** 0.5
    assert bias[counts] > 3 * error
    assert abs(bias[backup]) < bias[counts] / 2
    assert fmean(of_first) == pytest.approx(world.value[()], abs=3 * stdev(of_first) / len(trees) ** 0.5)
