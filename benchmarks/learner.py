"""A training step: what sharing prefixes saves, in time and memory, and what the parts of a step take.

python -m benchmarks.learner                   all tables (some twenty minutes of one core)
python -m benchmarks.learner --quick           what sharing saves at four lengths (three minutes)
python -m benchmarks.learner --quick --json    the same, and its figures as one line of JSON at the end

CPU-seconds of this process, one thread; forms of a step take turns, and every round has trees of its own. Trees are
random: four answers, and eight that leave one of them at one of its 20 steps. The policy has random weights in the
shape of two of SmolLM2-135M's 30 layers, so that products of matrices dominate as they do in real models.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig
from transformers.utils.logging import disable_progress_bar

from benchmarks.head import measure_apart
from services.demo.task import checkpoint_directory
from services.learner.config import LearnerConfig
from services.learner.model.attention.plan import COST, plan_blocks
from services.learner.model.memory import peak_memory_bytes
from services.learner.model.policy import LanguageModel, Policy
from services.learner.model.prefix_rows import Layout
from services.learner.record.figures import measure_trees
from services.learner.training.packing import PackedRow, default_budget, pack
from services.learner.training.trainer import Trainer
from services.learner.training.trajectories import BuiltTree, Trajectory, extract_trajectories
from services.learner.training.workload import count_distinct
from shared.protocol.task import Growth, Task
from shared.protocol.tree import ScoredTree, TreeUsage
from shared.tree.draw import Draw, Finish, VersionSpan, WeightVersion
from shared.tree.samplers import IBSampler

NUM_TREES, NUM_FIRST, NUM_DRAWS, NUM_TOKENS, NUM_PROMPT = 24, 4, 12, 25, 11
STEPS_OF_AN_ANSWER = 20
VERSION = WeightVersion(1, 0)
VOCAB_SIZE = 16
SHAPE: dict[str, Any] = {
    "vocab_size": 2048,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 2,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
    "eos_token_id": 1,
    "bos_token_id": None,
    "pad_token_id": 0,
}
"""SmolLM2-135M's, but for the number of layers and of words."""
HEAD_SLOTS = 4096
APART, SHARED, MASKS = "each trajectory apart", "shared, by trees", "shared, by masks"
FORMS = (APART, SHARED, MASKS)
"""The last is what the learner did before it attended to trees: one mask of all pairs of columns."""


@dataclass(frozen=True, slots=True)
class Size:
    """Answers of one length: how many trees a step has, and how many rounds are measured."""

    num_tokens: int
    num_trees: int
    num_rounds: int
    forms: tuple[str, ...] = (APART, SHARED)


QUICK = (Size(25, 8, 3), Size(200, 1, 3), Size(1000, 1, 3), Size(2000, 1, 1))
FULL = (
    Size(25, 24, 5, FORMS),
    Size(100, 8, 5, FORMS),
    Size(200, 4, 5, FORMS),
    Size(500, 2, 5, FORMS),
    Size(1000, 1, 5, FORMS),
    Size(2000, 1, 3, FORMS),
    Size(4000, 1, 3),  # a mask of 28,000 columns takes 3 GB, and a row of it longer than all else together
)


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


class RecordingPolicy(Policy):
    """Keeps the gradients of its last update."""

    gradients: dict[str, Tensor]

    def apply_gradients(self, learning_rate: float) -> float | None:
        parameters = self.model.module.named_parameters()
        self.gradients = {name: one.grad.clone() for name, one in parameters if one.grad is not None}
        return super().apply_gradients(learning_rate)


class Step:
    """One form of a step, on a policy of its own."""

    def __init__(self, form: str, directory: Path, num_tokens: int) -> None:
        self.config = configure(directory, num_tokens, share_prefixes=form != APART)
        self.policy = RecordingPolicy(directory, 1.0, self.config.optimizer)
        model = self.policy.model
        if form == MASKS:
            model.cost = replace(model.cost, attends_to_trees=False)
        self.layout = Layout.APART if form == APART else model.layout
        self._trainer = Trainer(self.policy, None, self.config)

    def take(self, trees: Sequence[ScoredTree]) -> float:
        """Its CPU-seconds."""
        start = time.process_time()
        self._trainer.step([BuiltTree.of(tree) for tree in trees], VERSION, 1e-6, "seed")
        return time.process_time() - start

    def pack(self, trees: Sequence[ScoredTree]) -> list[list[PackedRow]]:
        trajectories = _extract(trees)
        return pack(trajectories, default_budget(trajectories), self.layout, cost=self.policy.model.cost)

    def predict(self, trees: Sequence[ScoredTree]) -> float:
        """The seconds of its passes."""
        return sum(self.policy.model.cost.of_tries([row.trie for row in rows]) for rows in self.pack(trees))

    def describe_plan(self, trees: Sequence[ScoredTree]) -> str:
        """How many micro-batches it makes, and how attention is computed in them."""
        width, forms, packed = self.policy.model.cost.width, Counter[str](), self.pack(trees)
        for rows in packed:
            if rows[0].trie.is_chain:
                forms["apart"] += len(rows)
            else:
                forms.update(block.form.value for block in plan_blocks(rows[0].trie.exits, width, COST).blocks)
        return f"{len(packed)}: " + ", ".join(f"{count} {form}" for form, count in sorted(forms.items()))


def configure(directory: Path, num_tokens: int, **objective: float) -> LearnerConfig:
    return LearnerConfig(
        model=directory,
        data=("none",),
        growth={"sampler": "ib", "max_tokens": 2 * num_tokens},
        total_steps=1,
        objective={"kl_coef": 0.0} | objective,
    )


def write_policy(directory: Path) -> Path:
    """Random weights in `SHAPE`, with the demo's tokenizer."""
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(LlamaConfig(**SHAPE)).save_pretrained(directory)
    for path in checkpoint_directory().glob("*token*"):
        shutil.copy(path, directory)
    return directory


def grow(num_tokens: int, num_trees: int, seed: int) -> list[ScoredTree]:
    step = max(1, num_tokens // STEPS_OF_AN_ANSWER)
    return [tree(random.Random(f"{seed}-{number}"), num_tokens, step) for number in range(num_trees)]


def _extract(trees: Sequence[ScoredTree]) -> list[Trajectory]:
    return [one for scored in trees for one in extract_trajectories(scored, VERSION)]


def limit_of(trees: Sequence[ScoredTree]) -> float:
    """Tokens of trajectories to distinct tokens."""
    trajectories = _extract(trees)
    return sum(len(one.prompt_ids) + len(one.token_ids) for one in trajectories) / count_distinct(trajectories)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Answers of one length, computed in several forms: CPU-seconds of every round."""

    size: Size
    limits: list[float]
    seconds: dict[str, list[float]]
    predicted: dict[str, float]
    plan: str
    gradient_error: float

    def speed_up(self, form: str) -> float:
        pairs = zip(self.seconds[APART], self.seconds[form], strict=True)
        return median(apart / other for apart, other in pairs)

    @property
    def share_of_limit(self) -> float:
        rounds = zip(self.seconds[APART], self.seconds[SHARED], self.limits, strict=True)
        return median(apart / shared / limit for apart, shared, limit in rounds)


def compare(size: Size, directory: Path) -> Comparison:
    """Every round gives the same trees to each form in turn."""
    steps = {form: Step(form, directory, size.num_tokens) for form in size.forms}
    error = 0.0
    if size.num_tokens < 1000:  # longer steps pay for the first touch of memory at once
        trees = grow(size.num_tokens, size.num_trees, seed=0)
        for step in steps.values():
            step.take(trees)
        error = gradient_error(steps[APART].policy.gradients, steps[SHARED].policy.gradients)
    rounds = [grow(size.num_tokens, size.num_trees, seed) for seed in range(1, 1 + size.num_rounds)]
    seconds = {form: [0.0] * size.num_rounds for form in size.forms}
    for number, trees in enumerate(rounds):
        for form, step in steps.items():
            seconds[form][number] = step.take(trees)
        if number == 0 and not error:
            error = gradient_error(steps[APART].policy.gradients, steps[SHARED].policy.gradients)
    predicted = {form: steps[form].predict(rounds[0]) for form in size.forms}
    return Comparison(
        size, list(map(limit_of, rounds)), seconds, predicted, steps[SHARED].describe_plan(rounds[0]), error
    )


def gradient_error(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The largest difference of any weight's gradients, to the largest gradient of that weight."""
    return max(float((one[name] - other[name]).abs().max() / one[name].abs().max()) for name in one)


def compare_all(sizes: Sequence[Size], directory: Path) -> Iterator[Comparison]:
    """Prints a row for each length as it is measured."""
    print(
        "| answers of | trees | limit: tokens of trajectories / distinct | CPU-seconds apart | shared | faster | "
        "share of the limit | faster by masks | gradients differ by |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for size in sizes:
        found = compare(size, directory)
        masks = f"{found.speed_up(MASKS):.2f}×" if MASKS in size.forms else "not tried"
        apart, shared = (median(found.seconds[form]) for form in (APART, SHARED))
        print(
            f"| {size.num_tokens} tokens | {size.num_trees} | {median(found.limits):.2f} | {apart:.2f} | "
            f"{shared:.2f} | {found.speed_up(SHARED):.2f}× | {found.share_of_limit:.2f} | "
            f"{masks} | {found.gradient_error:.1e} |",
            flush=True,
        )
        yield found


def print_choices(comparisons: Sequence[Comparison]) -> None:
    """What the cost model chose, and how well it knew."""
    print("\n| answers of | micro-batches, and blocks of attention | seconds apart: predicted | measured | shared | |")
    print("|---|---|---|---|---|---|")
    for one in comparisons:
        pairs = " | ".join(f"{one.predicted[form]:.2f} | {one.seconds[form][0]:.2f}" for form in (APART, SHARED))
        print(f"| {one.size.num_tokens} tokens | {one.plan} | {pairs} |")


def measure_peak(form: str, num_tokens: int, num_trees: int, directory: Path) -> int:
    """Bytes that a step adds to a loaded policy, in a process of its own."""
    arguments = ["--one", form, str(num_tokens), str(num_trees), str(directory)]
    command = [sys.executable, "-m", "benchmarks.learner", *arguments]
    return int(subprocess.run(command, check=True, capture_output=True, text=True, encoding="utf-8").stdout)


def measure_own_peak(form: str, num_tokens: int, num_trees: int, directory: Path) -> int:
    """The same in this process."""
    step, trees = Step(form, directory, num_tokens), grow(num_tokens, num_trees, seed=1)
    step.take(grow(25, 1, seed=1))  # gradients and moments
    before = peak_memory_bytes(torch.device("cpu"))
    step.take(trees)
    return peak_memory_bytes(torch.device("cpu")) - before


def print_memory(sizes: Sequence[Size], directory: Path) -> None:
    print("\n| MiB that a step adds, answers of | apart | shared | by masks |\n|---|---|---|---|")
    for size in sizes:
        peaks = [measure_peak(form, size.num_tokens, size.num_trees, directory) >> 20 for form in size.forms]
        cells = [*map(str, peaks), *["not tried"] * (len(FORMS) - len(peaks))]
        print(f"| {size.num_tokens} tokens | " + " | ".join(cells) + " |", flush=True)


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


def print_demo(rounds: int = 5) -> None:
    """A step of the demo's size and policy, and what it takes beside the model."""
    directory = checkpoint_directory()
    trees = [tree(random.Random(seed)) for seed in range(NUM_TREES)]
    answers = sum(draw.end for one in trees for draw in one.draws)
    print(
        f"\nThe demo's policy: {len(trees)} trees, {NUM_TREES * NUM_DRAWS} trajectories, {answers} answer tokens, of "
        f"which sampled {sum(len(draw.token_ids) for one in trees for draw in one.draws)}\n"
    )
    print("| CPU-seconds | min | median | max |\n|---|---|---|---|")
    for form in FORMS:
        print(row(f"step, {form}", cpu_seconds(partial(Step(form, directory, NUM_TOKENS).take, trees), rounds)))
    config = configure(directory, NUM_TOKENS, kl_coef=0.001)
    policy, reference = Policy(directory, 1.0, config.optimizer), LanguageModel.load(directory, 1.0, is_frozen=True)
    trainer = Trainer(policy, reference, config)
    built = [BuiltTree.of(one) for one in trees]
    taken = cpu_seconds(lambda: trainer.step(built, VERSION, 1e-6, "seed"), rounds)
    print(row("step, shared, with a reference for the KL", taken))
    packed = [one.pack() for one in trees]
    print(row("reading 24 trees off the wire", cpu_seconds(lambda: [ScoredTree.unpack(one) for one in packed], rounds)))
    print(row("their figures", cpu_seconds(lambda: measure_trees([BuiltTree.of(tree) for tree in trees]), rounds)))
    with tempfile.TemporaryDirectory() as saved:
        print(row("saving the policy", cpu_seconds(lambda: policy.save(Path(saved)), rounds)))


def print_budgets() -> None:
    """How many tokens rows compute, against every trajectory by itself: six trees."""
    print("\n| answers of | limit: tokens of trajectories / distinct | reached in rows of 2,048 | 8,192 | 16,384 |")
    print("|---|---|---|---|---|")
    for num_tokens in (25, 200, 1000, 2000):
        trees = [_extract([one]) for one in grow(num_tokens, 6, seed=0)]
        figures = [_sharing(trees, budget) for budget in (1 << 30, 2048, 8192, 16384)]
        print(f"| {num_tokens} tokens | " + " | ".join(f"{figure:.2f}" for figure in figures) + " |")


def _sharing(trees: Sequence[Sequence[Trajectory]], max_tokens: int) -> float:
    """Tokens of trajectories to tokens computed."""
    rows = [row for one in trees for batch in pack(one, max_tokens, Layout.JOINED) for row in batch]
    total = sum(len(one.prompt_ids) + len(one.token_ids) for trajectories in trees for one in trajectories)
    return total / sum(len(row.trie) for row in rows)


def summarize(comparisons: Sequence[Comparison]) -> str:
    """The figures as one line of JSON."""
    whole, chunks = (measure_apart(form, HEAD_SLOTS, 64)["peak"] for form in ("whole", "chunks"))
    summary = {
        "share_of_limit": {str(one.size.num_tokens): round(one.share_of_limit, 3) for one in comparisons},
        "head_peak_ratio": round(chunks / whole, 4),
        "gradient_error": float(f"{max(one.gradient_error for one in comparisons):.2e}"),
    }
    return json.dumps(summary)


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="four lengths, fewer rounds")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    disable_progress_bar()
    if arguments.one:
        form, num_tokens, num_trees, directory = arguments.one
        print(measure_own_peak(form, int(num_tokens), int(num_trees), Path(directory)))
        return
    sizes = QUICK if arguments.quick else FULL
    with tempfile.TemporaryDirectory() as temporary:
        directory = write_policy(Path(temporary))
        comparisons = list(compare_all(sizes, directory))
        print_choices(comparisons)
        if not arguments.quick:
            print_memory(sizes, directory)
    if not arguments.quick:
        print_demo()
        print_budgets()
    if arguments.json:
        print(summarize(comparisons))


if __name__ == "__main__":
    main()
