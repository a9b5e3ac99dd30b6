"""How well values of nodes agree with the truth, 64 more answers from each node, on the demo's model and problems.

    .venv/bin/python -m benchmarks.values [--seeds 1 2 3] [--trees 10] [--learnt 240]

grows IB trees with likelihoods, fits calibration and value heads to some, as a learner does that takes 24 trees a step,
and prints the table of docs/results/values.md for others: means over seeds and their standard errors. The policy stays
as it is.
"""

import argparse
import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import correlation, fmean, stdev
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from services.demo.difficulty import Difficulty
from services.demo.expressions import evaluate, prompt_of
from services.demo.split import Split, generate_in
from services.demo.task import checkpoint_directory
from services.learner.training.value_head import ValueHead
from services.learner.training.value_learner import lessons
from services.learner.value_config import ValueHeadConfig
from services.rollout.engines.embedded import EmbeddedEngine, EmbeddedSettings
from services.rollout.engines.engine import Request, Sampling
from services.rollout.grower import TreeGrower
from services.rollout.rewards import Reward
from services.rollout.vocabulary import Vocabulary
from shared.protocol.task import Growth, Task
from shared.protocol.tree import ScoredTree
from shared.tree.draw import WeightVersion, trajectory
from shared.tree.likelihood import LikelihoodSettings
from shared.tree.node import Tree
from shared.tree.samplers import IBSampler
from shared.tree.values import COUNTS, Backup, PriorSource, Shrunk, WithPrior, node_values
from shared.tree.values.calibration import Calibration, fit
from shared.tree.values.prior import likelihoods, observations

ROLLOUTS, BATCH, AT_ONCE = 64, 24, 12
HEADS = {"linear": ValueHeadConfig(), "two-layer": ValueHeadConfig(hidden=32)}


class DemoRewards:
    """An answer is right if it ends with the gold digit in a box."""

    async def reward(self, kind: str, response: str, answer_key: dict[str, Any]) -> Reward:
        return Reward(float(response.endswith(f"\\boxed{{{answer_key['gold']}}}")))


class Bench:
    """An engine that serves the demo's model, and the model's hidden states."""

    def __init__(self, seed: int) -> None:
        self.vocabulary = Vocabulary.load(checkpoint_directory())
        self.model = AutoModelForCausalLM.from_pretrained(checkpoint_directory()).eval()
        self.engine = EmbeddedEngine(EmbeddedSettings(max_running_requests=256))
        self.rng = random.Random(seed)
        self.difficulty = Difficulty()

    async def grow(self, count: int) -> list[ScoredTree]:
        """Trees of new problems, with the likelihood of the gold digit at step ends."""
        grower, found = TreeGrower(self.engine, DemoRewards(), "bench"), []
        growth = Growth(
            sampler=IBSampler(), max_tokens=self.difficulty.max_answer_tokens, likelihood=LikelihoodSettings()
        )
        for start in range(0, count, AT_ONCE):
            tasks = [self._task(growth) for _ in range(min(AT_ONCE, count - start))]
            found += await asyncio.gather(*[grower.grow(task, self.vocabulary) for task in tasks])
        return found

    def _task(self, growth: Growth) -> Task:
        expression = generate_in(Split.TRAIN, self.rng, self.difficulty)
        return Task(
            run="bench",
            id="0-0",
            problem_id="p",
            prompt_ids=self.vocabulary.encode(prompt_of(expression)),
            kind="math",
            answer_key={"gold": str(evaluate(expression, self.difficulty.modulus))},
            growth=growth,
            seed=self.rng.getrandbits(60),
        )

    async def truth(self, scored: ScoredTree, node_id: int, tree: Tree) -> float:
        """The share of right ones among more answers from the node."""
        node, task = tree.nodes[node_id], scored.task
        prefix = () if node.draw is None else trajectory(scored.draws, node.draw)[: node.end]
        requests = [
            Request(
                token_ids=task.prompt_ids + prefix,
                max_tokens=task.growth.max_tokens - len(prefix),
                sampling=Sampling(1.0, 1.0, 0),
                stop_ids=self.vocabulary.stop_ids,
                seed=self.rng.getrandbits(60),
                group=hash(task.prompt_ids),
            )
            for _ in range(ROLLOUTS)
        ]
        answers = await asyncio.gather(*map(self.engine.complete, requests))
        box = f"\\boxed{{{task.answer_key['gold']}}}"
        return fmean(self.vocabulary.decode(one.token_ids).endswith(box) for one in answers)

    @torch.inference_mode()
    def states(self, scored: ScoredTree, tree: Tree) -> torch.Tensor:
        """The policy's hidden state at the end of every node."""
        of_draws, prompt = {}, scored.task.prompt_ids
        for draw_id in range(len(scored.draws)):
            ids = torch.tensor([[*prompt, *trajectory(scored.draws, draw_id)]])
            of_draws[draw_id] = self.model.base_model(ids).last_hidden_state[0]
        return torch.stack([of_draws[node.draw or 0][len(prompt) - 1 + node.end] for node in tree.nodes])


def learn_head(config: ValueHeadConfig, trees: Sequence[Tree], states: Sequence[torch.Tensor], seed: int) -> ValueHead:
    """A head after steps of 24 trees."""
    head = ValueHead(states[0].shape[1], config, seed)
    for start in range(0, len(trees), BATCH):
        batch = slice(start, start + BATCH)
        head.learn(torch.cat(states[batch]), *lessons(trees[batch]))
    return head


@dataclass(frozen=True, slots=True)
class Judged:
    """What an estimate says of a node, and of the root of its tree, beside the truth."""

    estimate: float
    root_estimate: float
    truth: float
    root_truth: float
    num_leaves: int


def estimates(tree: Tree, calibration: Calibration, heads: dict[str, Sequence[float]]) -> dict[str, Sequence[float]]:
    """Every estimate of every node, by its name."""
    a, b = calibration.a, calibration.b
    said = [0.0 if one is None else one for one in likelihoods(tree)]
    likelihood = WithPrior(a=a, b=b)
    found: dict[str, Sequence[float]] = {
        "V1": node_values(tree, COUNTS),
        "V2": node_values(tree, Backup()),
        "V3, κ = 2": node_values(tree, Shrunk()),
        "Φ": said,
        "Φ, calibrated": [calibration.of(one) for one in said],
        "V4 with Φ, κ = 2": node_values(tree, likelihood),
    }
    for name, values in heads.items():
        informed = replace(tree, priors=tuple(values))
        found[f"head, {name}"] = values
        for kappa in (2.0, 8.0):
            estimator = WithPrior(source=PriorSource.HEAD, kappa=kappa)
            found[f"V4 with head, {name}, κ = {kappa:g}"] = node_values(informed, estimator)
    return found


async def judge(seed: int, num_trees: int, num_learnt: int) -> tuple[dict[str, list[Judged]], Calibration]:
    """All estimates of the inner nodes of some trees, fitted to others; and the calibration."""
    bench = Bench(seed)
    await bench.engine.load(checkpoint_directory(), WeightVersion(1, 0))
    learnt = [(scored, scored.tree()) for scored in await bench.grow(num_learnt)]
    seen = [one for _, tree in learnt for one in observations(tree, PriorSource.LIKELIHOOD)]
    calibration = fit(seen)
    trees, states = [tree for _, tree in learnt], [bench.states(*one) for one in learnt]
    heads = {name: learn_head(config, trees, states, seed) for name, config in HEADS.items()}
    judged: dict[str, list[Judged]] = {}
    for scored in await bench.grow(num_trees):
        tree = scored.tree()
        inner = [node_id for node_id, node in enumerate(tree.nodes) if node.num_draws and node_id]
        own = bench.states(scored, tree)
        values = estimates(tree, calibration, {name: head.values(own) for name, head in heads.items()})
        root_truth = await bench.truth(scored, 0, tree)
        for node_id in inner:
            truth = await bench.truth(scored, node_id, tree)
            for name, of_nodes in values.items():
                one = Judged(of_nodes[node_id], of_nodes[0], truth, root_truth, tree.nodes[node_id].num_leaves)
                judged.setdefault(name, []).append(one)
    await bench.engine.close()
    return judged, calibration


def figures(nodes: Sequence[Judged]) -> list[float]:
    """Correlation with the truth, of all and of nodes with one leaf; squared error; that of p̂(s) − p̂(q)."""
    single = [one for one in nodes if one.num_leaves == 1]
    return [
        correlation([one.estimate for one in nodes], [one.truth for one in nodes]),
        correlation([one.estimate for one in single], [one.truth for one in single]),
        1000 * fmean((one.estimate - one.truth) ** 2 for one in nodes),
        1000 * fmean((one.estimate - one.root_estimate - one.truth + one.root_truth) ** 2 for one in nodes),
    ]


def print_table(rows: dict[str, list[list[float]]]) -> None:
    """A row for each estimate, of the figures of each seed; the last column is paired with V1's of the same seed."""
    print(
        "\n| estimate | correlation | of nodes with one leaf | squared error × 1000 | of p̂(s) − p̂(q) | error − V1's |"
        "\n|---|---|---|---|---|---|"
    )
    for name, of_seeds in rows.items():
        paired = [[*found, found[2] - of_v1[2]] for found, of_v1 in zip(of_seeds, rows["V1"], strict=True)]
        specs = (".3f", ".3f", ".1f", ".1f", "+.1f")
        columns = zip(*paired, strict=True)
        print(f"| {name} | {' | '.join(_cell(column, spec) for column, spec in zip(columns, specs, strict=True))} |")


def _cell(of_seeds: Sequence[float], spec: str) -> str:
    """The mean over seeds, with its standard error where there are several."""
    mean = f"{fmean(of_seeds):{spec}}"
    if len(of_seeds) == 1:
        return mean
    return f"{mean} ± {stdev(of_seeds) / len(of_seeds) ** 0.5:{spec.lstrip('+')}}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--trees", type=int, default=10, help="whose nodes are judged, of each seed")
    parser.add_argument("--learnt", type=int, default=240, help="that are learnt from")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows: dict[str, list[list[float]]] = {}
    for seed in given.seeds:
        judged, calibration = asyncio.run(judge(seed, given.trees, given.learnt))
        nodes = judged["V1"]
        noise = 1000 * fmean(one.truth * (1 - one.truth) for one in nodes) / (ROLLOUTS - 1)
        alone = sum(one.num_leaves == 1 for one in nodes)
        print(
            f"seed {seed}: {len(nodes)} nodes, {alone} with one leaf; a = {calibration.a:.3f}, b = {calibration.b:.3f}"
        )
        print(f"the truth's own error, in all squared errors: {noise:.1f}", flush=True)
        for name, found in judged.items():
            rows.setdefault(name, []).append(figures(found))
    print_table(rows)


if __name__ == "__main__":
    main()
