"""A training step of the demo's size, and what the parts of it take.

python -m benchmarks.learner            all tables (about two minutes of one core)
python -m benchmarks.learner --quick    fewer rounds (about half a minute)

CPU-seconds of this process, one thread. Trees are random, in the shape of the demo: 24 of 12 draws, answers of about
25 tokens.
"""

import argparse
import os
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from transformers.utils.logging import disable_progress_bar

from services.demo.task import checkpoint_directory
from services.learner.config import LearnerConfig
from services.learner.model.policy import LanguageModel, Policy
from services.learner.model.prefix_rows import Layout
from services.learner.record.figures import measure_trees
from services.learner.training.packing import pack
from services.learner.training.trainer import Trainer
from services.learner.training.trajectories import BuiltTree, Trajectory, extract_trajectories
from shared.protocol.task import Growth, Task
from shared.protocol.tree import ScoredTree, TreeUsage
from shared.tree.draw import Draw, Finish, VersionSpan, WeightVersion
from shared.tree.expansion import IBSampler

NUM_TREES, NUM_FIRST, NUM_DRAWS, NUM_TOKENS, NUM_PROMPT = 24, 4, 12, 25, 11
VERSION = WeightVersion(1, 0)
VOCAB_SIZE = 16


def tree(rng: random.Random, num_tokens: int = NUM_TOKENS, step: int = 6) -> ScoredTree:
    """Four answers of about `num_tokens`, and eight that leave one of them at a step's end."""
    draws: list[Draw] = []
    for number in range(NUM_DRAWS):
        parent, cut = None, 0
        if number >= NUM_FIRST:
            parent, cut = rng.choice([(i, end) for i, draw in enumerate(draws) for end in draw.step_ends[:-1]])
        draws.append(_draw(rng, parent, cut, num_tokens, step))
    growth = Growth(sampler=IBSampler(), max_tokens=2 * num_tokens)
    prompt = tuple(rng.randrange(2, VOCAB_SIZE) for _ in range(NUM_PROMPT))
    task = Task(
        run="r", id="0-0", problem_id="p", prompt_ids=prompt, kind="exact", answer_key={}, growth=growth, seed=0
    )
    return ScoredTree(task=task, replica="r", draws=tuple(draws), usage=TreeUsage())


def _draw(rng: random.Random, parent: int | None, cut: int, num_tokens: int, step: int) -> Draw:
    spread = round(0.32 * num_tokens)
    end = max(cut + 2, rng.randint(num_tokens - spread, num_tokens + spread))
    count = end - cut
    return Draw(
        parent=parent,
        cut=cut,
        token_ids=tuple(rng.randrange(2, VOCAB_SIZE) for _ in range(count)),
        logprobs=tuple(-rng.random() for _ in range(count)),
        step_ends=(*range(cut + step, end, step), end),
        spans=(VersionSpan(VERSION, 0, count),),
        finish=Finish.STOP,
        reward=float(rng.random() < 0.5),
    )


def cpu_seconds(work: Callable[[], object], rounds: int) -> list[float]:
    """Of each round, after one that is not counted."""
    work()
    taken = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return taken


def row(name: str, taken: Sequence[float]) -> str:
    return f"| {name} | " + " | ".join(f"{pick(taken):.3f}" for pick in (min, median, max)) + " |"


def configure(**objective: float) -> LearnerConfig:
    return LearnerConfig(
        model=checkpoint_directory(),
        data=("none",),
        growth={"sampler": "ib", "max_tokens": 48},
        total_steps=1,
        objective=objective,
    )


def make_step(config: LearnerConfig, trees: Sequence[ScoredTree]) -> Callable[[], object]:
    policy = Policy(config.model, 1.0, config.optimizer)
    trainer = Trainer(
        policy, LanguageModel.load(config.model, 1.0, is_frozen=True) if config.needs_reference else None, config
    )
    return lambda: trainer.step([BuiltTree.of(tree) for tree in trees], VERSION, 1e-6, "seed")


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    rounds = 2 if parser.parse_args().quick else 5
    torch.set_num_threads(1)
    disable_progress_bar()
    trees = [tree(random.Random(seed)) for seed in range(NUM_TREES)]
    answers = sum(draw.end for one in trees for draw in one.draws)
    print(
        f"{len(trees)} trees, {NUM_TREES * NUM_DRAWS} trajectories, {answers} answer tokens, of which sampled "
        f"{sum(len(draw.token_ids) for one in trees for draw in one.draws)}\n"
    )
    print("| CPU-seconds | min | median | max |\n|---|---|---|---|")
    for tokens in (512, 2048, 8192):
        config = configure(kl_coef=0.0, micro_batch_tokens=tokens)
        print(row(f"step, micro-batches of {tokens} tokens", cpu_seconds(make_step(config, trees), rounds)))
    apart = make_step(configure(kl_coef=0.0, share_prefixes=False), trees)
    print(row("step of 2048, every trajectory computed by itself", cpu_seconds(apart, rounds)))
    print(row("step of 2048, with a reference for the KL", cpu_seconds(make_step(configure(), trees), rounds)))
    parts(trees, rounds)
    sharing()


def parts(trees: Sequence[ScoredTree], rounds: int) -> None:
    """What a step takes beside the model."""
    packed = [one.pack() for one in trees]
    policy = Policy(checkpoint_directory(), 1.0, configure().optimizer)
    print(row("reading 24 trees off the wire", cpu_seconds(lambda: [ScoredTree.unpack(one) for one in packed], rounds)))
    print(row("their figures", cpu_seconds(lambda: measure_trees([BuiltTree.of(tree) for tree in trees]), rounds)))
    with tempfile.TemporaryDirectory() as directory:
        print(row("saving the policy", cpu_seconds(lambda: policy.save(Path(directory)), rounds)))


def sharing() -> None:
    """How many tokens rows compute, against every trajectory by itself: 20 steps an answer, six trees."""
    print("\n| answers of | limit: tokens of trajectories / distinct | reached in rows of 2,048 | 8,192 | 16,384 |")
    print("|---|---|---|---|---|")
    for num_tokens in (25, 200, 1000, 2000):
        grown = (tree(random.Random(seed), num_tokens, max(1, num_tokens // 20)) for seed in range(6))
        trajectories = [extract_trajectories(one, VERSION) for one in grown]
        figures = [_sharing(trajectories, budget) for budget in (1 << 30, 2048, 8192, 16384)]
        print(f"| {num_tokens} tokens | " + " | ".join(f"{figure:.2f}" for figure in figures) + " |")


def _sharing(trees: Sequence[Sequence[Trajectory]], max_tokens: int) -> float:
    """Tokens of trajectories to tokens computed."""
    rows = [row for one in trees for batch in pack(one, max_tokens, Layout.JOINED) for row in batch]
    total = sum(len(one.prompt_ids) + len(one.token_ids) for trajectories in trees for one in trajectories)
    return total / sum(len(row.trie) for row in rows)


if __name__ == "__main__":
    main()
