"""The embedded engine against transformers' generate, and growing trees against its own independent answers.

python -m benchmarks.engine            all tables (several minutes of one core)
python -m benchmarks.engine --quick    the demo's model, one seed (about half a minute)
python -m benchmarks.engine --model DIR    a model of yours: its Python as it is, traced, and traced in bfloat16

All figures are tokens per CPU-second of this process, on one thread. What is compared alternates, several times per
seed, so that a busy machine slows both alike.
"""

import argparse
import asyncio
import gc
import itertools
import os
import random
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3Config
from transformers.utils import logging as transformers_logging

from services.demo.difficulty import Difficulty
from services.demo.expressions import prompt_of
from services.demo.split import Split, generate_in
from services.demo.task import checkpoint_directory
from services.rollout.engines.embedded import EmbeddedEngine, EmbeddedSettings
from services.rollout.engines.engine import Completion, EngineLimits, Request, Sampling, ScoreRequest, TokenScores
from services.rollout.grower import TreeGrower
from services.rollout.rewards import Reward
from services.rollout.vocabulary import Vocabulary
from shared.protocol.task import Growth, Task
from shared.tree.draw import WeightVersion
from shared.tree.samplers import AnySampler, IBSampler, IndependentSampler
from shared.tree.segmentation import Segmenter
from shared.weights import prompt_encoder

LARGER_VOCAB = 4096
ANSWERS_PER_PROBLEM = (8, 1)
IB_TREE = IBSampler(initial_draws=4, rounds=8, nodes_per_round=1, draws_per_node=1)
INDEPENDENT = IndependentSampler(initial_draws=IB_TREE.num_draws)


@dataclass(frozen=True, slots=True)
class Workload:
    """A model, prompts for it, and how much of what to measure."""

    name: str
    snapshot: Path
    vocabulary: Vocabulary
    prompts: tuple[tuple[int, ...], ...]
    max_tokens: int
    rows: int
    repeats: int
    tokens_per_repeat: int


def demo(seed: int) -> Workload:
    """The demo's starting policy (0.56M parameters) on the demo's problems; its answers end by themselves."""
    vocabulary = Vocabulary.load(checkpoint_directory())
    rng, difficulty = random.Random(seed), Difficulty()
    prompts = tuple(vocabulary.encode(prompt_of(generate_in(Split.TRAIN, rng, difficulty))) for _ in range(8000))
    return Workload("demo", checkpoint_directory(), vocabulary, prompts, difficulty.max_answer_tokens, 64, 8, 5000)


def larger(seed: int, directory: Path) -> Workload:
    """Random weights, d = 256, 8 layers, 4,096 tokens, of which 1 in 64 ends an answer and 1 in 16 a reasoning step."""
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=LARGER_VOCAB,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=32,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(directory)
    rng = random.Random(seed)
    stop_ids = frozenset(range(1, 1 + LARGER_VOCAB // 64))
    texts = tuple(b"\n\n" if token % 16 == 9 else b"x" for token in range(LARGER_VOCAB))
    tokenizer = Tokenizer.from_file(str(checkpoint_directory() / "tokenizer.json"))
    vocabulary = Vocabulary(texts, stop_ids, Segmenter(texts, stop_ids), tokenizer)
    prompts = tuple(tuple(rng.randrange(100, LARGER_VOCAB) for _ in range(32)) for _ in range(512))
    return Workload("larger", directory, vocabulary, prompts, 128, 32, 3, 2500)


def yours(seed: int, directory: Path) -> Workload:
    """Sums, as its chat template puts them."""
    vocabulary, rng = Vocabulary.load(directory), random.Random(seed)
    encode = prompt_encoder(AutoTokenizer.from_pretrained(directory), today=datetime.now(UTC))
    questions = [f"What is {rng.randint(2, 99)} + {rng.randint(2, 99)}? Think step by step." for _ in range(512)]
    prompts = tuple(encode(({"role": "user", "content": question},)) for question in questions)
    return Workload(directory.name, directory, vocabulary, prompts, 48, 32, 3, 400)


@dataclass(slots=True)
class Rate:
    """Generated tokens and their cost."""

    tokens: int = 0
    cpu_seconds: float = 0.0
    decodes: int = 0

    @property
    def per_second(self) -> float:
        return self.tokens / self.cpu_seconds

    @property
    def rows(self) -> float:
        return self.tokens / self.decodes

    def add(self, other: "Rate") -> None:
        self.tokens += other.tokens
        self.cpu_seconds += other.cpu_seconds
        self.decodes += other.decodes


class RandomRewards:
    """A coin instead of a verifier."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)

    async def reward(self, kind: str, response: str, answer_key: dict[str, Any]) -> Reward:
        return Reward(float(self._rng.random() < 0.4))


class MeteredEngine:
    """An engine whose requests wait while another engine is measured."""

    def __init__(self, engine: EmbeddedEngine) -> None:
        self.engine = engine
        self._open = asyncio.Event()

    @property
    def version(self) -> WeightVersion | None:
        return self.engine.version

    @property
    def limits(self) -> EngineLimits:
        return self.engine.limits

    async def complete(self, request: Request) -> Completion:
        await self._open.wait()
        return await self.engine.complete(request)

    async def score(self, request: ScoreRequest) -> TokenScores:
        return await self.engine.score(request)

    async def load(self, snapshot: Path, version: WeightVersion) -> None:
        await self.engine.load(snapshot, version)

    async def close(self) -> None:
        await self.engine.close()

    async def measure(self, num_tokens: int) -> Rate:
        """Admits requests, measures once all rows are busy, and waits until they have finished."""
        counters = self.engine.counters
        self._open.set()
        await self._until(lambda start=counters.generated_tokens: counters.generated_tokens >= start + num_tokens // 2)
        before, tokens, decodes = time.process_time(), counters.generated_tokens, counters.decodes
        await self._until(lambda: counters.generated_tokens >= tokens + num_tokens)
        rate = Rate(counters.generated_tokens - tokens, time.process_time() - before, counters.decodes - decodes)
        self._open.clear()
        await self._until(lambda: not (counters.rows_in_flight or counters.waiting))
        return rate

    @staticmethod
    async def _until(condition: Callable[[], bool]) -> None:
        while not condition():
            await asyncio.sleep(0.005)


class Bench:
    """One workload and seed."""

    def __init__(self, work: Workload, seed: int) -> None:
        self.work = work
        self._seed = seed
        self._model = AutoModelForCausalLM.from_pretrained(work.snapshot, dtype=torch.float32).eval()
        self.generate = {per_problem: Rate() for per_problem in ANSWERS_PER_PROBLEM}
        self.batch = {per_problem: Rate() for per_problem in ANSWERS_PER_PROBLEM}
        self.answers = Rate()
        self.independent = Rate()
        self.trees = Rate()
        self.cached_share = 0.0

    async def run(self) -> None:
        engine, *others = [await self._start() for _ in range(4)]
        answers, independent, trees = map(MeteredEngine, others)
        requests = self._requests(1, INDEPENDENT.num_draws)
        jobs = [
            lambda: answers.complete(next(requests)),
            self._growth_job(independent, INDEPENDENT),
            self._growth_job(trees, IB_TREE),
        ]
        workers = [asyncio.create_task(_forever(job)) for job in jobs for _ in range(self.work.rows)]
        batches = {per_problem: self._requests(0, per_problem) for per_problem in ANSWERS_PER_PROBLEM}
        for repeat in range(-1, self.work.repeats):  # the first only warms up
            for per_problem, source in batches.items():
                batch = [next(source) for _ in range(self.work.rows)]
                generated, served = self._generate_batch(batch, repeat), await self._engine_batch(engine, batch)
                if repeat >= 0:
                    self.generate[per_problem].add(generated)
                    self.batch[per_problem].add(served)
            for metered, total in ((answers, self.answers), (independent, self.independent), (trees, self.trees)):
                rate = await metered.measure(self.work.tokens_per_repeat)
                if repeat >= 0:
                    total.add(rate)
        counters = trees.engine.counters
        self.cached_share = counters.cached_tokens / (counters.cached_tokens + counters.prefilled_tokens)
        for worker in workers:
            worker.cancel()
        await asyncio.wait(workers)
        for used in (engine, *others):
            await used.close()

    async def _start(self) -> EmbeddedEngine:
        engine = EmbeddedEngine(EmbeddedSettings(max_running_requests=self.work.rows, halve=False))
        await engine.load(self.work.snapshot, WeightVersion(1, 0))
        return engine

    def _requests(self, half: int, per_problem: int) -> Iterator[Request]:
        """Independent answers, so many to each problem."""
        work = self.work
        for index, prompt in enumerate(work.prompts[half::2]):
            for nth in range(per_problem):
                seed = (self._seed * 100_000 + index) * 100 + nth
                yield Request(prompt, work.max_tokens, Sampling(), work.vocabulary.stop_ids, seed)

    def _growth_job(self, engine: MeteredEngine, sampler: AnySampler) -> Callable[[], Awaitable[object]]:
        """Grows one tree after another, each on another problem."""
        grower, tasks = TreeGrower(engine, RandomRewards(self._seed), "bench"), self._tasks(sampler)
        return lambda: grower.grow(next(tasks), self.work.vocabulary)

    def _tasks(self, sampler: AnySampler) -> Iterator[Task]:
        growth = Growth(sampler=sampler, max_tokens=self.work.max_tokens)
        for index, request in enumerate(self._requests(0, 1)):
            yield Task(
                run="bench",
                id=f"0-{index}",
                problem_id=str(index),
                prompt_ids=request.token_ids,
                kind="math",
                answer_key={},
                growth=growth,
                seed=request.seed,
            )

    async def _engine_batch(self, engine: EmbeddedEngine, batch: list[Request]) -> Rate:
        before, tokens = time.process_time(), engine.counters.generated_tokens
        await asyncio.gather(*(engine.complete(request) for request in batch))
        return Rate(engine.counters.generated_tokens - tokens, time.process_time() - before)

    def _generate_batch(self, batch: list[Request], repeat: int) -> Rate:
        """transformers' generate, on a batch padded on the left; what follows an answer's end is not counted."""
        torch.manual_seed(self._seed * 1000 + repeat + 1)
        width = max(len(request.token_ids) for request in batch)
        ids = torch.tensor([[0] * (width - len(request.token_ids)) + list(request.token_ids) for request in batch])
        mask = torch.tensor([[0] * (width - len(r.token_ids)) + [1] * len(r.token_ids) for r in batch])
        stop_ids = self.work.vocabulary.stop_ids
        before = time.process_time()
        output = self._model.generate(
            ids,
            attention_mask=mask,
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            max_new_tokens=self.work.max_tokens,
            eos_token_id=sorted(stop_ids),
            pad_token_id=0,
        )
        seconds, tokens = time.process_time() - before, 0
        for row in output[:, width:].tolist():
            tokens += next((i + 1 for i, token in enumerate(row) if token in stop_ids), len(row))
        return Rate(tokens, seconds)


async def _forever(job: Callable[[], Awaitable[object]]) -> None:
    while True:
        await job()


def spread(values: list[float], digits: int = 2) -> str:
    """min / median / max."""
    return " / ".join(f"{value:,.{digits}f}" for value in (min(values), median(values), max(values)))


def report(name: str, seeds: list[int], workload: Callable[[int], Workload]) -> None:
    """Measures one workload with several seeds and prints its table."""
    benches = []
    for seed in seeds:
        benches.append(Bench(workload(seed), seed))
        asyncio.run(benches[-1].run())
    rows = benches[0].work.rows
    print(f"\n## {name}: {len(seeds)} seeds, min / median / max, tokens per CPU-second")
    for per_problem in ANSWERS_PER_PROBLEM:
        pairs = [(bench.generate[per_problem].per_second, bench.batch[per_problem].per_second) for bench in benches]
        print(f"a batch of {rows} independent answers, {per_problem} to a problem, from the first token to the last")
        print(f"  generate            {spread([generate for generate, _ in pairs], 0)}")
        print(f"  engine              {spread([engine for _, engine in pairs], 0)}")
        print(f"  ratio               {spread([engine / generate for generate, engine in pairs])}")
    print(f"{rows} rows kept busy")
    print(f"  bare answers        {spread([b.answers.per_second for b in benches], 0)}")
    print(f"  independent (12)    {spread([b.independent.per_second for b in benches], 0)}")
    print(f"  trees (4, 9, 1, 1)  {spread([b.trees.per_second for b in benches], 0)}")
    print(f"  trees / independent {spread([b.trees.per_second / b.independent.per_second for b in benches])}")
    print(f"  trees / bare        {spread([b.trees.per_second / b.answers.per_second for b in benches])}")
    print(f"  rows, independent   {spread([b.independent.rows for b in benches], 1)}")
    print(f"  rows, trees         {spread([b.trees.rows for b in benches], 1)}")
    print(
        f"  prefix from cache   {spread([b.cached_share for b in benches], 3)} of the trees' request tokens", flush=True
    )


async def compare_forms(work: Workload) -> None:
    """Prints what bare answers cost with the model's Python as it is, traced, and traced in bfloat16."""
    print(f"{work.name}: {work.rows} rows kept busy with bare answers, tokens per CPU-second")
    for name, trace, halve in (("as it is", False, False), ("traced", True, False), ("traced, bfloat16", True, True)):
        engine = EmbeddedEngine(EmbeddedSettings(max_running_requests=work.rows, trace=trace, halve=halve))
        await engine.load(work.snapshot, WeightVersion(1, 0))
        metered, numbers = MeteredEngine(engine), itertools.count()

        async def answer(metered: MeteredEngine = metered, numbers: Iterator[int] = numbers) -> None:
            number = next(numbers)
            prompt = work.prompts[number % len(work.prompts)]
            await metered.complete(Request(prompt, work.max_tokens, Sampling(), work.vocabulary.stop_ids, number))

        workers = [asyncio.create_task(_forever(answer)) for _ in range(work.rows)]
        rates = [(await metered.measure(work.tokens_per_repeat)).per_second for _ in range(work.repeats)]
        print(f"  {name:<18}{spread(rates, 0)}", flush=True)
        for worker in workers:
            worker.cancel()
        await asyncio.wait(workers)
        await engine.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the demo's model, one seed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--models", nargs="*", choices=["demo", "larger"], default=["demo", "larger"])
    parser.add_argument("--model", type=Path, help="directory of a model of yours, to be measured alone")
    arguments = parser.parse_args()
    gc.freeze()  # what was imported need not be searched for garbage in the midst of a measurement
    torch.set_num_threads(1)
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    if arguments.model:
        asyncio.run(compare_forms(yours(0, arguments.model)))
        return
    seeds = list(range(1 if arguments.quick else arguments.seeds))
    if "demo" in arguments.models:
        report("demo", seeds, demo)
    if "larger" in arguments.models and not arguments.quick:
        with tempfile.TemporaryDirectory() as directory:
            report("larger", seeds, lambda seed: larger(seed, Path(directory)))


if __name__ == "__main__":
    main()
