"""What a decision about a tree costs, how far off each estimate of its values is, and what samplers find.

python -m benchmarks.tree            all tables (some minutes of one core)
python -m benchmarks.tree --quick    fewer seeds and trees (a few seconds)
"""

import argparse
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import count, islice
from statistics import fmean, median

from benchmarks.tree_samplers import print_found
from shared.tree.credit import IBTPOCredit, assign_advantages
from shared.tree.diagnostics import diagnose
from shared.tree.draw import Draw, Finish, VersionSpan, WeightVersion
from shared.tree.ib_score import IBSettings, ib_scores
from shared.tree.node import Tree, build_tree
from shared.tree.samplers import (
    AnySampler,
    Branch,
    EntropySampler,
    FixedWidthSampler,
    IBSampler,
    IndependentSampler,
    RandomSampler,
)
from shared.tree.values import COUNTS, Backup, Shrunk, ValueEstimator, node_values, root_value
from tests.tree.worlds import World, grow

STEPS, TOKENS_PER_STEP = 22, 41
"""900-token answers: 12 trajectories of (4, 9, 1, 1) span about 240 nodes."""


def synthetic_draw(branch: Branch, rng: random.Random) -> Draw:
    """A draw of random tokens from a branch to the end of its answer."""
    ends = tuple(range(TOKENS_PER_STEP, STEPS * TOKENS_PER_STEP + 1, TOKENS_PER_STEP))
    num_tokens = ends[-1] - branch.cut
    return Draw(
        parent=branch.parent,
        cut=branch.cut,
        token_ids=tuple(rng.randrange(1000) for _ in range(num_tokens)),
        logprobs=tuple(-rng.expovariate(3.0) for _ in range(num_tokens)),
        step_ends=tuple(end for end in ends if end > branch.cut),
        spans=(VersionSpan(WeightVersion(0, 1), 0, num_tokens),),
        finish=Finish.STOP,
        reward=float(rng.random() < 0.4),
    )


def records_of_decisions(sampler: AnySampler, seed: int) -> Iterable[list[Draw]]:
    """The record before each decision of one tree's growth, and the finished one."""
    rng = random.Random(seed)
    draws: list[Draw] = []
    branches: tuple[Branch, ...] = (Branch(None, 0, sampler.initial_draws),)
    for round_ in count(1):
        draws += [synthetic_draw(branch, rng) for branch in branches for _ in range(branch.count)]
        yield list(draws)
        branches = sampler.expand(build_tree(draws), round_, rng)
        if not branches:
            return


def microseconds(work: Callable[[], object], repeats: int) -> float:
    """CPU time, the best of several timings: what it takes when nothing else runs."""
    best = float("inf")
    for _ in range(repeats):
        started = time.process_time()
        for _ in range(5):
            work()
        best = min(best, (time.process_time() - started) / 5)
    return best * 1e6


def print_costs(num_seeds: int, repeats: int) -> None:
    sampler, rng = IBSampler(), random.Random(0)
    records = [list(records_of_decisions(sampler, seed)) for seed in range(num_seeds)]
    sizes = [len(build_tree(record[-1]).nodes) for record in records]
    costs = {
        "a decision, over the growth": [
            microseconds(partial(decide, draws, sampler, rng), repeats) for record in records for draws in record[:-1]
        ]
    }
    for name, work in works(sampler, rng).items():
        costs[name] = [microseconds(partial(work, record[-1], build_tree(record[-1])), repeats) for record in records]
    print(f"\nCPU microseconds, {num_seeds} trees of 12 trajectories and {min(sizes)}-{max(sizes)} nodes\n")
    print_table(
        "",
        {
            name: {"min": f"{min(values):.0f}", "median": f"{median(values):.0f}", "max": f"{max(values):.0f}"}
            for name, values in costs.items()
        },
    )


def decide(draws: list[Draw], sampler: AnySampler, rng: random.Random) -> tuple[Branch, ...]:
    """What a grower does between two rounds."""
    return sampler.expand(build_tree(draws), 1, rng)


def works(sampler: IBSampler, rng: random.Random) -> dict[str, Callable[[list[Draw], Tree], object]]:
    """What is timed on a finished tree."""
    credit = IBTPOCredit()
    return {
        "a decision at full size": lambda draws, _: decide(draws, sampler, rng),
        "· build_tree": lambda draws, _: build_tree(draws),
        "· expand": lambda _, tree: sampler.expand(tree, 1, rng),
        "· · of which ib_scores": lambda _, tree: ib_scores(tree, sampler.score),
        "build_tree that merges": lambda draws, _: build_tree(draws, merge=True),
        "credit: advantages, weights": lambda _, tree: (
            of_nodes := assign_advantages(credit, tree),
            credit.weights(tree, of_nodes),
        ),
        "diagnose": lambda _, tree: diagnose(tree, sampler.score, sampler.initial_draws),
    }


@dataclass(frozen=True, slots=True)
class Estimate:
    """An estimate of p̂(q), by its name."""

    name: str
    of: Callable[[Tree, int], float]


ESTIMATES = (
    Estimate("first leaves", lambda tree, first: root_value(tree, first) or 0.0),
    Estimate("V1", lambda tree, _: node_values(tree, COUNTS)[0]),
    Estimate("V2, V3", lambda tree, _: node_values(tree, Backup())[0]),
)
LABELS: dict[ValueEstimator, str] = {COUNTS: "V1", Backup(): "V2", Shrunk(): "V3"}
SAMPLERS: dict[str, AnySampler] = {
    "independent 12": IndependentSampler(initial_draws=12),
    "random (4, 9, 1, 1)": RandomSampler(),
    "fixed-width 12": FixedWidthSampler(width=12),
    "entropy (4, 1, 1, 2)": EntropySampler(initial_draws=4, forks_per_answer=1, draws_per_fork=2),
    "ib (4, 9, 1, 1), V1": IBSampler(),
    "ib (4, 9, 1, 1), V2": IBSampler(score=IBSettings(values=Backup())),
}


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Of one sampler, a figure per world for every estimate: its bias at the root, its squared error at inner nodes."""

    biases: dict[str, list[float]]
    errors: dict[str, list[float]]


def accuracy(sampler: AnySampler, worlds: list[World], num_trees: int) -> Accuracy:
    """By growing trees in worlds whose true values are known."""
    found = Accuracy({one.name: [] for one in ESTIMATES}, {label: [] for label in LABELS.values()})
    for nth, world in enumerate(worlds):
        rng = random.Random(nth)
        trees = [build_tree(grow(world, sampler, rng)) for _ in range(num_trees)]
        for one in ESTIMATES:
            found.biases[one.name].append(
                fmean(one.of(tree, sampler.initial_draws) for tree in trees) - world.value[()]
            )
        for estimator, label in LABELS.items():
            squares = (square for tree in trees for square in squared_errors(world, tree, estimator))
            found.errors[label].append(1000 * fmean(squares))
    return found


def squared_errors(world: World, tree: Tree, estimator: ValueEstimator) -> Iterable[float]:
    """Of p̂(s) − p̂(q), what credit is made of, at nodes that are no leaves."""
    values = node_values(tree, estimator)
    for node, value in zip(tree.nodes[1:], values[1:], strict=True):
        if node.num_draws:
            truth = world.value[world.state(tree.draws, Branch(node.draw, node.end, 1))] - world.value[()]
            yield (value - values[0] - truth) ** 2


def print_accuracy(num_worlds: int, num_trees: int) -> None:
    middling = (world for seed in count() if 0.2 < (world := World(seed, depth=5, width=2)).value[()] < 0.8)
    worlds = list(islice(middling, num_worlds))
    found = {name: accuracy(sampler, worlds, num_trees) for name, sampler in SAMPLERS.items()}
    over = f"mean (min, max) over {num_worlds} worlds of 5 steps, {num_trees} trees each"
    print(f"\nBias of the root, E[p̂(q)] - p(q): {over}\n")
    print_table("sampler", {name: spreads(one.biases, "+.3f") for name, one in found.items()})
    print(f"\nSquared error of p̂(s) - p̂(q) at inner nodes, x 1000: {over}\n")
    print_table("sampler", {name: spreads(one.errors, ".0f") for name, one in found.items()})


def print_table(corner: str, rows: dict[str, dict[str, str]]) -> None:
    columns = list(next(iter(rows.values())))
    print(f"| {corner} | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for name, cells in rows.items():
        print(f"| {name} | {' | '.join(cells.values())} |")


def spreads(columns: dict[str, list[float]], spec: str) -> dict[str, str]:
    return {name: f"{fmean(of):{spec}} ({min(of):{spec}}, {max(of):{spec}})" for name, of in columns.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer seeds and trees")
    quick = parser.parse_args().quick
    print_costs(num_seeds=2 if quick else 7, repeats=5 if quick else 40)
    print_found(num_seeds=2 if quick else 5, num_trees=3 if quick else 40)
    print_accuracy(num_worlds=2 if quick else 6, num_trees=50 if quick else 400)


if __name__ == "__main__":
    main()
